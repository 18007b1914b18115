"""Slicing, gathering, scattering, expanding, sorting and constants against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from sparsec.compiler.errors import ModelError, SparsecError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.slice import Slice
from tests.reference import check_model, check_node, make_model, run_ort

Array = np.ndarray[Any, Any]


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def fails(
    op_type: str, inputs: Mapping[str, Array], weights: Mapping[str, Array], message: str, *, n: int = 1, **attributes: Any
) -> None:
    node = helper.make_node(op_type, [*inputs, *weights], [f"y{i}" for i in range(n)], name="node", **attributes)
    with pytest.raises(SparsecError, match=message) as caught:
        import_model(make_model([node], inputs, [f"y{i}" for i in range(n)], weights))
    assert isinstance(caught.value, (ModelError, UnsupportedError)) and caught.value.node == "node"


EXTREME = st.one_of(st.integers(-9, 9), st.sampled_from([2**63 - 1, -(2**63), 2**31 - 1, -(2**31)]))


@settings(max_examples=40)
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), draw=st.data())
def test_slice(shape: list[int], draw: st.DataObject) -> None:
    axes = draw.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    starts = [draw.draw(EXTREME) for _ in axes]
    ends = [draw.draw(EXTREME) for _ in axes]
    steps = [draw.draw(st.sampled_from([1, 2, 3, -1, -2, 7])) for _ in axes]
    signed = [a - len(shape) if draw.draw(st.booleans()) else a for a in axes]
    check_node("Slice", {"x": data(*shape)}, {"s": ints(*starts), "e": ints(*ends), "a": ints(*signed), "p": ints(*steps)})


def test_slice_before_opset_10() -> None:
    check_node("Slice", {"x": data(4, 5)}, opset=9, starts=[1, -3], ends=[9, 5], axes=[0, 1])
    check_node("Slice", {"x": data(4, 5)}, opset=7, starts=[1], ends=[2])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"opset": 11, "axis": 1, "outputs": 3},
        {"opset": 11, "axis": -1, "split": [1, 2, 3], "outputs": 3},
        {"weights": {"s": ints(4, 2)}, "axis": 1, "outputs": 2},
        {"opset": 18, "axis": 0, "num_outputs": 3, "outputs": 3},
        {"opset": 18, "axis": 0, "num_outputs": 1, "outputs": 1},
    ],
)
def test_split(kwargs: Any) -> None:
    check_node("Split", {"x": data(8, 6)}, **kwargs)


def test_split_and_slice_refuse_nonsense() -> None:
    fails("Split", {"x": data(2, 6)}, {"s": ints(3, 4)}, r"extent 6 cannot be split into 2 parts of sizes \[3, 4\]", n=2, axis=1)
    fails("Split", {"x": data(2, 6)}, {}, "axis 5 is out of range for rank 2", n=2, axis=5)
    fails("Slice", {"x": data(4)}, {"s": ints(0), "e": ints(2), "a": ints(0), "p": ints(0)}, "step along axis 0 is 0")
    fails("Slice", {"x": data(4)}, {"s": ints(0, 1), "e": ints(2)}, "differ in length")
    fails("Slice", {"x": data(4), "s": ints(0)}, {"e": ints(2)}, r"input 1 \(starts\) is computed at run time")


@settings(max_examples=20)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    picks=st.lists(st.integers(0, 3), max_size=2),
    constant=st.booleans(),
    dtype=st.sampled_from([np.int32, np.int64]),
    draw=st.data(),
)
def test_gather(shape: list[int], picks: list[int], constant: bool, dtype: Any, draw: st.DataObject) -> None:
    axis = draw.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    indices = np.random.default_rng(1).integers(-n, n, picks).astype(dtype)
    feeds = {"x": data(*shape)}
    check_node("Gather", feeds if constant else {**feeds, "i": indices}, {"i": indices} if constant else None, axis=axis)


def test_constant_indices_in_even_steps_become_slices() -> None:
    for indices, step in ((np.array(-1), 1), (ints(1, 2, 3), 1), (ints(3, 1), -2), (ints(2), 1)):
        graph = check_node("Gather", {"x": data(2, 4)}, {"i": indices}, axis=1)
        assert isinstance(graph.nodes[0].op, Slice) and graph.nodes[0].op.steps == (1, step)
    assert isinstance(check_node("Gather", {"x": data(2, 4)}, {"i": ints(0, 2, 3)}, axis=1).nodes[0].op, Gather)
    fails("Gather", {"x": data(2, 4)}, {"i": ints(4)}, r"indices from 4 to 4 reach outside of axis 1", axis=1)
    fails("Gather", {"x": data(2, 4), "i": np.zeros(2, np.float32)}, {}, "indices must be int32 or int64")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_and_scatter_elements(axis: int) -> None:
    indices = np.random.default_rng(0).integers(-3, 3, (2, 3, 2))
    feeds = {"x": data(3, 3, 3), "i": indices}
    check_node("GatherElements", feeds, axis=axis)
    unique = np.zeros((3, 3, 3), np.int64) + np.arange(3).reshape([3 if i == axis % 3 else 1 for i in range(3)]) - 3
    check_node("ScatterElements", {"x": data(3, 3, 3), "i": unique, "u": data(3, 3, 3, seed=1)}, opset=16, axis=axis)
    check_node("Scatter", {"x": data(3, 3, 3), "i": unique % 3, "u": data(3, 3, 3, seed=1)}, opset=9, axis=axis)
    for reduction in ("add", "mul", "min", "max"):
        updates = {"x": data(3, 3, 3), "i": indices, "u": data(2, 3, 2, seed=1)}
        check_node("ScatterElements", updates, opset=18, axis=axis, reduction=reduction)
    fails("ScatterElements", updates, {}, "reduction 'sub' is not one of", reduction="sub")
    fails("GatherElements", {"x": data(3, 3), "i": ints(1)}, {}, "cannot gather elements")


@pytest.mark.parametrize("k, batch", [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2)])
def test_gather_nd(k: int, batch: int) -> None:
    shape = (2, 3, 4)
    lead = shape[:batch]
    bound = np.array(shape[batch : batch + k])
    indices = np.random.default_rng(0).integers(-bound, bound, (*lead, 5, k))
    check_node("GatherND", {"x": data(*shape), "i": indices}, batch_dims=batch)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_scatter_nd(reduction: str, k: int) -> None:
    shape = (3, 3, 4)
    indices = np.stack(np.unravel_index([2, 0, 1], shape[:k]), axis=-1)
    updates = data(3, *shape[k:], seed=1)
    check_node("ScatterND", {"x": data(*shape), "i": indices, "u": updates}, opset=18, reduction=reduction)


@pytest.mark.parametrize("shape, target", [((3, 1), (2, 3, 4)), ((2, 3, 4), (1, 1)), ((1,), ()), ((), (2, 2)), ((2, 3), (2, 3))])
def test_expand(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    check_node("Expand", {"x": data(*shape)}, {"s": ints(*target)})


def test_expand_tile_refuse() -> None:
    fails("Expand", {"x": data(3)}, {"s": ints(2)}, "do not broadcast together")
    fails("Expand", {"x": data(3)}, {"s": ints(-1, 3)}, "negative extent")
    fails("Tile", {"x": data(3)}, {"s": ints(2, 2)}, r"repeats \[2, 2\] do not fit")
    fails("Tile", {"x": data(3)}, {"s": ints(-2)}, "negative extent")


@pytest.mark.parametrize("repeats", [(1, 1, 1), (2, 1, 3), (1, 4, 1), (3, 2, 2), (0, 1, 1)])
def test_tile(repeats: tuple[int, ...]) -> None:
    check_node("Tile", {"x": data(2, 1, 3)}, {"r": ints(*repeats)})


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumsum(dtype: Any, exclusive: int, reverse: int) -> None:
    x = (10 * data(2, 5)).astype(dtype)
    check_node("CumSum", {"x": x}, {"axis": np.array(-1, np.int64)}, exclusive=exclusive, reverse=reverse)
    check_node("CumSum", {"x": x}, {"axis": np.array(0, np.int64)}, exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_topk(largest: int, axis: int) -> None:
    ties = np.random.default_rng(0).integers(0, 3, (5, 5)).astype(np.float32)
    check_node("TopK", {"x": ties}, {"k": ints(3)}, outputs=2, axis=axis, largest=largest)
    check_node("TopK", {"x": ties.astype(np.int64)}, {"k": ints(5)}, outputs=2, axis=axis, largest=largest)


def test_topk_of_old_opsets_and_bounds() -> None:
    check_node("TopK", {"x": data(3, 7)}, outputs=2, opset=9, k=2)
    check_node("TopK", {"x": data(3, 7)}, {"k": ints(2)}, outputs=2, opset=10)
    fails("TopK", {"x": data(3)}, {"k": ints(4)}, "cannot take the top 4 along axis 0", n=2)


@pytest.mark.parametrize("axis", [0, 1, -1, 2])
def test_one_hot(axis: int) -> None:
    indices = np.array([[0, 3, -1], [5, -4, 2]])
    check_node("OneHot", {"i": indices}, {"depth": ints(4), "v": np.array([2.5, 7], np.float32)}, axis=axis)
    check_node("OneHot", {"i": indices, "v": ints(0, 1)}, {"depth": np.array(4)}, inputs=["i", "depth", "v"], axis=axis)
    floats = {"depth": np.array([4], np.float32), "v": np.array([0, 1], np.float32)}
    check_node("OneHot", {"i": indices.astype(np.float32)}, floats, axis=axis)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, 0, 2, -1, -9])
def test_trilu(upper: int, k: int | None) -> None:
    weights = None if k is None else {"k": np.array(k, np.int64)}
    check_node("Trilu", {"x": data(2, 3, 4)}, weights, upper=upper)
    check_node("Trilu", {"x": (data(4, 3) * 9).astype(np.int64)}, weights, upper=upper)


def constant_of(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """The outputs y.. of nodes that import folds away, which onnxruntime also computes."""
    model = make_model(nodes, {"x": data(2, 3)}, [o for n in nodes for o in n.output if o[0] == "y"], weights)
    graph = import_model(model)
    assert not graph.nodes
    ours, theirs = interpret(graph, {"x": data(2, 3)}), run_ort(model, {"x": data(2, 3)})
    for name, reference in theirs.items():
        np.testing.assert_allclose(ours[name], reference, rtol=1e-6, strict=True)
    return ours


def test_constants() -> None:
    make = helper.make_node
    constant_of([make("Constant", [], ["y"], value=helper.make_tensor("t", 7, [2], [3, 4]))])
    constant_of([make("Constant", [], ["y"], value=helper.make_tensor("t", 10, [], [1.5]))])
    forms: list[dict[str, Any]] = [{"value_float": 1.5}, {"value_int": 3}, {"value_floats": [1.0, 2.0]}, {"value_ints": [1, 2]}]
    for form in forms:
        constant_of([make("Constant", [], ["y"], **form)])
    constant_of([make("Shape", ["x"], ["y"]), make("Shape", ["x"], ["y1"], start=-1), make("Size", ["x"], ["y2"])])
    constant_of([make("Shape", ["x"], ["y"], start=-9, end=1), make("Shape", ["x"], ["y1"], start=2, end=1)])
    weights = {"m": np.array([[0, 2], [3, 0]]), "s": ints(2, 2), "empty": ints(), "none": np.zeros((0,), np.int64)}
    constant_of([make("NonZero", ["m"], ["y"])], weights)
    constant_of([make("ConstantOfShape", ["s"], ["y"]), make("ConstantOfShape", ["empty"], ["y1"])], weights)
    constant_of([make("ConstantOfShape", ["s"], ["y"], value=helper.make_tensor("t", 6, [1], [7]))], weights)


@pytest.mark.parametrize(
    "bounds", [ints(0, 10, 3), ints(5, -3, -2), ints(3, 3, 1), ints(0, -4, 1), np.array([0.5, 2.1, 0.4], np.float32)]
)
def test_range(bounds: Array) -> None:
    weights = dict(zip("abc", bounds, strict=True))
    constant_of([helper.make_node("Range", ["a", "b", "c"], ["y"])], {n: np.asarray(v) for n, v in weights.items()})


@pytest.mark.parametrize(
    "node, message",
    [
        (helper.make_node("Constant", [], ["y"], name="node", value_string="a"), "given as value_string is not supported"),
        (helper.make_node("Constant", [], ["y"], name="node"), "found none"),
        (helper.make_node("NonZero", ["x"], ["y"], name="node"), "is computed at run time"),
        (helper.make_node("Unique", ["x"], ["y"], name="node"), "operator Unique is not supported .the shape of its result"),
        (helper.make_node("Loop", ["", "", "x"], ["y"], name="node"), "operator Loop is not supported .loops are not"),
        (helper.make_node("SequenceErase", ["x"], ["y"], name="node"), "operator SequenceErase is not supported"),
        (helper.make_node("Frobnicate", ["x"], ["y"], name="node"), "operator Frobnicate is not supported"),
        (
            helper.make_node("Conv", ["x"], ["y"], name="node", domain="com.microsoft.nchwc"),
            "operator com.microsoft.nchwc::Conv is not supported .onnxruntime saved this graph for one machine",
        ),
        (helper.make_node("Relu", ["x"], ["y"], name="node", domain="my.own"), "operator my.own::Relu is not supported"),
    ],
)
def test_refused(node: onnx.NodeProto, message: str) -> None:
    with pytest.raises(SparsecError, match=message) as caught:
        import_model(make_model([node], {"x": data(2, 3)}, ["y"], domains={"my.own": 1, "com.microsoft.nchwc": 1}))
    assert caught.value.node == "node"


def test_if_with_a_constant_condition() -> None:
    """The branch reads outer values, may hold weights with names that other branches use too, and may nest."""

    def branch(scale: float, *inner: onnx.NodeProto) -> onnx.GraphProto:
        weight = helper.make_tensor("w", 1, [], [scale])
        return helper.make_graph(
            [*inner, helper.make_node("Mul", ["x", "w"], ["b"])], "b", [], [onnx.ValueInfoProto(name="b")], [weight]
        )

    nodes = [
        helper.make_node("If", ["yes"], ["a"], name="if", then_branch=branch(2), else_branch=branch(3)),
        helper.make_node("If", ["no"], ["c"], name="if2", then_branch=branch(2), else_branch=branch(5)),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    weights = {"yes": np.array(True), "no": np.array([False])}
    check_model(make_model(nodes, {"x": data(2, 3)}, ["y"], weights), {"x": data(2, 3)})
    model = make_model(nodes, {"x": data(2, 3), "yes": np.array(True)}, ["y"], {"no": np.array(False)})
    with pytest.raises(UnsupportedError, match=r"node 'if' .*input 0 \(condition\) is computed at run time"):
        import_model(model)
