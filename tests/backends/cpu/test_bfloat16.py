"""Products of bfloat16 in C against the interpreter: patterns, strides, groups, epilogues, tails, targets.

AVX-512 BF16 runs with its two instructions replaced by their definitions where the CPU lacks them, NEON under qemu.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa, isa_named, isas, runs_here
from sparsec.backends.cpu.kernels.elements import ending
from sparsec.backends.cpu.kernels.panel_pack import joined
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.driver import Compilation
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.passing.pipeline import parse_pipeline
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from sparsec.compiler.verify_model import relative_error
from sparsec.passes.pipelines import PIPELINES
from sparsec.passes.registry import load_all
from tests.backends.cpu.compiled import (
    SANITIZE,
    WARNINGS,
    build_graph,
    compile_graph,
    emit_graph,
    merged,
    run_graph,
    run_program,
    run_sanitized,
    split,
)
from tests.backends.cpu.random_graphs import random_case
from tests.backends.cpu.test_integers import zeroed
from tests.machine import needs, needs_cpu

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
    "ragged window": Layer(21, 37, 3, 11, epilogue="shifted", batch=2),
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


def cases(names: Sequence[str], seed: int = 11) -> tuple[dict[str, Graph], dict[str, dict[str, Array]]]:
    """Every layer twice: whole/NAME with small whole numbers, real/NAME with any."""
    made = {
        f"{kind}/{name}": case(LAYERS[name], seed + i, whole=kind == "whole")
        for i, name in enumerate(names)
        for kind in ("whole", "real")
    }
    return {n: g for n, (g, _) in made.items()}, {n: f for n, (_, f) in made.items()}


def check(
    got: dict[str, Array], graphs: dict[str, Graph], feeds: dict[str, dict[str, Array]], inexact: Sequence[str] = ()
) -> None:
    """Whole numbers to the last bit, but for nodes `inexact`; real ones to what sums in another order may differ by, and a unit
    of bfloat16.
    """
    for name, graph in graphs.items():
        layer, want = LAYERS[name.split("/")[1]], interpret(graph, feeds[name])["y"]
        assert got[f"{name}/y"].dtype == want.dtype
        a, b = got[f"{name}/y"].astype(np.float32), want.astype(np.float32)
        if name.startswith("whole/") and layer.epilogue != "tanh" and f"{name}/y" not in inexact:
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            unit = 2**-7 if graph.types["y"].dtype is DType.BF16 else 1e-5
            np.testing.assert_allclose(a, b, rtol=unit, atol=1e-5 * float(np.abs(b).max()), err_msg=name)
        assert layer.pattern == "empty" or len(np.unique(b)) > 3, f"{name} proves little"


PASSES = "none"  # the graphs are as the pass `bfloat16` makes them
WITH_BF16 = [isa for isa in isas() if isa.bf16]
SPARSE = [n for n, layer in LAYERS.items() if layer.pattern != "dense"]
# What the two instructions of AVX-512 BF16 are by definition, but for denormal numbers, in plain AVX-512.
DOT = """#define V_DOT(acc, x, w) __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w))"""
CONVERT = "(vhalf)_mm512_cvtneps_pbh(a)"
DEFINITIONS = """
static inline vec defined_dot(vec acc, __m512i x, __m512i w) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    acc = _mm512_fmadd_ps((vec)_mm512_and_si512(x, high), (vec)_mm512_and_si512(w, high), acc);
    return _mm512_fmadd_ps((vec)_mm512_slli_epi32(x, 16), (vec)_mm512_slli_epi32(w, 16), acc);
}
#define V_DOT(acc, x, w) ((acc) = defined_dot(acc, x, w))"""
NEAREST = (
    "(vhalf)_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_add_epi32((__m512i)a, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), "
    "_mm512_and_si512(_mm512_srli_epi32((__m512i)a, 16), _mm512_set1_epi32(1)))), 16))"
)
CROSS, QEMU = ["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]
AVX512 = needs_cpu("avx512f", "avx512bw", "avx512dq", "avx512vl")


def compute(
    isa: Isa,
    graph: Graph,
    folder: Path,
    feeds: dict[str, Array],
    *,
    kernels: Sequence[str] = (),
    threads: int = 1,
    sanitize: bool = False,
) -> tuple[dict[str, Array], Compilation]:
    """Outputs of the graph's C on this machine, under qemu, or with AVX-512 BF16 replaced by its definition."""
    made = emit_graph(graph, isa.name, folder, threads=threads, passes=PASSES, kernels=kernels)
    if isa.arch == "aarch64" and not runs_here(isa):
        return run_program(made, folder, feeds, CROSS, QEMU), made
    if not runs_here(isa):
        source = folder / f"{made.emitted.name}.c"
        text = source.read_text()
        assert DOT in text and CONVERT in text
        source.write_text(text.replace(DOT, DEFINITIONS).replace(CONVERT, NEAREST))
    build_graph(made, folder, SANITIZE if sanitize else ("-O1",))
    return (run_sanitized if sanitize else run_graph)(made, folder, feeds), made


def where_runnable(isa: Isa) -> Any:
    """The instruction set as a parameter, skipped by name where neither this machine nor qemu computes what it does."""
    marks = {"aarch64": [needs("aarch64-linux-gnu-gcc", "qemu-aarch64")], "x86_64": [needs("gcc"), AVX512]}
    return pytest.param(isa, id=isa.symbol, marks=[] if runs_here(isa) else marks.get(isa.arch, [needs("gcc")]))


@pytest.mark.parametrize("isa", [where_runnable(isa) for isa in WITH_BF16])
def test_every_kernel_computes_the_interpreter_s_numbers(isa: Isa, tmp_path: Path) -> None:
    graphs, feeds = cases(list(LAYERS))
    got, made = compute(isa, merged(graphs), tmp_path, split(feeds))
    products = [n.op for n in made.graph.nodes if isinstance(n.op, Conv | MatMul)]
    assert len(products) == len(graphs) and all(op.wide for op in products), "a product was widened"
    check(got, graphs, feeds, filtered(made))


def filtered(made: Compilation) -> list[str]:
    """The nodes that are computed by minimal filtering, whose transforms round."""
    return [name for name, layer in made.schedule.layers.items() if layer.kernel == "winograd"]


@pytest.mark.parametrize("isa", [where_runnable(isa) for isa in WITH_BF16])
def test_windows_by_minimal_filtering(isa: Isa, tmp_path: Path) -> None:
    graphs, feeds = cases(["window", "heavy", "ragged window", "blocks of 8", "columns of 32"], 41)
    got, made = compute(isa, merged(graphs), tmp_path, split(feeds), kernels=["winograd", "sparse-winograd"])
    assert len(filtered(made)) == len(graphs)
    check(got, graphs, feeds, filtered(made))


@needs("gcc")
@pytest.mark.parametrize("target", ["x86_64+avx2+fma"])
def test_other_targets_multiply_the_same_numbers_as_float32(target: str, tmp_path: Path) -> None:
    if not runs_here(isa_named(target)):
        pytest.skip(f"the machine lacks {target}")
    graphs, feeds = cases(list(LAYERS)[:10])
    made = compile_graph(merged(graphs), target, tmp_path, passes=PASSES)
    kept = {n.name for n in made.graph.nodes if isinstance(n.op, Conv | MatMul) and n.op.wide}
    assert all("depthwise" in name for name in kept), "windows of one channel are computed in float32 everywhere"
    check(run_graph(made, tmp_path, split(feeds)), graphs, feeds, filtered(made))


@needs("gcc")
@AVX512
def test_random_graphs_move_and_share_bfloat16(tmp_path: Path) -> None:
    passes = parse_pipeline("default,bfloat16", load_all(), PIPELINES)
    found = {case.name: case for case in map(random_case, range(40, 64))}
    graphs = {name: run_pipeline(import_model(case.model), passes) for name, case in found.items()}
    feeds = {name: dict(case.feeds) for name, case in found.items()}
    got, made = compute(isa_named("x86_64+avx512f+bf16"), merged(graphs), tmp_path, split(feeds))
    moved = {n.op.name for n in made.graph.nodes if made.graph.types[n.output].dtype is DType.BF16}
    assert {"Map", "Conv", "Relayout", "Concat", "Slice", "Transpose", "Pad", "Pool"} <= moved
    for name, graph in graphs.items():
        for port, want in interpret(graph, feeds[name]).items():  # a number next to a tie may be rounded the other way
            assert relative_error(got[f"{name}/{port}"], want) <= 1e-2, (name, port)


@pytest.mark.parametrize("family", ["panels", "sparse-panels", "planar"])
@pytest.mark.parametrize("isa", [where_runnable(isa) for isa in WITH_BF16 if isa.lanes > 1])
def test_every_family_computes_them(isa: Isa, family: str, tmp_path: Path) -> None:
    graphs, feeds = cases(SPARSE, 31)
    got, made = compute(isa, merged(graphs), tmp_path, split(feeds), kernels=[family])
    chosen = {layer.kernel for layer in made.schedule.layers.values() if layer.cost.macs}
    assert chosen == {"planar" if family == "planar" else "panel"}
    check(got, graphs, feeds)


@needs("gcc")
@AVX512
def test_nothing_beyond_a_buffer_is_touched(tmp_path: Path) -> None:
    graphs, feeds = cases(list(LAYERS), 23)
    got, made = compute(isa_named("x86_64+avx512f+bf16"), merged(graphs), tmp_path, split(feeds), sanitize=True)
    check(got, graphs, feeds, filtered(made))


@needs("gcc")
def test_threads_share_the_work(tmp_path: Path) -> None:
    graphs, feeds = cases(list(LAYERS)[:12], 5)
    got, made = compute(isa_named("generic"), merged(graphs), tmp_path, split(feeds), threads=3)
    check(got, graphs, feeds, filtered(made))


@pytest.mark.parametrize(
    ("name", "compiler", "instruction"),
    [
        pytest.param("x86_64+avx512f+bf16", "gcc", "vdpbf16ps", marks=needs("gcc")),
        pytest.param("x86_64+avx512f+bf16", "clang", "vdpbf16ps", marks=needs("clang")),
        pytest.param("aarch64+neon+bf16", "aarch64-linux-gnu-gcc", "bfdot", marks=needs("aarch64-linux-gnu-gcc")),
    ],
)
def test_compilers_take_the_code_and_keep_sums_in_registers(name: str, compiler: str, instruction: str, tmp_path: Path) -> None:
    dense = case(Layer(64, 64, 3, 28, stride=2), 0, whole=True)[0]  # no minimal filtering
    made = emit_graph(dense, name, tmp_path, passes=PASSES)
    command = [compiler, *WARNINGS, *made.emitted.compile_flags, "-S", "-o", "case.s", f"{made.emitted.name}.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "case.s").read_text().splitlines()
    at = [i for i, line in enumerate(lines) if instruction in line]
    assert len(at) >= 20
    stack = "sp)" if name.startswith("x86") else "[sp"
    between = [line for line in lines[at[0] : at[19]] if stack in line]
    assert not between, f"sums are moved to the stack: {between}"


TRICKY = (
    np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0xFF7F8000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x80000000]
        + [0x00800000],
        np.uint32,
    )
    .repeat(7)
    .view(np.float32)
)  # ties to even, beyond the largest, infinities, NaNs, a negative zero, the smallest normal


@pytest.mark.parametrize("isa", [where_runnable(i) for i in isas() if runs_here(i) or i.arch == "aarch64"])
def test_rounding_is_to_nearest_even(isa: Isa, tmp_path: Path) -> None:
    for shape in ((77,), (1, 7, 11)):
        graph = map_graph("cast.bf16(a0)", TRICKY.reshape(shape))
        folder = tmp_path / f"{len(shape)}"
        got = compute(isa, graph, folder, {"x": TRICKY.reshape(shape)})[0]["y"]
        with np.errstate(invalid="ignore"):
            want = TRICKY.reshape(shape).astype(DType.BF16.numpy)
        np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
        np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


def map_graph(program: str, x: Array) -> Graph:
    op, t = Map(Program.parse(program)), TensorType(DType.from_numpy(x.dtype), x.shape)
    types = {"x": t, "y": op.infer([t])[0]}
    return Graph("g", ("x",), (Port("y", "y"),), (Node("y", op, ("x",), ("y",), ("y",)),), types, {})


@needs("gcc")
def test_maximum_pools(tmp_path: Path) -> None:
    x = bf16(np.random.default_rng(0).normal(size=(2, 21, 9, 8)))
    op = Pool("max", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
    t = TensorType(DType.BF16, x.shape)
    types = {"x": t, "y": op.infer([t])[0]}
    graph = Graph("g", ("x",), (Port("y", "y"),), (Node("y", op, ("x",), ("y",), ("y",)),), types, {})
    made = compile_graph(graph, "host", tmp_path, passes=PASSES)
    np.testing.assert_array_equal(run_graph(made, tmp_path, {"x": x})["y"], interpret(graph, {"x": x})["y"])


def test_zeros_are_told_by_their_bits() -> None:
    w = bf16(np.array([[-0.0, 0.0, 1.0], [-0.0, -2.0, 0.0]]))
    np.testing.assert_array_equal(joined(w, 2) != 0, [[False, True], [True, False]])
    np.testing.assert_array_equal(joined(w, 1), [[0, 0, 0x3F80], [0, 0xC000, 0]])


def test_storing_rounds_so_that_a_last_cast_is_free() -> None:
    last = ending(Program.parse("add(a0,a1);cast.bf16(t0)"), ["a", "b"], [DType.F32] * 2, DType.BF16)
    assert "round" not in last.text(0) and last.store("y") == "v_store_bf16(y, t0);"
    kept = ending(Program.parse("cast.bf16(a0);cast.f32(t0)"), ["a"], [DType.F32], DType.F32)
    assert "v_round_bf16(a)" in kept.text(0)


@pytest.mark.parametrize("target", [isa.name for isa in isas() if not isa.bf16])
def test_targets_without_kernels_are_refused_by_name(target: str) -> None:
    CpuTarget.named("generic").require_bfloat16()
    with pytest.raises(UsageError, match=rf"{re.escape(target)} has no products of bfloat16: .* aarch64\+neon\+bf16, generic"):
        CpuTarget.named(target).require_bfloat16()
