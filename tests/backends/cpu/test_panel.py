"""Panel kernels against the interpreter's convolution: shapes with tails, strides, dilations, groups, epilogues, every ISA."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.cpu.isa import isa_named, isas
from sparsec.backends.cpu.kernel import struct_declaration, struct_initializer
from sparsec.backends.cpu.kernels import panel_pack
from sparsec.backends.cpu.kernels.blocked_epilogue import lanes_to_keep
from sparsec.backends.cpu.kernels.panel import PanelGeometry, PanelKernel, legal
from sparsec.backends.cpu.kernels.panel_plan import PanelProblem, Part, choose, split, tilings
from sparsec.backends.cpu.lower.panel_weights import run_length
from sparsec.backends.cpu.prelude import prelude
from sparsec.compiler.errors import LimitError
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from tests.backends.cpu.native import CFLAGS, SANITIZE, Call, run_calls, runnable_isas
from tests.backends.cpu.tensors import buffer, f32, fetch, planes, store

BIAS_RELU = (Program.parse("add(a0,a1);relu(t0)"), ("channel",))
RESIDUAL = (Program.parse("add(a0,a1);add(t0,a2);relu(t1)"), ("channel", "full"))
TWO_FULL = (Program.parse("mul(a0,a1);add(t0,a2)"), ("full", "full"))
SCALED_SIGMOID = (Program.parse("mul(a0,a2);add(t0,a1);sigmoid(t1)"), ("channel", "scalar"))
PLAIN = (Program(), ())


@dataclass(frozen=True)
class Layer:
    """A convolution; `planar`: its input is planar storage."""

    ic: int
    oc: int
    kernel: tuple[int, int]
    size: tuple[int, int]
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    batch: int = 1
    planar: bool = False
    epilogue: tuple[Program, tuple[str, ...]] = BIAS_RELU
    threads: int = 1
    seed: int = 0


def calls_of(layer: Layer, isa, tiling=None):
    """(kernels, call, expected output, type of the stored output) of one layer, planned by `choose` or cut by `tiling`."""
    rng, lanes = np.random.default_rng(layer.seed), isa.lanes
    pads = tuple(k // 2 * layer.dilation for k in layer.kernel)
    op = Conv((layer.stride,) * 2, (layer.dilation,) * 2, (*pads, *pads), layer.groups, layer.epilogue[0])
    x = rng.normal(size=(layer.batch, layer.ic, *layer.size)).astype(np.float32)
    w = rng.normal(size=(layer.oc, layer.ic // layer.groups, *layer.kernel)).astype(np.float32)
    out = op.infer([f32(x.shape), f32(w.shape), *(f32(()) for _ in layer.epilogue[1])])[0].shape
    shapes = {"channel": (layer.oc, 1, 1), "full": out, "scalar": ()}
    extras = [rng.normal(size=shapes[kind]).astype(np.float32) for kind in layer.epilogue[1]]
    (want,) = op.evaluate([x, w, *extras])

    block = 1 if layer.planar else lanes
    xt = f32(x.shape, Blocked(1, block, ((0, 0), (pads[0], pads[0]), (pads[1], pads[1]))))
    yt = f32(out, Blocked(1, lanes, ((0, 0), (1, 0), (0, 2))))
    *_, h, wd, _ = xt.layout.storage_shape(xt.shape)
    _, _, yh, yw, _ = yt.layout.storage_shape(yt.shape)
    # weights [OC, KH, KW, IC] and the runs
    weights = np.moveaxis(w, 1, -1)
    taps = panel_pack.tap_offsets(layer.kernel, (layer.dilation,) * 2, pads, (wd * block, block))
    channel = panel_pack.blocked_channels(layer.ic, block, xt.layout.block_stride(xt.shape, 4))
    k_run = run_length(layer.ic // layer.groups, layer.groups, block)
    if layer.groups > 1:
        weights = panel_pack.expand_groups(weights, layer.groups)

    def make(r: int) -> panel_pack.Runs:
        if layer.groups == 1:
            return panel_pack.dense_runs(layer.ic, prod(layer.kernel), k_run)
        return panel_pack.grouped_runs(layer.ic, prod(layer.kernel), k_run, layer.groups, layer.oc, r * lanes)

    probe = make(1)
    k = (int(np.diff(probe.begin).max())) * probe.k_run
    blocks = -(-layer.oc // lanes)
    problem = PanelProblem(layer.batch, out[2], out[3], blocks, k, probe.k_run, x.nbytes)
    parts = choose(problem, isa) if layer.groups == 1 else choose(problem, isa, most_r=1)
    if tiling is not None:
        parts = (Part(0, blocks // tiling.r, tiling, 0.0),)

    y = buffer(yt, 7.0)
    planes(y, yt)[:, :, 1:, : yw - 2] = -3.0
    stored = [
        np.zeros(blocks * lanes, np.float32) if kind == "channel" else e
        for kind, e in zip(layer.epilogue[1], extras, strict=True)
    ]
    for s, (kind, e) in zip(stored, zip(layer.epilogue[1], extras, strict=True), strict=True):
        if kind == "channel":
            s[: layer.oc] = e.ravel()
    et = f32(out, Blocked(1, lanes, ((0, 0), (0, 1), (1, 1))))
    _, _, eh, ew, _ = et.layout.storage_shape(et.shape)
    stored = [store(e, et) if kind == "full" else s for kind, e, s in zip(layer.epilogue[1], extras, stored, strict=True)]
    buffers, kernels, text = [store(x, xt), y, *stored], [], []
    masked = lanes_to_keep(*layer.epilogue, layer.oc, lanes)
    if masked:  # the last vector gets a call of its own
        parts = tuple(Part(b, 1, next(tilings(problem, isa, 1)), 0.0) for b in range(blocks))
    for part in parts:
        t, runs = part.tiling, make(part.tiling.r)
        first, last = part.block * lanes, min((part.block + part.panels * t.r) * lanes, layer.oc)
        if layer.groups > 1:
            low, high = runs.begin[part.block], runs.begin[part.block + part.panels]
            begin = runs.begin[part.block : part.block + part.panels + 1] - low
            runs = replace(runs, channel=runs.channel[low:high], tap=runs.tap[low:high], begin=begin)
        tail = layer.oc % lanes if masked and last == layer.oc else 0
        kernel = PanelKernel(
            t.r, runs.k_run, layer.stride * block, t.tw, t.tw_tail, t.th, t.th_tail, runs.shared, t.oc_outer,
            *layer.epilogue, tail_lanes=tail, prefetch=0 if layer.seed % 2 else 1024,
        )  # fmt: skip
        full = [i for i, kind in enumerate(layer.epilogue[1]) if kind == "full"]
        two = lambda v, full=full: tuple([v] * len(full) + [0] * (2 - len(full)))  # noqa: E731
        geometry = PanelGeometry(
            layer.batch, part.panels, runs.channel.size if runs.shared else 0, t.x_full, t.x_tail, t.y_full, t.y_tail,
            h * wd * block, layer.stride * wd * block, yh * yw * lanes, yt.layout.block_stride(yt.shape, 4), yw * lanes,
            two(eh * ew * lanes), two(et.layout.block_stride(et.shape, 4)), two(ew * lanes),
        )  # fmt: skip
        at = len(buffers)
        buffers += [panel_pack.pack(weights[first:last], runs, t.r, lanes), runs.offsets(channel, taps)]
        pointers = [f"(float *)b[0] + {(pads[0] * wd + pads[1]) * block}", f"b[{at}]", f"b[{at + 1}]"]
        if not runs.shared:
            buffers.append(runs.begin.astype(np.int32))
            pointers.append(f"b[{at + 2}]")
        for i, kind in enumerate(layer.epilogue[1]):
            shift = {"channel": first, "full": part.block * et.layout.block_stride(et.shape, 4) + lanes, "scalar": 0}[kind]
            pointers.append(f"(float *)b[{2 + i}] + {shift}")
        pointers.append(f"(float *)b[1] + {part.block * yt.layout.block_stride(yt.shape, 4) + yw * lanes}")
        kernels.append(kernel)
        text.append(f"static const struct spc_panel g{at} = {struct_initializer(geometry)};")
        text.append(
            f"for (int t = 0; t < {layer.threads}; t++) "
            f"{kernel.symbol(isa)}(&g{at}, {', '.join(pointers)}, 0, t, {layer.threads});"
        )
    return kernels, Call("\n".join(text), tuple(buffers)), want, yt


def check(layers, isa, flags=CFLAGS, tiling=None):
    cases = [calls_of(layer, isa, tiling) for layer in layers]
    kernels = dict.fromkeys(k for ks, *_ in cases for k in ks)
    text = "\n".join([prelude(isa), struct_declaration("panel", PanelGeometry), *(k.source(isa) for k in kernels)])
    results = run_calls(isa, text, [call for _, call, _, _ in cases], flags)
    for layer, (_, call, want, yt), buffers in zip(layers, cases, results, strict=True):
        got = fetch(buffers[1], yt)
        assert np.abs(got - want).max() <= 2e-5 * max(1, np.abs(want).max()), layer
        before, after = (np.ones(1), np.ones(1)) if yt.layout.halo == () else (call.buffers[1], buffers[1])
        outside = before == 7.0
        assert np.array_equal(after[outside], before[outside]), f"{layer} wrote into the halo"


LAYERS = [
    Layer(32, 64, (3, 3), (15, 15)),
    Layer(20, 40, (1, 1), (1, 45), epilogue=RESIDUAL),
    Layer(16, 48, (3, 3), (7, 7), epilogue=TWO_FULL, batch=2),
    Layer(33, 70, (3, 3), (9, 11), stride=2, threads=3),
    Layer(8, 17, (5, 3), (10, 29), dilation=2, epilogue=SCALED_SIGMOID),
    Layer(3, 32, (7, 7), (20, 20), stride=2, planar=True, epilogue=PLAIN),
    Layer(2, 16, (3, 3), (9, 9), dilation=2, planar=True),
    Layer(64, 96, (3, 3), (6, 6), groups=4),
    Layer(12, 24, (3, 3), (5, 8), groups=3, batch=2, threads=2),
    Layer(40, 16, (1, 1), (1, 1), threads=4),
]


@pytest.mark.parametrize("isa", runnable_isas())
def test_layers_agree_with_the_interpreter(isa):
    check([replace(layer, seed=i) for i, layer in enumerate(LAYERS)], isa)


def test_no_access_out_of_bounds():
    isa = isa_named("host")
    small = [replace(layer, seed=i) for i, layer in enumerate(LAYERS) if i in (2, 3, 4, 6, 8)]
    check(small, isa, (*CFLAGS, *SANITIZE))


@settings(max_examples=4)
@given(st.data())
def test_random_layers(data):
    isa = data.draw(st.sampled_from([isa_named("host"), isa_named("generic")]))
    layers = []
    for seed in range(6):
        groups = data.draw(st.sampled_from([1, 1, 1, 2, 3]))
        layers.append(
            Layer(
                ic=groups * data.draw(st.integers(1, 24)),
                oc=groups * data.draw(st.integers(1, 24)),
                kernel=(data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([1, 3, 5]))),
                size=(data.draw(st.integers(3, 12)), data.draw(st.integers(3, 33))),
                stride=data.draw(st.integers(1, 3)),
                dilation=data.draw(st.integers(1, 2)),
                groups=groups,
                batch=data.draw(st.integers(1, 2)),
                planar=groups == 1 and data.draw(st.booleans()),
                epilogue=data.draw(st.sampled_from([PLAIN, BIAS_RELU, RESIDUAL, SCALED_SIGMOID])),
                threads=data.draw(st.integers(1, 3)),
                seed=seed,
            )
        )
    check(layers, isa)


def test_every_tile_shape_and_order():
    """Both loop orders, row tiles with and without a tail, up to four vectors."""
    isa = isa_named("host")
    lanes = isa.lanes
    problem = PanelProblem(1, 5, 6, 12, 9 * lanes, lanes, 1000)
    for r in (1, 2, 3, 4):
        found = {(t.th, t.th_tail > 0, t.oc_outer): t for t in tilings(problem, isa, r)}
        assert {o for _, _, o in found} == {True, False}
        for t in list(found.values())[:3]:
            check([Layer(lanes, 12 * lanes, (3, 3), (5, 6), epilogue=RESIDUAL)], isa, tiling=t)


def test_splits_differ_by_one_and_cover():
    for extent in range(1, 200):
        for most in range(1, 30):
            size, full, tail, tails = split(extent, most)
            assert full * size + tails * tail == extent and size <= most and (tails == 0 or tail == size - 1) and full > 0
            assert full + tails == -(-extent // most)


def test_plans_cover_the_channels_with_legal_kernels():
    for isa in isas():
        for blocks in (1, 2, 3, 5, 8, 63):
            parts = choose(PanelProblem(1, 7, 7, blocks, 256, isa.lanes, 10**5), isa)
            assert [p.block for p in parts] == [sum(q.panels * q.tiling.r for q in parts[:i]) for i in range(len(parts))]
            assert sum(p.panels * p.tiling.r for p in parts) == blocks
            assert all(legal(PanelKernel(p.tiling.r, 1, 1, p.tiling.tw, th=p.tiling.th), isa) and p.cycles > 0 for p in parts)


def test_the_tile_that_the_measurements_favour_is_chosen():
    avx512 = isa_named("x86_64+avx512f")
    (part,) = choose(PanelProblem(1, 28, 28, 8, 1152, 16, 128 * 28 * 28 * 4), avx512)
    assert (part.tiling.r, part.tiling.th, part.tiling.tw) == (2, 1, 14)
    (part,) = choose(PanelProblem(1, 7, 7, 32, 4608, 16, 512 * 49 * 4), avx512)
    assert part.tiling.r * part.tiling.th * part.tiling.tw == 28


def test_tail_mask_is_needed_where_zero_does_not_stay_zero():
    assert lanes_to_keep(*SCALED_SIGMOID, 7, 4) == 3 and lanes_to_keep(*SCALED_SIGMOID, 8, 4) == 0
    assert not lanes_to_keep(*RESIDUAL, 7, 4)
    assert lanes_to_keep(Program.parse("add(a0,a1)"), ("scalar",), 7, 4)
    assert not lanes_to_keep(*PLAIN, 7, 4)


def test_symbols_tell_tile_and_epilogue():
    kernel = PanelKernel(2, 16, 16, 14, epilogue=BIAS_RELU[0], extras=BIAS_RELU[1])
    assert kernel.symbol(isa_named("x86_64+avx512f")).startswith("spc_f32_panel_14x2_k16_relu_")
    assert PanelKernel(2, 16, 16, 7, th=2).label() == "f32_panel_2x7x2_k16"


def test_offsets_beyond_32_bits_are_refused():
    runs = panel_pack.dense_runs(32, 1, 16)
    with pytest.raises(LimitError, match=r"more than 2\^31 elements apart"):
        runs.offsets(panel_pack.blocked_channels(32, 16, 2**31), np.zeros(1, np.int64))


def test_a_matrix_vector_product_streams_two_vectors():
    (part,) = choose(PanelProblem(1, 1, 1, 256, 25088, 16, 25088 * 4), isa_named("x86_64+avx512f"))
    assert (part.tiling.r, part.panels) == (2, 128)
