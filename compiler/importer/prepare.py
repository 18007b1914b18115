"""Normalise an onnx-ir model before translation: local functions inlined, nodes in topological order."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes import PassError
from onnx_ir.passes.common import InlinePass

from sparsec.compiler.errors import LimitError, ModelError, UnsupportedError
from sparsec.compiler.importer.check import check_opset
from sparsec.compiler.limits import Limits
from sparsec.compiler.topology import find_cycle


def prepare(model: ir.Model, limits: Limits) -> None:
    """Inline functions and sort nodes, in place. `Node.version` says which opset a node is of where that is not the model's.

    Raises ModelError for recursive functions and cyclic graphs, LimitError when inlining would exceed `limits.max_nodes`.
    """
    if model.functions:
        _check_expansion(model, limits)
        _record_versions(model)
        try:
            InlinePass()(model)
        except (PassError, ValueError) as exc:
            raise UnsupportedError(f"the model's local functions cannot be inlined: {exc}") from exc
    if not _is_sorted(model.graph):
        _sort(model.graph)


def _check_expansion(model: ir.Model, limits: Limits) -> None:
    """Bound the nodes after inlining without doing it: functions that call functions grow exponentially."""
    calls = {key: [n.op_identifier() for n in f.all_nodes()] for key, f in model.functions.items()}
    edges = [(_label(caller), _label(callee)) for caller, body in calls.items() for callee in body if callee in calls]
    cycle = find_cycle(edges)
    if cycle:
        raise ModelError(f"local functions call each other in a cycle: {' -> '.join(cycle)}")
    sizes: dict[ir.OperatorIdentifier, int] = {}
    stack = list(calls)
    while stack:  # depth first without recursion: call chains may be deep
        key = stack[-1]
        missing = [c for c in calls[key] if c in calls and c not in sizes]
        if missing:
            stack += missing
            continue
        sizes[stack.pop()] = sum(sizes.get(c, 1) for c in calls[key])
    total = sum(sizes.get(n.op_identifier(), 1) for n in model.graph.all_nodes())
    if total > limits.max_nodes:
        raise LimitError(
            f"inlining the model's local functions makes {total:,} nodes, more than the limit of {limits.max_nodes:,} "
            f"(raise it with --limits nodes=N)"
        )


def _label(key: ir.OperatorIdentifier) -> str:
    return f"{key[0]}::{key[1]}" + (f":{key[2]}" if key[2] else "")


def _record_versions(model: ir.Model) -> None:
    """A function may use another opset than the model: note it on its nodes, so that inlining can forget it."""
    versions = model.graph.opset_imports
    for key, function in model.functions.items():
        own = function.opset_imports.get("", function.opset_imports.get("ai.onnx"))
        if own is not None and own != versions.setdefault("", own):
            check_opset(own, f"local function {_label(key)}")
            for node in function.all_nodes():
                if node.domain == "":
                    node.version = own
        for domain, version in function.opset_imports.items():
            function.opset_imports[domain] = versions.setdefault(domain, version)


def _is_sorted(graph: ir.Graph) -> bool:
    done: set[ir.Node] = set()
    for node in graph:
        for value in _reads(node):
            producer = value.producer()
            if producer is not None and producer.graph is graph and producer not in done:
                return False
        done.add(node)
    return True


def _reads(node: ir.Node) -> Iterable[ir.Value]:
    """The values that a node reads, those read by its subgraphs included."""
    yield from (v for v in node.inputs if v is not None)
    for attr in node.attributes.values():
        graphs = [attr.as_graph()] if attr.type == ir.AttributeType.GRAPH else []
        for graph in graphs:
            for inner in graph.all_nodes():
                yield from (v for v in inner.inputs if v is not None)
            yield from graph.outputs


def _sort(graph: ir.Graph) -> None:
    try:
        graph.sort()
    except ValueError:
        names = {node: node.name or next((o.name for o in node.outputs if o.name), "") or f"#{i}" for i, node in enumerate(graph)}
        cycle = find_cycle(
            (names[p], names[node]) for node in graph for v in _reads(node) if (p := v.producer()) is not None and p in names
        )
        raise ModelError(
            f"the graph has a cycle through nodes {', '.join(map(repr, cycle[:8]))}: an ONNX graph must be acyclic",
            node=cycle[0] if cycle else None,
        ) from None
