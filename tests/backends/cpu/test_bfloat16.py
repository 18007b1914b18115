"""Products of bfloat16 in C against the interpreter: patterns, strides, groups, epilogues, tails, targets."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa, isa_named, isas, runs_here
from sparsec.backends.cpu.kernels.elements import ending
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.driver import build
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from tests.backends.cpu.compiled import SANITIZE, build_graph, emit_graph, merged, run_graph, run_program, run_sanitized, split
from tests.backends.cpu.test_integers import zeroed
from tests.machine import needs

Array = np.ndarray[Any, Any]
EPILOGUES = {  # programs and what they read beside the sums; r is a residual, n one in bfloat16
    "sums": ("", ""),
    "stored": ("cast.bf16(a0)", ""),
    "biased": ("add(a0,a1);relu(t0);cast.bf16(t1)", "b"),
    "real": ("mul(a0,a1);add(t0,a2)", "sb"),
    "residual": ("cast.f32(a2);add(a0,a1);add(t1,t0);relu(t2);cast.bf16(t3)", "bn"),
    "residual of reals": ("add(a0,a1);add(t0,a2);mul(t1,0.25)", "br"),
    "tanh": ("mul(a0,a1);mul(t0,0.03);tanh(t1);cast.bf16(t2)", "s"),
    "shifted": ("add(a0,1.5);cast.bf16(t0)", ""),
    "rounded twice": ("mul(a0,a1);cast.bf16(t0);cast.f32(t1);add(t2,a2);cast.bf16(t3)", "sb"),
}


@dataclass(frozen=True)
class Layer:
    """A convolution (`kernel` 0: a matrix product of `size` rows)."""

    ic: int
    oc: int
    kernel: int = 1
    size: int = 7
    stride: int = 1
    groups: int = 1
    pattern: str = "dense"
    epilogue: str = "biased"
    batch: int = 1


LAYERS = {
    "pointwise": Layer(32, 48),
    "ragged": Layer(21, 37, epilogue="shifted"),
    "window": Layer(16, 33, 3, epilogue="residual"),
    "strided": Layer(20, 64, 3, 9, stride=2, epilogue="stored"),
    "first": Layer(3, 16, 3, 11, stride=2),
    "one": Layer(1, 24, 5, 9, epilogue="real"),
    "grouped": Layer(32, 32, 3, groups=2, epilogue="sums"),
    "narrow groups": Layer(12, 24, 3, groups=6, epilogue="rounded twice"),
    "depthwise": Layer(40, 40, 3, 9, groups=40, epilogue="residual"),
    "depthwise strided": Layer(13, 13, 3, 10, stride=2, groups=13, epilogue="shifted"),
    "batch": Layer(24, 40, epilogue="real", batch=2),
    "heavy": Layer(24, 40, 3, epilogue="tanh"),
    "blocks of 8": Layer(64, 64, 3, 8, pattern="8x8"),
    "blocks of 8 residual": Layer(96, 72, 1, 9, pattern="8x8", epilogue="residual", batch=2),
    "blocks of 8 real": Layer(64, 40, 1, 6, pattern="8x8", epilogue="real"),
    "columns of 32": Layer(64, 64, 3, 8, pattern="32x4", epilogue="residual of reals"),
    "columns of 16": Layer(64, 64, 1, 8, pattern="16x4", epilogue="shifted"),
    "any zeros": Layer(46, 46, 1, 8, pattern="free", epilogue="shifted"),
    "nothing": Layer(32, 32, 1, 6, pattern="empty", epilogue="shifted"),
    "product": Layer(64, 80, 0, 13),
    "product real": Layer(50, 33, 0, 5, epilogue="real"),
    "product of one row": Layer(50, 33, 0, 1, epilogue="tanh"),
    "product blocks": Layer(128, 64, 0, 40, pattern="8x8", epilogue="shifted"),
    "product residual": Layer(96, 48, 0, 19, pattern="free", epilogue="residual"),
    "long": Layer(1024, 16, 1, 3, epilogue="sums"),
}


def bf16(array: Array) -> Array:
    """The nearest bfloat16."""
    return array.astype(DType.BF16.numpy)


def case(layer: Layer, seed: int, *, whole: bool) -> tuple[Graph, dict[str, Array]]:
    """A graph and its feeds. `whole`: small whole numbers, whose sums float32 holds exactly in any order."""
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> Array:
        return rng.integers(-16, 17, shape).astype(np.float32) if whole else rng.normal(size=shape).astype(np.float32)

    k, per_group = layer.kernel, layer.ic // layer.groups
    w = zeroed(rng, bf16(draw((layer.oc, per_group, *([k, k] if k else [])))), layer.pattern)
    if k:
        op: Any = Conv((layer.stride,) * 2, (1, 1), (k // 2,) * 4, layer.groups, wide=True)
        x = bf16(draw((layer.batch, layer.ic, layer.size, layer.size)))
        column: tuple[int, ...] = (layer.oc, 1, 1)
    else:
        op, w = MatMul(wide=True), np.ascontiguousarray(w.T)
        x = bf16(draw((layer.batch, layer.size, layer.ic)))
        column = (layer.oc,)
    (bare,) = op.infer([TensorType(DType.BF16, x.shape), TensorType(DType.BF16, w.shape)])
    text, extras = EPILOGUES[layer.epilogue]
    more = {
        "b": draw(column),
        "s": (rng.uniform(0.3, 2.0, column) / np.sqrt(w.size // layer.oc)).astype(np.float32),
        "r": draw(bare.shape),
        "n": bf16(draw(bare.shape)),
    }
    constants = {"w": w, **{e: more[e] for e in extras if e in "bs"}}
    feeds = {"x": x, **{e: more[e] for e in extras if e in "rn"}}
    op = replace(op, epilogue=Program.parse(text))
    types = {n: TensorType(DType.from_numpy(a.dtype), a.shape) for n, a in {**constants, **feeds}.items()}
    (types["y"],) = op.infer([types[v] for v in ("x", "w", *extras)])
    node = Node("y", op, ("x", "w", *extras), ("y",), ("y",))
    return Graph("case", tuple(feeds), (Port("y", "y"),), (node,), types, constants), feeds


def cases(seed: int, *, whole: bool) -> tuple[dict[str, Graph], dict[str, dict[str, Array]]]:
    made = {name: case(layer, seed + i, whole=whole) for i, (name, layer) in enumerate(LAYERS.items())}
    return {n: g for n, (g, _) in made.items()}, {n: f for n, (_, f) in made.items()}


def check_exact(got: dict[str, Array], graphs: dict[str, Graph], feeds: dict[str, dict[str, Array]]) -> None:
    """Equal to the last bit, but for functions that are approximated: one unit of bfloat16 there."""
    for name, graph in graphs.items():
        want = interpret(graph, feeds[name])["y"]
        assert got[f"{name}/y"].dtype == want.dtype
        a, b = got[f"{name}/y"].astype(np.float32), want.astype(np.float32)
        if LAYERS[name].epilogue == "tanh":
            np.testing.assert_allclose(a, b, rtol=2**-7, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert LAYERS[name].pattern == "empty" or len(np.unique(b)) > 3, f"{name} proves little"


PASSES = "none"  # the graphs are as `bfloat16` makes them
BF16 = "x86_64+avx512f+bf16"
NEON = "aarch64+neon+bf16"
# What the two instructions of AVX-512 BF16 are by their definition, in plain AVX-512.
DOT = """#define V_DOT(acc, x, w) __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w))"""
CONVERT = "(vhalf)_mm512_cvtneps_pbh(a)"
DEFINED = """
static inline vec defined_dot(vec acc, __m512i x, __m512i w) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    acc = _mm512_fmadd_ps((vec)_mm512_and_si512(x, high), (vec)_mm512_and_si512(w, high), acc);
    return _mm512_fmadd_ps((vec)_mm512_slli_epi32(x, 16), (vec)_mm512_slli_epi32(w, 16), acc);
}
#define V_DOT(acc, x, w) ((acc) = defined_dot(acc, x, w))"""


def defined(source: Path) -> None:
    """Put definitions in the place of the instructions that this machine lacks."""
    text = source.read_text()
    assert DOT in text and CONVERT in text
    integer = "_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_add_epi32((__m512i)a, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), "
    integer += "_mm512_and_si512(_mm512_srli_epi32((__m512i)a, 16), _mm512_set1_epi32(1)))), 16))"
    source.write_text(text.replace(DOT, DEFINED).replace(CONVERT, f"(vhalf){integer}"))


@pytest.mark.parametrize("target", ["generic", BF16])
@pytest.mark.parametrize("whole", [True, False])
def test_here(target, whole, tmp_path: Path) -> None:
    graphs, feeds = cases(11, whole=whole)
    made = emit_graph(merged(graphs), target, tmp_path, passes=PASSES)
    if target == BF16: defined(tmp_path / "cases.c")
    build_graph(made, tmp_path, flags=("-O1",))
    for n in made.graph.nodes:
        if n.op.name in ("Conv","MatMul"): assert n.op.wide, n.name
    got = run_graph(made, tmp_path, split(feeds))
    if whole: check_exact(got, graphs, feeds)
    for n in made.schedule.layers.values():
        print(n.node, n.kernel)


def test_qemu(tmp_path: Path) -> None:
    graphs, feeds = cases(11, whole=True)
    made = emit_graph(merged(graphs), NEON, tmp_path, passes=PASSES)
    for n in made.graph.nodes:
        if n.op.name in ("Conv","MatMul"): assert n.op.wide, n.name
    got = run_program(made, tmp_path, split(feeds), ["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"])
    check_exact(got, graphs, feeds)
