"""The diff says what changed, and nothing when nothing did."""

import dataclasses
from collections.abc import Callable

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Program
from sparsec.compiler.text.diff import diff_graphs, same_graph
from sparsec.compiler.types import TensorType


def two_layers() -> Graph:
    t = TensorType(DType.F32, (4, 4))
    w = np.eye(4, dtype=np.float32)
    nodes = (
        Node("dense", MatMul(), ("x", "w"), ("y",), ("Gemm_0",)),
        Node("act", Map(Program.parse("relu(a0)")), ("y",), ("z",), ("Relu_1",)),
    )
    return Graph("g", ("x",), (Port("out", "z"),), nodes, {"x": t, "w": t, "y": t, "z": t}, {"w": w})


def test_equal_graphs_have_no_diff() -> None:
    assert diff_graphs(two_layers(), two_layers()) == ""
    assert same_graph(two_layers(), two_layers())


def test_fusion_and_new_data(golden: Callable[[str, str], None]) -> None:
    before = two_layers()
    editor = GraphEditor(before)
    dense, act = editor.nodes
    editor.remove(act)
    editor.replace(dense, MatMul(epilogue=Program.parse("relu(a0)")), dense.inputs, outputs=("z",), origin=act.origin)
    after = editor.finish()
    after = dataclasses.replace(after, constants={"w": 2 * np.eye(4, dtype=np.float32)})
    assert not same_graph(before, after)
    golden("text/diff.txt", diff_graphs(before, after))
