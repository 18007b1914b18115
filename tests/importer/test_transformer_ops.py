"""Einsum, attention, rotary embedding and embedding rules against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from sparsec.compiler.errors import ModelError, SparsecError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.matmul import MatMul
from tests.reference import check_node, make_model

Array = np.ndarray[Any, Any]
MS = "com.microsoft"


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bhij,bhjd->bhid", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("bshd,hdo->bso", [(2, 3, 4, 5), (4, 5, 6)]),
        ("bsd,dhk->bshk", [(2, 3, 4), (4, 5, 6)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ijk->j", [(2, 3, 4)]),
        ("i,j->ij", [(2,), (3,)]),
        ("bi,bi->b", [(2, 3), (2, 3)]),
        ("bi,bi->bi", [(2, 3), (2, 3)]),
        ("...ij,...jk->...ik", [(5, 1, 3, 4), (5, 2, 4, 3)]),
        ("...ij,jk->...ik", [(5, 2, 3, 4), (4, 3)]),
        ("i...,i...", [(3, 2), (3, 2)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("abc,cd,b->ad", [(2, 3, 4), (4, 5), (3,)]),
        ("bn c w,b k c->b n k w".replace(" ", ""), [(2, 3, 4, 5), (2, 6, 4)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    check_node("Einsum", {f"x{i}": data(*s, seed=i) for i, s in enumerate(shapes)}, equation=equation)


def test_einsum_of_attention_is_one_product() -> None:
    """No transposition, no reshape: the scores of attention are one MatMul."""
    graph = check_node("Einsum", {"q": data(2, 3, 4, 5), "k": data(2, 3, 6, 5, seed=1)}, equation="bhid,bhjd->bhij")
    assert [n.op for n in graph] == [MatMul(trans_b=True)]


@pytest.mark.parametrize(
    "equation, shapes, message",
    [
        ("ii->i", [(2, 2)], "takes a diagonal"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "label 'j' stands for extents 3 and 4"),
        ("ij->ik", [(2, 3)], "labels 'k', which no operand has"),
        ("ij->ii", [(2, 3)], "repeats a label"),
        ("ijk->i", [(2, 3)], "does not fit"),
        ("ij,jk->ik", [(2, 3)], "2 operands, the node has 1"),
        ("", [(2, 3)], "does not fit"),
    ],
)
def test_einsum_refuses(equation: str, shapes: list[tuple[int, ...]], message: str) -> None:
    inputs = {f"x{i}": data(*s) for i, s in enumerate(shapes)}
    node = helper.make_node("Einsum", list(inputs), ["y"], name="node", equation=equation)
    with pytest.raises(SparsecError, match=message):
        import_model(make_model([node], inputs, ["y"]))


def qkv(b: int, s: int, length: int, h: int, g: int, d: int, dv: int, *, flat: bool) -> dict[str, Array]:
    shapes = [(b, h, s, d), (b, g, length, d), (b, g, length, dv)]
    if flat:
        shapes = [(n[0], n[2], n[1] * n[3]) for n in shapes]  # type: ignore[misc]
    return {name: data(*n, seed=i) for i, (name, n) in enumerate(zip("qkv", shapes, strict=True))}


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("mask", [None, "float", "bool", "causal", "both"])
@pytest.mark.parametrize("groups", [4, 2])
def test_onnx_attention(flat: bool, mask: str | None, groups: int) -> None:
    feeds = qkv(2, 5, 6, 4, groups, 3, 3, flat=flat)
    attributes: dict[str, Any] = {"is_causal": 1} if mask in ("causal", "both") else {}
    if flat:
        attributes |= {"q_num_heads": 4, "kv_num_heads": groups}
    if mask == "bool":
        feeds["mask"] = data(5, 6) > -0.5
        feeds["mask"][:, 0] = True
    elif mask in ("float", "both"):
        feeds["mask"] = data(2, 1, 5, 6)
    graph = check_node("Attention", feeds, opset=23, scale=0.4, **attributes)
    assert [n.op for n in graph if isinstance(n.op, Attention)] == [Attention(4, groups, pytest.approx(0.4))]


def test_onnx_attention_with_past() -> None:
    feeds = qkv(2, 3, 3, 4, 4, 8, 8, flat=True)
    feeds |= {"past_k": data(2, 4, 5, 8, seed=7), "past_v": data(2, 4, 5, 8, seed=8)}
    names = ["q", "k", "v", "", "past_k", "past_v"]
    check_node("Attention", feeds, inputs=names, opset=23, outputs=3, q_num_heads=4, kv_num_heads=4)


def test_attention_refuses() -> None:
    feeds = qkv(1, 2, 2, 2, 2, 4, 4, flat=True)
    for attributes, message in (({"softcap": 1.0, "q_num_heads": 2}, "softcap"), ({}, "q_num_heads and kv_num_heads are needed")):
        node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="node", **attributes)
        with pytest.raises((ModelError, UnsupportedError), match=message):
            import_model(make_model([node], feeds, ["y"], opset=23))


@pytest.mark.parametrize("form", ["plain", "bias", "padding", "attention_bias", "keys_outside", "unidirectional"])
def test_multi_head_attention(form: str) -> None:
    length = 4 if form == "unidirectional" else 5
    feeds = qkv(2, 4, length, 2, 2, 8, 8, flat=True)
    order, attributes = ["q", "k", "v"], {"num_heads": 2}
    weights: dict[str, Array] = {}
    if form == "bias":
        weights["bias"] = data(48)
        order.append("bias")
    elif form == "padding":
        feeds["mask"] = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)
        order += ["", "mask"]
    elif form == "attention_bias":
        feeds["rel"] = data(1, 2, 4, 5)
        order += ["", "", "rel"]
    elif form == "keys_outside":
        feeds["k"], feeds["v"] = (np.ascontiguousarray(feeds[n].reshape(2, 5, 2, 8).transpose(0, 2, 1, 3)) for n in "kv")
    elif form == "unidirectional":
        attributes["unidirectional"] = 1
    check_node("MultiHeadAttention", feeds, weights, inputs=order, domain=MS, **attributes)


@pytest.mark.parametrize("form", ["plain", "padding", "unidirectional", "sizes"])
def test_ms_attention(form: str) -> None:
    feeds = {"x": data(2, 4, 6)}
    order, attributes = ["x", "w", "b"], {"num_heads": 2}
    width = 3 * 8
    if form == "padding":
        feeds["mask"] = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
        order.append("mask")
    elif form == "unidirectional":
        attributes["unidirectional"] = 1
    elif form == "sizes":
        attributes["qkv_hidden_sizes"], width = [8, 8, 4], 20
    check_node("Attention", feeds, {"w": data(6, width), "b": data(width)}, inputs=order, domain=MS, **attributes)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("partial", [False, True])
def test_rotary_embedding(interleaved: int, flat: bool, partial: bool) -> None:
    x = data(2, 3, 4 * 8) if flat else data(2, 4, 3, 8)
    half = 2 if partial else 4
    tables = {"cos": np.cos(data(10, half)), "sin": np.sin(data(10, half))}
    positions = {"p": np.array([[0, 4, 2], [9, 1, 1]])}
    attributes: dict[str, Any] = {"interleaved": interleaved}
    if flat or partial:
        attributes["num_heads"] = 4
    if partial:
        attributes["rotary_embedding_dim"] = 4
    order = ["x", "cos", "sin", "p"]
    check_node("RotaryEmbedding", {"x": x, **positions}, tables, inputs=order, opset=23, **attributes)
    order = ["x", "p", "cos", "sin"]
    check_node("RotaryEmbedding", {"x": x, **positions}, tables, inputs=order, domain=MS, **attributes)
    if not partial:
        by_token = {"x": x, "cos": np.cos(data(2, 3, half)), "sin": np.sin(data(2, 3, half))}
        check_node("RotaryEmbedding", by_token, opset=23, **attributes)
        check_node("RotaryEmbedding", {"x": x, "p": np.array([2])}, tables, inputs=order, domain=MS, **attributes)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_embed_layer_normalization(segments: bool, mask: bool) -> None:
    feeds = {"ids": np.array([[1, 5, 0], [2, 2, 9]], np.int32)}
    weights = {"words": data(10, 8), "places": data(6, 8, seed=1), "gamma": data(8), "beta": data(8, seed=1)}
    order = ["ids", "segments" if segments else "", "words", "places", "kinds" if segments else "", "gamma", "beta"]
    if segments:
        feeds["segments"], weights["kinds"] = np.array([[0, 1, 1], [0, 0, 1]], np.int32), data(2, 8, seed=2)
    if mask:
        feeds["mask"] = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
        order.append("mask")
    check_node("EmbedLayerNormalization", feeds, weights, inputs=order, outputs=2, domain=MS, epsilon=1e-5)
