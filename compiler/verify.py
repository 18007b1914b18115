"""Invariants of the graph IR, checked after import and after every pass."""

from __future__ import annotations

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import IRError, ModelError
from sparsec.compiler.graph import ABSENT, Graph
from sparsec.compiler.layout import ROW_MAJOR


def verify(graph: Graph) -> None:
    """Raise IRError unless the graph is well formed.

    1. Node names are unique; every value has exactly one definition (input, constant or node output) and one type.
    2. Every operand is defined before it is read; every output port carries a defined value.
    3. A node's output types are what its op infers from its input types (storage order apart).
    4. A constant's array has the dtype and shape of its type, in row-major order.
    """
    defined: dict[str, str] = {}

    def define(value: str, by: str) -> None:
        if value == ABSENT:
            raise IRError(f"{by} defines a value without a name")
        if value in defined:
            raise IRError(f"value {value!r} is defined by {defined[value]} and by {by}", tensor=value)
        if value not in graph.types:
            raise IRError(f"value {value!r}, defined by {by}, has no type", tensor=value)
        defined[value] = by

    for v in graph.inputs:
        define(v, "the graph's inputs")
    for v, array in graph.constants.items():
        define(v, "the constants")
        t = graph.types[v]
        if tuple(array.shape) != t.shape or DType.from_numpy(array.dtype) is not t.dtype or t.layout != ROW_MAJOR:
            raise IRError(f"constant {v!r} is {array.dtype}{list(array.shape)} but typed {t}", tensor=v)
    seen: set[str] = set()
    for node in graph.nodes:
        if node.name in seen:
            raise IRError(f"two nodes are called {node.name!r}", node=node.name)
        seen.add(node.name)
        for v in node.inputs:
            if v != ABSENT and v not in defined:
                raise IRError(f"node {node.name!r} ({node.op.name}) reads {v!r} before it is defined", node=node.name, tensor=v)
        for v in node.outputs:
            define(v, f"node {node.name!r}")
        try:
            inferred = node.op.infer(graph.in_types(node))
        except ModelError as exc:
            raise IRError(f"node {node.name!r} ({node.op.name}) does not type: {exc}", node=node.name) from exc
        if len(inferred) != len(node.outputs):
            raise IRError(f"node {node.name!r} has {len(node.outputs)} outputs, its op makes {len(inferred)}", node=node.name)
        for v, t in zip(node.outputs, inferred, strict=True):
            have = graph.types[v]
            if (have.dtype, have.shape) != (t.dtype, t.shape):
                raise IRError(f"value {v!r} of node {node.name!r} is typed {have}, its op makes {t}", node=node.name, tensor=v)
    for port in graph.outputs:
        if port.value not in defined:
            raise IRError(f"output {port.name!r} carries {port.value!r}, which nothing defines", tensor=port.value)
    if len({p.name for p in graph.outputs}) != len(graph.outputs):
        raise IRError("two outputs have the same name")
    extra = set(graph.types) - set(defined)
    if extra:
        raise IRError(f"values {sorted(extra)[:4]} are typed but never defined")
