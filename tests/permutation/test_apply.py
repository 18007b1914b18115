"""Orders put into constants: the outputs stay what they were, and a wrong coupling is found."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.graph import Graph
from sparsec.passes.permutation.apply import check_permuted, permuted, random_orders
from sparsec.passes.permutation.coupling import couple
from tests.passes.helpers import random_array
from tests.passes.networks import networks as any_networks
from tests.permutation.networks import networks


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v: random_array(graph.types[v], rng) for v in graph.inputs}


@settings(max_examples=150, deadline=None)
@given(networks(), st.integers(0, 99))
def test_random_orders_preserve_the_outputs(graph: Graph, seed: int) -> None:
    coupling = couple(graph)
    orders = random_orders(coupling, np.random.default_rng(seed))
    check_permuted(graph, permuted(graph, coupling, orders), feeds_of(graph), tolerance=1e-9)


@settings(max_examples=150, deadline=None)
@given(any_networks(), st.integers(0, 99))
def test_random_orders_preserve_the_outputs_of_any_network(graph: Graph, seed: int) -> None:
    coupling = couple(graph)
    orders = random_orders(coupling, np.random.default_rng(seed))
    check_permuted(graph, permuted(graph, coupling, orders), feeds_of(graph), tolerance=1e-9)
