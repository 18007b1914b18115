"""Models that ask for too much: refused within bounded time and memory, by a process that could not do otherwise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from sparsec.compiler.errors import LimitError, ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.limits import Limits
from tests.reference import check_model, make_model, run_ort

X = np.zeros((2, 3), np.float32)
G = 1 << 30
# Imports every model of a folder with 1 GiB of memory and 60 s on top of what the interpreter takes; prints how each ended.
RUNNER = """
import json, pathlib, resource, sys
from sparsec.compiler.errors import SparsecError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.registry import load_all
load_all()
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        import_model(path)
        found[path.stem] = ["imported", ""]
    except SparsecError as exc:
        found[path.stem] = [type(exc).__name__, str(exc)]
print(json.dumps(found))
"""


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def bomb(op_type: str, inputs: list[str], weights: dict[str, Any], *, opset: int = 21, **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op_type, inputs, ["y"], name="bomb", **attributes)
    return make_model([node], {"x": X}, ["y"], weights, opset=opset)


def doubling(depth: int) -> onnx.ModelProto:
    """x doubled in size `depth` times."""
    nodes = [helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], name=f"bomb{i}", axis=0) for i in range(depth)]
    return make_model([helper.make_node("Identity", ["x"], ["v0"]), *nodes], {"x": X}, [f"v{depth}"])


def laughs(depth: int) -> onnx.ModelProto:
    """Functions that each call the next one twice."""
    domain, opsets = "f", [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    leaf = helper.make_function(domain, f"F{depth}", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    functions = [leaf]
    for i in range(depth):
        calls = [
            helper.make_node(f"F{i + 1}", ["a"], ["t"], domain=domain),
            helper.make_node(f"F{i + 1}", ["t"], ["b"], domain=domain),
        ]
        functions.append(helper.make_function(domain, f"F{i}", ["a"], ["b"], calls, opsets))
    node = helper.make_node("F0", ["x"], ["y"], domain=domain, name="bomb")
    return make_model([node], {"x": X}, ["y"], functions=functions, domains={domain: 1})


def nested_ifs(depth: int) -> onnx.ModelProto:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "b", [], [onnx.ValueInfoProto(name="b")])
    for _ in range(depth):
        node = helper.make_node("If", ["yes"], ["b"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "b", [], [onnx.ValueInfoProto(name="b")])
    node = helper.make_node("If", ["yes"], ["y"], name="bomb", then_branch=graph)
    return make_model([node], {"x": X}, ["y"], {"yes": np.array(True)})


BOMBS: dict[str, tuple[onnx.ModelProto, str, str]] = {
    "constant_of_shape": (bomb("ConstantOfShape", ["s"], {"s": ints(4 * G)}), "LimitError", "16|17,179,869,184 bytes"),
    "constant_of_shape_overflow": (bomb("ConstantOfShape", ["s"], {"s": ints(*[2**40] * 4)}), "LimitError", "bytes"),
    "expand": (bomb("Expand", ["c", "s"], {"c": np.zeros(1, np.float32), "s": ints(2**31, 2**31)}), "LimitError", "bytes"),
    "expand_rank": (bomb("Expand", ["x", "s"], {"s": np.ones(2_000_000, np.int64)}), "ModelError|LimitError", "bomb"),
    "tile": (bomb("Tile", ["x", "r"], {"r": ints(2**31, 2**31)}), "LimitError", "bytes"),
    "pad": (bomb("Pad", ["x", "p"], {"p": ints(2**33, 0, 0, 0)}), "LimitError", "bytes"),
    "pad_crop": (bomb("Pad", ["w", "p"], {"w": X, "p": ints(2**40, 0, -(2**40), 0)}), "ModelError|LimitError", "bomb"),
    "pad_old": (bomb("Pad", ["x"], {}, opset=10, pads=[2**33, 0, 0, 0]), "LimitError", "bytes"),
    "resize": (
        make_model(
            [helper.make_node("Resize", ["i", "", "s"], ["y"], name="bomb")],
            {"i": np.zeros((1, 1, 2, 2), np.float32)},
            ["y"],
            {"s": np.array([1, 1, 1e6, 1e6], np.float32)},
        ),
        "LimitError",
        "bytes",
    ),
    "range": (bomb("Range", ["a", "b", "c"], {"a": np.array(0), "b": np.array(2**62), "c": np.array(1)}), "LimitError", "bytes"),
    "range_float": (
        bomb("Range", ["a", "b", "c"], {"a": np.array(0.0), "b": np.array(1e300), "c": np.array(1e-300)}),
        "LimitError",
        "bytes",
    ),
    "one_hot": (
        make_model(
            [helper.make_node("OneHot", ["i", "d", "v"], ["y"], name="bomb")],
            {"i": ints(1, 2)},
            ["y"],
            {"d": ints(2**40), "v": ints(0, 1)},
        ),
        "LimitError",
        "bytes",
    ),
    "eye_like": (
        make_model([helper.make_node("EyeLike", ["i"], ["y"], name="bomb")], {"i": (1, [30_000, 30_000])}, ["y"]),
        "LimitError",
        "bytes",
    ),
    "trilu": (
        make_model([helper.make_node("Trilu", ["i"], ["y"], name="bomb")], {"i": (1, [30_000, 30_000])}, ["y"]),
        "LimitError",
        "bytes",
    ),
    "dropout_mask": (
        make_model([helper.make_node("Dropout", ["i"], ["y", "m"], name="bomb")], {"i": (1, [30_000, 30_000])}, ["y", "m"]),
        "imported",
        "",
    ),
    "conv_pads": (
        bomb(
            "Conv",
            ["a", "b"],
            {"a": np.zeros((1, 1, 1), np.float32), "b": np.zeros((1, 1, 1), np.float32)},
            pads=[G, G],
            strides=[G],
        ),
        "imported",
        "",
    ),
    "doubling": (doubling(60), "LimitError", "node 'bomb"),
    "functions": (laughs(60), "LimitError", "inlining .* makes [0-9,]+ nodes"),
    "nested_ifs": (nested_ifs(9), "imported", ""),
    "matmul": (
        make_model(
            [helper.make_node("MatMul", ["a", "b"], ["y"], name="bomb")], {"a": (1, [2**20, 1]), "b": (1, [1, 2**20])}, ["y"]
        ),
        "LimitError",
        "bytes",
    ),
    "input": (
        make_model([helper.make_node("Relu", ["i"], ["y"])], {"i": (1, [2**62, 2**62])}, ["y"]),
        "LimitError",
        "tensor 'i'",
    ),
    "gather": (
        make_model(
            [helper.make_node("Gather", ["i", "j"], ["y"], name="bomb")], {"i": (1, [2**20, 512]), "j": (7, [2**24])}, ["y"]
        ),
        "LimitError",
        "bytes",
    ),
    "split_lengths": (bomb("Split", ["x", "s"], {"s": ints(2**62)}), "ModelError", "cannot be split"),
    "reshape": (bomb("Reshape", ["x", "s"], {"s": ints(2**62, 2**62, 4)}), "ModelError", "cannot reshape"),
    "slice": (bomb("Slice", ["x", "a", "b"], {"a": ints(-(2**63)), "b": ints(2**63 - 1)}), "imported", ""),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """How the import of each bomb ended, all in one bounded process."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (model, _, _) in BOMBS.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    done = subprocess.run([sys.executable, "-c", RUNNER, str(folder)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    yield json.loads(done.stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(outcomes: dict[str, list[str]], name: str) -> None:
    _, kind, message = BOMBS[name]
    got, text = outcomes[name]
    assert got in kind.split("|"), text
    assert re.search(message, text), text
    assert len(text) < 600 and "\n" not in text


def test_functions_must_not_call_each_other_in_a_cycle() -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    functions = [
        helper.make_function("f", a, ["a"], ["b"], [helper.make_node(b, ["a"], ["b"], domain="f")], opsets)
        for a, b in (("F", "G"), ("G", "F"))
    ]
    node = helper.make_node("F", ["x"], ["y"], domain="f")
    with pytest.raises(ModelError, match=r"local functions call each other in a cycle: f::[FG] -> f::[FG]"):
        import_model(make_model([node], {"x": X}, ["y"], functions=functions, domains={"f": 1}))


def test_deep_chains_of_functions() -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    functions = [
        helper.make_function("f", f"F{i}", ["a"], ["b"], [helper.make_node(f"F{i + 1}", ["a"], ["b"], domain="f")], opsets)
        for i in range(1200)
    ]
    functions.append(helper.make_function("f", "F1200", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets))
    node = helper.make_node("F0", ["x"], ["y"], domain="f")
    graph = import_model(make_model([node], {"x": X}, ["y"], functions=functions, domains={"f": 1}))
    assert [str(n.op.name) for n in graph.nodes] == ["Map"]


def test_a_function_of_another_opset() -> None:
    """Its nodes keep the meaning that they have in the function's opset: Squeeze 11 has its axes as an attribute."""
    body = [helper.make_node("Squeeze", ["a"], ["t"], axes=[0]), helper.make_node("Softmax", ["t"], ["b"])]
    function = helper.make_function("f", "F", ["a"], ["b"], body, [helper.make_opsetid("", 11)])
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)
    model = make_model([helper.make_node("F", ["x"], ["y"], domain="f")], {"x": x}, ["y"], functions=[function], domains={"f": 1})
    direct = make_model([body[0], helper.make_node("Softmax", ["t"], ["b"])], {"a": x}, ["b"], opset=11)
    np.testing.assert_allclose(interpret(import_model(model), {"x": x})["y"], run_ort(direct, {"a": x})["b"], rtol=1e-5)


def test_attributes_must_be_numbers() -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"], name="leaky", alpha=float("nan"))
    with pytest.raises(ModelError, match=r"node 'leaky' .*attribute 'alpha' is not a number"):
        import_model(make_model([node], {"x": X}, ["y"]))


@pytest.mark.parametrize(
    "op_type, attributes",
    [
        ("Transpose", {"perm": [0, 5]}),
        ("Transpose", {"perm": "ab"}),
        ("Concat", {"axis": 7}),
        ("Gather", {"axis": "x"}),
        ("Softmax", {"axis": 1.5}),
        ("Cast", {"to": 99}),
        ("Flatten", {"axis": 9}),
        ("LeakyRelu", {"alpha": "steep"}),
        ("MaxPool", {"kernel_shape": [0, 0]}),
        ("MaxPool", {"kernel_shape": [1 << 60]}),
        ("Clip", {"min": 1.0}),
        ("Squeeze", {}),
    ],
)
def test_attributes_that_make_no_sense(op_type: str, attributes: dict[str, Any]) -> None:
    """Wrong types, ranges and counts of inputs end in an error that names the node, or do not matter."""
    for inputs in (["x"], [], ["x", "x"], ["", "x"], ["x"] * 9):
        node = helper.make_node(op_type, inputs, ["y"], name="node", **attributes)
        try:
            import_model(make_model([node], {"x": X}, ["y"]))
        except (ModelError, UnsupportedError) as exc:
            assert exc.node == "node" or "output" in str(exc), exc
            assert "\n" not in str(exc)


def test_node_limit() -> None:
    nodes = [helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(20)]
    model = make_model(nodes, {"x": X}, ["y19"])
    with pytest.raises(LimitError, match="more than the limit of 10"):
        import_model(model, limits=Limits(max_nodes=10))
    check_model(model, {"x": X})


def test_initializers_of_subgraphs_are_checked_too() -> None:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.dims[0] = -3
    branch = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["b"])], "b", [], [onnx.ValueInfoProto(name="b")], [weight])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch)
    with pytest.raises(ModelError, match=r"initializer 'w' has shape \[-3\]"):
        import_model(make_model([node], {"x": X}, ["y"], {"yes": np.array(True)}))
