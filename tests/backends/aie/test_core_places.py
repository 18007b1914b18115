"""Where things are in a core: within its memory, apart, and in banks of their own where there is room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.core_places import in_core
from sparsec.backends.aie.lower.layer import conv_layer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.tiling import SUM_BYTES, Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.compiler.errors import FitError

NPU = machine_named("aie2:npu1")
BANK = NPU.core.data_bytes // NPU.core.data_banks


def _spans(t: Tiling) -> dict[str, tuple[int, int]]:
    """First byte and end of what is in a core; what the first stores of a chunk write before results and sums is of these."""
    core, demand = in_core(NPU, t), t.core_demand
    spans = {
        f"data {i}": (core.data + i * core.data_step, core.data + i * core.data_step + t.unit_bytes) for i in range(t.buffers)
    }
    residual = core.residual - t.residual_lead  # words of other parts of it land in front of the first
    spans["residual"] = (residual, residual + demand["residual"])
    spans["weights"] = (core.weights, core.weights + demand["weights"])
    spans["results"] = (core.results - t.result_quad, core.results - t.result_quad + demand["results"])
    spans["parameters"] = (core.parameters, core.parameters + demand["parameters"])
    for i, at in enumerate(core.partial if t.half_sums else ()):
        spans[f"sums {i}"] = (at - SUM_BYTES // 2, at - SUM_BYTES // 2 + t.half_sums)
    return {name: span for name, span in spans.items() if span[1] > span[0]}


@settings(max_examples=15, deadline=None)
@given(
    channels=st.tuples(st.sampled_from([16, 32, 64, 256]), st.sampled_from([16, 64, 256])),
    size=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    kernel=st.sampled_from([1, 3]),
    residual=st.booleans(),
    part=st.integers(0, 19),
)
@example(channels=(256, 16), size=(4, 17), kernel=3, residual=True, part=0)
def test_nothing_overlaps(channels: tuple[int, int], size: tuple[int, int], kernel: int, residual: bool, part: int) -> None:
    rng = np.random.default_rng(1)
    graph = conv_graph(rng, channels, size, (kernel,) * 2, pads=(kernel // 2,) * 4, residual=residual, density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    for t in list(candidates(NPU, layer, modes(NPU.grid), *graph.types[layer.y].shape[2:]))[part::20]:
        try:
            spans = sorted(_spans(t).values())
        except FitError:
            continue
        assert all(end <= first for (_, end), (first, _) in pairwise(spans))
        assert spans[-1][1] <= NPU.core.data_bytes


@pytest.mark.parametrize(("channels", "kernel", "residual"), [((64, 64), 3, False), ((64, 256), 1, False), ((64, 256), 1, True)])
def test_what_is_loaded_and_what_comes_meanwhile_share_no_bank(channels: tuple[int, int], kernel: int, residual: bool) -> None:
    """Of layers that leave room: both buffers of data, the residual, weights that stay (half of a ring may share one), and
    results."""
    rng, pads = np.random.default_rng(2), (kernel // 2,) * 4
    graph = conv_graph(rng, channels, (56, 56), (kernel,) * 2, pads=pads, residual=residual, density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    ways = [t for t in candidates(NPU, layer, modes(NPU.grid), 56, 56) if t.buffers == 2 and t.kept]
    roomy = [t for t in ways if sum(t.core_demand.values()) + (4 + residual) * BANK <= NPU.core.data_bytes]
    assert roomy
    for t in roomy[::10]:
        spans = _spans(t)
        names = ["data 0", "data 1", "weights", "results", *(["residual"] if residual else [])]
        banks = [set(range(spans[n][0] // BANK, (spans[n][1] - 1) // BANK + 1)) for n in names]
        assert len(set().union(*banks)) == sum(map(len, banks))
