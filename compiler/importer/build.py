"""Translate an onnx-ir model with static inputs to a Graph, node by node, folding shape arithmetic on the way."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.importer.builder import Builder
from sparsec.compiler.importer.check import max_opset
from sparsec.compiler.importer.tensors import static_type
from sparsec.compiler.limits import Limits
from sparsec.compiler.ops.registry import load_all


def build_graph(model: ir.Model, limits: Limits, *, as_stored: bool = False) -> Graph:
    """Translate a prepared model (functions inlined, nodes sorted, dims bound) to a Graph; see `import_model`."""
    load_all()
    source = model.graph
    builder = Builder(model.opset_imports.get("", max_opset()), limits)
    builder.weights = dict(source.initializers)
    inputs: list[str] = []
    for value in source.inputs:
        name = value.name or ""
        if name in source.initializers:
            continue  # an initializer given as input has a default: it is a weight
        t = static_type(value)
        limits.check(t, tensor=name)
        builder.types[name] = t
        builder.env[name] = name
        inputs.append(name)
    for node in source:
        builder.translate_node(node)
    outputs: list[Port] = []
    for value in source.outputs:
        found = builder.resolve(value.name or "")
        if not found:
            raise ModelError(f"graph output {value.name!r} is not defined by any node", tensor=value.name)
        if found in builder.sequences:
            raise UnsupportedError(
                f"graph output {value.name!r} is a sequence of tensors: export with plain tensors", tensor=value.name
            )
        outputs.append(Port(value.name or "", found))
    if as_stored:
        _unfold(builder)
    return _swept(source.name or "model", inputs, outputs, builder)


def _unfold(builder: Builder) -> None:
    """Have nodes compute again what the import folded: what remains constants is the model's or an import rule's own."""
    names = {n.name for n in builder.nodes}
    made: list[Node] = []
    for first, node in builder.folded.items():  # in the order of their making: operands come first
        if first != node.output:
            continue
        name = node.name
        while name in names:
            name += "'"
        names.add(name)
        made.append(replace(node, name=name))
        for v in node.outputs:
            del builder.constants[v]
    builder.nodes[:0] = made


def _swept(name: str, inputs: list[str], outputs: list[Port], builder: Builder) -> Graph:
    """Drop what no output needs (unused initializers would otherwise be kept)."""
    live = {p.value for p in outputs}
    kept: list[Node] = []
    for node in reversed(builder.nodes):
        if live & set(node.outputs):
            kept.append(node)
            live.update(v for v in node.inputs if v != ABSENT)
    kept.reverse()
    live.update(inputs)
    live.update(v for n in kept for v in n.outputs)
    types = {v: t for v, t in builder.types.items() if v in live}
    constants = {v: c for v, c in builder.constants.items() if v in live}
    return Graph(name, tuple(inputs), tuple(outputs), tuple(kept), types, constants)
