"""Structural checks on a ModelProto before anything is built from it: names, opsets, tensors, sizes of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx

from sparsec.compiler.errors import LimitError, ModelError, UnsupportedError
from sparsec.compiler.limits import Limits

MIN_OPSET = 7
_DATA_TYPES = frozenset(onnx.TensorProto.DataType.values())
_DATA_FIELDS = ("float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data")


def max_opset() -> int:
    """The newest opset that the installed onnx package knows."""
    return int(onnx.defs.onnx_opset_version())


def check_opset(version: int, where: str = "the model") -> None:
    """Raise UnsupportedError unless `version` of the default domain can be imported."""
    if version < MIN_OPSET:
        raise UnsupportedError(
            f"{where} uses opset {version}, the oldest supported is {MIN_OPSET}: convert it with onnx.version_converter"
        )
    if version > max_opset():
        raise UnsupportedError(
            f"{where} uses opset {version}, the newest that the installed onnx package knows is {max_opset()}: upgrade onnx"
        )


def check_proto(proto: onnx.ModelProto, limits: Limits) -> None:
    """Raise ModelError, UnsupportedError or LimitError for what would be rejected anyway, but less clearly.

    Values are defined once, tensors have valid types and extents, opsets are named and known, and the graph has outputs.
    """
    _check_text("an opset import", [o.domain for o in proto.opset_import])
    opsets = {o.domain: o.version for o in proto.opset_import}
    default = opsets.get("", opsets.get("ai.onnx"))
    if default is None:
        if not opsets or any(n.domain in ("", "ai.onnx") for n in proto.graph.node):
            raise ModelError("the model does not say which opset of the default domain it uses (opset_import): export it again")
    else:
        check_opset(default)
    if not proto.graph.output:
        raise ModelError("the graph has no outputs")
    total = 0
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        _check_graph(graph)
        total += len(graph.node)
        graphs += _subgraphs(graph.node)
    functions: set[tuple[str, str, str]] = set()
    for f in proto.functions:
        if (key := (f.domain, f.name, f.overload)) in functions:
            raise ModelError(f"function {f.domain}::{f.name} is defined twice")
        functions.add(key)
        _check_text("a local function", key, plain=True)
        _check_text("a local function", [*f.input, *f.output, *f.attribute])
        _check_nodes(f.node, dict.fromkeys(f.input, "a function input"))
        inner = _subgraphs(f.node)
        while inner:
            g = inner.pop()
            _check_graph(g)
            inner += _subgraphs(g.node)
        total += len(f.node)
    if total > limits.max_nodes:
        raise LimitError(f"the model has {total:,} nodes, more than the limit of {limits.max_nodes:,} (--limits nodes=N)")


def _subgraphs(nodes: Iterable[onnx.NodeProto]) -> list[onnx.GraphProto]:
    found: list[onnx.GraphProto] = []
    for node in nodes:
        for attr in node.attribute:
            if attr.type == onnx.AttributeProto.GRAPH:
                found.append(attr.g)
            elif attr.type == onnx.AttributeProto.GRAPHS:
                found.extend(attr.graphs)
            elif attr.type == onnx.AttributeProto.TENSOR:
                _check_tensor(attr.t, f"attribute {attr.name!r} of node {node.name!r}", None)
    return found


def _check_graph(graph: onnx.GraphProto) -> None:
    values = [*graph.input, *graph.output, *graph.value_info]
    labels = [d.dim_param for v in values for d in v.type.tensor_type.shape.dim]
    names = [graph.name, *(v.name for v in values), *(t.name for t in graph.initializer), *labels]
    _check_text("the graph", names)
    defined: dict[str, str] = {}
    for value in graph.input:
        if not value.name or value.name in defined:
            raise ModelError(f"two graph inputs are called {value.name!r}" if value.name else "a graph input has no name")
        defined[value.name] = "a graph input"
    weights: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in weights:
            raise ModelError(f"two initializers are called {tensor.name!r}", tensor=tensor.name)
        weights.add(tensor.name)
        _check_tensor(tensor, f"initializer {tensor.name!r}", tensor.name)
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise UnsupportedError(f"initializer {name!r} is a sparse tensor: store it dense", tensor=name)
    defined.update((name, "an initializer") for name in weights)
    _check_nodes(graph.node, defined)
    outputs = [o.name for o in graph.output]
    for name, count in Counter(outputs).items():
        if count > 1 or not name:
            raise ModelError(f"two graph outputs are called {name!r}" if name else "a graph output has no name", tensor=name)


def _check_nodes(nodes: Iterable[onnx.NodeProto], defined: dict[str, str]) -> None:
    for node in nodes:
        attributes = [text for a in node.attribute for text in (a.name, a.ref_attr_name)]
        _check_text("a node", [node.op_type, node.domain, node.overload], plain=True)
        _check_text("a node", [node.name, *node.input, *node.output, *attributes])
        for name in node.output:
            if name and name in defined:
                raise ModelError(
                    f"value {name!r} is defined by {defined[name]} and again by node {node.name!r} ({node.op_type}): "
                    f"each value needs one definition",
                    node=node.name,
                    tensor=name,
                )
            defined[name] = f"node {node.name!r} ({node.op_type})"


def _check_text(what: str, names: Iterable[str | bytes], *, plain: bool = False) -> None:
    """Protobuf hands over text that is not UTF-8 as bytes. `plain`: names of operators, which have no control characters."""
    for name in names:
        if plain and isinstance(name, str) and not name.isprintable():
            raise ModelError(f"{what} has an operator name with control characters: {name[:60]!r}")
        if isinstance(name, bytes):
            raise ModelError(f"{what} has a name that is not UTF-8 text: {name[:60]!r}")


def _check_tensor(tensor: onnx.TensorProto, what: str, name: str | None) -> None:
    if tensor.data_type not in _DATA_TYPES or tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"{what} has an unknown element type ({tensor.data_type})", tensor=name)
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{what} has shape {list(tensor.dims)}: extents cannot be negative", tensor=name)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        for entry in tensor.external_data:
            if entry.key in ("offset", "length") and not (entry.value.isascii() and entry.value.isdigit()):
                raise ModelError(
                    f"{what} has external data of {entry.key} {entry.value!r}: expected a count of bytes", tensor=name
                )
    elif 0 not in tensor.dims and not tensor.HasField("raw_data") and not any(len(getattr(tensor, f)) for f in _DATA_FIELDS):
        raise ModelError(f"{what} holds no data", tensor=name)
