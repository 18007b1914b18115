"""What a weight's square is worth before channels are put into an order: the inputs that it meets, and who reads its output."""

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
from sparsec.passes.pruning.calibrated.sensitivity import Sensitivity
from sparsec.passes.pruning.calibrated.sites import Site, SiteFinder

Array = np.ndarray[Any, Any]
_ROWS = 20_000  # output positions looked at: mean squares need few


def weight_energy(
    graph: Graph, proto: onnx.ModelProto, samples: Samples, layers: Sequence[LayerWeights], seed: int = 0
) -> dict[str, Array]:
    """[OC, taps, IC] by the names of layers' weights: the mean square of what each weight multiplies, times the square of its
    output's scale and how much the layers behind it depend on that output (see `sensitivity`).

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
    sensitivity = Sensitivity(proto)
    found_energy = {}
    for name, total in sums.items():
        oc, taps, channels = shapes[name]
        outputs = np.square(sites[name].scale) * sensitivity.of(sites[name].end, oc)
        inputs = np.repeat(total / max(counts[name], 1), oc // len(total), axis=0)
        found_energy[name] = (inputs * outputs[:, None]).reshape(oc, taps, channels).astype(np.float32)
    return found_energy
