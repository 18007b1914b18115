"""The pass `bfloat16_means`: means of bfloat16 as depthwise convolutions that divide, store bfloat16, and are read as before."""

from __future__ import annotations

import numpy as np
import pytest

from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.bfloat16_means import Bfloat16Means
from tests.passes.helpers import graph_of

GLOBAL = 'Reduce(%f) {kind="mean", over=(2, 3)}'
POOL = 'Pool(%f) {{kind="avg", kernel={0}, strides={1}, dilations=(1, 1), pads={2}, include_pad={3}}}'


def _graph(mean: str, size: int, out: int, end: str) -> Graph:
    return graph_of(f"""input %x: bf16[1,5,{size},{size}]
        %f = Map(%x) {{program='cast.f32(a0)'}} -> f32[1,5,{size},{size}]
        %m = {mean} -> f32[1,5,{out},{out}]
        {end}""")


STORED = """%n = Map(%m) {program='cast.bf16(a0)'} -> bf16[1,5,SIZE,SIZE]
        %y = Map(%n) {program='cast.f32(a0);exp(t0)'} -> f32[1,5,SIZE,SIZE]
        output "y" = %y"""


@pytest.mark.parametrize(
    ("mean", "size", "out"),
    [
        (GLOBAL, 7, 1),
        (POOL.format((3, 3), (1, 1), (1, 1, 1, 1), "true"), 6, 6),
        (POOL.format((2, 2), (2, 2), (0, 0, 0, 0), "false"), 6, 3),
    ],
)
def test_a_mean_that_is_stored_as_bfloat16_is_the_same(mean: str, size: int, out: int) -> None:
    """Whole numbers, whose sums are the same in any order: the division is what it was."""
    before = _graph(mean, size, out, STORED.replace("SIZE", str(out)))
    after = run_pipeline(before, (Bfloat16Means(),))
    first, second = after.nodes
    assert isinstance(first.op, Conv) and first.op.groups == 5 and first.op.wide and isinstance(second.op, Map)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.integers(-99, 99, (1, 5, size, size)).astype(before.types["x"].dtype.numpy)}
    assert np.array_equal(interpret(before, feeds)["y"], interpret(after, feeds)["y"])


def test_a_mean_that_is_read_in_float32_is_rounded_once_more() -> None:
    after = run_pipeline(_graph(GLOBAL, 3, 1, 'output "y" = %m'), (Bfloat16Means(),))
    first, second = after.nodes
    assert isinstance(first.op, Conv) and str(first.op.epilogue) == "div(a0,9.0);cast.bf16(t0)"
    assert isinstance(second.op, Map) and str(second.op.program) == "cast.f32(a0)"


@pytest.mark.parametrize(
    ("mean", "size", "out", "why"),
    [
        (GLOBAL, 33, 1, "it is one of 1089 positions, more than 1024"),
        (
            POOL.format((3, 3), (1, 1), (1, 1, 1, 1), "false"),
            6,
            6,
            "it divides by fewer positions where its windows reach beyond the image",
        ),
        (GLOBAL.replace("(2, 3)", "(1, 2, 3)"), 6, 0, "it is no mean of rows and columns that keeps its dimensions"),
        (GLOBAL.replace("mean", "max"), 6, 1, None),
    ],
)
def test_other_means_stay(mean: str, size: int, out: int, why: str | None) -> None:
    graph = _graph(mean, size, out, 'output "y" = %m')
    if not out:
        graph = graph_of(f"""input %x: bf16[1,5,{size},{size}]
            %f = Map(%x) {{program='cast.f32(a0)'}} -> f32[1,5,{size},{size}]
            %m = {mean} -> f32[1,1,1,1]
            output "y" = %m""")
    notes = Notes()
    after = Bfloat16Means().rewrite(graph, notes)
    assert [n.op for n in after.nodes] == [n.op for n in graph.nodes]
    assert [n.reason for n in notes.entries] == ([why] if why else [])
