"""Translate an onnx-ir model with static inputs to a Graph, node by node, folding shape arithmetic on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import LimitError, ModelError, SparsecError, UnsupportedError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.importer.check import max_opset
from sparsec.compiler.importer.upgrade import translate_with_upgrade
from sparsec.compiler.limits import Limits
from sparsec.compiler.onnx_rules import RULES, OnnxNode
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.registry import load_all
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_LOOP = "loops are not: export the model with the loop unrolled"
_SEQUENCE = "sequences of tensors are not: export the model with plain tensors"
_SHAPE = "the shape of its result depends on data, and all shapes must be static"
_REFUSED = {
    **dict.fromkeys(("Loop", "Scan"), _LOOP),
    **dict.fromkeys(("SequenceConstruct", "SequenceEmpty", "SequenceAt", "SplitToSequence", "ConcatFromSequence"), _SEQUENCE),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement", "SequenceMap"), _SEQUENCE),
    **dict.fromkeys(("Unique", "Compress", "NonMaxSuppression"), _SHAPE),
}
_NOT_FOLDED = frozenset({"Conv", "ConvTranspose", "Pool", "Resize", "LRN"})  # windows may need far more memory than the result
_FOLD_ELEMENTS = 4096  # larger constants fold in the pass, where the user sees it


class Builder:
    """The ImportContext: collects nodes, types and constants while rules emit."""

    def __init__(self, opset: int, limits: Limits) -> None:
        """`opset` of the default domain; `limits` bounds what a value may take."""
        self.opset = opset  # of nodes that say nothing else
        self.limits = limits
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.env: dict[str, str] = {ABSENT: ABSENT}  # ONNX value name -> IR value
        self.weights: dict[str, ir.Value] = {}  # initializers that no node has read yet
        self.unsupported: dict[str, str] = {}  # node outputs that rules do not make -> why they cannot be read
        self._names: set[str] = set()  # of nodes
        self._pending: list[Node] = []  # nodes of the rule in progress
        self._made: list[str] = []  # values of the rule in progress, under provisional names
        self._serial = 0

    def resolve(self, name: str) -> str | None:
        """The IR value of an ONNX value, None when nothing defines it. An initializer is read here, when it is first used."""
        if name in self.weights:
            self.env[name] = self._read_weights(name, self.weights.pop(name))
        if name in self.unsupported:
            raise UnsupportedError(self.unsupported[name], tensor=name)
        return self.env.get(name)

    def _read_weights(self, name: str, value: ir.Value) -> str:
        tensor = value.const_value
        if tensor is None:
            raise ModelError(f"initializer {name!r} has no data", tensor=name)
        try:
            dtype = DType.from_onnx(int(tensor.dtype))
        except KeyError:
            raise UnsupportedError(
                f"initializer {name!r} has element type {tensor.dtype.name}, which is not supported", tensor=name
            ) from None
        shape = static_dims(tensor)
        self.limits.check(TensorType(dtype, shape), tensor=name)
        array = tensor_array(tensor, shape, f"initializer {name!r}")
        unique = self._free(name)
        self.types[unique] = TensorType(dtype, shape)
        self.constants[unique] = np.ascontiguousarray(array).reshape(shape)
        return unique

    def inline(self, graph: ir.Graph) -> tuple[str, ...]:
        """Translate a subgraph in place; the IR values of its outputs."""
        saved = (self._pending, self._made, self.env, self.weights)
        self.env, self.weights = dict(self.env), dict(self.weights)
        try:
            for name, value in graph.initializers.items():
                self.env.pop(name, None)
                self.weights[name] = value
            for node in graph:
                _translate_node(self, node)
            results = []
            for value in graph.outputs:
                found = self.resolve(value.name or "")
                if not found:
                    raise ModelError(f"subgraph output {value.name!r} is not defined by any node", tensor=value.name)
                results.append(found)
            return tuple(results)
        finally:
            for name in [n for n in saved[3] if n not in self.weights and n not in graph.initializers]:
                saved[2][name] = self.env[name]  # read here for the first time
                del saved[3][name]
            self._pending, self._made, self.env, self.weights = saved

    # ---- ImportContext
    def type(self, value: str) -> TensorType:
        """Static type of a value."""
        return self.types[value]

    def const(self, value: str) -> Array | None:
        """The array of a constant, else None."""
        return self.constants.get(value)

    def constant(self, array: Array) -> str:
        """A new constant."""
        array = np.asarray(array)
        name = self._provisional()
        self.types[name] = TensorType(DType.from_numpy(array.dtype), tuple(array.shape))
        self.constants[name] = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        return name

    def emit(self, op: Op, *inputs: str) -> str:
        """Add a node or fold it; its first output."""
        return self.emit_all(op, inputs)[0]

    def emit_all(self, op: Op, inputs: Sequence[str]) -> tuple[str, ...]:
        """Add a node or fold it; all its outputs."""
        types = op.infer([self.types[v] if v != ABSENT else None for v in inputs])
        for t in types:
            self.limits.check(t)
        known = op.name not in _NOT_FOLDED and all(v == ABSENT or v in self.constants for v in inputs)
        if known and all(t.elements <= _FOLD_ELEMENTS for t in types):
            arrays = op.evaluate([self.constants[v] if v != ABSENT else None for v in inputs])
            return tuple(self.constant(a) for a in arrays)
        outputs = tuple(self._provisional() for _ in types)
        self.types.update(zip(outputs, types, strict=True))
        self._pending.append(Node(outputs[0], op, tuple(inputs), outputs))
        return outputs

    # ---- one ONNX node
    def translate(self, node: OnnxNode, opset: int) -> tuple[str, ...]:
        """Apply the rule of `node`; returns the IR values of its outputs, named after the ONNX outputs where they are new."""
        if (node.domain, node.op_type) not in RULES:
            where = f"{node.domain}::" if node.domain else ""
            why = _REFUSED.get(node.op_type, "`sparsec ops` lists those that are")
            raise UnsupportedError(f"operator {where}{node.op_type} is not supported ({why})")
        self._pending, self._made = [], []
        made = translate_with_upgrade(self, node, opset)
        results = (made,) if isinstance(made, str) else made
        names: dict[str, str] = {}
        for value, wanted in zip(results, node.outputs, strict=False):
            if value in self._made and value not in names and wanted != ABSENT and wanted not in self.types:
                names[value] = wanted
        base = next((o for o in node.outputs if o), node.name or node.op_type)
        for value in self._made:
            if value not in names:
                names[value] = self._free(f"{base}/{len(names)}")
        for value in self._made:
            if value in self.types:
                self.types[names[value]] = self.types.pop(value)
            if value in self.constants:
                self.constants[names[value]] = self.constants.pop(value)
        for i, n in enumerate(self._pending):
            last = i == len(self._pending) - 1
            name = node.name if last and node.name and node.name not in self._names else names[n.outputs[0]]
            while name in self._names:
                name += "'"
            self._names.add(name)
            renamed = (tuple(names.get(v, v) for v in n.inputs), tuple(names[v] for v in n.outputs))
            self.nodes.append(Node(name, n.op, *renamed, (node.name or base,)))
        if len(self.nodes) > self.limits.max_nodes:
            raise LimitError(f"the graph has more than {self.limits.max_nodes:,} nodes (raise the limit with --limits nodes=N)")
        return tuple(names.get(v, v) for v in results)

    def _provisional(self) -> str:
        name = ""
        while not name or name in self.types:  # a model's own names may be anything
            self._serial += 1
            name = f"\0{self._serial}"
        self._made.append(name)
        return name

    def _free(self, hint: str) -> str:
        while hint in self.types or hint in self.weights:
            hint += "'"
        return hint


def static_dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a tensor, whose extents are always numbers."""
    return tuple(d for d in tensor.shape if isinstance(d, int))


def tensor_array(tensor: ir.TensorProtocol, shape: tuple[int, ...], what: str) -> Array:
    """The data of a tensor, or a ModelError when there is not as much as its shape asks for."""
    try:
        array: Array = tensor.numpy()
    except (ValueError, TypeError, AssertionError, OSError) as exc:
        raise ModelError(f"the data of {what} does not fit its type and shape {list(shape)}: {exc}") from exc
    if array.shape != shape:
        raise ModelError(f"{what} is declared as {list(shape)}, its data as {list(array.shape)}")
    if array.dtype == np.bool_:
        return np.asarray(array.view(np.uint8) != 0)  # bytes other than 0 and 1 are true
    return array


def attribute_value(attr: ir.Attr, limits: Limits) -> Any:
    """A Python value for an ONNX attribute: tensors become numpy arrays, subgraphs stay onnx-ir graphs."""
    if attr.type == ir.AttributeType.TENSOR:
        shape, what = static_dims(attr.value), f"attribute {attr.name!r}"
        try:
            limits.check(TensorType(DType.from_onnx(int(attr.value.dtype)), shape), tensor=what)
        except KeyError:
            raise UnsupportedError(f"{what} has element type {attr.value.dtype.name}, which is not supported") from None
        return tensor_array(attr.value, shape, what)
    if attr.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS) and np.isnan(attr.value).any():
        raise ModelError(f"attribute {attr.name!r} is not a number (NaN)")
    if attr.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(attr.value)
    return attr.value


def static_type(value: ir.Value) -> TensorType:
    """The TensorType of a graph input, or a ModelError that says which dimension is unbound."""
    name = value.name or ""
    if value.dtype is None or value.shape is None:
        raise ModelError(f"input {name!r} has no type or no rank: give its shape with --input {name}=...", tensor=name)
    try:
        dtype = DType.from_onnx(int(value.dtype))
    except KeyError:
        raise UnsupportedError(
            f"input {name!r} has element type {value.dtype.name}, which is not supported", tensor=name
        ) from None
    dims: list[int] = []
    for i, d in enumerate(value.shape):
        if not isinstance(d, int):
            label = getattr(d, "value", None)
            how = f"--dim {label}=N or " if label else ""
            raise ModelError(
                f"dimension {i} of input {name!r} is dynamic ({label or '?'}): bind it with {how}--input {name}=...", tensor=name
            )
        if d < 0:
            raise ModelError(f"dimension {i} of input {name!r} is {d}: extents cannot be negative", tensor=name)
        dims.append(d)
    return TensorType(dtype, tuple(dims))


def build_graph(model: ir.Model, limits: Limits) -> Graph:
    """Translate a prepared model (functions inlined, nodes sorted, dims bound) to a Graph."""
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
        _translate_node(builder, node)
    outputs: list[Port] = []
    for value in source.outputs:
        found = builder.resolve(value.name or "")
        if not found:
            raise ModelError(f"graph output {value.name!r} is not defined by any node", tensor=value.name)
        outputs.append(Port(value.name or "", found))
    return _swept(source.name or "model", inputs, outputs, builder)


def _translate_node(builder: Builder, node: ir.Node) -> None:
    names = [v.name or "" if v is not None else ABSENT for v in node.inputs]
    label = _brief(node.name or next((v.name for v in node.outputs if v.name), "") or node.op_type)
    resolved = [builder.resolve(n) for n in names]
    missing = next((n for n, v in zip(names, resolved, strict=True) if v is None), None)
    if missing is not None:
        raise ModelError(
            f"node {label!r} ({node.op_type}) reads {missing!r}, which no earlier node, input or initializer defines",
            node=label,
            tensor=missing,
        )
    values = tuple(v or ABSENT for v in resolved)
    try:
        attributes = {k: attribute_value(a, builder.limits) for k, a in node.attributes.items() if not a.is_ref()}
        domain = "" if node.domain in ("", "ai.onnx") else node.domain
        read = tuple((v.name or "") if v.uses() or v.is_graph_output() else ABSENT for v in node.outputs)
        seen = OnnxNode(node.op_type, domain, node.name or "", values, read, attributes)
        results = builder.translate(seen, node.version or builder.opset)
    except (ModelError, UnsupportedError, LimitError) as exc:
        if exc.node is not None and isinstance(exc.__cause__, SparsecError):
            raise  # a node of a subgraph, which the message names already
        shown = ", ".join(f"{n!r} {builder.types[v]}" for n, v in zip(names, values, strict=True) if v in builder.types)
        where = f"node {label!r} ({node.op_type}{'; inputs ' if shown else ''}{_brief(shown)})"
        raise type(exc)(f"{where}: {_brief(str(exc))}", node=label, tensor=exc.tensor) from exc
    except SparsecError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError, AttributeError, MemoryError) as exc:
        raise ModelError(f"node {label!r} ({node.op_type}) is malformed: {_brief(str(exc))}", node=label) from exc
    for i, value in enumerate(node.outputs):
        if i < len(results) and results[i] != ABSENT:
            builder.env[value.name or ""] = results[i]
        elif value.name:
            builder.unsupported[value.name] = f"output {i} ({value.name!r}) of node {label!r} ({node.op_type}) is not supported"
    builder.env[ABSENT] = ABSENT


def _brief(text: str) -> str:
    """One line of bounded length: hostile shapes and lists can be megabytes long."""
    line = " ".join(text[:2000].split())
    return line if len(line) <= 300 else f"{line[:297]}..."


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
    types: Mapping[str, TensorType] = {v: t for v, t in builder.types.items() if v in live}
    return Graph(
        name, tuple(inputs), tuple(outputs), tuple(kept), types, {v: c for v, c in builder.constants.items() if v in live}
    )
