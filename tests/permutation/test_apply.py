"""Orders put into constants: the outputs stay what they were, and a wrong coupling is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from sparsec.compiler.errors import InternalError, UsageError
from sparsec.compiler.feeds import random_feeds, table_rows
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.report import tensor_info
from sparsec.passes.permutation.apply import check_coupling, permuted, random_orders, with_constants
from sparsec.passes.permutation.coupling import Coupling, couple
from sparsec.passes.permutation.coupling_model import couple_model
from sparsec.passes.pruning.model import editor_of
from tests.passes.helpers import random_array
from tests.passes.networks import networks as any_networks
from tests.permutation.networks import PRELU, Network, networks
from tests.reference import run_ort


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v: random_array(graph.types[v], rng) for v in graph.inputs}


@settings(max_examples=100, deadline=None)
@given(networks(), st.integers(0, 99))
def test_random_orders_preserve_the_outputs(graph: Graph, seed: int) -> None:
    check_coupling(graph, couple(graph), feeds_of(graph), seed=seed, tolerance=1e-9)


@settings(max_examples=100, deadline=None)
@given(any_networks(), st.integers(0, 99))
def test_random_orders_preserve_the_outputs_of_any_network(graph: Graph, seed: int) -> None:
    check_coupling(graph, couple(graph), feeds_of(graph), seed=seed, tolerance=1e-9)


def _everything() -> Graph:
    b = Network((1, 3, 4, 4))
    v = b.biased(b.conv("x", 8))
    v = b.map("add(a0,a1)", v, b.map(PRELU, b.conv(v, 8, groups=2), b.weights(8, 1, 1)))
    return b.finish(b.attention(b.tokens(v), 2, 4))


def _matters(graph: Graph, value: str, feeds: dict[str, np.ndarray]) -> bool:
    """Whether the outputs depend on a constant: those of softmax do not on the bias of keys."""
    other = with_constants(graph, {value: graph.constants[value][::-1].copy()})
    return not np.allclose(interpret(graph, feeds)["y"], interpret(other, feeds)["y"], atol=1e-5)


def _wrong(coupling: Coupling, number: int, slot: int, kind: str) -> Coupling:
    found = coupling.free[number]
    slots = list(found.slots)
    if kind == "missing":
        del slots[slot]
    else:
        index = slots[slot].index.copy()
        index[0, [0, 1]] = index[0, [1, 0]]
        slots[slot] = replace(slots[slot], index=index)
    changed = replace(found, slots=tuple(slots))
    return Coupling(tuple(changed if c is found else c for c in coupling.classes))


@pytest.mark.parametrize("kind", ["missing", "swapped"])
def test_every_wrong_slot_is_found_and_its_class_named(kind: str) -> None:
    graph = _everything()
    coupling, feeds = couple(graph), feeds_of(graph)
    tried = 0
    for number, found in enumerate(coupling.free):
        for slot in range(len(found.slots)) if found.extent > 2 else ():  # swapping both of two items commutes with any order
            if not _matters(graph, found.slots[slot].value, feeds):
                continue
            with pytest.raises(InternalError, match="coupled wrongly") as caught:
                check_coupling(graph, _wrong(coupling, number, slot, kind), feeds, seed=3)
            assert caught.value.node == found.name
            tried += 1
    assert tried >= 15


def test_an_order_gathers_producers_and_consumers() -> None:
    b = Network((1, 3, 3, 2))
    graph = b.finish(b.norm(b.conv("x", 4)))
    coupling = couple(graph)
    (found,) = coupling.free
    order = np.array([2, 0, 3, 1])
    new = permuted(graph, coupling, {found.name: order})
    assert len(new) == 6  # filters, four of the normalisation, and the classifier's
    for value, array in new.items():
        old = graph.constants[value]
        if old.shape == (5, 24):  # a channel owns the columns of its 3 x 2 positions
            np.testing.assert_array_equal(array, old.reshape(5, 4, 6)[:, order].reshape(5, 24))
        else:
            np.testing.assert_array_equal(array, old[order])


def test_channels_of_each_head_have_an_order_and_heads_move_as_wholes() -> None:
    b = Network((1, 3, 2, 2))
    graph = b.finish(b.attention(b.tokens(b.conv("x", 6)), 2, 3))
    coupling = couple(graph)
    by_name = {c.name: c for c in coupling.classes}
    inner = next(c for c in coupling.free if c.outer == 2)
    heads = by_name[inner.name.replace("[inner]", "[outer]")]
    orders = {inner.name: np.array([[1, 2, 0], [0, 2, 1]]), heads.name: np.array([1, 0])}
    new = permuted(graph, coupling, orders)
    value = next(p.layer.value for p in inner.places if p.role == "outputs")
    np.testing.assert_array_equal(new[value], graph.constants[value][:, [3, 5, 4, 1, 2, 0]])


def test_no_order_changes_nothing() -> None:
    graph = _everything()
    coupling = couple(graph)
    assert permuted(graph, coupling, {}) == {}
    assert permuted(graph, coupling, {c.name: c.identity for c in coupling.classes}) == {}


def test_orders_that_are_none_are_refused() -> None:
    graph = _everything()
    coupling = couple(graph)
    flat = next(c for c in coupling.free if c.outer == 1)
    with pytest.raises(UsageError, match="no class of channels is called 'that'"):
        permuted(graph, coupling, {"that": np.arange(3)})
    with pytest.raises(UsageError, match=r"an array \[2\] with each of 0 to 1 once a row"):
        permuted(graph, coupling, {flat.name: np.zeros(2, int)})
    with pytest.raises(UsageError, match="once a row"):
        permuted(graph, coupling, {flat.name: np.arange(3)})
    fixed = next(c for c in coupling.classes if c.fixed)
    with pytest.raises(UsageError, match="cannot be permuted: graph input 'x' has it"):
        permuted(graph, coupling, {fixed.name: np.arange(fixed.extent)[::-1]})


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer", "squeezenet"])
def test_a_permuted_model_is_the_same_to_onnxruntime(name: str) -> None:
    model = models.build(name)
    graph, editor = import_model(model, as_stored=True), editor_of(model)
    coupling = couple_model(graph, editor)
    assert len(coupling.free) == len(couple(import_model(model)).free) >= 3
    new = permuted(graph, coupling, random_orders(coupling, np.random.default_rng(0)))
    assert len(new) > len(coupling.free)
    for value, array in new.items():
        editor.replace(value, array)
    feeds = random_feeds([tensor_info(v, graph.types[v]) for v in graph.inputs], 0, table_rows(model))
    assert [n.SerializeToString() for n in editor.proto.graph.node] == [n.SerializeToString() for n in model.graph.node]
    expected, found = run_ort(model, feeds), run_ort(editor.proto, feeds)
    for output, array in expected.items():
        np.testing.assert_allclose(found[output], array, rtol=0, atol=1e-5 * np.abs(array).max())
