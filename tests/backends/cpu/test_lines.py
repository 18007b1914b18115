import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.lines import CumSum, Interpolate, TopK, line_geometry
from sparsec.backends.cpu.kernels.lrn import lrn
from sparsec.backends.cpu.kernels.resize import resize
from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.cumsum import CumSum as CumSumOp
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.ops.resize import Resize as ResizeOp
from sparsec.compiler.ops.topk import TopK as TopKOp
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, f32, fetch, store


def test_running_sums_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    prepared = []
    for dtype in (np.float32, np.int32, np.int64, np.float64):
        for exclusive in (False, True):
            for reverse in (False, True):
                for shape, axis in (((3, 7, 70), 1), ((2, 9), 1)):
                    x = rng.integers(-9, 9, shape).astype(dtype)
                    expected = CumSumOp(axis, exclusive, reverse).evaluate([x])[0]
                    spec = CumSum(DType.from_numpy(x.dtype), exclusive, reverse)
                    prepared.append((spec, line_geometry(shape, axis), x, expected))
    lib = compile_kernels(HERE[-1], [p[0] for p in prepared])
    for spec, geometry, x, expected in prepared:
        y = np.full_like(x, 7)
        lib.run(spec, geometry, [x, y], threads=2)
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_topk_is_stable() -> None:
    rng = np.random.default_rng(1)
    prepared = []
    for dtype in (np.float32, np.int64):
        for largest in (True, False):
            for shape, axis, k in (((4, 30), 1, 5), ((2, 6, 3), 1, 6), ((9,), 0, 1), ((3, 8), 0, 2)):
                x = rng.integers(0, 7, shape).astype(dtype)
                expected = TopKOp(k, axis, largest).evaluate([x])
                prepared.append((TopK(DType.from_numpy(x.dtype), largest), line_geometry(shape, axis, k), x, expected))
    lib = compile_kernels(HERE[-1], [p[0] for p in prepared])
    for spec, geometry, x, (values, positions) in prepared:
        v, p = np.full_like(values, 7), np.full(positions.shape, 7, np.int64)
        lib.run(spec, geometry, [x, v, p], threads=2)
        np.testing.assert_array_equal(v, values)
        np.testing.assert_array_equal(p, positions)


RESIZES = [
    ResizeOp((2, 5, 13, 22), (1, 1, 13 / 6, 2), "linear"),
    ResizeOp((2, 5, 12, 33), (1, 1, 2, 3), "nearest", "asymmetric", "floor"),
    ResizeOp((2, 5, 9, 8), (1, 1, 1.5, 8 / 11), "cubic"),
    ResizeOp((2, 5, 6, 25), (1, 1, 1, 25 / 11), "linear", "align_corners"),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_resizing_in_both_layouts(isa: Isa) -> None:
    x = np.random.default_rng(2).standard_normal((2, 5, 6, 11)).astype(np.float32)
    prepared = []
    for op in RESIZES:
        tables = []
        for axis in (2, 3):
            index, weight, _ = op.taps(axis, x.shape[axis]) if axis in op.resized(x.shape) else _identity(x.shape[axis])
            tables += [np.ascontiguousarray(index), np.ascontiguousarray(weight.astype(np.float32))]
        for layout in (None, Blocked(1, isa.lanes, ((0, 0), (1, 1), (0, 2)))):
            xt, yt = (f32(s, layout) if layout else f32(s) for s in (x.shape, op.sizes))
            spec, geometry = resize(xt, yt, tables[0].shape[1], tables[2].shape[1], isa)
            prepared.append((spec, geometry, [store(x, xt, halo=1e9), *tables], yt, op.evaluate([x])[0]))
    index, weight, _ = RESIZES[0].taps(2, 6)
    along = ResizeOp((2, 5, 13, 11), (1, 1, 13 / 6, 1), "linear").evaluate([x])[0]
    arrays = [x, index, weight.astype(np.float32), np.zeros(1, np.float32)]
    prepared.append((Interpolate(index.shape[1]), line_geometry(x.shape, 2, 13), arrays, f32(along.shape), along))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, yt, expected) in enumerate(prepared):
        y = buffer(yt)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(fetch(y, yt), expected, rtol=1e-5, atol=1e-5, err_msg=str(spec))


def _identity(extent: int) -> tuple[np.ndarray, np.ndarray, None]:
    return np.arange(extent)[:, None], np.ones((extent, 1), np.float32), None


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_lrn_in_both_layouts(isa: Isa) -> None:
    rng = np.random.default_rng(3)
    prepared = []
    for shape, size, beta in (((2, 21, 5, 9), 5, 0.75), ((1, 16, 7, 17), 4, 0.6), ((1, 3, 4, 4), 3, 0.5)):
        op = LRN(size, 0.3, beta, 1.5)
        x = rng.standard_normal(shape).astype(np.float32)
        for layout in (None, Blocked(1, isa.lanes, ((0, 0), (1, 0), (0, 2)))):
            t = f32(shape, layout) if layout else f32(shape)
            prepared.append((*lrn(t, t, size, 0.3, beta, 1.5, isa), store(x, t, halo=1e9), t, op.evaluate([x])[0]))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, x, t, expected) in enumerate(prepared):
        y = buffer(t)
        lib.run(spec, geometry, [x, y], threads=1 + i % 3)
        np.testing.assert_allclose(fetch(y, t), expected, rtol=1e-5, atol=1e-6)
