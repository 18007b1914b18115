"""Layers of a graph, the paper's charges (against instructions that its authors logged), and our estimate's bounds."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from benchmarks.aie_paper import PUBLISHED
from sparsec.backends.aie.estimate.network import INPUT, Layer, layers_of
from sparsec.backends.aie.estimate.paper import LayerTime, paper_layers, paper_ms
from sparsec.backends.aie.estimate.physical import physical_layers, physical_ms
from sparsec.backends.aie.estimate.tiles import ACTIVATIONS, WEIGHTS, conv_tile, eights, weight_bytes, weight_tile
from sparsec.backends.aie.machine import Machine, machine_named, machines
from sparsec.compiler.errors import LimitError, UsageError
from sparsec.compiler.importer.api import import_model

_K, _KERNEL = st.integers(2, 8), st.sampled_from([1, 3, 5])
_NAMES = {"resnet50": "resnet50", "inceptionv3": "inception_v3", "vgg16_nofc": "vgg16"}


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[Layer, ...]]:
    return {name: layers_of(import_model(models.build(model, seed=0))) for name, model in _NAMES.items()}


def conv(cin: int, cout: int, size: int, kernel: int = 1, stride: int = 1, name: str = "c", source: str = "x") -> Layer:
    out = (size - 1) // stride + 1
    pad = (kernel - 1) // 2
    shape = ((cin, size, size), (cout, out, out))
    return Layer(name, "conv", (source,), *shape, (kernel, kernel), (stride, stride), (pad,) * 4)


def test_layers_of_the_published_networks(networks: dict[str, tuple[Layer, ...]]) -> None:
    kinds = {name: [layer.kind for layer in layers] for name, layers in networks.items()}
    assert {name: (k.count("conv"), k.count("add"), k.count("concat")) for name, k in kinds.items()} == {
        "resnet50": (53, 16, 0),
        "inceptionv3": (94, 0, 15),
        "vgg16_nofc": (13, 0, 0),
    }
    assert sum(layer.macs for layer in networks["resnet50"]) == 4_087_136_256  # torchvision's 4.09 G without the classifier
    assert networks["resnet50"][-1].kind == networks["inceptionv3"][-1].kind == "global"
    shortcut, first = networks["resnet50"][2:4]
    assert (shortcut.result[0], first.result[0]) == (256, 64), "of an addition, the shorter branch comes first"
    for layers in networks.values():
        seen = {INPUT}
        for layer in layers:
            assert set(layer.inputs) <= seen
            seen.add(layer.name)


@pytest.mark.parametrize(("k", "model"), PUBLISHED)
def test_published_totals(k: int, model: str, networks: dict[str, tuple[Layer, ...]]) -> None:
    for published, density in zip(PUBLISHED[k, model], (1.0, 0.5), strict=True):
        assert paper_ms(networks[model], k, density) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize("k", [3, 5, 6, 7])
def test_sizes_without_published_totals(k: int, networks: dict[str, tuple[Layer, ...]]) -> None:
    for layers in networks.values():
        dense, sparse = paper_ms(layers, k, 1.0), paper_ms(layers, k, 0.5)
        assert 1.2 < dense / sparse < 2
        assert paper_ms(layers, k, 0.5) > paper_ms(layers, k, 0.25)


def _find(times: tuple[LayerTime, ...], cin: int, cout: int, size: int, kernel: int, nth: int = 0) -> LayerTime:
    shape = ((cin, size, size), (kernel, kernel))
    return [t for t in times if (t.layer.source, t.layer.kernel) == shape and t.layer.result[0] == cout][nth]


def test_logged_instructions_of_resnet50(networks: dict[str, tuple[Layer, ...]]) -> None:
    """Durations in microseconds from the authors' log of ResNet-50 on 4x4 (arXiv 2407.09453)."""
    times = paper_layers(networks["resnet50"], 4)
    stem = times[0]
    assert (stem.load, stem.load_weights, stem.write) == pytest.approx((23.3650, 1.5348, 46.7300), abs=1e-3)
    assert [(s.iterations, s.padded) for s in stem.segments] == [(1, True), (54, False), (1, True)]
    assert stem.segments[1].compute == pytest.approx(363.2040, abs=1e-3)
    head = _find(times, 64, 64, 56, 3).segments[0]
    logged = (1.9073, 2.2128, 18.4320, 1.4305)
    assert (head.load, head.weights, head.compute, head.write) == pytest.approx(logged, abs=1e-3)
    assert sum(t.time for t in times[:7]) == pytest.approx(971.334, abs=0.05)  # the first addition's end


def test_the_input_tile_is_charged_in_place_of_output_channels(networks: dict[str, tuple[Layer, ...]]) -> None:
    """layer2.1.conv1 is logged with 200.70 us of computing on 4x4; its products take 12.54 us."""
    t = _find(paper_layers(networks["resnet50"], 4), 512, 128, 28, 1)
    assert sum(s.compute for s in t.segments) == pytest.approx(200.704)
    assert t.layer.macs / (16 * 256) / 1e3 == pytest.approx(12.544)


def test_filters_that_exceed_a_memory_tile_come_in_parts(networks: dict[str, tuple[Layer, ...]]) -> None:
    parts = {}
    for k in (2, 4, 8):
        times = paper_layers(networks["vgg16_nofc"], k)
        parts[k] = [_find(times, 512, 512, size, 3).placement.weight_parts for size in (28, 14)]
    assert parts == {2: [16, 4], 4: [2, 2], 8: [1, 1]}


def test_uneven_output_channels_are_cut_along_input_channels() -> None:
    """160 channels on 8 rows are 24 for six rows and 16 for the seventh: logged as 24 x 80 filters of 1 x 7, not as 8 x 160."""
    layer = Layer("c", "conv", ("x",), (160, 17, 17), (160, 17, 17), (1, 7), (1, 1), (0, 3, 0, 3))
    tile = weight_tile(layer, 8, 1.0)
    assert (tile.couts, tile.cins, tile.bytes + 192, tile.even) == (24, 80, 13792, False)
    even = weight_tile(Layer("c", "conv", ("x",), (160, 17, 17), (192, 17, 17), (1, 7)), 8, 1.0)
    assert (even.couts, even.cins, even.even) == (8, 160, True)


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(8, 112),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.integers(2, 8),
)
def test_tiles_fit_their_buffers(cin: int, cout: int, size: int, kernel: int, stride: int, k: int) -> None:
    layer = conv(8 * cin, 8 * cout, size, kernel, stride)
    tile = conv_tile(layer, k)
    assert layer.source[0] % tile.channels_in == layer.result[0] % tile.channels_out == 0
    assert tile.rows_out * eights(tile.width_out) * tile.channels_out <= ACTIVATIONS
    # with a stride, the rows that only the kernel's overhang needs are not counted
    counted = tile.rows_in if stride == 1 else (tile.rows_out - 1) * stride + 1
    assert counted * eights(tile.width_in) * tile.channels_in <= ACTIVATIONS
    for density in (1.0, 0.5):
        try:
            weights = weight_tile(layer, k, density)
        except LimitError as exc:
            share = eights(-(-layer.result[0] // k))
            assert layer.result[0] % share and f"{share} output by 8 input channels" in str(exc)
            continue
        assert weight_bytes(weights.couts, weights.cins, kernel * kernel, density) <= WEIGHTS
        assert weights.share_couts * k >= layer.result[0]
        assert weights.share_couts % weights.couts == eights(layer.source[0]) % weights.cins == 0


@given(st.integers(1, 32), st.integers(1, 32), st.integers(8, 56), st.sampled_from([1, 3]), st.integers(2, 8))
def test_every_row_is_charged_once(cin: int, cout: int, size: int, kernel: int, k: int) -> None:
    layer = conv(8 * cin, 8 * cout, size, kernel, source=INPUT)
    (time,) = paper_layers((layer,), k)
    rows = conv_tile(layer, k).rows_out
    own = size // time.placement.row_parts
    iterations = sum(s.iterations for s in time.segments)
    assert iterations == time.placement.row_parts * time.placement.weight_parts * -(-own // rows)
    assert time.placement.write_bytes >= prod(layer.result) // k


def test_grouped_convolutions_are_refused_by_name() -> None:
    layer = Layer("dw", "conv", (INPUT,), (32, 8, 8), (32, 8, 8), (3, 3), groups=32)
    with pytest.raises(UsageError, match="dw has 32 groups: the paper's estimator knows none, use --estimator physical"):
        paper_layers((layer,), 2)
    assert physical_ms((layer,), machine_named("aie2:2x2")) > 0


def test_what_does_not_fit_says_demand_bound_and_remedy() -> None:
    with pytest.raises(
        LimitError, match=r"wide does not fit: 1536 columns of 8 output channels take 12288 bytes .* 8192 .* more columns"
    ):
        paper_layers((Layer("wide", "conv", (INPUT,), (8, 8, 3072), (8, 8, 3072)),), 2)
    with pytest.raises(LimitError, match=r"big does not fit: .* take \d+ bytes of a core's 16384-byte weight buffer: use"):
        paper_layers((conv(8, 8, 32, 17, name="big", source=INPUT),), 2)
    with pytest.raises(
        LimitError, match=r"big does not fit: one 8x8 block of its 961 taps takes 61504 bytes of the 32768 .* use a"
    ):
        physical_layers((conv(8, 8, 32, 31, name="big"),), machine_named("aie2:2x2"))


@pytest.mark.parametrize("machine", machines(), ids=lambda m: m.name)
def test_no_layer_beats_the_roofline(machine: Machine, networks: dict[str, tuple[Layer, ...]]) -> None:
    for layers in networks.values():
        totals = []
        for density in (1.0, 0.5, 0.25):
            times = physical_layers(layers, machine, density)
            assert all(t.cycles >= t.roofline >= t.layer.macs * density // machine.macs_per_cycle for t in times[1:])
            totals.append(sum(t.cycles for t in times))
        assert totals == sorted(totals, reverse=True)


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.sampled_from(machines()),
    st.floats(0.1, 1),
)
def test_physical_estimate_bounds(cin: int, cout: int, size: int, kernel: int, machine: Machine, density: float) -> None:
    layer = conv(cin, cout, size, kernel)
    (dense,) = physical_layers((layer,), machine)
    (sparse,) = physical_layers((layer,), machine, density)
    for t in (dense, sparse):
        assert t.cycles >= t.roofline
        assert t.positions * t.channels <= machine.cores
    if (sparse.positions, sparse.channels) == (dense.positions, dense.channels):
        assert sparse.compute <= dense.compute
    assert dense.roofline >= layer.macs // machine.macs_per_cycle


def test_large_products_come_near_the_peak() -> None:
    """1024^3 in int8 on npu1: 85 % of the peak is published for the real array (GAMA, arXiv 2504.09688)."""
    machine = machine_named("aie2:npu1")
    layer = Layer("gemm", "conv", ("x",), (1024, 32, 32), (1024, 32, 32))
    (time,) = physical_layers((layer,), machine)
    assert 0.8 <= layer.macs / machine.macs_per_cycle / time.cycles <= 1


def test_cells_that_no_log_confirms_say_demand_and_bound(networks: dict[str, tuple[Layer, ...]]) -> None:
    doubts = {k: [t.doubt for t in paper_layers(networks["vgg16_nofc"], k) if t.doubt] for k in (4, 6)}
    assert not doubts[4]
    assert doubts[6][0] == "/features/features.19/Conv has 418304 bytes of filters for 380928 left in a memory tile"
