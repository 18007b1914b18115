"""The bisection finds the first wrong layer, in a chain with few checks, and where the network branches."""

from math import ceil, log2

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sparsec.compiler.locate import candidates, locate, with_output
from sparsec.compiler.report import Layer, Memory, ModelInfo, Options, Report, Sources, TensorInfo, Versions
from sparsec.compiler.verify_model import Verification, compare


def report(edges: dict[str, list[str]]) -> Report:
    """A report whose layers make the values `edges` from the given operands; layer L of value v is called L:v."""

    def info(name: str) -> TensorInfo:
        return TensorInfo(name=name, dtype="f32", shape=(1,))

    layers = tuple(
        Layer(node=f"L:{v}", op="Map", origin=(f"N:{v}",), inputs=tuple(map(info, operands)), outputs=(info(v),), kernel="k")
        for v, operands in edges.items()
    )
    memory = Memory(arena_bytes=0, arena_peak=0, arena_lower_bound=0, weights_bytes=0)
    options = Options(name="m", target="generic")
    head = {"versions": Versions(sparsec="0"), "model": ModelInfo(name="m"), "options": options}
    return Report.model_validate(
        {**head, "inputs": (), "outputs": (), "layers": layers, "memory": memory, "sources": Sources(c_bytes=0)}
    )


def verdict(ok: bool) -> Verification:
    return Verification((compare("v", np.array([1.0 if ok else 2.0]), np.array([1.0])),), 1e-4)


@given(st.integers(1, 200), st.data())
def test_a_chain_takes_logarithmically_many_checks(n: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n - 1))
    edges = {f"v{i}": [f"v{i - 1}" if i else "x"] for i in range(n)}
    found = locate(report(edges), list(edges), lambda v: verdict(int(v[1:]) < first))
    assert found is not None and (found.layer, found.origin, found.value) == (f"L:v{first}", (f"N:v{first}",), f"v{first}")
    assert found.tried <= ceil(log2(n)) + 3


def test_nothing_wrong() -> None:
    assert locate(report({"a": ["x"], "b": ["a"]}), ["a", "b"], lambda _: verdict(True)) is None
    assert locate(report({}), [], lambda _: verdict(True)) is None


def test_a_branch_is_followed_back_to_its_wrong_operand() -> None:
    # b1 -> b2 is right, a1 is wrong, and the order hides it: b2 stands between a1 and the sum.
    edges = {"a1": ["x"], "b1": ["x"], "b2": ["b1"], "sum": ["a1", "b2"], "end": ["sum"]}
    wrong = {"a1", "sum", "end"}
    found = locate(report(edges), list(edges), lambda v: verdict(v not in wrong))
    assert found is not None and found.value == "a1" and found.right_operands == ()


def test_values_that_cannot_be_compared_count_as_right() -> None:
    edges = {"a": ["x"], "b": ["a"], "c": ["b"]}
    found = locate(report(edges), list(edges), lambda v: None if v == "b" else verdict(v == "a"))
    assert found is not None and found.value == "c" and found.right_operands == ("b",)


@pytest.mark.parametrize("typed", [True, False])
def test_an_intermediate_value_becomes_an_output(typed: bool) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    known = [helper.make_tensor_value_info("h", TensorProto.FLOAT, [2])] if typed else []
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], value_info=known))
    before = model.SerializeToString()
    exposed = with_output(model, "h")
    assert [o.name for o in exposed.graph.output] == ["y", "h"] and model.SerializeToString() == before
    assert [o.name for o in with_output(exposed, "h").graph.output] == ["y", "h"]
    assert onnx.shape_inference.infer_shapes(exposed).graph.output[1].type.tensor_type.elem_type == TensorProto.FLOAT
    assert candidates(model, report({"relayout": ["x"], "h": ["relayout"], "y": ["h"]})) == ["h", "y"]
