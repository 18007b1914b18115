import numpy as np
import pytest

from sparsec.backends.cpu.kernels.gather import (
    GatherElements,
    GatherNd,
    ScatterElements,
    ScatterNd,
    elements_geometry,
    gather,
    nd_geometry,
)
from sparsec.backends.cpu.kernels.index_copy import index_copy, pad_positions
from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.gather import Gather as GatherOp
from sparsec.compiler.ops.gather_elements import GatherElements as GatherElementsOp
from sparsec.compiler.ops.gather_nd import GatherND as GatherNdOp
from sparsec.compiler.ops.pad import Pad as PadOp
from sparsec.compiler.ops.scatter_elements import ScatterElements as ScatterElementsOp
from sparsec.compiler.ops.scatter_nd import ScatterND as ScatterNdOp
from tests.backends.cpu.harness import HERE, compile_kernels

ISA = HERE[-1]  # nothing here depends on vectors
RNG = np.random.default_rng(0)


def _check(prepared: list) -> None:
    lib = compile_kernels(ISA, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, y, expected) in enumerate(prepared):
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(y, expected, rtol=1e-6, err_msg=str(spec))


def test_gathers_clamp_and_count_from_the_end() -> None:
    prepared = []
    for dtype in (np.float32, np.uint8, np.int64):
        for index in (np.int32, np.int64):
            x = RNG.integers(0, 99, (3, 5, 4)).astype(dtype)
            wild = RNG.integers(-9, 9, (2, 3)).astype(index)
            expected = GatherOp(1).evaluate([x, wild])[0]
            spec, geometry = gather(x.shape, 1, 6, x.itemsize, DType.from_numpy(wild.dtype))
            prepared.append((spec, geometry, [x, wild], np.zeros_like(expected), expected))
            wild = RNG.integers(-9, 9, (2, 6, 4)).astype(index)
            spec2 = GatherElements(x.itemsize, DType.from_numpy(wild.dtype))
            expected = GatherElementsOp(1).evaluate([x, wild])[0]
            prepared.append((spec2, elements_geometry(x.shape, wild.shape, 1), [x, wild], np.zeros_like(expected), expected))
            for batch, shape in ((0, (7, 2)), (1, (3, 2, 1)), (0, (4, 3))):
                wild = RNG.integers(-6, 6, shape).astype(index)
                spec3 = GatherNd(x.itemsize, DType.from_numpy(wild.dtype))
                expected = GatherNdOp(batch).evaluate([x, wild])[0]
                prepared.append((spec3, nd_geometry(x.shape, shape, batch), [x, wild], np.zeros_like(expected), expected))
    _check(prepared)


def test_scatters_update_in_order() -> None:
    prepared = []
    for dtype in (np.float32, np.int32, np.float16):
        for reduction in ("none", "add", "mul", "min", "max"):
            x = RNG.integers(0, 9, (3, 5, 4)).astype(dtype)
            where = RNG.integers(-5, 5, (2, 5, 4))
            updates = RNG.integers(0, 4, where.shape).astype(dtype)
            expected = ScatterElementsOp(1, reduction).evaluate([x, where, updates])[0]
            spec = ScatterElements(DType.from_numpy(x.dtype), DType.I64, reduction)
            prepared.append((spec, elements_geometry(x.shape, where.shape, 1), [where, updates], x.copy(), expected))
            where = RNG.integers(0, 3, (6, 2)).astype(np.int32)
            updates = RNG.integers(0, 4, (6, 4)).astype(dtype)
            expected = ScatterNdOp(reduction).evaluate([x, where.astype(np.int64), updates])[0]
            spec2 = ScatterNd(DType.from_numpy(x.dtype), DType.I32, reduction)
            prepared.append((spec2, nd_geometry(x.shape, where.shape), [where, updates], x.copy(), expected))
    _check(prepared)


def test_copies_by_tables_pad_in_every_mode_and_resize() -> None:
    prepared = []
    for dtype in (np.float32, np.uint8):
        for mode, pads in (
            ("constant", (0, 1, 2, 3, 0, 0)),
            ("constant", (1, -1, 0, 0, 2, 0)),
            ("reflect", (0, 2, 1, 1, 0, 3)),
            ("edge", (1, 0, 3, 0, 2, 9)),
            ("wrap", (0, 3, 0, 2, 3, 0)),
        ):
            x = RNG.integers(1, 99, (3, 4, 5)).astype(dtype)
            positions = [pad_positions(n, pads[i], pads[3 + i], mode) for i, n in enumerate(x.shape)]
            spec, geometry, table = index_copy(x.shape, positions, x.itemsize)
            expected = PadOp(pads, mode, 7.0).evaluate([x])[0]
            prepared.append((spec, geometry, [x, table, np.full(1, 7, dtype)], np.zeros_like(expected), expected))
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    spec, geometry, table = index_copy(x.shape, [np.arange(2), np.arange(6) // 2, np.arange(8) // 2], 4)
    expected = x.repeat(2, 1).repeat(2, 2)
    prepared.append((spec, geometry, [x, table, np.zeros(1, np.float32)], np.zeros_like(expected), expected))
    _check(prepared)


def test_too_many_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        elements_geometry((1,) * 9, (1,) * 9, 0)
