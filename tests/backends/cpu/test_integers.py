"""Products of bytes in C and in the interpreter against numpy, to the last bit: patterns, tails, strides, epilogues, targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.kernels.saturation import is_bounded, split_saturation
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.shift import requantise_by_shift
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from tests.backends.cpu.compiled import SANITIZE, compile_graph, merged, run_graph, run_sanitized, split
from tests.backends.cpu.harness import BYTES
from tests.backends.cpu.integer_reference import EPILOGUES as REFERENCES
from tests.backends.cpu.integer_reference import convolved
from tests.machine import needs
from tests.quantised import shifts_of

Array = np.ndarray[Any, Any]
SUMS = ""
BYTES_OUT = "add(a0,a1);cast.f32(t0);mul(t1,a2);relu(t2);round(t3);max(t4,0.0);min(t5,255.0);cast.u8(t6)"
SHIFTED = "add(a0,a1);cast.f32(t0);mul(t1,a2);round(t2);add(t3,131.0);max(t4,0.0);min(t5,255.0);cast.u8(t6)"
RESIDUAL = (
    "add(a0,a1);cast.f32(t0);mul(t1,a2);cast.i32(a3);sub(t3,117);cast.f32(t4);mul(t5,0.37);add(t2,t6);relu(t7);round(t8);"
    "add(t9,3.0);max(t10,0.0);min(t11,255.0);cast.u8(t12)"
)
TWICE = (
    "cast.f32(a0);mul(t0,a2);round(t1);add(t2,90.0);max(t3,0.0);min(t4,255.0);cast.u8(t5);cast.i32(t6);sub(t7,90);cast.f32(t8);"
    "mul(t9,0.25);round(t10);add(t11,128.0);max(t12,0.0);min(t13,255.0);cast.u8(t14)"
)
SIGNED = "cast.f32(a0);mul(t0,a2);round(t1);max(t2,-128.0);min(t3,127.0);cast.i8(t4)"
SIGNED_AT = "cast.f32(a0);mul(t0,a2);round(t1);add(t2,{});max(t3,-128.0);min(t4,127.0);cast.i8(t5)"
CLIPPED = "add(a0,a1);cast.f32(t0);mul(t1,a2);relu(t2);min(t3,60.5);round(t4);add(t5,7.0);max(t6,0.0);min(t7,255.0);cast.u8(t8)"
TIES = "cast.f32(a0);mul(t0,0.5);round(t1);add(t2,{});max(t3,0.0);min(t4,255.0);cast.u8(t5)"
REAL_RESIDUAL = "cast.f32(a0);mul(t0,a2);cast.f32(a1);mul(t2,0.001);add(t1,t3);cast.i32(a3);sub(t5,9);cast.f32(t6);add(t4,t7)"
REAL = "cast.f32(a0);mul(t0,a2);cast.f32(a1);mul(t2,0.001);add(t1,t3)"
EPILOGUES = {
    "sums": SUMS,
    "bytes": BYTES_OUT,
    "shifted": SHIFTED,
    "residual": RESIDUAL,
    "twice": TWICE,
    "signed": SIGNED,
    "signed low": SIGNED_AT.format("-128.0"),
    "signed high": SIGNED_AT.format("127.0"),
    "clipped": CLIPPED,
    "ties": TIES.format("128.0"),
    "ties low": TIES.format("0.0"),
    "ties high": TIES.format("255.0"),
    "real": REAL,
    "real residual": REAL_RESIDUAL,
}


@dataclass(frozen=True)
class Layer:
    """A convolution of bytes (`kernel` 0: a matrix product of `size` rows); weights are from -largest to largest."""

    ic: int
    oc: int
    kernel: int = 1
    size: int = 7
    stride: int | tuple[int, int] = 1
    groups: int = 1
    zero: int = 0
    pattern: str = "dense"
    epilogue: str = "bytes"
    batch: int = 1
    largest: int = 127
    dilation: int = 1
    pads: tuple[int, int, int, int] | None = None  # kernel // 2 on every side


LAYERS = {
    "pointwise": Layer(32, 48),
    "ragged": Layer(21, 37, zero=5, epilogue="shifted"),
    "window": Layer(16, 33, 3, epilogue="residual"),
    "strided": Layer(20, 64, 3, 9, stride=2, epilogue="twice"),
    "first": Layer(3, 16, 3, 11, stride=2, epilogue="signed"),
    "first of 7 taps": Layer(3, 32, 7, 21, stride=2, pads=(0, 0, 0, 0), zero=114, epilogue="shifted"),
    "first of two channels": Layer(2, 40, 5, 12, stride=2, pads=(1, 2, 0, 3), epilogue="residual"),
    "one": Layer(1, 24, 5, 9, epilogue="real"),
    "grouped": Layer(32, 32, 3, groups=2, epilogue="sums"),
    "narrow groups": Layer(12, 24, 3, groups=6, epilogue="bytes"),
    "depthwise": Layer(40, 40, 3, 9, groups=40, epilogue="shifted"),
    "depthwise strided": Layer(16, 16, 3, 10, stride=2, groups=16, epilogue="residual"),
    "centred": Layer(24, 40, 1, zero=255, epilogue="real", batch=2),
    "padded": Layer(24, 40, 3, zero=128, epilogue="bytes"),
    "blocks of 8": Layer(64, 64, 3, 8, pattern="8x8", epilogue="bytes"),
    "blocks of 8 residual": Layer(96, 72, 1, 9, pattern="8x8", epilogue="residual", batch=2),
    "blocks of 8 real": Layer(64, 40, 1, 6, pattern="8x8", epilogue="real"),
    "fours": Layer(64, 64, 3, 8, pattern="32x4", epilogue="residual"),
    "fours of each tap": Layer(64, 64, 3, 7, pattern="32x4/taps", epilogue="shifted"),
    "columns of 16": Layer(64, 64, 1, 8, pattern="16x4", epilogue="shifted"),
    "any zeros": Layer(48, 48, 1, 8, pattern="free", epilogue="bytes"),
    "nothing": Layer(32, 32, 1, 6, pattern="empty", epilogue="shifted"),
    "product": Layer(64, 80, 0, 13, epilogue="bytes"),
    "product real": Layer(50, 33, 0, 5, zero=77, epilogue="real"),
    "product blocks": Layer(128, 64, 0, 40, pattern="8x8", epilogue="shifted"),
    "product residual": Layer(96, 48, 0, 19, pattern="free", epilogue="residual"),
    "product of a residual": Layer(64, 80, 0, 128, epilogue="real residual"),
    "product of a residual blocks": Layer(64, 80, 0, 128, pattern="8x8", epilogue="real residual"),
    "window of a residual": Layer(32, 48, 1, 16, epilogue="real residual"),
    "long": Layer(2048, 16, 1, 3, zero=200, epilogue="sums"),
    "uneven": Layer(13, 19, 3, 12, stride=(2, 3), dilation=2, pads=(2, 0, 1, 3), epilogue="clipped"),
    "signed low": Layer(20, 17, 1, 7, epilogue="signed low", zero=128),
    "signed high": Layer(20, 17, 1, 7, epilogue="signed high", zero=128),
    "2:4 of 32 rows": Layer(64, 64, 1, 8, pattern="2:4/32", epilogue="shifted"),
    "2:4": Layer(64, 40, 3, 6, pattern="2:4", epilogue="bytes"),
    "2:4 grouped": Layer(64, 64, 3, 6, groups=2, pattern="2:4/32", epilogue="residual"),
    "ties": Layer(32, 32, 1, 9, zero=128, largest=1, epilogue="ties"),
    "ties low": Layer(21, 32, 1, 9, zero=128, largest=1, epilogue="ties low"),
    "ties high": Layer(32, 24, 1, 9, zero=128, largest=1, epilogue="ties high"),
    "ties of blocks": Layer(64, 32, 1, 9, zero=128, largest=1, pattern="8x8", epilogue="ties"),
    "reduced": Layer(32, 48, 3, 9, largest=64),
    "reduced ragged": Layer(21, 37, zero=5, epilogue="shifted", largest=64),
    "reduced strided": Layer(20, 64, 3, 9, stride=2, epilogue="twice", largest=64),
    "reduced grouped": Layer(32, 32, 3, groups=2, epilogue="residual", largest=64),
    "reduced product": Layer(50, 33, 0, 21, zero=77, epilogue="real", largest=64),
    "reduced blocks": Layer(64, 64, 3, 8, pattern="8x8", epilogue="residual", largest=64),
    "reduced any zeros": Layer(48, 48, 1, 8, pattern="free", largest=64),
    "reduced columns": Layer(64, 64, 1, 8, pattern="32x4", epilogue="sums", largest=64),
}


def zeroed(rng: np.random.Generator, w: Array, pattern: str) -> Array:
    """Weights [OC, products of taps and channels, or channels first] with the zeros of a pattern over [OC, IC]."""
    if pattern == "dense":
        return w
    if pattern == "empty":
        return np.zeros_like(w)
    if pattern.startswith("2:4"):
        return w * two_of_four(rng, w.shape, 32 if pattern == "2:4/32" else 1)
    if pattern == "32x4/taps":
        keep = rng.random((w.shape[0] // 32, w.shape[1] // 4, *w.shape[2:])) < 0.4
        return w * keep.repeat(32, axis=0).repeat(4, axis=1).astype(w.dtype)
    rows, columns = {"8x8": (8, 8), "32x4": (32, 4), "16x4": (16, 4), "free": (1, 1)}[pattern]
    oc, ic = w.shape[:2]
    keep = rng.random((-(-oc // rows), -(-ic // columns))) < 0.3
    mask = np.repeat(np.repeat(keep, rows, 0), columns, 1)[:oc, :ic]
    return w * mask.reshape(oc, ic, *[1] * (w.ndim - 2)).astype(w.dtype)


def two_of_four(rng: np.random.Generator, shape: tuple[int, ...], rows: int) -> Array:
    """Ones where `rows` outputs together keep two of four input channels, at all taps alike."""
    oc, ic = shape[:2]
    order = rng.random((-(-oc // rows), ic // 4, 4)).argsort(axis=-1)
    keep = (order < 2).reshape(len(order), ic).repeat(rows, axis=0)[:oc]
    return keep.reshape(oc, ic, *[1] * (len(shape) - 2)).astype(np.int8)


def case(layer: Layer, seed: int) -> tuple[Graph, dict[str, Array]]:
    rng = np.random.default_rng(seed)
    k, per_group = layer.kernel, layer.ic // layer.groups
    w = rng.integers(-layer.largest, layer.largest + 1, (layer.oc, per_group, *([k, k] if k else []))).astype(np.int8)
    w = zeroed(rng, w, layer.pattern)
    if k:
        strides = layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) * 2
        op: Any = Conv(strides, (layer.dilation,) * 2, layer.pads or (k // 2,) * 4, layer.groups, zero=layer.zero)
        x = rng.integers(0, 256, (layer.batch, layer.ic, layer.size, layer.size)).astype(np.uint8)
        column: tuple[int, ...] = (layer.oc, 1, 1)
    else:
        op, w = MatMul(zero=layer.zero), np.ascontiguousarray(w.T)
        x = rng.integers(0, 256, (layer.batch, layer.size, layer.ic)).astype(np.uint8)
        column = (layer.oc,)
    (bare,) = op.infer([TensorType(DType.U8, x.shape), TensorType(DType.I8, w.shape)])
    products = w.size // layer.oc
    program = Program.parse(EPILOGUES[layer.epilogue])
    constants = {"w": w}
    extras: list[str] = []
    if program.n_args > 1:
        constants["bias"] = rng.integers(-90000, 90000, column).astype(np.int32)
        constants["scale"] = (rng.uniform(0.3, 2.0, column) * 2 / np.sqrt(products)).astype(np.float32) / 100
        extras = ["bias", "scale"]
    feeds = {"x": x}
    if program.n_args > 3:
        feeds["r"] = rng.integers(0, 256, bare.shape).astype(np.uint8)
        extras.append("r")
    op = replace(op, epilogue=program)
    types = {n: TensorType(DType.from_numpy(a.dtype), a.shape) for n, a in {**constants, **feeds}.items()}
    (types["y"],) = op.infer([types[v] for v in ("x", "w", *extras)])
    node = Node("y", op, ("x", "w", *extras), ("y",), ("y",))
    return Graph("case", tuple(feeds), (Port("y", "y"),), (node,), types, constants), feeds


def cases(seed: int) -> tuple[dict[str, Graph], dict[str, dict[str, Array]]]:
    made = {name: case(layer, seed + i) for i, (name, layer) in enumerate(LAYERS.items())}
    return {n: g for n, (g, _) in made.items()}, {n: f for n, (_, f) in made.items()}


def reference(layer: Layer, graph: Graph, feeds: dict[str, Array]) -> Array:
    """What the layer computes, in numpy."""
    op, w, x = graph.nodes[0].op, graph.constants["w"], feeds["x"]
    if isinstance(op, Conv):
        acc = convolved(x, w, op.strides, op.dilations, op.pads, op.groups, layer.zero)
    else:
        acc = (x.astype(np.int64) - layer.zero) @ w.astype(np.int64)
    none = np.zeros(1, np.int32)
    bias, scale = graph.constants.get("bias", none), graph.constants.get("scale", none)
    function, dtype = REFERENCES[layer.epilogue]
    return function(acc.astype(np.int32), bias, scale, feeds.get("r", none)).astype(dtype)


def check(got: dict[str, Array], graphs: dict[str, Graph], feeds: dict[str, dict[str, Array]]) -> None:
    for name, graph in graphs.items():
        want = reference(LAYERS[name], graph, feeds[name])
        np.testing.assert_array_equal(got[f"{name}/y"], want, err_msg=name)
        assert LAYERS[name].pattern == "empty" or len(np.unique(want)) > 3, f"{name} proves little"


def test_the_interpreter_computes_numpy_s_integers() -> None:
    graphs, feeds = cases(11)
    check({f"{n}/y": interpret(g, feeds[n])["y"] for n, g in graphs.items()}, graphs, feeds)


@needs("gcc")
@pytest.mark.parametrize("isa", BYTES, ids=lambda isa: isa.symbol)
def test_every_kernel_computes_the_interpreter_s_integers(isa: Any, tmp_path: Path) -> None:
    graphs, feeds = cases(11)
    made = compile_graph(merged(graphs), isa.name, tmp_path)
    check(run_graph(made, tmp_path, split(feeds)), graphs, feeds)


@needs("gcc")
@pytest.mark.parametrize("family", ["panels", "sparse-panels", "planar"])
@pytest.mark.parametrize("isa", [i for i in BYTES if i.lanes > 1], ids=lambda isa: isa.symbol)
def test_every_family_computes_them(isa: Any, family: str, tmp_path: Path) -> None:
    graphs, feeds = cases(31)
    sparse = {n: g for n, g in graphs.items() if LAYERS[n].pattern != "dense"}
    made = compile_graph(merged(sparse), isa.name, tmp_path, flags=SANITIZE, kernels=[family])
    chosen = {layer.kernel for layer in made.schedule.layers.values() if layer.cost.macs}
    assert chosen == {"planar" if family == "planar" else "panel"}
    feeds = {n: feeds[n] for n in sparse}
    check(run_sanitized(made, tmp_path, split(feeds)), sparse, feeds)


@needs("gcc")
@pytest.mark.parametrize("isa", BYTES, ids=lambda isa: isa.symbol)
def test_biases_beyond_the_products_saturate(isa: Any, tmp_path: Path) -> None:
    graph, feeds = case(Layer(16, 16, 1, 4), 0)
    bias = np.resize(np.array([2**31 - 2**22, -(2**31) + 2**22], np.int32), (16, 1, 1))
    scale = np.resize(np.array([0.9, 1.5, 1e-3], np.float32), (16, 1, 1))
    extreme = replace(graph, constants={**graph.constants, "bias": bias, "scale": scale})
    made = compile_graph(extreme, isa.name, tmp_path)
    got, want = run_graph(made, tmp_path, feeds)["y"], interpret(extreme, feeds)["y"]
    np.testing.assert_array_equal(got, want)
    assert set(np.unique(want)) == {0, 255}


@needs("gcc")
@pytest.mark.parametrize("isa", BYTES, ids=lambda isa: isa.symbol)
def test_scales_that_are_powers_of_two_are_shifts(isa: Any, tmp_path: Path) -> None:
    layer = Layer(32, 40, 1, 9, zero=128, epilogue="shifted")
    graph, feeds = case(layer, 1)
    shifts = np.resize(np.arange(6, 14), (40, 1, 1))
    powers = replace(graph, constants={**graph.constants, "scale": np.exp2(-shifts).astype(np.float32)})
    got = run_graph(compile_graph(powers, isa.name, tmp_path), tmp_path, feeds)["y"]
    acc = reference(replace(layer, epilogue="sums"), graph, feeds) + graph.constants["bias"]
    assert np.array_equal(shifts, shifts_of(powers.constants["scale"])) and np.abs(acc).max() < 2**24
    np.testing.assert_array_equal(got, requantise_by_shift(acc, shifts, 131, DType.U8))


@needs("gcc")
def test_threads_share_the_work(tmp_path: Path) -> None:
    graphs, feeds = cases(5)
    made = compile_graph(merged(graphs), "host", tmp_path, threads=3)
    check(run_graph(made, tmp_path, split(feeds)), graphs, feeds)


@needs("gcc")
@pytest.mark.parametrize("isa", [i for i in BYTES if i.lanes > 1], ids=lambda isa: isa.symbol)
def test_no_byte_beyond_a_buffer_is_touched(isa: Any, tmp_path: Path) -> None:
    graphs, feeds = cases(23)
    made = compile_graph(merged(graphs), isa.name, tmp_path, flags=SANITIZE)
    check(run_sanitized(made, tmp_path, split(feeds)), graphs, feeds)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@needs("gcc")
def test_maximum_pools_of_bytes(dtype: Any, tmp_path: Path) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.random.default_rng(0).integers(low, high + 1, (2, 21, 9, 8)).astype(dtype)
    op = Pool("max", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
    t = TensorType(DType.from_numpy(x.dtype), x.shape)
    types = {"x": t, "y": op.infer([t])[0]}
    graph = Graph("g", ("x",), (Port("y", "y"),), (Node("y", op, ("x",), ("y",), ("y",)),), types, {})
    made = compile_graph(graph, "host", tmp_path)
    np.testing.assert_array_equal(run_graph(made, tmp_path, {"x": x})["y"], interpret(graph, {"x": x})["y"])


def test_the_end_of_a_program_that_rounds_to_bytes() -> None:
    body, zero = split_saturation(Program.parse(SHIFTED)) or (None, None)
    assert str(body) == "add(a0,a1);cast.f32(t0);mul(t1,a2)" and zero == 131
    body, zero = split_saturation(Program.parse(BYTES_OUT)) or (None, None)
    assert str(body) == "add(a0,a1);cast.f32(t0);mul(t1,a2)" and zero == 0  # the Relu is part of the limits
    whole = split_saturation(Program.parse("round(a0);max(t0,0.0);min(t1,255.0);cast.u8(t2)"))
    assert whole == (Program(), 0)


@pytest.mark.parametrize(
    "text",
    [
        "round(a0);max(t0,1.0);min(t1,255.0);cast.u8(t2)",  # another limit
        "round(a0);max(t0,0.0);cast.u8(t1)",  # none above
        "max(a0,0.0);min(t0,255.0);cast.u8(t1)",  # not rounded
        "round(a0);add(t0,0.5);max(t1,0.0);min(t2,255.0);cast.u8(t3)",  # no integer
        "round(a0);max(t0,0.0);min(t1,255.0);add(t2,t0);cast.u8(t3)",  # read twice
        SIGNED,
    ],
)
def test_other_ends_are_left_alone(text: str) -> None:
    assert split_saturation(Program.parse(text)) is None


def test_bounds_of_what_is_rounded() -> None:
    program = Program.parse("cast.f32(a0);mul(t0,a1);add(t1,a2)")
    assert is_bounded(program, [(-1e6, 1e6), (0.0, 2.0), (0.0, 255.0)])
    assert not is_bounded(program, [(-1e6, 1e6), (0.0, 1e4), (0.0, 255.0)])
    assert not is_bounded(program, [(-1e6, 1e6), (0.0, 2.0), (-np.inf, np.inf)])
    assert not is_bounded(Program.parse("exp(a0)"), [(0.0, 1.0)])
