"""Algebra on scalar programs, and activations recognised whatever their spelling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp
from sparsec.passes.algebra import Algebra
from sparsec.passes.common.simplify import lossless
from sparsec.passes.gelu import Gelu
from sparsec.passes.swish import Swish
from tests.passes.helpers import check, graph_of, lines


def one_map(program: str, kind: str = "f32", extra: str = "", shape: str = "[4,3]") -> Graph:
    operands = ["%x", *([f"%{n.split(':')[0]}" for n in extra.split(";")] if extra else [])]
    result = Program.parse(program).infer(
        [DType(kind), *(DType(n.split(":")[1].strip().split("[")[0]) for n in extra.split(";") if n)]
    )
    return graph_of(
        f"""input %x: {kind}{shape}
        %y = Map({", ".join(operands)}) {{program='{program}'}} -> {result.value}{shape}
        output "y" = %y""",
        constants=extra.replace(";", "\n"),
    )


@pytest.mark.parametrize(
    ("program", "simple"),
    [
        ("mul(a0,1.0);add(t0,0.0);exp(t1)", "exp(a0)"),
        ("add(0.0,a0);sqrt(t0)", "sqrt(a0)"),
        ("sub(a0,3.0)", "add(a0,-3.0)"),
        ("div(a0,4.0)", "mul(a0,0.25)"),
        ("div(a0,0.0)", "div(a0,0.0)"),
        ("div(a0,1e-42)", "div(a0,1e-42)"),
        ("div(1.0,a0)", "reciprocal(a0)"),
        ("exp(a0);sqrt(t0);div(1.0,t1)", "exp(a0);rsqrt(t0)"),
        ("pow(a0,2.0)", "mul(a0,a0)"),
        ("abs(a0);pow(t0,0.5)", "abs(a0);sqrt(t0)"),
        ("mul(a0,2.0);mul(t0,3.0)", "mul(a0,6.0)"),
        ("add(a0,1e9);sub(t0,1e9)", "add(a0,1000000000.0);add(t0,-1000000000.0)"),
        ("neg(a0);neg(t0);tanh(t1)", "tanh(a0)"),
        ("max(0.0,a0)", "relu(a0)"),
        ("relu(a0);relu(t0)", "relu(a0)"),
        ("min(a0,6.0);max(t0,0.0)", "relu(a0);min(t0,6.0)"),
        ("min(a0,2.0);max(t0,-1.0)", "max(a0,-1.0);min(t0,2.0)"),
        ("max(a0,-1.0);max(t0,-2.0);min(t1,3.0);min(t2,5.0)", "max(a0,-1.0);min(t0,3.0)"),
        ("max(a0,-inf);min(t0,inf);exp(t1)", "exp(a0)"),
        ("cast.f64(a0);cast.f32(t0);exp(t1)", "exp(a0)"),
        ("cast.f16(a0);cast.f32(t0)", "cast.f16(a0);cast.f32(t0)"),
        ("exp(a0);exp(a0);mul(t0,t1)", "exp(a0);mul(t0,t0)"),
        ("lt(a0,0.0);not(t0);not(t1)", "lt(a0,0.0)"),
        ("lt(a0,0.0);where(t0,a0,a0);exp(t1)", "exp(a0)"),
    ],
)
def test_algebra(program: str, simple: str) -> None:
    after = check(Algebra(), one_map(program))
    assert f"program='{simple}'" in lines(after)[0]


def test_numbers_come_from_constants_of_one_element() -> None:
    g = graph_of(
        """input %x: f32[4,3]
        const %c: f32[1,1] = [0.5]
        const %d: f32[1,1,1] = [3.0]
        %y = Map(%x, %c) {program='mul(a0,a1)'} -> f32[4,3]
        %z = Map(%y, %d) {program='sub(a1,a0)'} -> f32[1,4,3]
        output "z" = %z"""
    )
    after = check(Algebra(), g)
    assert lines(after)[0].startswith("%y = Map(%x) {program='mul(a0,0.5)'}")
    assert lines(after)[1].startswith("%z = Map(%y, %d)") or lines(after)[1].startswith("%z = Map(%d, %y)")  # %d adds a dimension


def test_a_choice_between_numbers_keeps_them_typed() -> None:
    g = graph_of(
        """input %c: bool[3]
        const %a: f32[] = [0.0]
        const %b: f32[] = [-1e9]
        %y = Map(%c, %a, %b) {program='where(a0,a1,a2)'} -> f32[3]
        output "y" = %y"""
    )
    after = check(Algebra(), g)
    assert lines(after)[0].startswith("%y = Map(%c, %a, %b)")


def test_integers_divide_as_integers() -> None:
    after = check(Algebra(), one_map("div(a0,2)", "i32"))
    assert "div(a0,2)" in lines(after)[0]


def test_division_by_an_array_becomes_a_product() -> None:
    after = check(Algebra(), one_map("div(a0,a1)", extra="var: f32[3]"))
    assert "%y = Map(%x, %var.inverse) {program='mul(a0,a1)'}" in lines(after)[0]


def test_epilogues_simplify() -> None:
    g = graph_of(
        """input %x: f32[4,4]
        const %c: f32[1] = [2.0]
        %y = MatMul(%x, %x, %c, %b) {epilogue='div(a0,a1);mul(t0,1.0);add(t1,a2)'} -> f32[4,4]
        output "y" = %y""",
        constants="b: f32[4]",
    )
    assert "%y = MatMul(%x, %x, %b) {epilogue='mul(a0,0.5);add(t0,a1)'}" in lines(check(Algebra(), g))[0]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    steps: list[Step] = []
    for i in range(draw(st.integers(1, 8))):
        operand = st.one_of(
            st.builds(Arg, st.integers(0, 1)),
            st.sampled_from([Imm(v) for v in (0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 6.0)]),
            *([st.builds(Tmp, st.integers(0, i - 1))] if i else []),
        )
        fn = draw(st.sampled_from(["add", "sub", "mul", "div", "max", "min", "neg", "relu", "sigmoid", "pow", "abs", "sqrt"]))
        first = Arg(draw(st.integers(0, 1))) if i == 0 else Tmp(i - 1)
        arity = 1 if fn in ("neg", "relu", "sigmoid", "abs", "sqrt") else 2
        args = [first, draw(operand)][:arity]
        steps.append(Step(fn, tuple(args if draw(st.booleans()) or fn == "pow" else args[::-1])))
    return Program(tuple(steps))


@settings(max_examples=60)
@given(programs())
def test_algebra_keeps_values(program: Program) -> None:
    """Against the program in float64, where roundings do not matter; both may divide by zero alike."""
    from sparsec.passes.common.simplify import Simplifier

    rng = np.random.default_rng(0)
    args = [rng.uniform(0.5, 2, 50), rng.uniform(-2, -0.5, 50)]
    s = Simplifier()
    simple, leaves = s.emit(s.add_program(program, [s.leaf("0", DType.F64), s.leaf("1", DType.F64)]))
    expected = program.evaluate(args)
    found = np.broadcast_to(simple.evaluate([args[int(v)] for v in leaves]) if leaves else np.nan, expected.shape)
    usable = np.isfinite(expected) & (np.abs(expected) < 1e12) & np.isfinite(found)
    assert leaves == [] or np.allclose(found[usable], expected[usable], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("a", DType)
def test_lossless_casts(a: DType) -> None:
    info = {"f": np.finfo, "i": np.iinfo, "u": np.iinfo}
    for b in DType:
        if lossless(a, b) and a is not DType.BOOL and b is not DType.BOOL and DType.BF16 not in (a, b):
            extremes = np.array([info[a.numpy.kind](a.numpy).max, info[a.numpy.kind](a.numpy).min], dtype=a.numpy)
            extremes = np.concatenate([extremes, np.array([1, 127], dtype=a.numpy)])
            with np.errstate(all="ignore"):
                back = extremes.astype(b.numpy).astype(a.numpy)
            assert np.array_equal(back, extremes), (a, b)


R2, R05, SLOPE = repr(math.sqrt(2)), repr(math.sqrt(0.5)), repr(math.sqrt(2 / math.pi))
GELUS = [
    f"div(a0,{R2});erf(t0);add(t1,1.0);mul(a0,t2);mul(t3,0.5)",
    f"mul(a0,{R05});erf(t0);add(1.0,t1);mul(a0,0.5);mul(t3,t2)",
    "mul(a0,0.70710676908493042);erf(t0);mul(t1,0.5);add(t2,0.5);mul(t3,a0)",
    f"div(a0,{R2});erf(t0);add(t1,1.0);mul(t2,0.5);mul(a0,t3)",
    f"mul(0.5,a0);div(a0,{R2});erf(t1);add(t2,1.0);mul(t0,t3)",
    f"div(a0,{R2});erf(t0);add(t1,1.0);div(a0,2.0);mul(t3,t2)",
]
TANHS = [
    f"pow(a0,3.0);mul(t0,0.044715);add(a0,t1);mul(t2,{SLOPE});tanh(t3);add(t4,1.0);mul(a0,0.5);mul(t6,t5)",
    f"mul(a0,a0);mul(t0,0.044715);add(t1,1.0);mul(a0,{SLOPE});mul(t3,t2);tanh(t4);add(t5,1.0);mul(t6,a0);mul(t7,0.5)",
    f"mul(a0,a0);mul(a0,t0);mul(0.044715,t1);add(a0,t2);mul({SLOPE},t3);tanh(t4);add(1.0,t5);mul(0.5,t6);mul(a0,t7)",
]
SILUS = [
    "sigmoid(a0);mul(a0,t0)",
    "neg(a0);exp(t0);add(t1,1.0);div(a0,t2)",
    "mul(a0,-1.0);exp(t0);add(1.0,t1);div(1.0,t2);mul(t3,a0)",
]
HARD = [
    "add(a0,3.0);max(t0,0.0);min(t1,6.0);mul(a0,t2);div(t3,6.0)",
    "add(a0,3.0);relu(t0);min(t1,6.0);div(t2,6.0);mul(a0,t3)",
    "hard_sigmoid(a0,0.16666666666666666,0.5);mul(a0,t0)",
    "div(a0,6.0);add(t0,0.5);max(t1,0.0);min(t2,1.0);mul(t3,a0)",
]


def spread(program: str, operand: str) -> Graph:
    """The program as one Map a step over `operand`, as exporters write it, after a producer that has two readers."""
    parsed = Program.parse(program)
    body = [f"input %in: f32{operand}", f"%x = Map(%in) {{program='mul(a0,3.0)'}} -> f32{operand}"]
    for i, step in enumerate(parsed.steps):
        args, texts = [], []
        for a in step.args:
            if isinstance(a, Imm):
                texts.append(str(a))
                continue
            name = "%x" if isinstance(a, Arg) else f"%t{a.index}"
            if name not in args:
                args.append(name)
            texts.append(f"a{args.index(name)}")
        body.append(f"%t{i} = Map({', '.join(args)}) {{program='{step.fn}({','.join(texts)})'}} -> f32{operand}")
    body.append(f'output "y" = %t{len(parsed.steps) - 1}')
    return graph_of("\n".join(body))


@pytest.mark.parametrize("program", GELUS)
def test_gelu(program: str) -> None:
    after = check(Gelu(), spread(program, "[64]"))
    assert [line.split("'")[1] for line in lines(after)[:-1]] == ["mul(a0,3.0)", "gelu(a0)"]


@pytest.mark.parametrize("program", TANHS)
def test_gelu_by_tanh(program: str) -> None:
    after = check(Gelu(), spread(program, "[64]"))
    assert len(after.nodes) == 2 and "tanh" not in lines(after)[1] and "sigmoid" in lines(after)[1]


@pytest.mark.parametrize(("program", "becomes"), [(p, "silu(a0)") for p in SILUS] + [(p, "hard_swish(a0)") for p in HARD])
def test_swish(program: str, becomes: str) -> None:
    after = check(Swish(), spread(program, "[64]"))
    assert [line.split("'")[1] for line in lines(after)[:-1]] == ["mul(a0,3.0)", becomes]


@pytest.mark.parametrize(
    ("program", "becomes"),
    [
        ("neg(a0);exp(t0);add(t1,1.0);reciprocal(t2)", "sigmoid(t0)"),
        ("add(a0,3.0);relu(t0);min(t1,6.0);div(t2,6.0)", "hard_sigmoid(t0,0.16666666666666666,0.5)"),
    ],
)
def test_sigmoids(program: str, becomes: str) -> None:
    """The argument has one reader, so it joins the Map."""
    after = check(Swish(), spread(program, "[64]"))
    assert [line.split("'")[1] for line in lines(after)[:-1]] == [f"mul(a0,3.0);{becomes}"]


@pytest.mark.parametrize(
    "program",
    [
        f"div(a0,{R2});erf(t0);add(t1,1.0);mul(a0,t2);mul(t3,0.6)",
        "erf(a0);add(t0,1.0);mul(a0,t1);mul(t2,0.5)",
        f"div(a0,{R2});erf(t0);add(t1,1.1);mul(a0,t2);mul(t3,0.5)",
        f"pow(a0,3.0);mul(t0,0.0447);add(a0,t1);mul(t2,{SLOPE});tanh(t3);add(t4,1.0);mul(a0,0.5);mul(t6,t5)",
        "mul(a0,1.702);sigmoid(t0);mul(a0,t1)",
        "add(a0,3.0);relu(t0);min(t1,5.0);mul(a0,t2);div(t3,6.0)",
    ],
)
def test_what_is_almost_an_activation_stays(program: str) -> None:
    """Another constant is another function."""
    g = spread(program, "[64]")
    assert len(check(Gelu(), g).nodes) == len(g.nodes) == len(check(Swish(), g).nodes)


def test_a_gate_beside_the_activation_stays() -> None:
    g = graph_of(
        """input %x: f32[8]
        input %g: f32[8]
        %s = Map(%x) {program='sigmoid(a0)'} -> f32[8]
        %p = Map(%g, %s) {program='mul(a0,a1)'} -> f32[8]
        %y = Map(%p, %x) {program='mul(a0,a1)'} -> f32[8]
        output "y" = %y"""
    )
    after = check(Swish(), g)
    assert len(after.nodes) == 1 and "silu" in lines(after)[0]
