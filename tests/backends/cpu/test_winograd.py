"""Winograd kernels against the interpreter's convolution, and how far their error grows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.cpu.isa import isa_named, isas
from sparsec.backends.cpu.kernel import struct_declaration, struct_initializer
from sparsec.backends.cpu.kernels import winograd
from sparsec.backends.cpu.kernels.blocked_epilogue import lanes_to_keep
from sparsec.backends.cpu.kernels.panel_plan import PanelProblem
from sparsec.backends.cpu.kernels.panel_plan import choose as choose_panel
from sparsec.backends.cpu.kernels.winograd import WinogradGeometry, WinogradKernel
from sparsec.backends.cpu.kernels.winograd_plan import WinogradProblem, choose, total
from sparsec.backends.cpu.prelude import prelude
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from tests.backends.cpu.native import CFLAGS, SANITIZE, Call, run_calls, runnable_isas
from tests.backends.cpu.tensors import buffer, f32, fetch, planes, store

BIAS_RELU = (Program.parse("add(a0,a1);relu(t0)"), ("channel",))
RESIDUAL = (Program.parse("add(a0,a1);add(t0,a2);relu(t1)"), ("channel", "full"))
SCALED_SIGMOID = (Program.parse("mul(a0,a2);add(t0,a1);sigmoid(t1)"), ("channel", "scalar"))
PLAIN = (Program(), ())


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution of stride 1, padded by `pad`."""

    m: int
    ic: int
    oc: int
    size: tuple[int, int]
    batch: int = 1
    pad: int = 1
    epilogue: tuple[Program, tuple[str, ...]] = BIAS_RELU
    threads: int = 1
    seed: int = 0


def case_of(layer: Layer, isa):
    rng, lanes, p = np.random.default_rng(layer.seed), isa.lanes, layer.pad
    op = Conv((1, 1), (1, 1), (p, p, p, p), 1, layer.epilogue[0])
    x = rng.normal(size=(layer.batch, layer.ic, *layer.size)).astype(np.float32)
    w = rng.normal(size=(layer.oc, layer.ic, 3, 3)).astype(np.float32)
    out = (layer.batch, layer.oc, *(s + 2 * p - 2 for s in layer.size))
    shapes = {"channel": (layer.oc, 1, 1), "full": out, "scalar": ()}
    extras = [rng.normal(size=shapes[kind]).astype(np.float32) for kind in layer.epilogue[1]]
    exact = [x.astype(np.float64), w.astype(np.float64)]
    (want,) = op.evaluate([*exact, *(e.astype(np.float64) for e in extras)])
    (sums,) = replace(op, epilogue=Program()).evaluate(exact)
    scale = max(1.0, np.abs(want).max(), np.abs(sums).max() / 4)  # a quarter: the steepest slope of a sigmoid
    xt = f32(x.shape, Blocked(1, lanes, ((0, 0), (p, p), (p, p))))
    yt = f32(out, Blocked(1, lanes, ((0, 0), (1, 0), (0, 2))))
    et = f32(out, Blocked(1, lanes))
    _, n, h, wd, _ = xt.layout.storage_shape(xt.shape)
    _, _, yh, yw, _ = yt.layout.storage_shape(yt.shape)
    blocks = -(-layer.oc // lanes)
    masked = lanes_to_keep(*layer.epilogue, layer.oc, lanes)
    parts = choose(WinogradProblem(n, out[2], out[3], -(-layer.ic // lanes), blocks), isa, (layer.m,))
    if masked:
        one = choose(WinogradProblem(n, out[2], out[3], -(-layer.ic // lanes), 1), isa, (layer.m,))[0]
        parts = tuple(replace(one, block=b) for b in range(blocks))
    y = buffer(yt, 7.0)
    channels = [
        np.pad(e.ravel(), (0, blocks * lanes - layer.oc)) if k == "channel" else e
        for k, e in zip(layer.epilogue[1], extras, strict=True)
    ]
    stored = [store(e, et) if k == "full" else e for k, e in zip(layer.epilogue[1], channels, strict=True)]
    buffers, kernels, text = [store(x, xt), y, *stored], [], []
    for part in parts:
        t = part.tiling
        first, last = part.block * lanes, min((part.block + part.panels * t.r) * lanes, layer.oc)
        tail = layer.oc % lanes if masked and last == layer.oc else 0
        kernel = WinogradKernel(t.m, t.r, t.tw, t.tw_tail, *layer.epilogue, tail_lanes=tail, far=layer.threads > 1)
        full = [int(kind == "full") for kind in layer.epilogue[1] if kind == "full"] + [0, 0]
        e_strides = (out[2] * out[3] * lanes, et.layout.block_stride(et.shape, 4), out[3] * lanes)
        geometry = WinogradGeometry(
            -(-layer.ic // lanes), part.panels, t.group, t.tiles_y, t.tiles_x, out[2], out[3],
            t.full, t.tails, t.block_pieces, t.block_tiles,
            h * wd * lanes, xt.layout.block_stride(xt.shape, 4), wd * lanes,
            yh * yw * lanes, yt.layout.block_stride(yt.shape, 4), yw * lanes,
            *(tuple(f * v for f in full[:2]) for v in e_strides),
        )  # fmt: skip
        at = len(buffers)
        weights = np.moveaxis(w, 1, -1)[first:last]
        buffers += [winograd.pack(weights, t.m, t.r, lanes, t.group), np.zeros(kernel.scratch_bytes(geometry, isa), np.uint8)]
        whole = -(-(last - first) // (t.r * lanes)) * t.r * -(-layer.ic // lanes) * lanes**2  # whole panels of whole blocks
        assert buffers[at].size == whole * (t.m + 2) ** 2
        shift = {"channel": first, "full": part.block * et.layout.block_stride(et.shape, 4), "scalar": 0}
        operands = ["b[0]", f"b[{at}]", *(f"(float *)b[{2 + i}] + {shift[kind]}" for i, kind in enumerate(layer.epilogue[1]))]
        operands.append(f"(float *)b[1] + {part.block * yt.layout.block_stride(yt.shape, 4) + yw * lanes}")
        kernels.append(kernel)
        text.append(f"static const struct spc_winograd g{at} = {struct_initializer(geometry)};")
        call = f"{kernel.symbol(isa)}(&g{at}, {', '.join(operands)}, b[{at + 1}], t, {layer.threads});"
        text.append(f"for (int t = 0; t < {layer.threads}; t++) {call}")
    return kernels, Call("\n".join(text), tuple(buffers)), want, yt, scale


def check(layers, isa, flags=CFLAGS):
    cases = [case_of(layer, isa) for layer in layers]
    kernels = dict.fromkeys(k for ks, *_ in cases for k in ks)
    text = "\n".join([prelude(isa), struct_declaration("winograd", WinogradGeometry), *(k.source(isa) for k in kernels)])
    results = run_calls(isa, text, [call for _, call, *_ in cases], flags)
    for layer, (_, _, want, yt, scale), buffers in zip(layers, cases, results, strict=True):
        got = fetch(buffers[1], yt)
        tolerance = {2: 3e-6, 4: 1e-5}[layer.m]
        assert np.abs(got - want).max() <= tolerance * scale, layer
        stored = planes(buffers[1], yt)
        assert (stored[:, :, :1] == 7.0).all() and (stored[:, :, :, -2:] == 7.0).all(), f"{layer} wrote into the halo"


LAYERS = [
    Layer(4, 16, 32, (8, 8)),
    Layer(4, 40, 24, (7, 13), batch=2, epilogue=RESIDUAL, threads=3),
    Layer(4, 5, 17, (9, 6), pad=0, epilogue=SCALED_SIGMOID),
    Layer(2, 16, 48, (7, 7), epilogue=PLAIN),
    Layer(2, 20, 33, (5, 9), batch=2, epilogue=SCALED_SIGMOID, threads=2),
    Layer(2, 3, 8, (3, 1), epilogue=RESIDUAL, threads=5),
    Layer(4, 150, 16, (6, 5), epilogue=RESIDUAL),  # more than two chains of channels
]


@pytest.mark.parametrize("isa", runnable_isas())
def test_layers_agree_with_the_interpreter(isa):
    check([replace(layer, seed=i) for i, layer in enumerate(LAYERS)], isa)


def test_no_access_out_of_bounds():
    check(LAYERS[1:5], isa_named("host"), (*CFLAGS, *SANITIZE))


@settings(max_examples=3)
@given(st.data())
def test_random_layers(data):
    isa = data.draw(st.sampled_from([isa_named("host"), isa_named("generic")]))
    layers = [
        Layer(
            m=data.draw(st.sampled_from([2, 4])),
            ic=data.draw(st.integers(1, 40)),
            oc=data.draw(st.integers(1, 40)),
            size=(data.draw(st.integers(3, 14)), data.draw(st.integers(3, 14))),
            batch=data.draw(st.integers(1, 3)),
            pad=data.draw(st.integers(0, 1)),
            epilogue=data.draw(st.sampled_from([PLAIN, BIAS_RELU, RESIDUAL, SCALED_SIGMOID])),
            threads=data.draw(st.integers(1, 3)),
            seed=seed,
        )
        for seed in range(5)
    ]
    check(layers, isa)


@pytest.mark.parametrize("m", [2, 4])
def test_packed_weights_lie_by_panel_frequency_and_channel(m):
    w = np.random.default_rng(m).normal(size=(5, 3, 3, 6)).astype(np.float32)
    u = winograd.transform(w, m)
    packed = winograd.pack(w, m, r=2, lanes=2, group=1).reshape(2, (m + 2) ** 2, 6, 4)
    assert np.array_equal(packed[1, 3, 2, 0], np.float32(u[3, 4, 2]))
    assert not packed[1, :, :, 1:].any()  # output channels 5, 6 and 7 do not exist
    assert np.allclose(u[0], w[:, 0, 0] * {2: 1, 4: (16 / 15) ** 4}[m])  # the point 0
    assert np.allclose(u[-1], w[:, 2, 2])  # infinity


def test_the_plan_prefers_large_tiles_except_on_small_images():
    isa = isa_named("x86_64+avx512f")
    chosen = {}
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        blocks = channels // 16
        parts = choose(WinogradProblem(1, size, size, blocks, blocks), isa)
        direct = choose_panel(PanelProblem(1, size, size, blocks, channels * 9, 16, channels * size * size * 4), isa)
        chosen[size] = parts[0].tiling.m
        if size > 14:  # below, weights are many and come from memory: F(4x4) has four times as many
            assert total(parts) < sum(p.cycles for p in direct) / 1.5
    assert chosen == {56: 4, 28: 4, 14: 2, 7: 2}


def test_plans_cover_the_channels():
    for isa in isas():
        for blocks in (1, 3, 5, 8):
            parts = choose(WinogradProblem(2, 9, 7, 3, blocks), isa)
            assert sum(p.panels * p.tiling.r for p in parts) == blocks
            for t in (p.tiling for p in parts):
                assert t.full * t.tw + t.tails * t.tw_tail == 2 * t.tiles_y * t.tiles_x
                assert t.tw * t.r + t.r + 1 <= isa.registers


def test_long_sums_lose_no_more_than_the_direct_convolution():
    """Largest error of F(4x4) over 256 channels of rectified data: under 3e-6 of the largest output."""
    layer, isa = Layer(4, 256, 32, (12, 12), epilogue=PLAIN), isa_named("host")
    kernels, call, want, yt, _ = case_of(layer, isa)
    text = "\n".join(
        [prelude(isa), struct_declaration("winograd", WinogradGeometry), *(k.source(isa) for k in dict.fromkeys(kernels))]
    )
    ((_, y, *_),) = run_calls(isa, text, [call])
    assert np.abs(fetch(y, yt) - want).max() <= 3e-6 * np.abs(want).max()


def test_what_the_family_applies_to():
    assert winograd.applies((3, 3), (1, 1), (1, 1), 1)
    assert not winograd.applies((3, 3), (2, 2), (1, 1), 1)
    assert not winograd.applies((3, 3), (1, 1), (1, 1), 2)
    assert not winograd.applies((1, 1), (1, 1), (1, 1), 1)
    assert not winograd.applies((3,), (1,), (1,), 1)
