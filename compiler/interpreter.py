"""The oracle: runs any graph with numpy, whatever pass it comes from (storage order does not matter here)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import ABSENT, Graph, Node

Array = np.ndarray[Any, Any]


def interpret(
    graph: Graph, feeds: Mapping[str, Array], *, watch: Callable[[Node, tuple[Array, ...]], None] | None = None
) -> dict[str, Array]:
    """Run `graph` on `feeds` (input name -> row-major array of exactly the input's dtype and shape).

    Returns public output name -> array. `watch` is called with each node and its results. Values are dropped after their last
    reader, so memory is bounded by liveness, not by the graph.
    """
    values: dict[str, Array] = {}
    for name in graph.inputs:
        t = graph.types[name]
        if name not in feeds:
            raise UsageError(f"input {name!r} is missing: the graph needs {list(graph.inputs)}", tensor=name)
        array = np.asarray(feeds[name])
        if tuple(array.shape) != t.shape or array.dtype != t.dtype.numpy:
            raise UsageError(f"input {name!r} is {array.dtype}{list(array.shape)}, expected {t}", tensor=name)
        values[name] = array
    values.update(graph.constants)
    remaining = {v: len(users) for v, users in graph.users.items()}
    kept = graph.output_values
    for node in graph.nodes:
        results = node.op.evaluate([values[v] if v != ABSENT else None for v in node.inputs])
        for v, result in zip(node.outputs, results, strict=True):
            values[v] = result
        if watch is not None:
            watch(node, results)
        for v in dict.fromkeys(node.inputs):
            if v != ABSENT:
                remaining[v] -= 1
                if remaining[v] == 0 and v not in kept:
                    del values[v]
    return {p.name: values[p.value] for p in graph.outputs}
