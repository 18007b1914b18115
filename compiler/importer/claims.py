"""What a model's metadata says of its weights' zeros, checked against the weights.

`sparsec prune` records the pattern of every pruned weight as JSON in the model's metadata_props, by the name that the weights
have in the graph as imported, or that a Transpose gives them which one import folds and another does not. Other names are passed
over: other tools rename, and what is lost is recognised again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity import Sparsity
from sparsec.compiler.sparsity.base import Array
from sparsec.compiler.sparsity.text import parse_sparsity
from sparsec.compiler.sparsity.weights import layer_weights

METADATA_KEY = "sparsec.sparsity"
_REMEDY = "prune the model again, or remove that metadata"


def claims_text(patterns: Mapping[str, Sparsity]) -> str:
    """The metadata's value for weights by name."""
    return json.dumps({name: str(p).removeprefix("~") for name, p in patterns.items()})


def read_claims(metadata: Mapping[str, str]) -> dict[str, Sparsity]:
    """What a model's metadata says, by the names of weights; ModelError where it cannot be read."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        data = json.loads(metadata[METADATA_KEY])
        return {str(name): parse_sparsity(f"~{spec}") for name, spec in data.items()}
    except (ValueError, AttributeError, RecursionError) as exc:
        raise ModelError(f"the model's metadata {METADATA_KEY!r} cannot be read ({str(exc)[:120]}): {_REMEDY}") from None


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
    count = int(np.count_nonzero(w))
    if (why := pattern.violation(w)) or pattern.nnz is None or count <= pattern.nnz:
        return why
    return f"{count:,} of them are not zero, not {pattern.nnz:,}"
