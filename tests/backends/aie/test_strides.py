"""Layers with a stride: what cores get of rows and columns, and values, with planes and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.geometry import Share, Window
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.compiler.graph import Graph
from tests.backends.aie.bfloat16_layers import convolution
from tests.backends.aie.networks import check_run, first_lowered

NPU = machine_named("aie2:npu1")


def _ways(graph: Graph, *, sparse: bool = False) -> list[Tiling]:
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    return list(candidates(NPU, layer, modes(NPU.grid), *graph.types[layer.y].shape[2:], sparse=sparse))


@pytest.mark.parametrize(
    ("window", "columns", "planes", "vectors"),
    [
        (Window((3, 3), 2), 7, 1, 15 * 5),  # 2 vectors a row, from 5 columns' begin each
        (Window((3, 3), 2), 14, 1, 15 * 9),
        (Window((3, 3), 2), 4, 1, 15 * 3),
        (Window((3, 3), 2), 28, 4, 4 * 8 * 8),  # planes of 8 rows, 7 vectors and one more each
        (Window((5, 5), 3), 7, 1, (3 * 6 + 5) * (3 + 5)),
        (Window((1, 3), 2), 7, 1, 7 * 5),  # rows between are not read
        (Window((3, 3), 1), 7, 1, 9 * 4),
    ],
)
def test_vectors_of_a_block(window: Window, columns: int, planes: int, vectors: int) -> None:
    """Of 7 rows of results: where 4 vectors are whole rows there are no planes, and nothing that the kernel does not read."""
    share = Share(window, 2, 7, columns)
    assert len(share.planes) == planes
    assert share.data_vectors == 2 * vectors


def test_planes_of_single_blocks_are_trimmed() -> None:
    """Kernels of 3 rows read a row more of even planes than of odd ones."""
    usual, trimmed = (Share(Window((3, 3), 2), 4, 2, 28, parts=4, trimmed=t) for t in (False, True))
    assert usual.data_vectors == 4 * 4 * 3 * 8
    assert trimmed.data_vectors == 4 * (2 * 3 + 2 * 2) * 8
    assert (usual.source_rows, trimmed.source_rows) == (6, 5)
    places = {trimmed.offset(b, i, j) for b in range(4) for i in range(3) for j in range(3)}
    assert len(places) == 36
    assert max(places) + 32 * (8 + 7) <= 32 * trimmed.data_vectors, "the last vector of the second row is there"


@settings(max_examples=12, deadline=None)
@given(
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([2, 3, 4, 5])),
    stride=st.sampled_from([2, 3]),
    channels=st.tuples(st.sampled_from([16, 32, 64, 128]), st.sampled_from([16, 64])),
    size=st.tuples(st.integers(8, 30), st.integers(5, 34)),
    trimmed=st.booleans(),
    number=st.integers(0, 999),
    seed=st.integers(0, 99),
)
def test_any_stride_is_exact(
    kernel: tuple[int, int],
    stride: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    trimmed: bool,
    number: int,
    seed: int,
) -> None:
    rng, (above, left) = np.random.default_rng(seed), (k // 2 for k in kernel)
    graph = conv_graph(rng, channels, size, kernel, stride=stride, pads=(above, left, above, left), density=0.6)
    found = [t for t in _ways(graph) if (t.trimmed if trimmed else t.share.strided)]
    assume(found)
    first = number % len(found)
    check_run(first_lowered(graph, [*found[first:], *found[:first]]), graph, rng)


@pytest.mark.parametrize("width", [7, 14, 28])
def test_strides_of_sparse_products(width: int) -> None:
    """Pairs of blocks lie one behind the other, so that their planes are not trimmed."""
    rng = np.random.default_rng(width)
    graph = conv_graph(rng, (64, 64), (9, 2 * width), (3, 3), stride=2, pads=(1, 1, 1, 1), density=0.6, of_four=2)
    found = _ways(graph, sparse=True)
    assert found
    assert not any(t.trimmed for t in found)
    assert all(t.share.strided == (width < 28) for t in found)
    check_run(first_lowered(graph, found), graph, rng)


@pytest.mark.parametrize("width", [7, 14, 28])
def test_strides_of_bfloat16(width: int) -> None:
    """Of whole numbers, equal: vectors of two loads, with planes and without."""
    rng = np.random.default_rng(width)
    graph = convolution(rng, (32, 32), (9, 2 * width), (3, 3), stride=2, pads=(1, 1, 1, 1))
    found = _ways(graph)
    assert all(t.share.strided == (width < 28) for t in found)
    check_run(first_lowered(graph, [t for t in found if t.trimmed] or found), graph, rng)
