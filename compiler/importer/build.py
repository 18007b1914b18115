"""Translate an onnx-ir model with static inputs to a Graph, node by node, folding shape arithmetic on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import LimitError, ModelError, SparsecError, UnsupportedError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.limits import Limits
from sparsec.compiler.onnx_rules import RULES, OnnxNode
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.registry import load_all
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_FOLD_ELEMENTS = 4096  # larger constants fold in the pass, where the user sees it


class Builder:
    """The ImportContext: collects nodes, types and constants while rules emit."""

    def __init__(self, opset: int, limits: Limits) -> None:
        """`opset` of the default domain; `limits` bounds what a value may take."""
        self.opset = opset
        self.limits = limits
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self._pending: list[Node] = []  # nodes of the rule in progress
        self._made: list[str] = []  # values of the rule in progress, under provisional names
        self._serial = 0

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
        known = all(v == ABSENT or v in self.constants for v in inputs)
        if known and all(t.elements <= _FOLD_ELEMENTS for t in types):
            arrays = op.evaluate([self.constants[v] if v != ABSENT else None for v in inputs])
            return tuple(self.constant(a) for a in arrays)
        outputs = tuple(self._provisional() for _ in types)
        self.types.update(zip(outputs, types, strict=True))
        self._pending.append(Node(outputs[0], op, tuple(inputs), outputs))
        return outputs

    # ---- one ONNX node
    def translate(self, node: OnnxNode) -> tuple[str, ...]:
        """Apply the rule of `node`; returns the IR values of its outputs, named after the ONNX outputs where they are new."""
        info = RULES.get((node.domain, node.op_type))
        if info is None:
            where = f"{node.domain}::" if node.domain else ""
            raise UnsupportedError(f"operator {where}{node.op_type} is not supported (`sparsec ops` lists those that are)")
        self._pending, self._made = [], []
        results = info.rule(self, node)
        results = (results,) if isinstance(results, str) else results
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
        taken = {n.name for n in self.nodes}
        for i, made in enumerate(self._pending):
            last = i == len(self._pending) - 1
            name = node.name if last and node.name and node.name not in taken else names[made.outputs[0]]
            while name in taken:
                name += "'"
            taken.add(name)
            self.nodes.append(
                Node(
                    name,
                    made.op,
                    tuple(names.get(v, v) for v in made.inputs),
                    tuple(names[v] for v in made.outputs),
                    (node.name or base,),
                )
            )
        return tuple(names.get(v, v) for v in results)

    def _provisional(self) -> str:
        self._serial += 1
        name = f"\0{self._serial}"
        self._made.append(name)
        return name

    def _free(self, hint: str) -> str:
        while hint in self.types:
            hint += "'"
        return hint


def attribute_value(attr: ir.Attr) -> Any:
    """A Python value for an ONNX attribute: tensors become numpy arrays, subgraphs stay onnx-ir graphs."""
    if attr.type == ir.AttributeType.TENSOR:
        return attr.value.numpy()
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
    """Translate a normalised model (functions inlined, dims bound, current opset) to a Graph."""
    load_all()
    source = model.graph
    builder = Builder(model.opset_imports.get("", 1), limits)
    env: dict[str, str] = {ABSENT: ABSENT}
    inputs: list[str] = []
    for value in source.inputs:
        if value.name in source.initializers:
            continue  # an initializer given as input has a default: it is a weight
        t = static_type(value)
        limits.check(t, tensor=value.name or "")
        builder.types[value.name or ""] = t
        env[value.name or ""] = value.name or ""
        inputs.append(value.name or "")
    for name, value in source.initializers.items():
        env[name] = _initializer(builder, name, value, limits)
    for node in source:
        _translate_node(builder, env, node)
    outputs: list[Port] = []
    for value in source.outputs:
        name = value.name or ""
        if name not in env:
            raise ModelError(f"graph output {name!r} is not defined by any node", tensor=name)
        outputs.append(Port(name, env[name]))
    return _swept(source.name or "model", inputs, outputs, builder)


def _initializer(builder: Builder, name: str, value: ir.Value, limits: Limits) -> str:
    tensor = value.const_value
    if tensor is None:
        raise ModelError(f"initializer {name!r} has no data", tensor=name)
    try:
        dtype = DType.from_onnx(int(tensor.dtype))
    except KeyError:
        raise UnsupportedError(
            f"weights {name!r} have element type {tensor.dtype.name}, which is not supported", tensor=name
        ) from None
    limits.check(TensorType(dtype, tuple(int(d) for d in tensor.shape)), tensor=name)
    array = tensor.numpy()
    builder.types[name] = TensorType(dtype, tuple(array.shape))
    builder.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
    return name


def _translate_node(builder: Builder, env: dict[str, str], node: ir.Node) -> None:
    names = [v.name or "" if v is not None else ABSENT for v in node.inputs]
    missing = next((n for n in names if n not in env), None)
    label = node.name or (node.outputs[0].name if node.outputs else "") or node.op_type
    if missing is not None:
        raise ModelError(
            f"node {label!r} ({node.op_type}) reads {missing!r}, which no earlier node, input or initializer defines",
            node=label,
            tensor=missing,
        )
    seen = OnnxNode(
        node.op_type,
        "" if node.domain in ("", "ai.onnx") else node.domain,
        node.name or "",
        tuple(env[n] for n in names),
        tuple(v.name or "" for v in node.outputs),
        {k: attribute_value(a) for k, a in node.attributes.items() if isinstance(a, ir.Attr)},
    )
    try:
        results = builder.translate(seen)
    except (ModelError, UnsupportedError, LimitError) as exc:
        shown = ", ".join(f"{n!r} {builder.types[env[n]]}" for n in names if n and env[n] in builder.types)
        raise type(exc)(f"node {label!r} ({node.op_type}; inputs {shown}): {exc}", node=label, tensor=exc.tensor) from exc
    except SparsecError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError) as exc:
        raise ModelError(f"node {label!r} ({node.op_type}) is malformed: {exc}", node=label) from exc
    for value, result in zip(node.outputs, results, strict=False):
        env[value.name or ""] = result


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
