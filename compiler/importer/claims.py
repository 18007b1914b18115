"""What a model's metadata says of its weights' zeros, checked against the weights.

`sparsec prune` records the pattern of every pruned weight as JSON in the model's metadata_props, by the name that the weights
have in the graph as imported. Names that are not (or no longer) those of a layer's weights are passed over: other tools rename,
and what is lost is recognised again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity import Sparsity
from sparsec.compiler.sparsity.text import parse_sparsity
from sparsec.compiler.sparsity.weights import layer_weights

METADATA_KEY = "sparsec.sparsity"
_REMEDY = "prune the model again, or remove that metadata"


def claims_text(patterns: Mapping[str, Sparsity]) -> str:
    """The metadata's value for weights by name."""
    return json.dumps({name: str(p).removeprefix("~") for name, p in patterns.items()})


def parse_claims(text: str) -> dict[str, Sparsity]:
    """The inverse of `claims_text`; ModelError when it is something else."""
    try:
        data = json.loads(text)
        return {str(name): parse_sparsity(f"~{spec}") for name, spec in data.items()}
    except (ValueError, AttributeError, RecursionError) as exc:
        raise ModelError(f"the model's metadata {METADATA_KEY!r} cannot be read ({str(exc)[:120]}): {_REMEDY}") from None


def with_claims(graph: Graph, metadata: Mapping[str, str]) -> Graph:
    """The graph with the recorded patterns in its weights' types. ModelError where the weights do not have the pattern."""
    claims = parse_claims(metadata[METADATA_KEY]) if METADATA_KEY in metadata else {}
    types = dict(graph.types)
    for layer in layer_weights(graph) if claims else ():
        pattern = claims.get(layer.value)
        if pattern is None or layer.reason:
            continue
        node, w = layer.nodes[0], layer.view.filters(graph.constants[layer.value])
        count = int(np.count_nonzero(w))
        why = pattern.violation(w)
        if not why and pattern.nnz is not None and count > pattern.nnz:
            why = f"{count:,} of them are not zero, not {pattern.nnz:,}"
        if why:
            raise ModelError(
                f"node {node.name!r}: the model's metadata says that weights {layer.value!r} are {pattern.spec}, "
                f"but {why}: {_REMEDY}",
                node=node.name,
                tensor=layer.value,
            )
        types[layer.value] = replace(types[layer.value], sparsity=pattern.of(w))
    return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, types, graph.constants) if claims else graph
