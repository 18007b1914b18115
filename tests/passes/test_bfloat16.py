"""The pass `bfloat16`: what is rounded, what is stored so, what stays as it is, and that C computes what the interpreter says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError, UsageError
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes
from sparsec.compiler.passing.pipeline import parse_pipeline
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.types import TensorType
from sparsec.passes.bfloat16 import Bfloat16
from sparsec.passes.pipelines import PIPELINES
from sparsec.passes.registry import load_all
from tests.backends.cpu.compiled import compile_graph, run_graph
from tests.machine import needs

Array = np.ndarray[Any, Any]


def model(text: str, **constants: Array) -> Graph:
    """A model from ONNX's text form, as imported; `constants` become initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {text}')
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return import_model(proto)


def optimised(graph: Graph, passes: str = "default,bfloat16", notes: Notes | None = None) -> Graph:
    return run_pipeline(graph, parse_pipeline(passes, load_all(), PIPELINES), notes=notes)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def products(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if isinstance(n.op, Conv | MatMul)]


RESIDUAL = """net (float[1, 8, 9, 9] x) => (float[1, 16, 5, 5] y, float[1, 24, 5, 5] z) {
    a = Conv <kernel_shape: ints = [3, 3], pads: ints = [1, 1, 1, 1]> (x, w0, b0)
    r = Relu (a)
    p = MaxPool <kernel_shape: ints = [3, 3], strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (r)
    c = Conv <kernel_shape: ints = [3, 3], pads: ints = [1, 1, 1, 1]> (p, w1)
    d = Conv <kernel_shape: ints = [1, 1]> (c, w2)
    s = Add (d, p)
    y = Sigmoid (s)
    k = Concat <axis: int = 1> (c, s)
    m = AveragePool <kernel_shape: ints = [3, 3], pads: ints = [1, 1, 1, 1]> (c)
    e = Conv <kernel_shape: ints = [1, 1]> (k, w3)
    z = Add (e, m)
}"""
WEIGHTS = {
    "w0": draw(16, 8, 3, 3) / np.float32(8),
    "b0": draw(16, seed=1),
    "w1": draw(24, 16, 3, 3, seed=2) / np.float32(12),
    "w2": draw(16, 24, 1, 1, seed=3) / np.float32(5),
    "w3": draw(24, 40, 1, 1, seed=4) / np.float32(6),
}


def by_definition(x: Array) -> dict[str, Array]:
    """The same network in float64, rounded where the pass says."""

    def r(a: Array) -> Array:
        return a.astype(np.float32).astype(DType.BF16.numpy).astype(np.float64)

    def conv(a: Array, w: Array, pad: int) -> Array:
        a = np.pad(a, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        view = np.lib.stride_tricks.sliding_window_view(a, w.shape[2:], axis=(2, 3))
        return np.einsum("nchwij,ocij->nohw", view, r(w))

    windows = np.lib.stride_tricks.sliding_window_view
    a = conv(r(x), WEIGHTS["w0"], 1) + WEIGHTS["b0"].reshape(1, -1, 1, 1)
    held = np.pad(r(np.maximum(a, 0)), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    p = windows(held, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max(axis=(4, 5))
    c = r(conv(p, WEIGHTS["w1"], 1))
    s = conv(c, WEIGHTS["w2"], 0) + p
    y = 1 / (1 + np.exp(-r(s)))
    e = conv(np.concatenate([c, r(s)], axis=1), WEIGHTS["w3"], 0)
    mean = windows(np.pad(c, [(0, 0), (0, 0), (1, 1), (1, 1)]), (3, 3), axis=(2, 3)).sum(axis=(4, 5))
    count = windows(np.pad(np.ones_like(c), [(0, 0), (0, 0), (1, 1), (1, 1)]), (3, 3), axis=(2, 3)).sum(axis=(4, 5))
    return {"y": y, "z": e + mean / count}


def test_what_is_rounded_is_what_products_multiply() -> None:
    graph = optimised(model(RESIDUAL, **WEIGHTS))
    assert len(products(graph)) == 4 and all(n.op.wide for n in products(graph))
    x = draw(1, 8, 9, 9, seed=9)
    got, want = interpret(graph, {"x": x}), by_definition(x)
    for name in want:  # a sum that lies next to a tie may be rounded the other way
        assert got[name].dtype == np.float32
        close = np.abs(got[name] - want[name]) <= 1e-4 * np.abs(want[name]).max()
        assert close.mean() > 0.9
        np.testing.assert_allclose(got[name], want[name], atol=2e-2 * float(np.abs(want[name]).max()))


def test_values_between_products_take_two_bytes() -> None:
    graph = optimised(model(RESIDUAL, **WEIGHTS))
    wide = [v for v, t in graph.types.items() if t.dtype is DType.F32 and v not in graph.constants and len(t.shape) == 4]
    kinds = {graph.producers[v].op.name if v in graph.producers else "input" for v in wide}
    assert kinds <= {"input", "Map", "Pool", "Conv"}, kinds
    assert {t.dtype for v, t in graph.types.items() if v in graph.constants and len(t.shape) == 4} == {DType.BF16}
    assert {graph.types[v].dtype for v in (*graph.inputs, *graph.output_values)} == {DType.F32}


@needs("gcc")
@pytest.mark.parametrize("target", ["generic", "host"])
def test_c_computes_it(target: str, tmp_path: Path) -> None:
    graph, x = model(RESIDUAL, **WEIGHTS), draw(1, 8, 9, 9, seed=9)
    want = interpret(optimised(graph), {"x": x})
    made = compile_graph(graph, target, tmp_path, passes="default,bfloat16")
    assert any(t.dtype is DType.BF16 for t in made.graph.types.values())
    got = run_graph(made, tmp_path, {"x": x})
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=2e-2 * float(np.abs(want[name]).max()))


@pytest.mark.parametrize(
    ("text", "constants", "reason"),
    [
        (
            "net (float[1, 4, 3, 3, 3] x) => (float[1, 8, 3, 3, 3] y) { y = Conv (x, w) }",
            {"w": draw(8, 4, 1, 1, 1)},
            "3 spatial dimensions",
        ),
        ("net (float[4, 5] x, float[5, 6] v) => (float[4, 6] y) { y = MatMul (x, v) }", {}, "not constant"),
        ("net (float[4, 5] x) => (float[3, 4, 6] y) { y = MatMul (x, w) }", {"w": draw(3, 5, 6)}, "one matrix of weights"),
        ("net (double[4, 5] x, double[5, 6] v) => (double[4, 6] y) { y = MatMul (x, v) }", {}, "multiplies f64"),
        (
            "net (float[1, 9, 4, 4] x) => (float[1, 6, 4, 4] y) { y = Conv <group: int = 3> (x, w) }",
            {"w": draw(6, 3, 1, 1)},
            "not pairs",
        ),
    ],
)
def test_what_stays_float32_says_why(text: str, constants: dict[str, Array], reason: str) -> None:
    notes = Notes()
    before = optimised(model(text, **constants), "default")
    after = optimised(model(text, **constants), notes=notes)
    assert print_graph(after) == print_graph(before)
    assert any(n.by == "bfloat16" and reason in n.reason for n in notes.entries), notes.entries


def test_an_output_that_a_product_reads_is_not_rounded() -> None:
    text = "net (float[3, 8] x) => (float[3, 8] a, float[3, 8] y) { a = MatMul (x, w) \n y = MatMul (a, w) }"
    graph, x = model(text, w=draw(8, 8)), draw(3, 8, seed=5)
    got = interpret(optimised(graph), {"x": x})
    w, data = (a.astype(DType.BF16.numpy).astype(np.float32) for a in (draw(8, 8), x))
    np.testing.assert_allclose(got["a"], data @ w, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(got["a"], got["a"].astype(DType.BF16.numpy).astype(np.float32))


def test_a_pattern_of_zeros_stays_known() -> None:
    w = draw(32, 32)
    w.reshape(4, 8, 4, 8)[::2, :, ::2] = 0
    graph = optimised(model("net (float[3, 32] x) => (float[3, 32] y) { y = MatMul (x, w) }", w=w.T))
    (product,) = products(graph)
    t = graph.types[product.inputs[1]]
    assert t.dtype is DType.BF16 and "block" in str(t.sparsity).lower()


def test_twice_changes_nothing() -> None:
    graph = optimised(model(RESIDUAL, **WEIGHTS))
    assert Bfloat16().run(graph) is graph


def test_the_text_form_parses_back() -> None:
    graph = optimised(model("net (float[3, 8] x) => (float[3, 2] y) { y = MatMul (x, w) }", w=draw(8, 2)))
    again = parse_graph(print_graph(graph))
    assert print_graph(again) == print_graph(graph) and "wide=true" in print_graph(graph)
    (widened,) = products(optimised(again, "default"))
    assert not widened.op.wide  # widening first, as of any model in bfloat16, gives the same products of float32


@pytest.mark.parametrize(("x", "w", "zero"), [("f32", "bf16", 0), ("bf16", "f32", 0), ("u8", "i8", 3), ("bf16", "bf16", 1)])
def test_wide_sums_are_of_bfloat16_alone(x: str, w: str, zero: int) -> None:
    types = [TensorType(DType(x), (2, 4)), TensorType(DType(w), (4, 3))]
    with pytest.raises(ModelError, match="MatMul sums bfloat16 in float32, not data"):
        MatMul(zero=zero, wide=True).infer(types)


def test_targets_without_it_refuse(tmp_path: Path) -> None:
    from sparsec.compiler.driver import compile

    proto = onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 17]> net (float[1] x) => (float[1] y) { y = Relu (x) }')
    with pytest.raises(UsageError, match=r"x86_64.avx2.fma has no products of bfloat16: give --precision fp32, or --target"):
        compile(proto, tmp_path / "net", target="x86_64+avx2+fma", bfloat16=True)


def test_what_moves_rounded_numbers_moves_two_bytes() -> None:
    text = """net (float[4, 8] x) => (float[4, 8] y, float[8, 4] z) {
        a = MatMul (x, w)
        b = MatMul (a, w)
        t = Transpose <perm: ints = [1, 0]> (a)
        s = Exp (t)
        z = Transpose <perm: ints = [1, 0]> (a)
        u = Transpose <perm: ints = [1, 0]> (s)
        y = Add (b, u)
    }"""
    graph = optimised(model(text, w=draw(8, 8) / np.float32(8)), "bfloat16")
    assert graph.types["t"].dtype is DType.BF16  # read by a Map alone, but rounded already
    assert graph.types["z"].dtype is DType.F32 and graph.types["u"].dtype is DType.F32
    x = draw(4, 8, seed=3)
    got = interpret(graph, {"x": x})
    np.testing.assert_array_equal(got["z"], got["z"].astype(DType.BF16.numpy).astype(np.float32))


@needs("gcc")
def test_models_in_bfloat16_are_multiplied_as_they_are(tmp_path: Path) -> None:
    w, x = draw(8, 8).astype(DType.BF16.numpy), draw(3, 8, seed=1).astype(DType.BF16.numpy)
    text = """net (bfloat16[3, 8] x) => (bfloat16[3, 8] y, bfloat16[3, 8] s) {
        a = MatMul (x, w)
        r = Relu (a)
        y = MatMul (r, w)
        s = Add (x, a)
    }"""
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {text}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    graph = optimised(import_model(proto))
    first, second = products(graph)
    assert first.op.wide and second.op.wide and first.inputs[0] == "x"
    assert np.array_equal(graph.constants[first.inputs[1]], w)
    made = compile_graph(import_model(proto), "generic", tmp_path, passes="default,bfloat16")
    got, want = run_graph(made, tmp_path, {"x": x}), interpret(graph, {"x": x})
    for name in ("y", "s"):
        assert got[name].dtype == DType.BF16.numpy
        np.testing.assert_allclose(got[name].astype(np.float32), want[name].astype(np.float32), rtol=2**-7, atol=1e-3)
