"""Single convolutions and products: the panel and Winograd kernels against onnxruntime's one-layer model, in one process.

    python benchmarks/kernels.py [--isa host] [--cc gcc] [--only REGEX] [--cold] [--rounds 9] [--json FILE]

CPU time of one thread, interleaved; the best of the rounds. Both sides compute bias and relu; ours works in its blocked layout,
and onnxruntime's time includes its own layout conversions of input and output. `--cold`: every call uses another copy of the
weights, as in a network whose weights exceed the caches.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from sparsec.backends.cpu.isa import Isa, isa_named
from sparsec.backends.cpu.kernel import Geometry, Kernel, struct_declaration
from sparsec.backends.cpu.kernels import panel_pack, winograd
from sparsec.backends.cpu.kernels.panel import PanelGeometry, PanelKernel
from sparsec.backends.cpu.kernels.panel_plan import PanelProblem
from sparsec.backends.cpu.kernels.panel_plan import choose as choose_panel
from sparsec.backends.cpu.kernels.winograd import WinogradGeometry, WinogradKernel
from sparsec.backends.cpu.kernels.winograd_plan import WinogradProblem
from sparsec.backends.cpu.kernels.winograd_plan import choose as choose_winograd
from sparsec.backends.cpu.prelude import prelude
from sparsec.backends.cpu.toolchain import build_library
from sparsec.compiler.scalar import Program

Array = np.ndarray[Any, Any]
EPILOGUE, EXTRAS = Program.parse("add(a0,a1);relu(t0)"), ("channel",)
COLD_BYTES = 96 << 20


@dataclass(frozen=True)
class Layer:
    """A convolution of `ic` x (oh * stride)^2; `tokens` > 0: a product of tokens x ic with ic x oc instead."""

    net: str
    ic: int
    oc: int
    k: int = 1
    oh: int = 1
    stride: int = 1
    tokens: int = 0

    @property
    def name(self) -> str:
        if self.tokens:
            return f"{self.net} {self.tokens}x{self.ic}x{self.oc}"
        return f"{self.net} {self.ic}>{self.oc} {self.k}x{self.k}/{self.stride} @{self.oh}"

    @property
    def macs(self) -> int:
        return (self.tokens or self.oh**2) * self.ic * self.oc * self.k**2


LAYERS = [
    Layer("resnet", 3, 64, 7, 112, 2),
    *(Layer("resnet", i, o, 1, s) for i, o, s in ((64, 64, 56), (64, 256, 56), (256, 64, 56), (256, 128, 56))),
    *(Layer("resnet", i, o, 1, s) for i, o, s in ((128, 512, 28), (512, 128, 28), (512, 256, 28), (256, 1024, 14))),
    *(Layer("resnet", i, o, 1, s) for i, o, s in ((1024, 256, 14), (1024, 512, 14), (512, 2048, 7), (2048, 512, 7))),
    *(Layer("resnet", i, o, 1, s, 2) for i, o, s in ((256, 512, 28), (512, 1024, 14), (1024, 2048, 7))),
    *(Layer("resnet", c, c, 3, s) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7))),
    *(Layer("resnet", c, c, 3, s, 2) for c, s in ((128, 28), (256, 14), (512, 7))),
    Layer("resnet", 2048, 1000, tokens=1),
    *(Layer("vgg", c, c, 3, s) for c, s in ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14))),
    Layer("inception", 64, 192, 3, 27),
    Layer("inception", 32, 96, 5, 14),
    *(Layer("bert", i, o, tokens=128) for i, o in ((768, 768), (768, 3072), (3072, 768))),
]


def aligned(elements: int, dtype: Any = np.float32) -> Array:
    """Zeros at a 64-byte boundary."""
    size = elements * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    return raw[-raw.ctypes.data % 64 :][:size].view(dtype)


def copies_of(array: Array, cold: bool) -> list[Array]:
    """The array, or as many aligned copies as exceed the caches."""
    result = []
    for _ in range(-(-COLD_BYTES // array.nbytes) if cold else 1):
        result.append(aligned(array.size, array.dtype))
        result[-1][:] = array
    return result


class Compiled:
    """Kernels compiled into one library, bound to buffers."""

    def __init__(self, isa: Isa, cc: str, kernels: list[Kernel]) -> None:
        unique = list(dict.fromkeys(kernels))
        parts = [prelude(isa), *dict.fromkeys(struct_declaration(k.family, k.geometry) for k in unique)]
        for k in unique:
            arguments = "".join(f", p[{i}]" for i in range(len(k.pointers())))
            parts.append(k.source(isa))
            parts.append(
                f"void call_{k.symbol(isa)}(const void *g, void **p, void *s) {{ {k.symbol(isa)}(g{arguments}, s, 0, 1); }}"
            )
        self.isa, self.folder = isa, tempfile.TemporaryDirectory()
        Path(self.folder.name, "k.c").write_text("\n".join(parts))
        flags = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", *isa.cflags]
        self.library = ctypes.CDLL(str(build_library(Path(self.folder.name), "k", flags, cc)))

    def bind(self, kernel: Kernel, geometry: Geometry, pointers: list[int]) -> Callable[[], None]:
        values = [getattr(geometry, f.name) for f in fields(geometry)]  # type: ignore[arg-type]
        flat = np.array(list(itertools.chain(*(v if isinstance(v, tuple) else (v,) for v in values))), np.int64)
        p = (ctypes.c_void_p * len(pointers))(*pointers)
        scratch = aligned(max(64, kernel.scratch_bytes(geometry, self.isa)), np.uint8)
        function = self.library[f"call_{kernel.symbol(self.isa)}"]
        g, s = ctypes.c_void_p(flat.ctypes.data), ctypes.c_void_p(scratch.ctypes.data)

        def call(keep: Any = (flat, scratch)) -> None:
            function(g, p, s)

        return call


@dataclass
class Candidate:
    """One way to compute a layer: kernels with geometry and weights, to be bound once compiled."""

    what: str
    calls: list[tuple[Kernel, Geometry, Array, Array, int]]  # kernel, geometry, weights, offsets, first channel block


def direct(layer: Layer, w: Array, isa: Isa) -> Candidate:
    """The panel kernel; the input's halo is pad wide, the stem's input planar."""
    lanes, pad = isa.lanes, layer.k // 2
    side = layer.oh * layer.stride + 2 * pad
    flat = layer.k == 1 and layer.stride == 1
    oh, ow = (1, layer.tokens or layer.oh**2) if flat else (layer.oh, layer.oh)
    planar = layer.ic < lanes and not layer.tokens
    block = 1 if planar else lanes
    plane, row = (ow * block, ow * block) if flat else (side * side * block, side * block)
    runs = panel_pack.dense_runs(layer.ic, layer.k**2, 1 if planar else lanes)
    taps = panel_pack.tap_offsets((layer.k,) * 2, (1, 1), (pad, pad), (row, block))
    offsets = runs.offsets(panel_pack.blocked_channels(layer.ic, block, plane), taps)
    blocks = -(-layer.oc // lanes)
    problem = PanelProblem(1, oh, ow, blocks, runs.channel.size * runs.k_run, runs.k_run, layer.ic * side * side * 4, 2)
    calls: list[tuple[Kernel, Geometry, Array, Array, int]] = []
    for part in choose_panel(problem, isa):
        t = part.tiling
        kernel = PanelKernel(
            t.r,
            runs.k_run,
            layer.stride * block,
            t.tw,
            t.tw_tail,
            t.th,
            t.th_tail,
            True,
            t.oc_outer,
            EPILOGUE,
            EXTRAS,
            prefetch=1024 if t.oc_outer and t.tw > 4 else 0,
        )
        geometry = PanelGeometry(
            1, part.panels, runs.channel.size, t.x_full, t.x_tail, t.y_full, t.y_tail,
            0, layer.stride * row, 0, oh * ow * lanes, ow * lanes,
        )  # fmt: skip
        first, last = part.block * lanes, (part.block + part.panels * t.r) * lanes
        calls.append((kernel, geometry, panel_pack.pack(w[first:last], runs, t.r, lanes), offsets, part.block))
    return Candidate("direct", calls)


def filtered(layer: Layer, w: Array, isa: Isa, m: int) -> Candidate:
    """Winograd with tiles of m x m."""
    lanes, side, ow = isa.lanes, layer.oh + 2, layer.oh
    calls: list[tuple[Kernel, Geometry, Array, Array, int]] = []
    for part in choose_winograd(WinogradProblem(1, ow, ow, layer.ic // lanes, layer.oc // lanes, 2), isa, (m,)):
        t = part.tiling
        kernel = WinogradKernel(m, t.r, t.tw, t.tw_tail, EPILOGUE, EXTRAS)
        geometry = WinogradGeometry(
            layer.ic // lanes, part.panels, t.group, t.tiles_y, t.tiles_x, ow, ow, t.full, t.tails, t.block_pieces, t.block_tiles,
            0, side * side * lanes, side * lanes, 0, ow * ow * lanes, ow * lanes,
        )  # fmt: skip
        weights = winograd.pack(w[part.block * lanes : (part.block + part.panels * t.r) * lanes], m, t.r, lanes, t.group)
        calls.append((kernel, geometry, weights, np.zeros(0, np.int32), part.block))
    return Candidate(f"F{m}", calls)


def bound(candidate: Candidate, layer: Layer, compiled: Compiled, x: Array, cold: bool) -> Iterator[Callable[[], None]]:
    """Endless calls that compute the layer, each with the next copy of the weights."""
    lanes, pad = compiled.isa.lanes, layer.k // 2
    positions = layer.tokens or layer.oh**2
    y, bias = aligned(-(-layer.oc // lanes) * lanes * positions), aligned(layer.oc + lanes)
    side = layer.oh * layer.stride + 2 * pad
    block = 1 if layer.ic < lanes and not layer.tokens else lanes
    interior = x.ctypes.data + (pad * side + pad) * block * 4
    sets = []
    for kernel, geometry, weights, offsets, first in candidate.calls:
        calls = []
        for copy in copies_of(weights, cold):
            lists = [offsets.ctypes.data] if isinstance(kernel, PanelKernel) else []
            at = interior if lists else x.ctypes.data
            outputs = [bias.ctypes.data + first * lanes * 4, y.ctypes.data + first * lanes * positions * 4]
            call = compiled.bind(kernel, geometry, [at, copy.ctypes.data, *lists, *outputs])
            calls.append(lambda call=call, keep=(copy, offsets, y, bias, x): call())
        sets.append(itertools.cycle(calls))

    def run_all(parts: tuple[Callable[[], None], ...]) -> None:
        for part in parts:
            part()

    for parts in zip(*sets, strict=False):
        yield partial(run_all, parts)


def reference(layer: Layer, w: Array, cold: bool) -> Iterator[Callable[[], None]]:
    """Endless onnxruntime calls on the same layer, one thread."""
    bias = numpy_helper.from_array(np.zeros(layer.oc, np.float32), "b")
    if layer.tokens:
        weights = numpy_helper.from_array(np.ascontiguousarray(w[:, 0, 0].T), "w")
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["c"])]
        shape = [layer.tokens, layer.ic]
    else:
        weights = numpy_helper.from_array(np.ascontiguousarray(w.transpose(0, 3, 1, 2)), "w")
        pads = [layer.k // 2] * 4
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=pads, strides=[layer.stride] * 2)]
        shape = [1, layer.ic, layer.oh * layer.stride, layer.oh * layer.stride]
    nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "layer", [value("x", onnx.TensorProto.FLOAT, shape)], [value("y", onnx.TensorProto.FLOAT, None)], [weights, bias]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    count = -(-COLD_BYTES // w.nbytes) if cold else 1
    sessions = [ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(min(count, 64))]
    x = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    for session in itertools.cycle(sessions):
        yield partial(session.run, None, x)


def measure(ways: dict[str, Iterator[Callable[[], None]]], rounds: int, calls: int) -> dict[str, float]:
    """Microseconds of CPU time a call: the best round of each way, the ways taking turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            batch = list(itertools.islice(way, calls))
            start = time.thread_time_ns()
            for call in batch:
                call()
            best[name] = min(best[name], (time.thread_time_ns() - start) / calls / 1e3)
    return best


def run_layer(layer: Layer, isa: Isa, cc: str, cold: bool, rounds: int) -> dict[str, float]:
    """Microseconds for onnxruntime and for each of our candidates."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(layer.oc, layer.k, layer.k, layer.ic)).astype(np.float32)
    candidates = [direct(layer, w, isa)]
    if layer.k == 3 and layer.stride == 1:
        candidates += [filtered(layer, w, isa, m) for m in (2, 4)]
    compiled = Compiled(isa, cc, [k for c in candidates for k, *_ in c.calls])
    side = layer.oh * layer.stride + 2 * (layer.k // 2)
    x = aligned(-(-layer.ic // isa.lanes) * isa.lanes * (layer.tokens or side * side))
    x[:] = rng.normal(size=x.size)
    ways = {"onnxruntime": reference(layer, w, cold)}
    ways |= {c.what: bound(c, layer, compiled, x, cold) for c in candidates}
    return measure(ways, rounds, max(1, int(6e7 / layer.macs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", default="host")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--only", default="")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    isa, rows = isa_named(options.isa), {}
    print(f"{isa.name}, {options.cc}, weights {'cold' if options.cold else 'warm'}: microseconds (speed against onnxruntime)")
    print(f"{'layer':32} {'onnxruntime':>12} {'direct':>16} {'F2':>16} {'F4':>16}   GFLOP/s direct")
    for layer in LAYERS:
        if not re.search(options.only, layer.name):
            continue
        times = run_layer(layer, isa, options.cc, options.cold, options.rounds)
        base = times["onnxruntime"]
        shown = [f"{times[k]:8.0f} ({base / times[k]:.2f}x)" if k in times else "" for k in ("direct", "F2", "F4")]
        print(
            f"{layer.name:32} {base:12.0f} "
            + " ".join(f"{s:>16}" for s in shown)
            + f"   {2e-3 * layer.macs / times['direct']:6.1f}"
        )
        rows[layer.name] = times
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
