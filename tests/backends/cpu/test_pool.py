import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.pool import blocked_pool, global_pool
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, f32, fetch, store

CASES = [
    ((1, 20, 12, 15), Pool("max", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1))),
    ((2, 16, 9, 9), Pool("max", (3, 3), (2, 2), (1, 1), (0, 0, 1, 1), ceil=True)),
    ((1, 3, 7, 8), Pool("max", (2, 3), (1, 1), (2, 3), (1, 2, 0, 1))),
    ((2, 19, 8, 9), Pool("avg", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))),
    ((1, 8, 8, 9), Pool("avg", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), include_pad=True)),
    ((1, 8, 10, 10), Pool("avg", (3, 2), (2, 3), (1, 1), (1, 1, 0, 1), ceil=True, include_pad=True)),
    ((1, 8, 10, 11), Pool("avg", (3, 2), (2, 3), (2, 2), (1, 0, 2, 1), ceil=True)),
    ((1, 17, 7, 7), Pool("avg", (7, 7), (7, 7), (1, 1), (0, 0, 0, 0))),
    ((2, 9, 13), Pool("max", (4,), (3,), (1,), (2, 1))),
    ((1, 4, 3, 2), Pool("max", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_blocked_pool_is_the_pool_op(isa: Isa) -> None:
    prepared = []
    for i, (shape, op) in enumerate(CASES):
        x = np.random.default_rng(i).standard_normal(shape).astype(np.float32)
        out = op.infer([f32(shape)])[0].shape
        n = len(shape) - 2
        xt = f32(shape, Blocked(1, isa.lanes, ((0, 0), *[(1, 2)] * n)))
        yt = f32(out, Blocked(1, isa.lanes, ((0, 0), *[(2, 0)] * n)))
        prepared.append((*blocked_pool(op, xt, yt, isa), store(x, xt, halo=1e9), yt, op.evaluate([x])[0]))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, x, yt, expected) in enumerate(prepared):
        y = buffer(yt)
        lib.run(spec, geometry, [x, y], threads=1 + i % 3)
        np.testing.assert_allclose(fetch(y, yt), expected, rtol=1e-5, atol=1e-6, err_msg=str(CASES[i]))


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_global_pool_is_a_reduction_over_positions(isa: Isa) -> None:
    kinds = ("sum", "mean", "max", "min")
    x = np.random.default_rng(0).standard_normal((2, 21, 7, 9)).astype(np.float32)
    xt, yt = f32(x.shape, Blocked(1, isa.lanes, ((0, 0), (1, 1), (1, 2)))), f32((2, 21, 1, 1), Blocked(1, isa.lanes))
    prepared = [global_pool(kind, xt, yt, isa) for kind in kinds]
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for kind, (spec, geometry) in zip(kinds, prepared, strict=True):
        y = buffer(yt)
        lib.run(spec, geometry, [store(x, xt, halo=1e9), y], threads=2)
        np.testing.assert_allclose(fetch(y, yt), Reduce(kind, (2, 3)).evaluate([x])[0], rtol=1e-5, atol=1e-5)


def test_other_kinds_are_refused() -> None:
    op = Pool("lp", (2, 2), (1, 1), (1, 1), (0, 0, 0, 0))
    with pytest.raises(ValueError, match="max and avg"):
        blocked_pool(op, f32((1, 8, 4, 4), Blocked(1, 1)), f32((1, 8, 3, 3), Blocked(1, 1)), HERE[-1])
