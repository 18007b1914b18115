"""Print a graph as text that is stable, readable and parses back to an equal graph (grammar in `parser`)."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, Field, fields
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import InternalError
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import Blocked, RowMajor
from sparsec.compiler.ops.base import Op
from sparsec.compiler.scalar import Program
from sparsec.compiler.sparsity import HiNM
from sparsec.compiler.text.store import ConstantStore, content_hash

Array = np.ndarray[Any, Any]
INLINE_ELEMENTS = 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9./][A-Za-z0-9_./'-]*|_[A-Za-z0-9_./'-]+")


def print_graph(graph: Graph, store: ConstantStore | None = None) -> str:
    """The text of a graph.

    Constants of more than 16 elements, and orders of tiles, are named by hash; `store`, when given, keeps their data.
    """
    if store is not None:
        for t in graph.types.values():
            if isinstance(t.sparsity, HiNM) and t.sparsity.order is not None:
                store.put(t.sparsity.order.flat)
    lines = [f"graph {quoted(graph.name)} {{"]
    lines += [f"  input {value_name(v)}: {graph.types[v]}" for v in graph.inputs]
    lines += [f"  const {value_name(v)}: {graph.types[v]} = {_constant(array, store)}" for v, array in graph.constants.items()]
    lines += [f"  {print_node(node, graph)}" for node in graph.nodes]
    lines += [f"  output {quoted(p.name)} = {value_name(p.value)}" for p in graph.outputs]
    return "\n".join([*lines, "}", ""])


def print_node(node: Node, graph: Graph) -> str:
    """One node as a line. The node's name is left out when it is its first output's, the origin when it is the name."""
    outputs = ", ".join(value_name(v) for v in node.outputs)
    inputs = ", ".join("_" if v == ABSENT else value_name(v) for v in node.inputs)
    types = ", ".join(str(graph.types[v]) for v in node.outputs)
    name = "" if node.name == node.output else f" as {quoted(node.name)}"
    origin = "" if node.origin == (node.name,) else f" from {', '.join(map(quoted, node.origin)) or 'nothing'}"
    return f"{outputs} = {node.op.name}({inputs}){print_attributes(node.op)} -> {types}{name}{origin}"


def print_attributes(op: Op) -> str:
    """` {name=value, ...}` of the fields that differ from their defaults; empty when none does."""
    parts = [f"{name}={text}" for name, text in attribute_texts(op).items()]
    return f" {{{', '.join(parts)}}}" if parts else ""


def attribute_texts(op: Op) -> dict[str, str]:
    """Field name -> text, for the fields that differ from their defaults."""
    found: dict[str, str] = {}
    for f in fields(op):  # type: ignore[arg-type]
        text = attribute(getattr(op, f.name))
        if text != _default_text(f):
            found[f.name] = text
    return found


def _default_text(f: Field[Any]) -> str | None:
    if f.default is not MISSING:
        return attribute(f.default)
    return attribute(f.default_factory()) if f.default_factory is not MISSING else None


def attribute(value: object) -> str:
    """The text of one attribute value: programs in single quotes, strings in double quotes, the rest bare."""
    match value:
        case bool() | np.bool_():
            return "true" if value else "false"
        case int() | np.integer():
            return str(int(value))
        case float() | np.floating():
            return repr(float(value))
        case str():
            return quoted(value)
        case DType():
            return value.value
        case Program():
            return f"'{value}'"
        case RowMajor():
            return "@row"
        case Blocked():
            return str(value)
        case None:
            return "none"
        case tuple():
            return f"({', '.join(map(attribute, value))}{',' if len(value) == 1 else ''})"
        case _:
            raise InternalError(f"an attribute of type {type(value).__name__} has no text form")


def value_name(value: str) -> str:
    """A value's name after `%`, quoted unless it is plain."""
    return f"%{value}" if _PLAIN_NAME.fullmatch(value) else f"%{quoted(value)}"


def quoted(text: str) -> str:
    """A JSON string: printable ASCII on one line, whatever the text."""
    return json.dumps(text)


def _constant(array: Array, store: ConstantStore | None) -> str:
    if array.size <= INLINE_ELEMENTS:
        text = f"[{', '.join(_element(x) for x in array.reshape(-1))}]"
        if elements_from_text(text, DType.from_numpy(array.dtype)).tobytes() == array.tobytes():  # not so for odd NaN bits
            return text
    return f"sha256:{store.put(array) if store is not None else content_hash(array)}"


def _element(x: Any) -> str:
    if isinstance(x, np.bool_):
        return "true" if x else "false"
    if isinstance(x, np.integer):
        return str(int(x))
    short = str(x)
    exact = np.asarray(float(short), dtype=x.dtype) == x
    return short if exact and not short.isdigit() else repr(float(x))


def elements_from_text(text: str, dtype: DType) -> Array:
    """The flat array of an inline constant, `[1.5, inf, -0.0]`. ValueError when an element is not of the type."""
    parts = [p.strip() for p in text.strip()[1:-1].split(",")] if text.strip() != "[]" else []
    if dtype is DType.BOOL:
        if any(p not in ("true", "false") for p in parts):
            raise ValueError("booleans are written true and false")
        return np.array([p == "true" for p in parts], dtype=np.bool_)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            return np.array([float(p) for p in parts], dtype=np.float64).astype(dtype.numpy)
    return np.array([int(p) for p in parts], dtype=dtype.numpy)
