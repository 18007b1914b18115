import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.reduce import arg_reduce, reduce
from sparsec.backends.cpu.kernels.softmax import softmax
from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.arg_reduce import ArgReduce
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.softmax import Softmax
from tests.backends.cpu.harness import HERE, by_name, compile_kernels

SHAPES = [
    ((3, 70, 5), (1,)),
    ((2, 3, 150), (2,)),
    ((4, 7, 9), (0, 2)),
    ((5, 6), (0, 1)),
    ((2, 3, 4, 80), (0, 2)),
    ((2, 0, 3), (1,)),
]

TYPES = (np.float32, np.int32, np.float64, np.uint8, np.float16, np.int64)


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_reduce_is_the_reduce_op(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    prepared = []
    for shape, axes in SHAPES:
        for kind in ("sum", "mean", "max", "min", "prod"):
            for dtype in TYPES if isa is HERE[-1] else TYPES[:1]:
                x = (rng.standard_normal(shape) * (1.5 if kind == "prod" else 20)).astype(dtype)
                if not x.size and kind == "mean":
                    continue
                wide = np.float32 if dtype == np.float16 else dtype  # 16-bit floats accumulate in float32
                spec, geometry = reduce(kind, DType.from_numpy(x.dtype), shape, axes)
                prepared.append((spec, geometry, x, Reduce(kind, axes).evaluate([x.astype(wide)])[0].astype(dtype)))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, x, expected) in enumerate(prepared):
        y = np.full(expected.shape, 7, expected.dtype)
        lib.run(spec, geometry, [x, y], threads=1 + i % 3)
        tolerance = 4e-3 if x.dtype == np.float16 else 2e-5
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance, err_msg=f"{spec} {x.shape}")


@pytest.mark.parametrize("isa", HERE[-1:], ids=by_name)
def test_arg_reduce_finds_the_first_or_last_extreme(isa: Isa) -> None:
    rng = np.random.default_rng(1)
    prepared = []
    for shape, axis in (((3, 8, 5), 1), ((40,), 0), ((4, 9), 1)):
        for kind in ("max", "min"):
            for last in (False, True):
                x = rng.integers(0, 4, shape).astype(np.float32)
                expected = ArgReduce(kind, axis, True, last).evaluate([x])[0]
                prepared.append((*arg_reduce(kind, DType.F32, shape, axis, last), x, expected))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for spec, geometry, x, expected in prepared:
        y = np.full(expected.shape, 7, np.int64)
        lib.run(spec, geometry, [x, y], threads=2)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_softmax_along_any_axis(isa: Isa) -> None:
    rng = np.random.default_rng(2)
    prepared = []
    for shape, axis in (((3, 37), 1), ((2, 5, 19), 1), ((2, 64), 1), ((7, 3), 0), ((2, 4, 40), 2), ((5, 1), 1)):
        for log in (False, True):
            x = (rng.standard_normal(shape) * 5 + 200).astype(np.float32)
            prepared.append((*softmax(shape, axis, log=log), x, Softmax(axis, log).evaluate([x])[0]))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, x, expected) in enumerate(prepared):
        y = np.full_like(x, 7)
        lib.run(spec, geometry, [x, y], threads=1 + i % 3)
        np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
        lib.run(spec, geometry, [x, x])
        np.testing.assert_array_equal(x, y)
