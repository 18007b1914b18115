"""The ImportContext: applies the import rule of one ONNX node after another and collects what they emit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import LimitError, ModelError, SparsecError, UnsupportedError
from sparsec.compiler.graph import ABSENT, Node
from sparsec.compiler.importer.tensors import NARROW, attribute_value, tensor_array, tensor_type
from sparsec.compiler.importer.upgrade import translate_with_upgrade
from sparsec.compiler.limits import Limits
from sparsec.compiler.onnx_rules import RULES, OnnxNode
from sparsec.compiler.ops.base import Op
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_LOOP = "loops are not: export the model with the loop unrolled"
_SEQUENCE = "sequences of tensors are only in simple forms: export the model with plain tensors"
_SHAPE = "the shape of its result depends on data, and all shapes must be static"
_REFUSED = {
    **dict.fromkeys(("Loop", "Scan"), _LOOP),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement", "SequenceMap", "SequenceErase"), _SEQUENCE),
    **dict.fromkeys(("Unique", "Compress", "NonMaxSuppression"), _SHAPE),
}
_FOREIGN = {
    "com.microsoft.nchwc": "onnxruntime saved this graph for one machine: save it with ORT_ENABLE_EXTENDED, or give the original",
}
_OF_SEQUENCES = ("SequenceAt", "SequenceInsert", "ConcatFromSequence")  # the operators that read one
_FOLD_WORKSPACE = 1 << 20  # bytes
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
        self.sequences: dict[str, tuple[str, ...]] = {}  # name -> IR values of the parts
        self.folded: dict[str, Node] = {}  # constant that `emit` computed -> the node that would compute it
        self._names: set[str] = set()  # of nodes
        self._pending: list[Node] = []  # nodes of the rule in progress
        self._folding: list[Node] = []  # and those that it folded
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
        what = f"initializer {name!r}"
        t = tensor_type(tensor, self.limits, what, name)
        unique = self._free(name)
        self.types[unique] = t
        self.constants[unique] = tensor_array(tensor, t.shape, what)
        return unique

    def inline(self, graph: ir.Graph) -> tuple[str, ...]:
        """Translate a subgraph in place; the IR values of its outputs."""
        saved = (self._pending, self._folding, self._made, self.env, self.weights)
        self.env, self.weights = dict(self.env), dict(self.weights)
        try:
            for name, value in graph.initializers.items():
                self.env.pop(name, None)
                self.weights[name] = value
            for node in graph:
                self.translate_node(node)
            results = []
            for value in graph.outputs:
                found = self.resolve(value.name or "")
                if not found:
                    raise ModelError(f"subgraph output {value.name!r} is not defined by any node", tensor=value.name)
                results.append(found)
            return tuple(results)
        finally:
            for name in [n for n in saved[4] if n not in self.weights and n not in graph.initializers]:
                saved[3][name] = self.env[name]  # read here for the first time
                del saved[4][name]
            self._pending, self._folding, self._made, self.env, self.weights = saved

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
        self.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name

    def sequence(self, parts: Sequence[str]) -> str:
        """A sequence of these values, under a name that is no value's."""
        name = f"\0sequence {len(self.sequences)}"
        self.sequences[name] = tuple(parts)
        return name

    def parts(self, sequence: str) -> tuple[str, ...]:
        """The values of a sequence."""
        if sequence not in self.sequences:
            raise ModelError("its first input is a tensor, expected a sequence of tensors")
        return self.sequences[sequence]

    def emit(self, op: Op, *inputs: str) -> str:
        """Add a node or fold it; its first output."""
        return self.emit_all(op, inputs)[0]

    def keep(self, op: Op, *inputs: str) -> str:
        """Add a node; its first output."""
        return self._emit(op, inputs, may_fold=False)[0]

    def emit_all(self, op: Op, inputs: Sequence[str]) -> tuple[str, ...]:
        """Add a node or fold it; all its outputs."""
        return self._emit(op, inputs, may_fold=True)

    def _emit(self, op: Op, inputs: Sequence[str], *, may_fold: bool) -> tuple[str, ...]:
        operands = [self.types[v] if v != ABSENT else None for v in inputs]
        types = op.infer(operands)
        for t in types:
            self.limits.check(t)
        few = all(t.elements <= _FOLD_ELEMENTS for t in types) and op.workspace(operands) <= _FOLD_WORKSPACE
        small = may_fold and few
        if small and all(v == ABSENT or v in self.constants for v in inputs):
            arrays = op.evaluate([self.constants[v] if v != ABSENT else None for v in inputs])
            made = tuple(self.constant(a) for a in arrays)
            self._folding.append(Node(made[0], op, tuple(inputs), made))
            return made
        outputs = tuple(self._provisional() for _ in types)
        self.types.update(zip(outputs, types, strict=True))
        self._pending.append(Node(outputs[0], op, tuple(inputs), outputs))
        return outputs

    # ---- one ONNX node
    def translate_node(self, node: ir.Node) -> None:
        """Translate one ONNX node; an error names it and its inputs."""
        names = [v.name or "" if v is not None else ABSENT for v in node.inputs]
        label = _brief(node.name or next((v.name for v in node.outputs if v.name), "") or node.op_type)
        if node.op_type == "QuantizeLinear" and any(v is not None and v.dtype in NARROW for v in node.inputs[2:]):
            raise UnsupportedError(
                f"node {label!r} (QuantizeLinear) quantises to 4 bits, which only constants may have", node=label
            )
        resolved = [self.resolve(n) for n in names]
        missing = next((n for n, v in zip(names, resolved, strict=True) if v is None), None)
        if missing is not None:
            raise ModelError(
                f"node {label!r} ({node.op_type}) reads {missing!r}, which no earlier node, input or initializer defines",
                node=label,
                tensor=missing,
            )
        values = tuple(v or ABSENT for v in resolved)
        try:
            attributes = {k: attribute_value(a, self.limits) for k, a in node.attributes.items() if not a.is_ref()}
            domain = "" if node.domain in ("", "ai.onnx") else node.domain
            read = tuple((v.name or "") if v.uses() or v.is_graph_output() else ABSENT for v in node.outputs)
            seen = OnnxNode(node.op_type, domain, node.name or "", values, read, attributes)
            results = self._apply_rule(seen, node.version or self.opset)
        except (ModelError, UnsupportedError, LimitError) as exc:
            if exc.node is not None and isinstance(exc.__cause__, SparsecError):
                raise  # a node of a subgraph, which the message names already
            shown = ", ".join(f"{n!r} {self.types[v]}" for n, v in zip(names, values, strict=True) if v in self.types)
            where = f"node {label!r} ({node.op_type}{'; inputs ' if shown else ''}{_brief(shown)})"
            raise type(exc)(f"{where}: {_brief(str(exc))}", node=label, tensor=exc.tensor) from exc
        except SparsecError:
            raise
        except (
            ValueError,
            TypeError,
            IndexError,
            KeyError,
            OverflowError,
            ZeroDivisionError,
            AttributeError,
            MemoryError,
        ) as exc:
            raise ModelError(f"node {label!r} ({node.op_type}) is malformed: {_brief(str(exc))}", node=label) from exc
        for i, value in enumerate(node.outputs):
            if i < len(results) and results[i] != ABSENT:
                self.env[value.name or ""] = results[i]
            elif value.name:
                self.unsupported[value.name] = f"output {i} ({value.name!r}) of node {label!r} ({node.op_type}) is not supported"
        self.env[ABSENT] = ABSENT

    def _apply_rule(self, node: OnnxNode, opset: int) -> tuple[str, ...]:
        """Apply the rule of `node`; returns the IR values of its outputs, named after the ONNX outputs where they are new."""
        if (node.domain, node.op_type) not in RULES:
            where = f"{node.domain}::" if node.domain else ""
            why = _REFUSED.get(node.op_type, _FOREIGN.get(node.domain, "`sparsec ops` lists those that are"))
            raise UnsupportedError(f"operator {where}{node.op_type} is not supported ({why})")
        if any(v in self.sequences for v in node.inputs) and node.op_type not in _OF_SEQUENCES:
            raise UnsupportedError(
                f"operator {node.op_type} on a sequence of tensors is not supported: export with plain tensors"
            )
        self._pending, self._folding, self._made, known = [], [], [], len(self.sequences)
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
        for sequence in list(self.sequences)[known:]:
            self.sequences[sequence] = tuple(names.get(v, v) for v in self.sequences[sequence])
        for i, n in enumerate(self._pending):
            last = i == len(self._pending) - 1
            name = node.name if last and node.name and node.name not in self._names else names[n.outputs[0]]
            while name in self._names:
                name += "'"
            self._names.add(name)
            self.nodes.append(_renamed(n, name, names, node.name or base))
        for n in self._folding:
            made_by = _renamed(n, names[n.outputs[0]], names, node.name or base)
            self.folded.update(dict.fromkeys(made_by.outputs, made_by))
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


def _renamed(node: Node, name: str, names: Mapping[str, str], origin: str) -> Node:
    inputs, outputs = (tuple(names.get(v, v) for v in values) for values in (node.inputs, node.outputs))
    return Node(name, node.op, inputs, outputs, (origin,))


def _brief(text: str) -> str:
    """One line of bounded length: hostile shapes and lists can be megabytes long."""
    line = " ".join(text[:2000].split())
    return line if len(line) <= 300 else f"{line[:297]}..."
