"""Edit the nodes of an ONNX model: who makes and reads a value, new nodes and constants under names that are not taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
_IR = 4  # since then initializers need not be listed as inputs


class NodeEditor:
    """The main graph of a model, copied. Nodes are appended anywhere; `finish` sorts them and drops what is not read."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        """Constant nodes of tensors become initializers; external data must be loaded."""
        self.proto, self.graph = proto, proto.graph
        self.nodes: list[onnx.NodeProto] = []
        self.tensors = {t.name: t for t in proto.graph.initializer}
        for node in proto.graph.node:
            if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
                tensor = onnx.TensorProto()
                tensor.CopyFrom(node.attribute[0].t)
                tensor.name = node.output[0]
                self.tensors[tensor.name] = tensor
            else:
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                self.nodes.append(copy)
        self.inputs = [v.name for v in proto.graph.input if v.name not in self.tensors]
        self.outputs = [v.name for v in proto.graph.output]
        self._names = {n for node in self.nodes for n in (*reads(node), *node.output, node.name)} | {*self.tensors, *self.inputs}
        self.index()

    def index(self) -> None:
        """Look again at who makes and reads what; needed after nodes were rewired."""
        self.producers = {o: n for n in self.nodes for o in n.output if o}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                self.readers.setdefault(name, []).append(node)

    def only_reader(self, value: str) -> onnx.NodeProto | None:
        """The node that alone reads a value; None when others do, or it is an output of the model."""
        found = self.readers.get(value, [])
        return found[0] if len(found) == 1 and value not in self.outputs else None

    def array(self, value: str) -> Array | None:
        """The data of an initializer, None for another value."""
        tensor = self.tensors.get(value)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet, close to `hint`."""
        name, serial = hint, 0
        while name in self._names:
            serial += 1
            name = f"{hint}_{serial}"
        self._names.add(name)
        return name

    def constant(self, array: Array | np.generic, hint: str) -> str:
        """A new initializer; its name."""
        name = self.fresh(hint)
        self.tensors[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """A new node of one output, named after it."""
        node: onnx.NodeProto = helper.make_node(
            op_type, list(inputs), [output], name=self.fresh(f"{output}/{op_type}"), **attributes
        )
        self.nodes.append(node)
        return node

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out, by identity."""
        self.nodes = [n for n in self.nodes if n is not node]

    def finish(self, keep: Iterable[str] = ()) -> onnx.ModelProto:
        """A new model with the nodes as edited, sorted; only those, and initializers, that an output or `keep` needs."""
        needed = {*self.outputs, *keep}
        kept: list[onnx.NodeProto] = []
        for node in reversed(sort_nodes(self.nodes)):
            if needed & set(node.output):
                kept.append(node)
                needed.update(reads(node))
        graph = onnx.GraphProto(name=self.graph.name, doc_string=self.graph.doc_string)
        graph.node.extend(reversed(kept))
        graph.initializer.extend(t for name, t in self.tensors.items() if name in needed)
        graph.sparse_initializer.extend(t for t in self.graph.sparse_initializer if t.values.name in needed)
        graph.input.extend(v for v in self.graph.input if v.name in self.inputs)
        made = {o for node in kept for o in node.output}.difference(self.outputs)
        graph.value_info.extend(v for v in self.graph.value_info if v.name in made)
        graph.output.extend(self.graph.output)
        model = onnx.ModelProto(ir_version=max(self.proto.ir_version, _IR), graph=graph)
        model.producer_name, model.producer_version = self.proto.producer_name, self.proto.producer_version
        model.opset_import.extend(self.proto.opset_import)
        model.metadata_props.extend(self.proto.metadata_props)
        return model


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, in its subgraphs too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            yield from (v.name for v in graph.output)
            for inner in graph.node:
                yield from reads(inner)


def sort_nodes(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes with every producer before its readers, otherwise in the order given."""
    producers = {o: node for node in nodes for o in node.output if o}
    done: set[int] = set()
    order: list[onnx.NodeProto] = []
    for root in nodes:
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [p for v in reads(node) if (p := producers.get(v)) is not None and id(p) not in done and p is not node]
            if id(node) in done or not missing:
                stack.pop()
                order += [] if id(node) in done else [node]
                done.add(id(node))
            else:
                stack += missing
    return order


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
