"""Normalisations recognised from what exporters write."""

import pytest

from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.passes.algebra import Algebra
from sparsec.passes.canonical import Canonical
from sparsec.passes.layernorm import RecogniseLayerNorm
from sparsec.passes.softmax import RecogniseSoftmax
from tests.passes.helpers import check, graph_of, lines, ops, rejections

HEAD = """input %x: f32[2,5,16]
%m = Reduce(%x) {kind="mean", over=(2,)} -> f32[2,5,1] from "mean"
%d = Map(%x, %m) {program='sub(a0,a1)'} -> f32[2,5,16] from "sub"
%q = Map(%d) {program='mul(a0,a0)'} -> f32[2,5,16] from "pow"
%v = Reduce(%q) {kind="mean", over=(2,)} -> f32[2,5,1] from "var"
"""
TAILS = {
    "torch": """%e = Map(%v) {program='add(a0,1e-05)'} -> f32[2,5,1]
        %s = Map(%e) {program='sqrt(a0)'} -> f32[2,5,1]
        %n = Map(%d, %s) {program='div(a0,a1)'} -> f32[2,5,16]
        %g = Map(%n, %w) {program='mul(a0,a1)'} -> f32[2,5,16]
        %y = Map(%g, %b) {program='add(a0,a1)'} -> f32[2,5,16]""",
    "scale first": """%s = Map(%v) {program='add(a0,1e-05);sqrt(t0)'} -> f32[2,5,1]
        %g = Map(%w, %d) {program='mul(a0,a1)'} -> f32[2,5,16]
        %n = Map(%g, %s) {program='div(a0,a1)'} -> f32[2,5,16]
        %y = Map(%b, %n) {program='add(a0,a1)'} -> f32[2,5,16]""",
    "reciprocal": """%s = Map(%v) {program='add(1e-05,a0);sqrt(t0);reciprocal(t1)'} -> f32[2,5,1]
        %g = Map(%d, %s, %w) {program='mul(a0,a1);mul(t0,a2)'} -> f32[2,5,16]
        %y = Map(%g, %b) {program='add(a0,a1)'} -> f32[2,5,16]""",
    "tensorflow": """%r = Map(%v) {program='add(a0,1e-05);sqrt(t0);reciprocal(t1)'} -> f32[2,5,1]
        %rg = Map(%r, %w) {program='mul(a0,a1)'} -> f32[2,5,16]
        %p = Map(%x, %rg) {program='mul(a0,a1)'} -> f32[2,5,16]
        %k = Map(%m, %rg) {program='mul(a0,a1)'} -> f32[2,5,16]
        %o = Map(%b, %k) {program='sub(a0,a1)'} -> f32[2,5,16]
        %y = Map(%p, %o) {program='add(a0,a1)'} -> f32[2,5,16]""",
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("shape", ["[16]", "[1,1,16]"])
def test_layernorm(tail: str, shape: str) -> None:
    after = check(RecogniseLayerNorm(), graph_of(f'{HEAD}{tail}\noutput "y" = %y', constants=f"w: f32{shape}\nb: f32{shape}"))
    assert [n.op for n in after.nodes] == [LayerNorm(2, 1e-5)] and len(after.nodes[0].inputs) == 3
    assert {"mean", "sub", "pow", "var"} <= set(after.nodes[0].origin)


def test_layernorm_without_scale_but_with_bias() -> None:
    tail = """%n = Map(%d, %v) {program='add(a1,1e-05);sqrt(t0);div(a0,t1)'} -> f32[2,5,16]
        %y = Map(%n, %b) {program='add(a0,a1)'} -> f32[2,5,16]"""
    after = check(RecogniseLayerNorm(), graph_of(f'{HEAD}{tail}\noutput "y" = %y', constants="b: f32[16]"))
    assert ops(after) == ["LayerNorm"] and after.nodes[0].inputs[1] == ""


def test_layernorm_stops_where_its_result_is_read() -> None:
    tail = """%n = Map(%d, %v) {program='add(a1,1e-05);sqrt(t0);div(a0,t1)'} -> f32[2,5,16]
        %y = Map(%n, %b) {program='add(a0,a1)'} -> f32[2,5,16]"""
    after = check(RecogniseLayerNorm(), graph_of(f'{HEAD}{tail}\noutput "y" = %y\noutput "n" = %n', constants="b: f32[16]"))
    assert ops(after) == ["LayerNorm", "Map"]


def test_a_residual_is_no_bias() -> None:
    tail = """%n = Map(%d, %v) {program='add(a1,1e-05);sqrt(t0);div(a0,t1)'} -> f32[2,5,16]
        %y = Map(%n, %x) {program='add(a0,a1)'} -> f32[2,5,16]"""
    assert ops(check(RecogniseLayerNorm(), graph_of(f'{HEAD}{tail}\noutput "y" = %y'))) == ["LayerNorm", "Map"]


def test_rms() -> None:
    g = graph_of(
        """input %x: f32[2,5,16]
        %q = Map(%x) {program='mul(a0,a0)'} -> f32[2,5,16]
        %v = Reduce(%q) {kind="mean", over=(2,)} -> f32[2,5,1]
        %r = Map(%v) {program='add(a0,1e-06);sqrt(t0);reciprocal(t1)'} -> f32[2,5,1]
        %n = Map(%x, %r) {program='mul(a0,a1)'} -> f32[2,5,16]
        %y = Map(%w, %n) {program='mul(a0,a1)'} -> f32[2,5,16]
        output "y" = %y""",
        constants="w: f32[16]",
    )
    assert [n.op for n in check(RecogniseLayerNorm(), g).nodes] == [LayerNorm(2, 1e-6, True)]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('over=(2,)} -> f32[2,5,1] from "mean"', 'over=(1, 2)} -> f32[2,1,1] from "mean"', "taken over different dimensions"),
        ("div(a0,t1)", "mul(a0,t1)", "no reader of the variance divides the centred value by its root"),
    ],
)
def test_layernorm_rejections(old: str, new: str, why: str) -> None:
    tail = "%y = Map(%d, %v) {program='add(a1,1e-05);sqrt(t0);div(a0,t1)'} -> f32[2,5,16]"
    found = rejections(RecogniseLayerNorm(), graph_of(f'{HEAD}{tail}\noutput "y" = %y'.replace(old, new)))
    assert len(found) == 1 and why in found[0]


def test_channels_first_is_rejected() -> None:
    g = graph_of(
        """input %x: f32[2,16,5]
        %m = Reduce(%x) {kind="mean", over=(1,)} -> f32[2,1,5]
        %d = Map(%x, %m) {program='sub(a0,a1)'} -> f32[2,16,5]
        %q = Map(%d) {program='mul(a0,a0)'} -> f32[2,16,5]
        %v = Reduce(%q) {kind="mean", over=(1,)} -> f32[2,1,5]
        %y = Map(%d, %v) {program='add(a1,1e-05);sqrt(t0);div(a0,t1)'} -> f32[2,16,5]
        output "y" = %y"""
    )
    assert rejections(RecogniseLayerNorm(), g) == ["layernorm: v: it normalises dimensions [1] of 3, which are not the last"]


SOFTMAX = """input %x: f32[3,7]
%m = Reduce(%x) {kind="max", over=(1,)} -> f32[3,1]
%d = Map(%x, %m) {program='sub(a0,a1)'} -> f32[3,7]
%e = Map(%d) {program='exp(a0)'} -> f32[3,7]
%s = Reduce(%e) {kind="sum", over=(1,)} -> f32[3,1]
"""


@pytest.mark.parametrize(
    ("tail", "log"),
    [
        ("%y = Map(%e, %s) {program='div(a0,a1)'} -> f32[3,7]", False),
        ("%r = Map(%s) {program='reciprocal(a0)'} -> f32[3,1]\n%y = Map(%r, %e) {program='mul(a0,a1)'} -> f32[3,7]", None),
        ("%y = Map(%d, %s) {program='log(a1);sub(a0,t0)'} -> f32[3,7]", True),
    ],
)
def test_softmax(tail: str, log: bool | None) -> None:
    g = graph_of(f'{SOFTMAX}{tail}\noutput "y" = %y')
    if log is None:  # the reader of the sum is not the quotient itself
        assert rejections(RecogniseSoftmax(), g) == []
    else:
        after = check(RecogniseSoftmax(), g)
        assert ops(after) == ["Softmax"] and ("log=true" in lines(after)[0]) == log


def test_softmax_without_a_maximum() -> None:
    g = graph_of(
        """input %x: f32[3,7]
        %e = Map(%x) {program='exp(a0)'} -> f32[3,7]
        %s = Reduce(%e) {kind="sum", over=(0,)} -> f32[1,7]
        %y = Map(%e, %s) {program='div(a0,a1)'} -> f32[3,7]
        output "y" = %y"""
    )
    assert "Softmax(%x) {axis=0}" in lines(check(RecogniseSoftmax(), g))[0]


def test_a_sum_over_another_dimension_is_no_softmax() -> None:
    body = SOFTMAX.replace('{kind="max", over=(1,)} -> f32[3,1]', '{kind="max", over=(0,)} -> f32[1,7]')
    g = graph_of(body + "%y = Map(%e, %s) {program='div(a0,a1)'} -> f32[3,7]\noutput \"y\" = %y")
    after = check(RecogniseSoftmax(), g)
    assert ops(after)[-1] == "Softmax" and "Softmax(%d)" in lines(after)[-2]  # still one of what the exponent holds


def test_canonical_reductions() -> None:
    g = graph_of(
        """input %x: f32[2,8,4,4]
        %p = Pool(%x) {kind="avg", kernel=(4, 4), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0)} -> f32[2,8,1,1]
        %q = Pool(%x) {kind="max", kernel=(4, 4), strides=(4, 4), dilations=(1, 1), pads=(0, 0, 0, 0)} -> f32[2,8,1,1]
        %r = Reduce(%x) {kind="sum", over=(2, 3), keepdims=false} -> f32[2,8]
        %s = Reshape(%r) {shape=(2, 8, 1, 1)} -> f32[2,8,1,1]
        %t = Map(%s) {program='mul(a0,0.0625)'} -> f32[2,8,1,1]
        %y = Map(%p, %q, %t) {program='add(a0,a1);add(t0,a2)'} -> f32[2,8,1,1]
        output "y" = %y"""
    )
    after = check(Canonical(), g)
    assert ops(after) == ["Reduce", "Reduce", "Reduce", "Map"]
    assert [line.split('"')[1] for line in lines(after)[:3]] == ["mean", "max", "mean"]


def test_canonical_keeps_both_forms_of_a_shared_reduction() -> None:
    g = graph_of(
        """input %x: f32[2,8]
        %r = Reduce(%x) {kind="max", over=(1,), keepdims=false} -> f32[2]
        %s = Reshape(%r) {shape=(2, 1)} -> f32[2,1]
        %y = Map(%x, %s) {program='sub(a0,a1)'} -> f32[2,8]
        output "y" = %y
        output "r" = %r"""
    )
    assert ops(check(Canonical(), g)) == ["Reduce", "Reshape", "Map"] or ops(check(Canonical(), g)) == [
        "Reduce",
        "Map",
        "Reshape",
    ]


def test_canonical_broadcasts_and_weights() -> None:
    g = graph_of(
        """input %x: f32[2,3,4]
        input %c: f32[3,1]
        %e = Expand(%c) {shape=(2, 3, 5)} -> f32[2,3,5]
        %p = MatMul(%x, %w) -> f32[2,3,5]
        %y = Map(%p, %e) {program='add(a0,a1)'} -> f32[2,3,5]
        output "y" = %y""",
        constants="w: f32[1,4,5]",
    )
    after = check(Canonical(), g)
    assert ops(after) == ["MatMul", "Map"] and after.types[after.nodes[0].inputs[1]].shape == (4, 5)


def test_one_dimension_becomes_two() -> None:
    g = graph_of(
        """input %x: f32[2,4,9]
        input %b: f32[6,1]
        %p = Conv(%x, %w, %b) {strides=(2,), dilations=(1,), pads=(1, 0), groups=2, epilogue='add(a0,a1)'} -> f32[2,6,4]
        %q = Pool(%p) {kind="max", kernel=(2,), strides=(2,), dilations=(1,), pads=(0, 1)} -> f32[2,6,2]
        %y = ConvTranspose(%q, %v) {strides=(2,), dilations=(1,), pads=(0, 1), output_padding=(1,)} -> f32[2,3,5]
        output "y" = %y""",
        constants="w: f32[6,2,3]\nv: f32[6,3,3]",
    )
    after = check(Canonical(), g)
    assert {len(n.op.strides) for n in after.nodes if hasattr(n.op, "strides")} == {2}


def test_a_transposed_convolution_of_one_position_becomes_a_product() -> None:
    g = graph_of(
        """input %x: f32[2,4,1,1]
        input %b: f32[3,1,1]
        %y = ConvTranspose(%x, %w, %b) {strides=(2, 1), dilations=(1, 1), pads=(0, 0, 0, 0), output_padding=(0, 0), \
epilogue='add(a0,a1)'} -> f32[2,3,4,2]
        output "y" = %y""",
        constants="w: f32[4,3,4,2]",
    )
    assert sorted(ops(check(Canonical(), g))) == ["Map", "MatMul", "Reshape", "Reshape", "Reshape"]
    padded = graph_of(
        """input %x: f32[2,4,1,1]
        %y = ConvTranspose(%x, %w) {strides=(2, 1), dilations=(1, 1), pads=(1, 0, 0, 0), output_padding=(0, 0)} -> f32[2,3,3,2]
        output "y" = %y""",
        constants="w: f32[4,3,4,2]",
    )
    assert ops(check(Canonical(), padded)) == ["ConvTranspose"]


def test_algebra_then_canonical_turns_a_division_into_a_mean() -> None:
    g = graph_of(
        """input %x: f32[2,8]
        %r = Reduce(%x) {kind="sum", over=(1,)} -> f32[2,1]
        %y = Map(%r) {program='div(a0,8.0)'} -> f32[2,1]
        output "y" = %y"""
    )
    assert 'kind="mean"' in lines(check(Canonical(), check(Algebra(), g)))[0]
