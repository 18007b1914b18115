"""The pass `head_products`: attention and products of computed tensors as products of [heads, rows, columns]."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.bfloat16 import Bfloat16, Bfloat16Pairs
from sparsec.passes.head_products import HeadProducts
from tests.passes.helpers import graph_of


def _names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def _same(before: Graph, after: Graph, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    feeds = {v: rng.normal(0, 1, before.types[v].shape).astype(np.float32) for v in before.inputs}
    wanted, found = interpret(before, feeds), interpret(after, feeds)
    for name, y in wanted.items():
        assert found[name].shape == y.shape
        assert np.allclose(found[name], y, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_attention_computes_the_same(data: st.DataObject) -> None:
    b, h, s, length, d, dv = (data.draw(st.integers(1, most)) for most in (2, 3, 5, 6, 4, 5))
    mask = data.draw(st.sampled_from(["", f"1,1,1,{length}", f"{b},1,{s},{length}", f"{b},{h},{s},{length}", f"{s},{length}"]))
    if data.draw(st.booleans()):
        q, k, v, y = f"{b},{s},{h * d}", f"{b},{length},{h * d}", f"{b},{length},{h * dv}", f"{b},{s},{h * dv}"
    else:
        q, k, v, y = f"{b},{h},{s},{d}", f"{b},{h},{length},{d}", f"{b},{h},{length},{dv}", f"{b},{h},{s},{dv}"
    graph = graph_of(
        f"""input %q: f32[{q}]
        input %k: f32[{k}]
        input %v: f32[{v}]
        {f"input %m: f32[{mask}]" if mask else ""}
        %y = Attention(%q, %k, %v{", %m" if mask else ""}) {{heads={h}, kv_heads={h}, scale=0.5}} -> f32[{y}]
        output "y" = %y"""
    )
    made = run_pipeline(graph, [HeadProducts()])
    assert not any(isinstance(n.op, Attention) for n in made)
    assert all(made.types[v].rank == 3 for n in made if isinstance(n.op, MatMul) for v in n.inputs[:2])
    _same(graph, made)


@pytest.mark.parametrize("turned", ["", "trans_b=true"])
def test_dimensions_before_matrices_become_one(turned: str) -> None:
    w = "2,3,6,5" if turned else "2,3,5,6"
    graph = graph_of(
        f"""input %x: f32[2,3,4,5]
        input %w: f32[{w}]
        input %m: f32[4,6]
        %y = MatMul(%x, %w, %m) {{epilogue='add(a0,a1)'{", " + turned if turned else ""}}} -> f32[2,3,4,6]
        output "y" = %y"""
    )
    made = run_pipeline(graph, [HeadProducts()])
    (product,) = (n for n in made if isinstance(n.op, MatMul))
    assert made.types[product.output].shape == (6, 4, 6)
    _same(graph, made)


def test_heads_that_were_taken_apart_are_so_at_once() -> None:
    """[1, M, H * K] -> [1, M, H, K] -> [1, H, M, K] as a reshape and a transposition without the dimension of 1."""
    graph = graph_of(
        """input %x: f32[1,4,6]
        input %w: f32[1,2,3,5]
        %a = Reshape(%x) {shape=(1,4,2,3)} -> f32[1,4,2,3]
        %b = Transpose(%a) {perm=(0,2,1,3)} -> f32[1,2,4,3]
        %y = MatMul(%b, %w) -> f32[1,2,4,5]
        output "y" = %y"""
    )
    made = run_pipeline(graph, [HeadProducts()])
    assert [n.op.perm for n in made if isinstance(n.op, Transpose)] == [(1, 0, 2)]
    _same(graph, made)


def test_what_it_leaves_it_says_why() -> None:
    graph = graph_of(
        """input %q: f32[1,4,16]
        input %k: f32[1,4,8]
        input %x: f32[2,3,4,5]
        input %w: f32[5,6]
        %a = Attention(%q, %k, %k) {heads=4, kv_heads=2, scale=0.5} -> f32[1,4,16]
        %y = MatMul(%x, %w) -> f32[2,3,4,6]
        output "a" = %a
        output "y" = %y"""
    )
    notes = Notes()
    made = HeadProducts().rewrite(graph, notes)
    assert _names(made) == ["Attention", "MatMul"]
    assert [n.reason for n in notes.entries] == [
        "its 4 heads share the keys of 2",
        "it multiplies [2, 3, 4, 5] by [5, 6], not as many by as many",
    ]


def test_pairs_are_bfloat16_for_machines_that_multiply_them_only() -> None:
    graph = graph_of(
        """input %x: f32[2,4,5]
        input %w: f32[2,5,6]
        %y = MatMul(%x, %w) -> f32[2,4,6]
        output "y" = %y"""
    )
    assert _names(run_pipeline(graph, [Bfloat16()])) == ["MatMul"]
    made = run_pipeline(graph, [Bfloat16Pairs()])
    (product,) = (n for n in made if isinstance(n.op, MatMul))
    assert [made.types[v].dtype for v in product.inputs] == [DType.BF16, DType.BF16]
    assert isinstance(product.op, MatMul) and product.op.wide
