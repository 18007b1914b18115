import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.map_blocked import blocked_map
from sparsec.backends.cpu.kernels.map_strided import strided_map
from sparsec.backends.cpu.walk import broadcast_strides
from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.map import Map
from sparsec.compiler.scalar import Program
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, channel_vector, f32, fetch, store

ADD_RELU = Program.parse("add(a0,a1);relu(t0)")
BLOCKED = [  # output, program, operand shapes; a row-major operand is marked by a trailing None
    ((2, 19, 5, 6), ADD_RELU, [(2, 19, 5, 6), (2, 19, 5, 6)]),
    ((2, 19, 5, 6), Program.parse("mul(a0,a1);add(t0,a2);sigmoid(t1)"), [(2, 19, 5, 6), (19, 1, 1), (1, 19, 1, 1)]),
    ((2, 16, 5, 6), Program.parse("sigmoid(a1);mul(a0,t0)"), [(2, 16, 5, 6), (2, 16, 1, 1)]),
    ((1, 40, 7, 3), Program.parse("mul(a0,a1);add(t0,a2)"), [(1, 40, 7, 3), (1, 1, 7, 3), ()]),
    ((2, 3, 5, 6), Program.parse("exp(a0);sub(t0,a1)"), [(2, 3, 5, 6), (5, 6)]),
    ((1, 33, 1, 1), Program.parse("hard_swish(a0)"), [(1, 33, 1, 1)]),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_blocked_map_broadcasts_and_keeps_padded_lanes_zero(isa: Isa) -> None:
    prepared = []
    rng = np.random.default_rng(0)
    for shape, program, shapes in BLOCKED:
        values = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        halo = ((0, 0), (1, 2), (0, 1))
        types, arrays = [], []
        for v in values:
            full = v.ndim == 4
            if v.ndim == 2:
                v = v.reshape(1, 1, *v.shape)
                full = True
            t = f32(v.shape, Blocked(1, isa.lanes, halo if v.shape[2] > 1 else ())) if full else f32(v.shape)
            types.append(t)
            arrays.append(store(v, t, halo=3.0) if full else channel_vector(v, isa.lanes))
        y = f32(shape, Blocked(1, isa.lanes, ((0, 0), (1, 0), (2, 0))))
        prepared.append((*blocked_map(program, types, y, isa), arrays, y, Map(program).evaluate(values)[0]))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, yt, expected) in enumerate(prepared):
        y = buffer(yt)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(fetch(y, yt), expected, rtol=2e-6, atol=2e-6, err_msg=str(BLOCKED[i]))


def test_a_blocked_map_refuses_operands_in_another_order() -> None:
    y = f32((1, 8, 4, 4), Blocked(1, HERE[0].lanes))
    with pytest.raises(ValueError, match="one value a channel"):
        blocked_map(ADD_RELU, [y, f32((1, 8, 4, 4))], y, HERE[0])


STRIDED = [
    ((), "add(a0,a1)", [((), "f4"), ((), "f4")]),
    ((3, 37), "mul(a0,a1);gelu(t0)", [((3, 37), "f4"), ((37,), "f4")]),
    ((2, 3, 5, 7), "add(a0,a1);mul(t0,a2)", [((2, 3, 5, 7), "f4"), ((3, 1, 1), "f4"), ((2, 1, 5, 1), "f4")]),
    ((4, 9), "sub(a0,a1)", [((4, 1), "i8"), ((9,), "i8")]),
    ((4, 9), "lt(a0,a1);where(t0,a0,a1);cast.i32(t1)", [((4, 9), "f4"), ((9,), "f4")]),
    ((5, 33), "gt(a0,0.0)", [((5, 33), "f4")]),
    ((5, 6), "and(a0,a1);not(t0)", [((5, 6), "?"), ((6,), "?")]),
    ((2, 5), "div(a0,a1);add(t0,7)", [((2, 5), "i4"), ((2, 1), "i4")]),
    ((6, 5), "sqrt(a0);cast.f32(t0)", [((6, 5), "f8")]),
    ((6, 35), "add(a0,a1)", [((6, 35), "f2"), ((35,), "f2")]),
    ((2, 9, 300), "where(a0,a1,a2)", [((2, 1, 300), "?"), ((2, 9, 300), "f4"), ((), "f4")]),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_strided_map_is_the_map_op_for_any_types(isa: Isa) -> None:
    prepared = []
    rng = np.random.default_rng(1)
    for shape, text, operands in STRIDED:
        program = Program.parse(text)
        values = [np.asarray(rng.standard_normal(s) * 9).astype(d) for s, d in operands]
        values = [np.abs(v) if d == "f8" else v for v, (_, d) in zip(values, operands, strict=True)]
        strides = [broadcast_strides(s, shape) for s, _ in operands] + [broadcast_strides(shape, shape)]
        dtypes = [DType.from_numpy(v.dtype) for v in values]
        prepared.append((*strided_map(program, shape, dtypes, strides), values, Map(program).evaluate(values)[0]))
    transposed = rng.standard_normal((7, 20)).astype(np.float32)
    spec, geometry = strided_map(ADD_RELU, (20, 7), [DType.F32] * 2, [(1, 20), (7, 1), (7, 1)])
    other = rng.standard_normal((20, 7)).astype(np.float32)
    prepared.append((spec, geometry, [transposed, other], np.maximum(transposed.T + other, 0)))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, values, expected) in enumerate(prepared):
        y = np.full(expected.shape, 7).astype(expected.dtype)
        lib.run(spec, geometry, [*values, y], threads=1 + i % 3)
        np.testing.assert_allclose(y, expected, rtol=3e-6, atol=2e-6, err_msg=str(spec))
