"""Sequences whose lengths are known leave nothing but their parts; the others are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from sparsec.compiler.errors import ModelError, SparsecError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from tests.reference import check_model, make_model

Array = np.ndarray[Any, Any]
make = helper.make_node


def data(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    [
        (np.array([2, 3, 1]), {"axis": 1}),
        (np.array(4), {"axis": -2}),
        (None, {"axis": 1}),
        (None, {"axis": 1, "keepdims": 0}),
    ],
)
def test_parts_of_a_split(sizes: Array | None, attributes: dict[str, Any]) -> None:
    """The first and last part, one inserted between them, joined along an axis that is there and along a new one."""
    given = {} if sizes is None else {"sizes": sizes}
    nodes = [
        make("SplitToSequence", ["x", *given], ["s"], name="s", **attributes),
        make("SequenceAt", ["s", "zero"], ["a"], name="a"),
        make("SequenceAt", ["s", "last"], ["b"], name="b"),
        make("SequenceInsert", ["s", "a", "last"], ["t"], name="t"),
        make("ConcatFromSequence", ["t"], ["c"], name="c", axis=1),
        make("SequenceConstruct", ["a", "a"], ["u"], name="u"),
        make("ConcatFromSequence", ["u"], ["d"], name="d", axis=-1, new_axis=1),
    ]
    if attributes.get("keepdims") == 0:
        nodes = [n for n in nodes if n.name != "c"] + [make("ConcatFromSequence", ["t"], ["c"], name="c", axis=0)]
    weights = {"zero": np.array(0), "last": np.array(-1), **given}
    graph = check_model(make_model(nodes, {"x": data(3, 6, 4)}, ["a", "b", "c", "d"], weights), {"x": data(3, 6, 4)})
    assert {n.op.name for n in graph} <= {"Slice", "Reshape", "Concat"}


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        (
            [make("SplitToSequence", ["x", "n"], ["s"]), make("SequenceAt", ["s", "n"], ["y"], name="at")],
            ModelError,
            "node 'at' .*position 5 is outside of a sequence of 1 tensors",
        ),
        ([make("SequenceAt", ["x", "n"], ["y"], name="at")], ModelError, "node 'at' .*expected a sequence of tensors"),
        (
            [make("SequenceConstruct", ["x"], ["s"]), make("Relu", ["s"], ["y"], name="r")],
            UnsupportedError,
            "node 'r' .*operator Relu on a sequence of tensors",
        ),
        (
            [make("SplitToSequence", ["x", "k"], ["y"], name="s")],
            ModelError,
            "node 's' .*extent 3 cannot be split .* sizes .1, 1.",
        ),
        ([make("SplitToSequence", ["x", "zero"], ["y"], name="s")], ModelError, "node 's' .*parts of size 0"),
        ([make("SequenceConstruct", ["x"], ["y"])], UnsupportedError, "graph output 'y' is a sequence of tensors"),
        ([make("SequenceEmpty", [], ["s"]), make("ConcatFromSequence", ["s"], ["y"], axis=0)], ModelError, "empty sequence"),
    ],
)
def test_refused(nodes: list[onnx.NodeProto], error: type[SparsecError], message: str) -> None:
    weights = {"n": np.array(5), "k": np.array([1, 1]), "zero": np.array(0)}
    with pytest.raises(error, match=message):
        import_model(make_model(nodes, {"x": data(3, 4)}, ["y"], weights))


def test_too_many_parts() -> None:
    model = make_model([make("SplitToSequence", ["x"], ["y"], name="s")], {"x": np.zeros((5000, 1), np.float32)}, ["y"])
    with pytest.raises(UnsupportedError, match=r"node 's' .*a sequence of 5000 parts is not supported: at most 4096 are"):
        import_model(model)
