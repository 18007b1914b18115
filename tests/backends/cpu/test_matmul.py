import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.matmul import matmul
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Program
from tests.backends.cpu.harness import HERE, by_name, compile_kernels

ALL = Program.parse("mul(a0,a3);add(t0,a1);add(t1,a2);relu(t2)")
CASES = [  # a, b, trans_a, trans_b, epilogue with kinds and shapes of its operands
    ((29, 33), (33, 37), False, False, Program(), ()),
    ((2, 3, 17, 20), (2, 3, 20, 50), False, False, ALL, (("row", (50,)), ("full", (2, 3, 17, 50)), ("scalar", ()))),
    ((2, 1, 17, 20), (3, 64, 20), False, True, ALL, (("row", (64,)), ("full", (3, 17, 64)), ("scalar", ()))),
    ((2, 300, 5), (300, 40), True, False, Program(), ()),
    ((3, 4, 13, 9), (9, 65), False, False, Program.parse("add(a0,a1)"), (("full", (3, 4, 13, 65)),)),
    ((1, 70), (70, 83), False, False, Program.parse("add(a0,a1)"), (("row", (83,)),)),
    ((2, 1, 70), (2, 45, 70), False, True, Program.parse("add(a0,a1)"), (("full", (2, 1, 45)),)),
    ((7, 2, 19), (7, 19, 8), False, False, Program(), ()),
    ((6, 1), (1, 6), True, True, Program(), ()),
    ((3, 0), (0, 5), False, False, Program.parse("add(a0,a1)"), (("row", (5,)),)),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_matmul_is_the_matmul_op(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    prepared = []
    for a_shape, b_shape, trans_a, trans_b, program, extras in CASES:
        a, b = (rng.standard_normal(s).astype(np.float32) for s in (a_shape, b_shape))
        values = [rng.standard_normal(s).astype(np.float32) for _, s in extras]
        kinds = tuple(k for k, _ in extras)
        full = [s for k, s in extras if k == "full"]
        spec, geometry = matmul(a_shape, b_shape, isa, trans_a=trans_a, trans_b=trans_b, epilogue=program, kinds=kinds, full=full)
        expected = MatMul(trans_a, trans_b, program).evaluate([a, b, *values])[0]
        prepared.append((spec, geometry, [a, b, *values], expected))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, expected) in enumerate(prepared):
        y = np.full(expected.shape, 7, np.float32)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4, err_msg=str(CASES[i]))


def test_large_right_operands_are_packed_in_groups() -> None:
    isa = HERE[0]
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((5, 2000)).astype(np.float32), rng.standard_normal((2000, 300)).astype(np.float32)
    spec, geometry = matmul(a.shape, b.shape, isa)
    assert geometry.group * 2 * isa.lanes < 300
    y = np.full((5, 300), 7, np.float32)
    compile_kernels(isa, [spec]).run(spec, geometry, [a, b, y], threads=2)
    np.testing.assert_allclose(y, a @ b, rtol=1e-3, atol=1e-3)


def test_unknown_kinds_of_operands_are_refused() -> None:
    with pytest.raises(ValueError, match="kinds"):
        matmul((2, 3), (3, 4), HERE[0], epilogue=Program.parse("add(a0,a1)"), kinds=("column",))
