"""Folding of normalisation and scaling into weights."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.passes.batchnorm import FoldBatchNorm
from sparsec.passes.scale import FoldScale
from tests.passes.helpers import check, graph_of, lines, ops, rejections

STATISTICS = "s: f32[{c}]\nb: f32[{c}]\nm: f32[{c}]\nvar: f32[{c}]\n"
CONV = "strides=(1, 1), dilations=(1, 1), pads=({p}, {p}, {p}, {p})"


@settings(max_examples=20)
@given(groups=st.sampled_from([1, 2, 4]), bias=st.booleans(), transposed=st.booleans())
def test_into_a_convolution_before_it(groups: int, bias: bool, transposed: bool) -> None:
    epilogue, extra = (", epilogue='add(a0,a1)'", ", %cb") if bias else ("", "")
    op = "ConvTranspose" if transposed else "Conv"
    w = f"w: f32[8,{12 // groups},3,3]" if transposed else f"w: f32[12,{8 // groups},3,3]"
    attributes = f"{CONV.format(p=1)}, groups={groups}{epilogue}{', output_padding=(0, 0)' if transposed else ''}"
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %c = {op}(%x, %w{extra}) {{{attributes}}} -> f32[2,12,5,5] from "conv"
        %y = BatchNorm(%c, %s, %b, %m, %var) {{epsilon=1e-05}} -> f32[2,12,5,5] from "bn"
        output "y" = %y""",
        constants=STATISTICS.format(c=12) + w + ("\ncb: f32[12,1,1]" if bias else ""),
    )
    after = check(FoldBatchNorm(), g)
    assert ops(after) == [op] and after.nodes[0].origin == ("conv", "bn")


@pytest.mark.parametrize("trans_b", [False, True])
def test_into_a_matrix_product_before_it(trans_b: bool) -> None:
    g = graph_of(
        f"""input %x: f32[4,6]
        %c = MatMul(%x, %w) {{trans_b={str(trans_b).lower()}}} -> f32[4,5]
        %y = BatchNorm(%c, %s, %b, %m, %var) {{epsilon=0.001}} -> f32[4,5]
        output "y" = %y""",
        constants=STATISTICS.format(c=5) + ("w: f32[5,6]" if trans_b else "w: f32[6,5]"),
    )
    assert ops(check(FoldBatchNorm(), g)) == ["MatMul"]


@settings(max_examples=10)
@given(groups=st.sampled_from([1, 2, 8]), bias=st.booleans())
def test_into_a_convolution_after_it(groups: int, bias: bool) -> None:
    epilogue, extra = (", epilogue='add(a0,a1)'", ", %cb") if bias else ("", "")
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %n = BatchNorm(%x, %s, %b, %m, %var) {{epsilon=1e-05}} -> f32[2,8,5,5]
        %y = Conv(%n, %w{extra}) {{{CONV.format(p=0)}, groups={groups}{epilogue}}} -> f32[2,16,3,3]
        output "y" = %y""",
        constants=STATISTICS.format(c=8) + f"w: f32[16,{8 // groups},3,3]" + ("\ncb: f32[16,1,1]" if bias else ""),
    )
    assert ops(check(FoldBatchNorm(), g)) == ["Conv"]


def test_not_into_a_convolution_that_pads() -> None:
    """Zero padding comes after the shift, so a Map has to do it."""
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %n = BatchNorm(%x, %s, %b, %m, %var) {{epsilon=1e-05}} -> f32[2,8,5,5]
        %y = Conv(%n, %w) {{{CONV.format(p=1)}}} -> f32[2,4,5,5]
        output "y" = %y""",
        constants=STATISTICS.format(c=8) + "w: f32[4,8,3,3]",
    )
    after = check(FoldBatchNorm(), g)
    assert lines(after)[0].startswith("%n = Map(%x, %n.scale, %n.shift) {program='mul(a0,a1);add(t0,a2)'}")


def test_computed_statistics_stay() -> None:
    g = graph_of(
        """input %x: f32[2,8,5,5]
        input %var: f32[8]
        %y = BatchNorm(%x, %s, %s, %s, %var) {epsilon=1e-05} -> f32[2,8,5,5]
        output "y" = %y""",
        constants="s: f32[8]",
    )
    assert rejections(FoldBatchNorm(), g) == ["batchnorm: y: its statistics or parameters are not constant"]


def test_a_result_with_other_readers_keeps_its_weights() -> None:
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %c = Conv(%x, %w) {{{CONV.format(p=1)}}} -> f32[2,8,5,5]
        %y = BatchNorm(%c, %s, %b, %m, %var) {{epsilon=1e-05}} -> f32[2,8,5,5]
        output "y" = %y
        output "c" = %c""",
        constants=STATISTICS.format(c=8) + "w: f32[8,8,3,3]",
    )
    assert ops(check(FoldBatchNorm(), g)) == ["Conv", "Map"]


@pytest.mark.parametrize(
    ("program", "operand", "kind"),
    [
        ("mul(a0,a1)", "c", "f32[12,1,1]"),
        ("mul(a1,a0)", "c", "f32[1,12,1,1]"),
        ("div(a0,a1)", "var", "f32[12,1,1]"),
        ("add(a1,a0)", "c", "f32[]"),
        ("sub(a0,a1)", "c", "f32[12,1,1]"),
        ("mul(a0,0.5)", None, ""),
        ("sub(a0,3.0)", None, ""),
    ],
)
def test_scales_fold(program: str, operand: str | None, kind: str) -> None:
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %p = Conv(%x, %w, %cb) {{{CONV.format(p=1)}, epilogue='add(a0,a1)'}} -> f32[2,12,5,5]
        %y = Map(%p{f", %{operand}" if operand else ""}) {{program='{program}'}} -> f32[2,12,5,5]
        output "y" = %y""",
        constants="w: f32[12,8,3,3]\ncb: f32[12,1,1]" + (f"\n{operand}: {kind}" if operand else ""),
    )
    after = check(FoldScale(), g)
    assert ops(after) == ["Conv"] and "epilogue='add(a0,a1)'" in lines(after)[0]


@pytest.mark.parametrize(
    ("kind", "shape", "why"),
    [
        ("f32[5]", "[2,12,5,5]", "its constant differs within a channel of 'p'"),
        ("f32[3,2,12,5,5]", "[3,2,12,5,5]", "the constant broadcasts the result of 'p'"),
    ],
)
def test_scales_that_are_not_a_channels(kind: str, shape: str, why: str) -> None:
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %p = Conv(%x, %w) {{{CONV.format(p=1)}}} -> f32[2,12,5,5]
        %y = Map(%p, %c) {{program='mul(a0,a1)'}} -> f32{shape}
        output "y" = %y""",
        constants=f"w: f32[12,8,3,3]\nc: {kind}",
    )
    assert rejections(FoldScale(), g) == [f"scale: y: {why}"]


def test_an_activation_in_between_stops_folding() -> None:
    g = graph_of(
        f"""input %x: f32[2,8,5,5]
        %p = Conv(%x, %w) {{{CONV.format(p=1)}, epilogue='relu(a0)'}} -> f32[2,12,5,5]
        %y = Map(%p) {{program='mul(a0,2.0)'}} -> f32[2,12,5,5]
        output "y" = %y""",
        constants="w: f32[12,8,3,3]",
    )
    assert rejections(FoldScale(), g) == ["scale: y: the epilogue of 'p' is more than a bias: relu(a0)"]
