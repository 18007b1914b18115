"""What a model's metadata says of its weights' zeros, checked against the weights.

`sparsec prune` records the pattern of every pruned weight as JSON in the model's metadata_props, by the name that the weights
have in the graph as imported, or that a Transpose gives them which one import folds and another does not. Other names are passed
over: other tools rename, and what is lost is recognised again. A pattern whose tiles have an order names it by its digest; the
order is in another entry (`orders.py`), and without that the pattern is recognised again, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.orders import ORDER_KEY, Orders, orders_text
from sparsec.compiler.sparsity import NM, NMG, Block, HiNM, Sparsity
from sparsec.compiler.sparsity.base import Array
from sparsec.compiler.sparsity.text import parse_sparsity
from sparsec.compiler.sparsity.weights import layer_weights

METADATA_KEY = "sparsec.sparsity"
_PADDED, _LEAST = 64, 1 << 24  # times the weights, and elements, up to which a claimed pattern may pad
_REMEDY = "prune the model again, or remove that metadata"


def claims_metadata(patterns: Mapping[str, Sparsity]) -> dict[str, str]:
    """The metadata that records patterns of weights by name: values by key, empty ones for what there is nothing to say of."""
    names = {name: str(p).removeprefix("~") for name, p in patterns.items()}
    orders = [p.order for p in patterns.values() if isinstance(p, HiNM) and p.order is not None]
    return {METADATA_KEY: json.dumps(names) if names else "", ORDER_KEY: orders_text(orders)}


def read_claims(metadata: Mapping[str, str]) -> dict[str, Sparsity]:
    """What a model's metadata says, by the names of weights; ModelError where it cannot be read."""
    if METADATA_KEY not in metadata:
        return {}
    orders = Orders(metadata.get(ORDER_KEY, ""))
    found: dict[str, Sparsity] = {}
    try:
        for name, spec in json.loads(metadata[METADATA_KEY]).items():
            with suppress(LookupError):  # its order is lost
                found[name] = parse_sparsity(f"~{spec}", orders.get)
    except (ValueError, AttributeError, RecursionError) as exc:
        raise ModelError(f"the model's metadata {METADATA_KEY!r} cannot be read ({str(exc)[:120]}): {_REMEDY}") from None
    return found


def with_claims(graph: Graph, claims: Mapping[str, Sparsity], *, doubted: bool = False) -> Graph:
    """The graph with the recorded patterns in its weights' types.

    ModelError where the weights do not have the pattern; `doubted` leaves such claims out instead.
    """
    types = dict(graph.types)
    for layer in layer_weights(graph) if claims else ():
        name = next((v for v in (layer.value, *(n.inputs[1] for n in layer.nodes)) if v in claims), None)
        if name is None or layer.reason:
            continue
        pattern, w = claims[name], layer.view.filters(graph.constants[layer.value])
        why = _violation(pattern, w)
        if not why:
            types[layer.value] = replace(types[layer.value], sparsity=pattern.of(w))
        elif not doubted:
            node = layer.nodes[0].name
            raise ModelError(
                f"node {node!r}: the model's metadata says that weights {name!r} are {pattern.spec}, but {why}: {_REMEDY}",
                node=node,
                tensor=name,
            )
    return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, types, graph.constants) if claims else graph


def _violation(pattern: Sparsity, w: Array) -> str:
    if why := _too_large(pattern, w):
        return why
    count = int(np.count_nonzero(w))
    if (why := pattern.violation(w)) or pattern.nnz is None or count <= pattern.nnz:
        return why
    return f"{count:,} of them are not zero, not {pattern.nnz:,}"


def _too_large(pattern: Sparsity, w: Array) -> str:
    """Why the pattern is not looked for: padding weights to its tiles would take memory out of all proportion; "" mostly."""
    oc, taps, channels = w.shape
    match pattern:
        case NM():
            rows, columns = pattern.rows, pattern.m_group
        case HiNM():
            rows, columns = pattern.v, pattern.m_group
        case Block():
            rows, columns = pattern.br, pattern.columns_together
        case NMG():
            rows, columns, taps, channels = pattern.m_group, pattern.chunk, 1, taps * channels
        case _:
            return ""
    padded = -(-oc // rows) * rows * taps * (-(-channels // columns) * columns)
    if padded <= max(_PADDED * w.size, _LEAST):
        return ""
    return f"its tiles of {rows:,} x {columns:,} would pad {w.size:,} weights to {padded:,}"
