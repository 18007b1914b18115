import numpy as np
import pytest

from sparsec.backends.cpu.kernels.conv_direct import conv_direct
from sparsec.backends.cpu.kernels.pool_direct import pool_direct
from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from tests.backends.cpu.harness import HERE, compile_kernels

CONVS = [  # x, w, strides, dilations, pads, groups, output padding (None: not transposed)
    ((2, 6, 9, 11), (10, 3, 3, 3), (2, 1), (1, 2), (1, 2, 0, 1), 2, None),
    ((1, 4, 17), (5, 4, 4), (3,), (2,), (2, 3), 1, None),
    ((1, 4, 5, 6, 7), (4, 1, 3, 2, 3), (1, 2, 2), (1, 1, 1), (1, 1, 1, 1, 0, 1), 4, None),
    ((2, 6, 5, 7), (6, 3, 3, 4), (2, 3), (1, 1), (1, 1, 0, 2), 2, (1, 0)),
    ((1, 3, 9), (3, 5, 3), (1,), (2,), (1, 2), 1, (0,)),
    ((1, 2, 3, 4, 5), (2, 3, 2, 2, 2), (2, 2, 2), (1, 1, 1), (0, 0, 0, 0, 0, 0), 1, (0, 1, 0)),
]
EPILOGUE = Program.parse("add(a0,a1);mul(t0,a3);add(t1,a2);relu(t2)")


def test_direct_convolutions_are_the_ops() -> None:
    rng = np.random.default_rng(0)
    prepared = []
    for dtype in (np.float32, np.float64):
        cases = CONVS if dtype == np.float32 else CONVS[::3]
        for x_shape, w_shape, strides, dilations, pads, groups, extra in cases:
            x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
            ours = (strides, dilations, pads) if extra is None else (strides, dilations, pads, extra)
            plain = Conv(*ours, groups) if extra is None else ConvTranspose(*ours, groups)
            out = plain.evaluate([x, w])[0].shape
            extras = [rng.standard_normal(s).astype(dtype) for s in ((out[1], *[1] * len(strides)), out, ())]
            op = type(plain)(*ours, groups, EPILOGUE)
            spec, geometry = conv_direct(
                DType.from_numpy(x.dtype), x_shape, out, w_shape[2:], strides, dilations, pads, groups,
                transposed=extra is not None, epilogue=EPILOGUE, kinds=("channel", "full", "scalar"),
            )  # fmt: skip
            prepared.append((spec, geometry, [x, w, *map(np.atleast_1d, extras)], op.evaluate([x, w, *extras])[0]))
    lib = compile_kernels(HERE[0], [p[0] for p in prepared])
    for i, (spec, geometry, arrays, expected) in enumerate(prepared):
        y = np.full_like(expected, 7)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


POOLS = [
    ((2, 3, 5, 6, 7), Pool("max", (2, 3, 2), (1, 2, 2), (2, 1, 1), (1, 0, 1, 0, 1, 1))),
    ((2, 3, 13), Pool("avg", (4,), (3,), (1,), (2, 1), ceil=True)),
    ((1, 2, 6, 7), Pool("avg", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), ceil=True, include_pad=True)),
    ((1, 2, 8, 8), Pool("lp", (3, 3), (2, 2), (1, 1), (1, 0, 1, 0))),
    ((1, 2, 8, 8), Pool("lp", (2, 2), (1, 1), (1, 1), (0, 0, 0, 0), p=3)),
    ((1, 2, 8, 8), Pool("lp", (2, 2), (1, 1), (1, 1), (0, 0, 0, 0), p=1)),
]


def test_direct_pools_are_the_pool_op_for_any_type() -> None:
    rng = np.random.default_rng(1)
    prepared = []
    for shape, op in POOLS:
        for dtype in (np.float32, np.float64, np.float16, *((np.int8, np.uint8) if op.kind == "max" else ())):
            x = (rng.standard_normal(shape) * 9).astype(dtype)
            expected = op.evaluate([x.astype(np.float32) if dtype == np.float16 else x])[0].astype(dtype)
            kind = DType.from_numpy(x.dtype)
            out = op.infer([TensorType(kind, shape)])[0].shape
            prepared.append((*pool_direct(op, kind, shape, out), x, expected))
    lib = compile_kernels(HERE[-1], [p[0] for p in prepared])
    for i, (spec, geometry, x, expected) in enumerate(prepared):
        y = np.full_like(expected, 7)
        lib.run(spec, geometry, [x, y], threads=1 + i % 3)
        tolerance = 2e-3 if x.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance, err_msg=str(spec))


def test_four_spatial_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 3"):
        conv_direct(DType.F32, (1, 1, 2, 2, 2, 2), (1, 1, 2, 2, 2, 2), (1,) * 4, (1,) * 4, (1,) * 4, (0,) * 8, 1)
