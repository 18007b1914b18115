"""Means of bytes as convolutions: to the last bit where float32 is exact, and else not at all."""

from __future__ import annotations

import pytest

from sparsec.compiler.ops.conv import Conv
from sparsec.passes.byte_means import ByteMeans
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
WINDOWS = 'Pool(%d) {kind="avg", kernel=(2, 2), strides=(2, 2), dilations=(1, 1), pads=(0, 0, 0, 0)}'


@pytest.mark.parametrize(("mean", "size", "out"), [(GLOBAL, 4, "1,1"), (GLOBAL, 8, "1,1"), (WINDOWS, 6, "3,3")])
def test_means_become_convolutions(mean: str, size: int, out: str) -> None:
    before = graph_of(_graph(mean, size, out=out))
    after = check(ByteMeans(), before, tolerance=0)
    (node,) = after.nodes
    assert isinstance(node.op, Conv) and node.op.zero == 6 and node.op.groups == 5


@pytest.mark.parametrize(
    ("mean", "size", "dequantise"),
    [
        (GLOBAL, 7, "cast.f32(a0);mul(t0,0.0625)"),  # of 49
        (GLOBAL, 4, "cast.f32(a0);mul(t0,0.1)"),
        (GLOBAL, 4, "cast.f32(a0);mul(t0,0.5);tanh(t1)"),
        (GLOBAL.replace("mean", "max"), 4, "cast.f32(a0);mul(t0,0.5)"),
    ],
)
def test_what_float32_rounds_stays(mean: str, size: int, dequantise: str) -> None:
    after = check(ByteMeans(), graph_of(_graph(mean, size, dequantise)), tolerance=0)
    assert [n.op.name for n in after.nodes] == ["Map", "Reduce", "Map"]
