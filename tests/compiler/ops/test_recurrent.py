"""LSTM, GRU and RNN, unrolled, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from tests.reference import check_node, make_model

F32 = np.float32
STEPS, BATCH, WIDTH, HIDDEN = 4, 2, 3, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def operands(op: str, directions: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data, and every weight that the operator can have."""
    rng = np.random.default_rng(directions)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape).astype(F32)

    d, g = directions, GATES[op] * HIDDEN
    weights = {"w": normal(d, g, WIDTH), "r": normal(d, g, HIDDEN), "b": normal(d, 2 * g)}
    states = {"h": normal(d, BATCH, HIDDEN)}
    if op == "LSTM":
        states["c"] = normal(d, BATCH, HIDDEN)
        weights["p"] = normal(d, 3 * HIDDEN)
    return {"x": normal(STEPS, BATCH, WIDTH), **states}, weights


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_all_operands(op: str, direction: str) -> None:
    feeds, weights = operands(op, 2 if direction == "bidirectional" else 1)
    order = ["x", "w", "r", "b", "", "h", *(["c", "p"] if op == "LSTM" else [])]
    extra = [{}, {"linear_before_reset": 1}] if op == "GRU" else [{}]
    for attributes in extra:
        check_node(op, feeds, weights, inputs=order, outputs=3 if op == "LSTM" else 2, hidden_size=HIDDEN, direction=direction,
                   **attributes)  # fmt: skip


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_only_what_is_required(op: str) -> None:
    feeds, weights = operands(op, 1)
    few = {k: weights[k] for k in "wr"}
    graph = check_node(op, {"x": feeds["x"]}, few, outputs=["", "last"], hidden_size=HIDDEN)
    assert graph.types["last"].shape == (1, BATCH, HIDDEN)
    lengths = {"n": np.full(BATCH, STEPS, np.int32)}
    check_node(op, {"x": feeds["x"]}, {**few, **lengths}, inputs=["x", "w", "r", "", "n"], hidden_size=HIDDEN)


def test_other_activations() -> None:
    feeds, weights = operands("LSTM", 1)
    few = {k: weights[k] for k in "wrb"}
    check_node("LSTM", {"x": feeds["x"]}, few, hidden_size=HIDDEN, activations=["Sigmoid", "Softsign", "Relu"])


def test_weights_are_kept_once_however_long_the_sequence() -> None:
    for op in GATES:
        feeds, weights = operands(op, 1)
        few = {k: weights[k] for k in "wrb"}
        sizes = []
        for x in (feeds["x"], np.concatenate([feeds["x"]] * 3)):
            graph = check_node(op, {"x": x}, few, hidden_size=HIDDEN)
            sizes.append(sum(a.size for a in graph.constants.values()))
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"clip": 1.0}, "clip and input_forget are not supported"),
        ({"activations": ["Sigmoid", "Tanh", "Affine"]}, "only Sigmoid, Tanh"),
        ({"direction": "bidirectional"}, "does not fit the recurrence weights"),
    ],
)
def test_refusals(attributes: dict[str, Any], message: str) -> None:
    feeds, weights = operands("LSTM", 1)
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], name="cell", hidden_size=HIDDEN, **attributes)
    with pytest.raises((UnsupportedError, ModelError), match=f"'cell'.*{message}"):
        import_model(make_model([node], {"x": feeds["x"]}, ["y"], {k: weights[k] for k in "wrb"}))


def test_shorter_sequences_are_refused() -> None:
    feeds, weights = operands("GRU", 1)
    node = helper.make_node("GRU", ["x", "w", "r", "", "n"], ["y"], name="cell", hidden_size=HIDDEN)
    with pytest.raises(UnsupportedError, match="sequence_lens are not all 4"):
        import_model(make_model([node], {"x": feeds["x"]}, ["y"], {**weights, "n": np.array([4, 3], np.int32)}))
