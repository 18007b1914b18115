"""How large the inputs are that a layer's weights meet: what weighs weights before their channels are put into an order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity.weights import LayerWeights, filter_shape
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.moments import RowSampler, input_rows, output_positions
from sparsec.passes.pruning.calibrated.run import Probe
from sparsec.passes.pruning.calibrated.sites import Site, SiteFinder

Array = np.ndarray[Any, Any]
_ROWS = 20_000  # output positions looked at: mean squares need few


def input_energy(
    graph: Graph, proto: onnx.ModelProto, samples: Samples, layers: Sequence[LayerWeights], seed: int = 0
) -> dict[str, Array]:
    """Mean squares [groups, taps * channels] of what layers read, by the names of their weights.

    Layers whose inputs cannot be looked at (in subgraphs and functions) are left out.
    """
    finder, sites = SiteFinder(proto), dict[str, Site]()
    shapes = {layer.value: filter_shape(layer.view, graph.constants[layer.value].shape) for layer in layers}
    for layer in layers:
        found = finder.sites(layer, shapes[layer.value][0])
        if not isinstance(found, str):
            sites[layer.value] = found[0]
    sums: dict[str, Array] = {}
    counts: dict[str, int] = dict.fromkeys(sites, 0)
    sampler = RowSampler(_ROWS, len(samples), seed)
    values = list(dict.fromkeys(v for site in sites.values() for v in (site.source, site.result)))
    for batch, arrays in enumerate(Probe(proto).batches(samples, values)):
        at = dict(zip(values, arrays, strict=True))
        for name, site in sites.items():
            result = at[site.result]
            rows = sampler.rows(batch, output_positions(site.node, result.shape))
            seen = input_rows(site.node, at[site.source], graph.constants[name].shape[2:], result.shape[2:], rows)
            sums[name] = sums.get(name, 0.0) + np.square(seen, dtype=np.float64).sum(axis=0)
            counts[name] += len(seen)
    return {name: total / max(counts[name], 1) for name, total in sums.items()}
