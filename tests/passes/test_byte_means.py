"""Means of bytes as convolutions: to the last bit where float32 makes the same bytes, and else not at all."""

from __future__ import annotations

import pytest

from sparsec.compiler.ops.conv import Conv
from sparsec.passes.byte_means import ByteMeans, refusal
from tests.passes.helpers import check, graph_of

QUANTISE = "mul(a0,32.0);round(t0);add(t1,4.0);relu(t2);min(t3,255.0);cast.u8(t4)"


def _graph(mean: str, size: int, dequantise: str = "cast.f32(a0);sub(t0,6.0);mul(t1,0.0625)", out: str = "1,1") -> str:
    return "\n".join(
        [
            f"input %x: u8[1,5,{size},{size}]",
            f"%d = Map(%x) {{program='{dequantise}'}} -> f32[1,5,{size},{size}]",
            f"%m = {mean} -> f32[1,5,{out}]",
            f"%y = Map(%m) {{program='{QUANTISE}'}} -> u8[1,5,{out}]",
            'output "y" = %y',
        ]
    )


GLOBAL = 'Reduce(%d) {kind="mean", over=(2, 3)}'
POOL = 'Pool(%d) {{kind="avg", kernel={0}, strides={1}, dilations=(1, 1), pads={2}, ceil={3}, include_pad={4}}}'
WINDOWS = POOL.format((2, 2), (2, 2), (0, 0, 0, 0), "false", "false")
NOT_TWO = "cast.f32(a0);sub(t0,6.0);mul(t1,0.03)"


@pytest.mark.parametrize(
    ("mean", "size", "out"),
    [
        (GLOBAL, 4, "1,1"),
        (GLOBAL, 8, "1,1"),
        (GLOBAL, 7, "1,1"),
        (GLOBAL, 65, "1,1"),
        (WINDOWS, 6, "3,3"),
        (POOL.format((3, 3), (1, 1), (1, 1, 1, 1), "false", "true"), 6, "6,6"),
        (POOL.format((3, 2), (2, 1), (0, 1, 0, 0), "true", "true"), 7, "3,7"),
    ],
)
def test_means_become_convolutions(mean: str, size: int, out: str) -> None:
    before = graph_of(_graph(mean, size, out=out))
    after = check(ByteMeans(), before, tolerance=0)
    (node,) = after.nodes
    assert isinstance(node.op, Conv) and node.op.zero == 6 and node.op.groups == 5


@pytest.mark.parametrize("size", [2, 3, 7, 13])
def test_a_scale_that_is_no_power_of_two_where_no_rounding_changes_a_byte(size: int) -> None:
    """Results on a scale of their own data: half of a result is far from any sum of an odd number of bytes."""
    text = _graph(GLOBAL, size, NOT_TWO).replace("mul(a0,32.0)", "div(a0,0.03)")
    after = check(ByteMeans(), graph_of(text), tolerance=0)
    assert [n.op.name for n in after.nodes] == (["Conv"] if size % 2 else ["Map", "Reduce", "Map"])


@pytest.mark.parametrize(
    ("mean", "size", "out", "dequantise", "why"),
    [
        (GLOBAL, 7, "1,1", NOT_TWO, "'m' scales its bytes by 0.03, no power of two, and rounds differently in float32"),
        (GLOBAL, 4, "1,1", "cast.f32(a0);mul(t0,0.5);tanh(t1)", "'d' does more to its bytes than to take off a zero point"),
        (GLOBAL, 257, "1,1", "cast.f32(a0);mul(t0,0.5)", "'m' is one of 66049 positions, whose sums float32 does not hold"),
        (
            POOL.format((3, 3), (1, 1), (1, 1, 1, 1), "false", "false"),
            6,
            "6,6",
            "cast.f32(a0)",
            "'m' divides by fewer positions where its windows reach beyond the image",
        ),
        (
            POOL.format((2, 2), (2, 2), (0, 0, 0, 0), "true", "true"),
            5,
            "3,3",
            "cast.f32(a0)",
            "'m' divides by fewer positions where its windows reach beyond the image",
        ),
        (
            POOL.format((2, 2), (2, 2), (0, 0, 0, 0), "false", "false").replace("dilations=(1, 1)", "dilations=(2, 2)"),
            5,
            "2,2",
            "cast.f32(a0)",
            "'m' is no mean of windows of rows and columns without dilations",
        ),
        (GLOBAL.replace("mean", "max"), 4, "1,1", "cast.f32(a0)", "'m' is no mean of rows and columns"),
    ],
)
def test_what_float32_may_round_otherwise_stays(mean: str, size: int, out: str, dequantise: str, why: str) -> None:
    graph = graph_of(_graph(mean, size, dequantise, out))
    after = check(ByteMeans(), graph, tolerance=0)
    assert [n.op.name for n in after.nodes] == ["Map", graph.nodes[1].op.name, "Map"]
    assert (refusal(graph, graph.nodes[1]) or "").startswith(why)
