"""Which values become bytes: what layers read, and what lies between layers and only moves, selects or adds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import onnx

from sparsec.compiler.exporter.nodes import NodeEditor, attribute
from sparsec.passes.quantisation.layers import Layer

# Operators whose results are among their data: a byte stays the byte that it was.
MOVES = (
    "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
_MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "Resize")
_ELEMENTWISE = (
    "Abs", "Add", "BatchNormalization", "BiasGelu", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "FastGelu", "Gelu", "HardSigmoid",
    "HardSwish", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuickGelu", "Relu", "Selu", "Sigmoid",
    "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu",
)  # fmt: skip


@dataclass
class Selection:
    """`values` become bytes, in the model's order; `groups` share scale and zero point (every value is in one)."""

    values: list[str] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)


class Selector:
    """Works backwards from what layers read."""

    def __init__(self, editor: NodeEditor, layers: Iterable[Layer], floats: Collection[str]) -> None:
        """`floats` are the values known to be float32."""
        self.editor, self.floats = editor, floats
        self.order = {o: i for i, node in enumerate(editor.nodes) for o in node.output}
        self.layers = {id(layer.node) for layer in layers}
        self.adds = {id(layer.add) for layer in layers if layer.add is not None}
        self.wanted: dict[str, None] = {}
        self.same = nx.Graph()
        self.queue = [layer.x for layer in layers]

    def run(self) -> Selection:
        """All values that become bytes."""
        while self.queue:
            value = self.queue.pop()
            if value in self.wanted or value in self.editor.tensors or value not in self.floats:
                continue
            self.wanted[value] = None
            self.same.add_node(value)
            node = self.editor.producers.get(value)
            if node is not None:
                self._before(node, value)
        place = {v: self.order.get(v, -1) for v in self.wanted}
        groups = [sorted(g, key=lambda v: (place[v], v)) for g in nx.connected_components(self.same)]
        return Selection(sorted(self.wanted, key=lambda v: (place[v], v)), sorted(groups, key=lambda g: (place[g[0]], g[0])))

    def _before(self, node: onnx.NodeProto, value: str) -> None:
        """Want what a wanted value is made of, as far as it is worth it."""
        if self.moves(node):
            data = [v for v in (node.input if node.op_type == "Concat" else node.input[:1]) if v not in self.editor.tensors]
            parts = [*data, *(o for o in node.output if o)] if node.op_type in ("Concat", "Split") else [*data, value]
            self.queue += parts
            self.same.add_edges_from((value, v) for v in parts if v != value)
        elif is_mean(self.editor, node):
            self.queue.append(node.input[0])
        elif self._elementwise(node):
            self.queue += self._operands(value)

    def moves(self, node: onnx.NodeProto) -> bool:
        """Whether a node takes bytes for bytes: its data are not constant, and what it fills in is 0."""
        return moves(self.editor, node)

    def _elementwise(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _ELEMENTWISE

    def _operands(self, value: str) -> list[str]:
        """What a tree of elementwise nodes that ends in `value` reads and should read as bytes.

        The tree holds the nodes whose results only it reads. Of the products whose results it alone reads, one computes the tree
        as it stores; others hand their results over as bytes.
        """
        inside = self._tree(value)
        ends: dict[str, None] = {}
        for node in inside.values():
            ends.update((v, None) for v in node.input if v and v not in self.editor.tensors and v in self.floats)
        results = {o for node in inside.values() for o in node.output}
        wanted, fused = [], []
        for v in ends:
            producer = self.editor.producers.get(v)
            if v in results or producer is None:
                continue
            inner = v not in self.editor.outputs and all(id(n) in inside for n in self.editor.readers[v])
            if id(producer) in self.layers and inner:
                fused.append(v)
            elif (
                id(producer) in self.layers
                or self.moves(producer)
                or producer.op_type == "AveragePool"
                or _sum_of_two(self, producer)
            ):
                wanted.append(v)
        return wanted + sorted(fused, key=lambda v: self.order[v])[:-1]

    def _tree(self, value: str) -> dict[int, onnx.NodeProto]:
        root = self.editor.producers[value]
        inside, grown = {id(root): root}, True
        while grown:
            grown = False
            for node in list(inside.values()):
                for v in node.input:
                    producer = self.editor.producers.get(v)
                    if producer is None or id(producer) in inside or not self._elementwise(producer) or v in self.editor.outputs:
                        continue
                    if all(id(n) in inside for n in self.editor.readers[v]):
                        inside[id(producer)] = producer
                        grown = True
        return inside


def _sum_of_two(selector: Selector, node: onnx.NodeProto) -> bool:
    return node.op_type in ("Add", "Sum") and all(v not in selector.editor.tensors for v in node.input)


def moves(editor: NodeEditor, node: onnx.NodeProto) -> bool:
    """Whether a node takes bytes for bytes: its data are not constant, and what it fills in is 0."""
    if node.op_type not in MOVES or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Concat":
        return all(v not in editor.tensors for v in node.input)
    if node.input[0] in editor.tensors or (node.op_type == "MaxPool" and any(node.output[1:])):
        return False
    if node.op_type == "Pad" and attribute(node, "mode", b"constant") == b"constant" and len(node.input) > 2 and node.input[2]:
        fill = editor.array(node.input[2])
        return fill is not None and not np.any(fill)
    return True


def is_mean(editor: NodeEditor, node: onnx.NodeProto) -> bool:
    """Whether a node averages over the places of images, rather than over channels as normalisation does."""
    if node.op_type != "ReduceMean":
        return node.op_type in _MEANS
    axes = editor.array(node.input[1]) if len(node.input) > 1 else None
    return (len(attribute(node, "axes", ())) if axes is None else axes.size) >= 2
