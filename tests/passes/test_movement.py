"""Reshapes, transpositions and padding: fewer nodes, the same values."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose
from sparsec.passes.common.views import row_major
from sparsec.passes.pad import FoldPad
from sparsec.passes.reshapes import Reshapes, moved_shape, shortest
from sparsec.passes.transposes import Transposes
from tests.passes.helpers import check, graph_of, lines, ops, rejections

CONV = "strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1)"


@st.composite
def chains(draw: st.DrawFn) -> str:
    """A random chain of reshapes and transpositions of 24 elements."""
    shape = [2, 3, 4]
    text, name = f"input %x: f32[{','.join(map(str, shape))}]\n", "x"
    for i in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            perm = draw(st.permutations(range(len(shape))))
            shape = [shape[p] for p in perm]
            op = f"Transpose(%{name}) {{perm=({', '.join(map(str, perm))}{',' if len(perm) == 1 else ''})}}"
        else:
            factors = draw(st.permutations([2, 3, 2, 2]))
            cuts = sorted(draw(st.sets(st.integers(1, 3), max_size=3)))
            parts = [factors[a:b] for a, b in itertools.pairwise([0, *cuts, 4])]
            shape = [int(np.prod(p)) for p in parts]
            if draw(st.booleans()):
                shape.insert(draw(st.integers(0, len(shape))), 1)
            op = f"Reshape(%{name}) {{shape=({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})}}"
        text += f"%v{i} = {op} -> f32[{','.join(map(str, shape))}]\n"
        name = f"v{i}"
    return text + f'output "y" = %{name}'


@settings(max_examples=80)
@given(chains())
def test_chains_merge(text: str) -> None:
    before = graph_of(text)
    after = check(Reshapes(), before, tolerance=0)
    assert len(after.nodes) <= len(before.nodes)
    assert sum(isinstance(n.op, Transpose) for n in after.nodes) <= sum(isinstance(n.op, Transpose) for n in before.nodes)
    if all(isinstance(n.op, Reshape) for n in before.nodes):
        assert len(after.nodes) <= 1


@settings(max_examples=40)
@given(st.permutations(range(4)), st.sampled_from([(2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 1, 5), (1, 1, 1, 1)]))
def test_shortest_form_makes_the_same_view(perm: list[int], shape: tuple[int, ...]) -> None:
    split, order = shortest(row_major(shape).transpose(perm))
    x = np.arange(int(np.prod(shape))).reshape(shape)
    assert np.array_equal(x.reshape(split).transpose(order).reshape(-1), x.transpose(perm).reshape(-1))


def test_cancelling_pairs_vanish() -> None:
    g = graph_of(
        """input %x: f32[2,3,4]
        %a = Transpose(%x) {perm=(2, 0, 1)} -> f32[4,2,3]
        %b = Reshape(%a) {shape=(4, 6)} -> f32[4,6]
        %c = Transpose(%b) {perm=(1, 0)} -> f32[6,4]
        %d = Reshape(%c) {shape=(2, 3, 4)} -> f32[2,3,4]
        %y = Map(%d) {program='exp(a0)'} -> f32[2,3,4]
        output "y" = %y"""
    )
    assert ops(check(Reshapes(), g)) == ["Map"]


def test_a_shuffle_stays() -> None:
    g = graph_of(
        """input %x: f32[1,6,2,2]
        %a = Reshape(%x) {shape=(1, 2, 3, 2, 2)} -> f32[1,2,3,2,2]
        %b = Transpose(%a) {perm=(0, 2, 1, 3, 4)} -> f32[1,3,2,2,2]
        %y = Reshape(%b) {shape=(1, 6, 2, 2)} -> f32[1,6,2,2]
        output "y" = %y"""
    )
    after = check(Reshapes(), g)
    assert ops(after).count("Transpose") == 1 and len(after.nodes) <= 3


@pytest.mark.parametrize(
    ("shape", "out", "source", "moved"),
    [
        ((5,), (2, 3, 5), (6, 5), (5,)),
        ((3, 5), (2, 3, 5), (2, 15), (15,)),
        ((3, 1), (2, 3, 5), (2, 3, 5, 1), (3, 1, 1)),
        ((3, 1), (2, 3, 5), (6, 5), None),
        ((2, 3, 5), (2, 3, 5), (30,), (30,)),
        ((1, 5), (1, 5), (5, 1), (5, 1)),
    ],
)
def test_constants_follow_a_reshape(
    shape: tuple[int, ...], out: tuple[int, ...], source: tuple[int, ...], moved: tuple[int, ...] | None
) -> None:
    assert moved_shape(shape, out, source) == moved
    if moved is not None:
        x, c = np.random.rand(*source), np.random.rand(*shape)
        assert np.array_equal((x + c.reshape(moved)).reshape(out), x.reshape(out) + c)


def test_a_bias_moves_before_the_reshape() -> None:
    g = graph_of(
        """input %x: f32[2,3,4]
        %p = MatMul(%x, %w) -> f32[2,3,6]
        %r = Reshape(%p) {shape=(6, 6)} -> f32[6,6]
        %s = Map(%r, %b) {program='add(a0,a1)'} -> f32[6,6]
        %y = Map(%s) {program='relu(a0)'} -> f32[6,6]
        output "y" = %y""",
        constants="w: f32[4,6]\nb: f32[6]",
    )
    assert ops(check(Reshapes(), g)) == ["MatMul", "Map", "Map", "Reshape"]


def test_a_bias_that_does_not_fit_stays() -> None:
    g = graph_of(
        """input %x: f32[2,3,4]
        %p = MatMul(%x, %w) -> f32[2,3,6]
        %r = Reshape(%p) {shape=(6, 6)} -> f32[6,6]
        %y = Map(%r, %b) {program='add(a0,a1)'} -> f32[6,6]
        output "y" = %y""",
        constants="w: f32[4,6]\nb: f32[6,1]",
    )
    after = check(Reshapes(), g)  # b runs over both leading dimensions of the product
    assert ops(after) == ["MatMul", "Map", "Reshape"]
    body = lines(g)
    h = graph_of(
        "input %x: f32[2,3,4]\n" + "\n".join(body).replace("(6, 6)", "(3, 12)").replace("[6,6]", "[3,12]"),
        constants="w: f32[4,6]\nb: f32[3,1]",
    )
    (found,) = rejections(Reshapes(), h)
    assert "operand 'b' does not broadcast to [2, 3, 6] as it does to [3, 12]" in found


NHWC = f"""input %x: f32[1,6,6,4]
%t = Transpose(%x) {{perm=(0, 3, 1, 2)}} -> f32[1,4,6,6]
%c = Conv(%t, %w1) {{{CONV}}} -> f32[1,4,6,6]
%u = Transpose(%c) {{perm=(0, 2, 3, 1)}} -> f32[1,6,6,4]
%b = Map(%u, %b1) {{program='add(a0,a1)'}} -> f32[1,6,6,4]
%r = Map(%b) {{program='relu(a0)'}} -> f32[1,6,6,4]
%v = Transpose(%r) {{perm=(0, 3, 1, 2)}} -> f32[1,4,6,6]
%d = Conv(%v, %w2) {{{CONV}}} -> f32[1,4,6,6]
%e = Transpose(%d) {{perm=(0, 2, 3, 1)}} -> f32[1,6,6,4]
%s = Map(%e, %r) {{program='add(a0,a1)'}} -> f32[1,6,6,4]
%p = Pad(%s) {{pads=(0, 0, 1, 0, 0, 1, 0, 0)}} -> f32[1,7,7,4]
%k = Concat(%p, %p) {{axis=3}} -> f32[1,7,7,8]
%l = Slice(%k) {{starts=(0, 0, 1, 2), steps=(1, 2, 1, 1), sizes=(1, 4, 6, 6)}} -> f32[1,4,6,6]
%z = Softmax(%l) {{axis=3}} -> f32[1,4,6,6]
%g = Reduce(%z) {{kind="mean", over=(1, 2), keepdims=false}} -> f32[1,6]
output "y" = %g"""
WEIGHTS = "w1: f32[4,4,3,3]\nw2: f32[4,4,3,3]\nb1: f32[4]"


def test_an_nhwc_network_keeps_one_transposition(golden: Callable[[str, str], None]) -> None:
    after = check(Transposes(), graph_of(NHWC, constants=WEIGHTS))
    assert ops(after).count("Transpose") == 1 and ops(after)[0] == "Transpose"
    golden("passes/nhwc.txt", "\n".join(lines(after)) + "\n")


@pytest.mark.parametrize("keepdims", ["true", "false"])
@pytest.mark.parametrize("over", ["(1,)", "(0, 2)", "(0, 1, 2)"])
@pytest.mark.parametrize("perm", ["(2, 0, 1)", "(1, 0, 2)", "(0, 2, 1)"])
def test_reductions_commute(keepdims: str, over: str, perm: str) -> None:
    shape = [(2, 3, 4)[int(p)] for p in perm[1:-1].split(",")]
    axes = [int(a) for a in over[1:-1].split(",") if a]
    out = [1 if i in axes else n for i, n in enumerate(shape) if keepdims == "true" or i not in axes]
    g = graph_of(
        f"""input %x: f32[2,3,4]
        %t = Transpose(%x) {{perm={perm}}} -> f32[{",".join(map(str, shape))}]
        %y = Reduce(%t) {{kind="sum", over={over}, keepdims={keepdims}}} -> f32[{",".join(map(str, out))}]
        output "y" = %y"""
    )
    assert ops(check(Transposes(), g))[0] == "Reduce"


@pytest.mark.parametrize("operand", ["f32[5,4]", "f32[1,1,4]", "f32[3,1,1]", "f32[]", "f32[2,3,5,4]"])
@pytest.mark.parametrize("constant", [True, False])
def test_maps_commute_with_any_operand(operand: str, constant: bool) -> None:
    g = graph_of(
        f"""input %x: f32[2,4,3,5]
        {"" if constant else f"input %c: {operand}"}
        %t = Transpose(%x) {{perm=(0, 2, 3, 1)}} -> f32[2,3,5,4]
        %s = Map(%t, %c) {{program='sub(a0,a1)'}} -> f32[2,3,5,4]
        %y = Transpose(%s) {{perm=(0, 3, 1, 2)}} -> f32[2,4,3,5]
        output "y" = %y""",
        constants=f"c: {operand}" if constant else "",
    )
    after = check(Transposes(), g)
    moved = not constant and operand in ("f32[5,4]", "f32[2,3,5,4]")
    assert ops(after).count("Transpose") == (1 if moved else 0)


def test_a_map_that_would_trade_transpositions_stays() -> None:
    g = graph_of(
        """input %x: f32[3,4]
        input %z: f32[4,3]
        %t = Transpose(%x) {perm=(1, 0)} -> f32[4,3]
        %y = Map(%t, %z) {program='add(a0,a1)'} -> f32[4,3]
        output "y" = %y"""
    )
    assert rejections(Transposes(), g) == ["transposes: y: 1 other operands would have to be transposed instead"]


def test_concat_of_different_orders_stays() -> None:
    g = graph_of(
        """input %x: f32[3,4]
        input %z: f32[4,3]
        %t = Transpose(%x) {perm=(1, 0)} -> f32[4,3]
        %y = Concat(%t, %z) {axis=0} -> f32[8,3]
        output "y" = %y"""
    )
    assert rejections(Transposes(), g) == ["transposes: y: its operands are not all transposed alike"]


@pytest.mark.parametrize("trans_b", [False, True])
def test_flags_and_rows(trans_b: bool) -> None:
    flag = "{trans_b=true}" if trans_b else ""
    w = "w: f32[5,24]" if trans_b else "w: f32[24,5]"
    g = graph_of(
        f"""input %x: f32[2,4,3,2]
        input %z: f32[2,6]
        %t = Transpose(%x) {{perm=(0, 2, 3, 1)}} -> f32[2,3,2,4]
        %f = Reshape(%t) {{shape=(2, 24)}} -> f32[2,24]
        %p = MatMul(%f, %w) {flag} -> f32[2,5]
        %zt = Transpose(%z) {{perm=(1, 0)}} -> f32[6,2]
        %y = MatMul(%zt, %p) -> f32[6,5]
        output "y" = %y""",
        constants=w,
    )
    after = check(Transposes(), g)
    assert ops(after) == ["Reshape", "MatMul", "MatMul"] and "trans_a=true" in lines(after)[-2]


POOL = "kernel=(3, 3), strides=(2, 2), dilations=(1, 1)"


def padded(fill: str, reader: str, shape: str, *, before: str = "identity(a0)", mode: str = "") -> str:
    return f"""input %x: f32[1,4,6,5]
    %d = Map(%x) {{program='{before}'}} -> f32[1,4,6,5]
    %p = Pad(%d) {{pads=(0, 0, 1, 0, 0, 0, 1, 1), fill={fill}{mode}}} -> f32[1,4,8,6]
    %y = {reader} -> f32{shape}
    output "y" = %y"""


@pytest.mark.parametrize(
    ("fill", "reader", "shape", "before"),
    [
        ("0.0", f"Conv(%p, %w) {{{CONV}}}", "[1,3,8,6]", "exp(a0)"),
        ("0.0", f'Pool(%p) {{kind="avg", {POOL}, pads=(0, 0, 0, 0)}}', "[1,4,3,2]", "exp(a0)"),
        ("0.0", f'Pool(%p) {{kind="avg", {POOL}, pads=(1, 1, 1, 1), include_pad=true}}', "[1,4,4,3]", "exp(a0)"),
        ("0.0", f'Pool(%p) {{kind="lp", {POOL}, pads=(0, 0, 0, 0)}}', "[1,4,3,2]", "exp(a0)"),
        ("-inf", f'Pool(%p) {{kind="max", {POOL}, pads=(0, 0, 0, 0)}}', "[1,4,3,2]", "exp(a0)"),
        ("0.0", f'Pool(%p) {{kind="max", {POOL}, pads=(0, 0, 0, 0)}}', "[1,4,3,2]", "relu(a0)"),
    ],
)
def test_padding_folds(fill: str, reader: str, shape: str, before: str) -> None:
    after = check(FoldPad(), graph_of(padded(fill, reader, shape, before=before), constants="w: f32[3,4,3,3]"))
    assert "Pad" not in ops(after) and len(after.nodes) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (padded("1.0", f"Conv(%p, %w) {{{CONV}}}", "[1,3,8,6]"), "'p' pads with 1.0, not with zeros"),
        (padded("0.0", f"Conv(%p, %w) {{{CONV}}}", "[1,3,8,6]", mode=', mode="edge"'), "'p' does not pad with a constant"),
        (
            padded("0.0", f'Pool(%p) {{kind="avg", {POOL}, pads=(1, 1, 1, 1)}}', "[1,4,4,3]"),
            "the average leaves out its own padding, but counts that of 'p'",
        ),
        (
            padded("0.0", f'Pool(%p) {{kind="max", {POOL}, pads=(0, 0, 0, 0)}}', "[1,4,3,2]"),
            "'p' pads with 0.0, which may be the maximum",
        ),
    ],
)
def test_padding_that_stays(text: str, why: str) -> None:
    assert rejections(FoldPad(), graph_of(text, constants="w: f32[3,4,3,3]")) == [f"pad: y: {why}"]


def test_padding_of_channels_stays() -> None:
    g = graph_of(
        f"""input %x: f32[1,3,5,5]
        %p = Pad(%x) {{pads=(0, 1, 0, 0, 0, 0, 0, 0)}} -> f32[1,4,5,5]
        %y = Conv(%p, %w) {{{CONV}}} -> f32[1,4,5,5]
        output "y" = %y""",
        constants="w: f32[4,4,3,3]",
    )
    assert rejections(FoldPad(), g) == ["pad: y: 'p' pads batch or channels"]


def test_padding_folds_through_a_transposition() -> None:
    g = graph_of(
        f"""input %x: f32[1,5,6,4]
        %p = Pad(%x) {{pads=(0, 1, 0, 0, 0, 2, 3, 0)}} -> f32[1,8,9,4]
        %t = Transpose(%p) {{perm=(0, 3, 1, 2)}} -> f32[1,4,8,9]
        %y = Conv(%t, %w) {{{CONV}}} -> f32[1,4,8,9]
        output "y" = %y""",
        constants="w: f32[4,4,3,3]",
    )
    after = check(FoldPad(), g)
    assert ops(after) == ["Transpose", "Conv"] and "pads=(2, 1, 3, 4)" in lines(after)[1]
