"""What the array computes besides plain convolutions: bounds, maxima, sums, products, and concatenations that move nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower import fitting
from sparsec.backends.aie.lower.choose import ranked
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.partition import layers_of
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, HostPart
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from tests.backends.aie.networks import compile_for, run_emitted

Array = np.ndarray[Any, Any]
ROUNDED = "round(t{n});add(t{a},{zero}.0);max(t{b},{low}.0);min(t{c},{high}.0);cast.{kind}(t{d})"


PAIR = machine_named("aie2:2x2")
TARGETS = st.sampled_from(["aie2:2x2", "aie2:2x2", "aie2:npu1"])  # what cores compute depends little on how many there are
_KINDS = {"int8": DType.I8, "int32": DType.I32, "float32": DType.F32}


def _graph(
    inputs: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    nodes: Sequence[tuple[Op, Sequence[str], str]],
    *outputs: str,
) -> Graph:
    """A graph of nodes (op, operands, result), named as their results."""
    types = dict(inputs) | {k: TensorType(_KINDS[a.dtype.name], a.shape) for k, a in constants.items()}
    made = []
    for op, operands, result in nodes:
        types[result] = op.infer([types[v] for v in operands])[0]
        made.append(Node(result, op, tuple(operands), (result,), (result,)))
    return Graph("g", tuple(inputs), tuple(Port(v, v) for v in outputs), tuple(made), types, dict(constants))


def _check(graph: Graph, seed: int, *, layers: int, target: str = "aie2:npu1") -> ArrayProgram:
    """So many layers are on the array, each in one piece or in several, and all outputs are the interpreter's."""
    program = compile_for(graph, target)
    plans = [plan for p in program.parts if isinstance(p, ArrayPart) for plan in p.plans]
    assert len({plan.layer.node for plan in plans}) == layers, program.reasons
    feeds = {}
    rng = np.random.default_rng(seed)
    for v in graph.inputs:
        numbers = np.iinfo(graph.types[v].dtype.numpy)
        feeds[v] = rng.integers(numbers.min, numbers.max + 1, graph.types[v].shape).astype(numbers.dtype)
    with tempfile.TemporaryDirectory() as folder:
        run = run_emitted(program, feeds, Path(folder))
    for name, expected in interpret(graph, feeds).items():
        assert np.array_equal(run.outputs[name], expected)
        assert run.outputs[name].dtype == expected.dtype
    return program


def _int8(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    return np.clip(np.rint(rng.normal(0, 40, tuple(shape))), -127, 127).astype(np.int8)


@settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_activations_cut_within_the_range_of_bytes(data: st.DataObject) -> None:
    """Before rounding and behind it, below and above, with a zero point, of both kinds of bytes."""
    draw = data.draw
    signed, depthwise = draw(st.booleans()), draw(st.booleans())
    least, most = (-128, 127) if signed else (0, 255)
    zero = 2 * draw(st.integers(least // 2, most // 2))
    before = draw(st.sampled_from(["", "relu", "min", "relu6"]))
    steps = ["add(a0,a1)", "cast.f32(t0)", "mul(t1,0.0009765625)"]
    if before in ("relu", "relu6"):
        steps.append("relu(t2)")
    if before in ("min", "relu6"):
        steps.append(f"min(t{len(steps) - 1},{draw(st.sampled_from([6.0, 95.5, 96.5, 40.25]))!r})")
    n = len(steps)
    low, high = sorted((draw(st.integers(least, most)), draw(st.integers(least, most))))
    shown = ROUNDED.format(n=n - 1, a=n, zero=zero, b=n + 1, low=low, c=n + 2, high=high, kind="i8" if signed else "u8", d=n + 3)
    graph = conv_graph(np.random.default_rng(1), (16, 16), (9, 7), (3, 3), pads=(1, 1, 1, 1), depthwise=depthwise)
    node = graph.nodes[0]
    assert isinstance(node.op, Conv)
    op = replace(node.op, epilogue=Program.parse(";".join([*steps, *shown.split(";")])))
    types = graph.types | {"y": op.infer(graph.in_types(node))[0]}
    made = Graph(graph.name, graph.inputs, graph.outputs, (replace(node, op=op),), types, graph.constants)
    _check(made, 2, layers=1, target=draw(TARGETS))


@settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_maxima_of_windows(data: st.DataObject) -> None:
    draw = data.draw
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    pads = tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    size = draw(st.integers(kernel[0], 19)), draw(st.integers(kernel[1], 19))
    stride = draw(st.integers(1, 3))
    op = Pool("max", kernel, (stride, stride), (1, 1), pads, ceil=draw(st.booleans()))
    x = TensorType(DType.I8 if draw(st.booleans()) else DType.U8, (1, draw(st.integers(1, 70)), *size))
    _check(_graph({"x": x}, {}, [(op, ["x"], "y")], "y"), 3, layers=1, target=draw(TARGETS))


@pytest.mark.parametrize(
    ("channels", "size", "stride", "fans"),
    [(128, (27, 27), 2, [16]), (280, (26, 30), 2, [16, 1]), (136, (34, 25), 1, [16, 1]), (64, (27, 27), 2, [8])],
)
def test_maxima_of_channels_that_cores_have_of_their_own(
    channels: int, size: tuple[int, int], stride: int, fans: list[int]
) -> None:
    """Cores take rows once then, in tiles of several, the last of which has fewer; where channels are enough for all cores. What
    is left beside equal parts is a layer of its own."""
    pool = Pool("max", (3, 3), (stride, stride), (1, 1), (1, 0, 1, 1), ceil=True)
    program = _check(_graph({"x": TensorType(DType.U8, (1, channels, *size))}, {}, [(pool, ["x"], "y")], "y"), 3, layers=1)
    (part,) = (p for p in program.parts if isinstance(p, ArrayPart))
    assert [p.layer.fan for p in part.plans] == fans


@settings(max_examples=4, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_sums_leave_as_they_are(data: st.DataObject) -> None:
    """Of convolutions and of products, more than float32 holds, in one piece and in several."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    channels, out = draw(st.integers(1, 600)), draw(st.integers(1, 50))
    bias = rng.integers(-(2**30), 2**30, (out,)).astype(np.int32)
    if draw(st.booleans()):
        rows = draw(st.sampled_from([1, 7, 12, 36]))
        transposed = draw(st.booleans())
        w = _int8(rng, (out, channels) if transposed else (channels, out))
        op: Op = MatMul(trans_b=transposed, epilogue=Program.parse("add(a0,a1)"), zero=draw(st.sampled_from([0, 3, 128])))
        x = TensorType(DType.U8, draw(st.sampled_from([(rows, channels), (1, rows, channels)])))
    else:
        w, bias = _int8(rng, (out, channels, 1, 1)), bias.reshape(out, 1, 1)
        op = Conv((1, 1), (1, 1), (0, 0, 0, 0), epilogue=Program.parse("add(a0,a1)"), zero=17)
        x = TensorType(DType.U8, (1, channels, draw(st.integers(1, 9)), draw(st.integers(1, 9))))
    _check(_graph({"x": x}, {"w": w, "b": bias}, [(op, ["x", "w", "b"], "y")], "y"), 4, layers=1, target=draw(TARGETS))


@pytest.mark.parametrize("along", [(8, 1, 1), (8, 1), (8,)])
def test_what_is_added_along_rows_or_columns_is_no_bias(along: tuple[int, ...]) -> None:
    """Even where there are as many rows and columns as channels."""
    rng = np.random.default_rng(5)
    op = Conv((1, 1), (1, 1), (0, 0, 0, 0), epilogue=Program.parse("add(a0,a1)"))
    constants = {"w": _int8(rng, (8, 8, 1, 1)), "b": rng.integers(-9999, 9999, along).astype(np.int32)}
    graph = _graph({"x": TensorType(DType.U8, (1, 8, 8, 8))}, constants, [(op, ["x", "w", "b"], "y")], "y")
    program = _check(graph, 6, layers=int(along == (8, 1, 1)))
    if along != (8, 1, 1):
        assert program.reasons["y"] == "it adds the constant 'b', which is not a whole number of its sums for every channel"


@pytest.mark.parametrize("thirds", [False, True])
def test_a_bias_behind_the_scale_is_part_of_the_sums(thirds: bool) -> None:
    """If it is a whole number of them: thirds are not, and the host adds them."""
    rng = np.random.default_rng(7)
    finished = ROUNDED.format(n=2, a=3, zero=0, b=4, low=0, c=5, high=255, kind="u8", d=6)
    text = f"cast.f32(a0);mul(t0,0.03125);add(t1,a1);{finished}"
    added = (rng.integers(-2000, 2000, 24) / np.float32(3 if thirds else 32)).astype(np.float32)
    graph = _graph(
        {"x": TensorType(DType.U8, (7, 9))},
        {"w": _int8(rng, (9, 24)), "b": added},
        [(MatMul(epilogue=Program.parse(text), zero=76), ["x", "w", "b"], "y")],
        "y",
    )
    program = _check(graph, 8, layers=1)
    assert set(program.reasons) == ({"y.1"} if thirds else set())


@settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_bytes_are_scaled_and_added(data: st.DataObject) -> None:
    draw = data.draw
    types = [TensorType(draw(st.sampled_from([DType.U8, DType.I8])), (1, 20, 5, 9)) for _ in range(draw(st.integers(1, 2)))]
    steps = []
    for i in range(len(types)):
        zero, scale = float(draw(st.integers(-20, 20))), 2.0 ** draw(st.integers(-4, 3))
        steps += [f"cast.f32(a{i})", f"sub(t{len(steps)},{zero!r})", f"mul(t{len(steps) + 1},{scale!r})"]
    steps += ["add(t2,t5)"] if len(types) > 1 else []
    n = len(steps)
    zero = 2 * draw(st.integers(0, 40))
    steps += ROUNDED.format(n=n - 1, a=n, zero=zero, b=n + 1, low=zero, c=n + 2, high=255, kind="u8", d=n + 3).split(";")
    graph = _graph(
        dict(zip("xz"[: len(types)], types, strict=True)),
        {},
        [(Map(Program.parse(";".join(steps))), list("xz")[: len(types)], "y")],
        "y",
    )
    _check(graph, 9, layers=1, target=draw(TARGETS))


def _pointwise(scale: float = 2.0**-9) -> Conv:
    text = f"cast.f32(a0);mul(t0,{scale!r});round(t1);relu(t2);min(t3,255.0);cast.u8(t4)"
    return Conv((1, 1), (1, 1), (0, 0, 0, 0), epilogue=Program.parse(text))


def _branches(first: int) -> Graph:
    """Two products of one image, joined, and a product and a maximum of both."""
    rng = np.random.default_rng(0)
    weights = {"v": _int8(rng, (first, 8, 1, 1)), "w": _int8(rng, (13, 8, 1, 1)), "u": _int8(rng, (9, first + 13, 1, 1))}
    nodes = [
        (_pointwise(), ["x", "v"], "p"),
        (_pointwise(), ["x", "w"], "q"),
        (Concat(1), ["p", "q"], "c"),
        (_pointwise(), ["c", "u"], "y"),
        (Pool("max", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1)), ["c"], "z"),
    ]
    return _graph({"x": TensorType(DType.U8, (1, 8, 6, 5))}, weights, nodes, "y", "z", "p")


def test_parts_of_a_concatenation_are_made_in_it() -> None:
    program = _check(_branches(16), 5, layers=4)
    (part,) = program.parts
    assert isinstance(part, ArrayPart) and [v.node for v in part.views] == ["c"]
    assert (
        program.images["q"].offset - program.images["p"].offset == 2 * 8 * program.images["c"].height * program.images["c"].width
    )


def test_parts_of_odd_channels_are_joined_by_the_host() -> None:
    program = _check(_branches(12), 5, layers=4)
    assert program.reasons == {"c": "its parts before 'q' have 12 channels, which are not whole blocks of 8"}
    assert [type(p) for p in program.parts] == [ArrayPart, HostPart, ArrayPart]


def test_a_part_of_two_concatenations_is_copied_by_the_host() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        (_pointwise(), ["x", "w"], "p"),
        (_pointwise(), ["x", "w"], "q"),
        (Concat(1), ["p", "q"], "c"),
        (Concat(1), ["q", "p"], "d"),
    ]
    program = _check(
        _graph({"x": TensorType(DType.U8, (1, 8, 3, 3))}, {"w": _int8(rng, (8, 8, 1, 1))}, nodes, "c", "d"), 6, layers=2
    )
    assert program.reasons == {"d": "its part 'q' is a constant, or a part elsewhere, too: it would have to be copied"}


def test_a_classifier_reads_a_single_position() -> None:
    rng = np.random.default_rng(0)
    constants = {"w": _int8(rng, (24, 16, 4, 4)), "v": _int8(rng, (10, 24))}
    nodes = [
        (_pointwise(2.0**-13), ["x", "w"], "p"),
        (Reshape((1, 24)), ["p"], "q"),
        (MatMul(trans_b=True), ["q", "v"], "y"),
    ]
    program = _check(_graph({"x": TensorType(DType.U8, (1, 16, 4, 4))}, constants, nodes, "y"), 7, layers=2)
    assert len(program.parts) == 1


@pytest.mark.parametrize(("groups", "kept"), [(2, 4), (4, 4)])
def test_groups_are_blocks_with_zeros_between(groups: int, kept: int) -> None:
    """Of the 2 x 4 blocks of a position of the kernel, those within groups are kept."""
    rng = np.random.default_rng(0)
    op = replace(_pointwise(), groups=groups, pads=(1, 1, 1, 1), zero=2)
    weights = {"w": _int8(rng, (16, 32 // groups, 3, 3))}
    graph = _graph({"x": TensorType(DType.U8, (1, 32, 5, 6))}, weights, [(op, ["x", "w"], "y")], "y")
    (part,) = _check(graph, 8, layers=1).parts
    assert isinstance(part, ArrayPart)
    layer = part.plans[0].layer
    assert layer.macs(graph) == 5 * 6 * 16 * 9 * 32 // groups
    assert (sum(layer.block_counts), layer.all_blocks) == (9 * kept, 9 * 2 * 4)


def test_what_shifts_cannot_finish_leaves_as_sums() -> None:
    """A scale for each channel and a residual of floats: products are the array's, the rest is the host's."""
    rng = np.random.default_rng(0)
    text = "add(a0,a1);cast.f32(t0);mul(t1,a2);add(t2,a3);round(t3);relu(t4);min(t5,255.0);cast.u8(t6)"
    op = replace(_pointwise(), epilogue=Program.parse(text), zero=9)
    scales = (rng.random((12, 1, 1)) / 512).astype(np.float32)
    constants = {"w": _int8(rng, (12, 20, 1, 1)), "b": rng.integers(-99, 99, (12, 1, 1)).astype(np.int32), "s": scales}
    image = TensorType(DType.U8, (1, 20, 4, 6))
    nodes: list[tuple[Op, Sequence[str], str]] = [
        (Map(Program.parse("cast.f32(a0)")), ["r"], "f"),
        (op, ["x", "w", "b", "s", "f"], "y"),
    ]
    graph = _graph({"x": image, "r": TensorType(DType.U8, (1, 12, 4, 6))}, constants, nodes, "y")
    program = _check(graph, 8, layers=1)
    assert "its epilogue's step mul(t1,a2) is none that the array has" in program.reasons.values()


def test_two_surroundings_of_one_image() -> None:
    """A convolution wants the zero point around its data, a maximum the least byte: the later one is the host's."""
    rng = np.random.default_rng(0)
    padded = replace(_pointwise(), pads=(1, 1, 1, 1), zero=8)
    nodes = [(padded, ["x", "w"], "y"), (Pool("max", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)), ["x"], "z")]
    graph = _graph({"x": TensorType(DType.U8, (1, 8, 5, 5))}, {"w": _int8(rng, (8, 8, 3, 3))}, nodes, "y", "z")
    program = _check(graph, 8, layers=1)
    assert program.reasons == {"z": "it needs 0 around its data, and 'y', which reads them as well, 8"}


def test_layers_too_large_are_the_hosts() -> None:
    graph = conv_graph(np.random.default_rng(1), (2048, 8), (3, 900), (3, 3), shift=16)
    program = compile_for(graph)
    assert [type(p) for p in program.parts] == [HostPart]
    assert "layer 'conv' on aie2:npu1 does not fit" in program.reasons["conv"]


def test_many_channels_are_pooled_in_parts() -> None:
    """A core would get all channels of its positions: too many here, so that cores get some each, and a layer what is left."""
    op = Pool("max", (4, 4), (1, 1), (1, 1), (0, 0, 0, 0))
    graph = _graph({"x": TensorType(DType.U8, (1, 1300, 4, 4))}, {}, [(op, ["x"], "y")], "y")
    program = _check(graph, 3, layers=1)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [p.layer.part_of(graph) for p in part.plans] == [(0, 1279), (1280, 1299)]
    assert [p.layer.fan for p in part.plans] == [16, 1]


def test_ways_that_do_not_fit_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost model's first choice is one that no core has room for: the next one is taken; without one the host computes it."""
    graph = conv_graph(np.random.default_rng(1), (256, 32), (24, 24), shift=12)
    found = ranked(PAIR, layers_of(graph)[0]["conv"], modes(PAIR.grid), 24, 24)
    cost, first = found[0]
    large = (cost, replace(first, rows=first.band, kept=True, buffers=2, splits=1))
    monkeypatch.setattr(fitting, "ranked", lambda *_: [large, found[0]])
    program = _check(graph, 8, layers=1, target=PAIR.name)
    assert program.passed_over["conv"].startswith("1 cheaper ways do not fit: layer 'conv' in a core does not fit: it is")
    monkeypatch.setattr(fitting, "ranked", lambda *_: [large])
    program = _check(graph, 8, layers=0, target=PAIR.name)
    assert program.reasons["conv"].startswith("none of the 1 cheapest ways to compute it fits: layer 'conv' in a core")


@pytest.mark.parametrize(
    ("op", "shape", "reason"),
    [
        (Pool("max", (2, 2), (2, 1), (1, 1), (0, 0, 0, 0)), (1, 8, 4, 4), "strides [2, 1] or dilations [1, 1] differ from one"),
        (Pool("max", (2, 2), (1, 1), (1, 1), (0, 0, 0, 0)), (2, 8, 4, 4), "its data [2, 8, 4, 4] are not one image"),
        (Pool("max", (2,), (1,), (1,), (0, 0)), (1, 8, 4), "its data [1, 8, 4] are not one image"),
        (Map(Program.parse("cast.f32(a0);mul(t0,0.3);round(t1);cast.u8(t2)")), (1, 8, 2, 2), "its scales 0.3 are not powers of"),
        (Map(Program.parse("cast.f32(a0);mul(t0,0.5);round(t1);cast.u8(t2)")), (2, 8, 2, 2), "its data [2, 8, 2, 2] are not one"),
        (Map(Program.parse("cast.f32(a0);mul(t0,0.5)")), (1, 8, 2, 2), "it does not make bytes of bytes, element by element"),
        (Map(Program.parse("cast.f32(a0);mul(t0,0.5);cast.u8(t1)")), (1, 8, 2, 2), "its result is not rounded before"),
        (
            Map(Program.parse("cast.f32(a0);mul(t0,0.5);round(t1);add(t2,1.0);cast.u8(t3)")),
            (1, 8, 2, 2),
            "its scales 0.5 and 0.5",
        ),
        (Reshape((1, 32)), (1, 8, 2, 2), "Reshape is not computed on the array"),
    ],
)
def test_reasons_for_the_host(op: Op, shape: tuple[int, ...], reason: str) -> None:
    graph = _graph({"x": TensorType(DType.U8, shape)}, {}, [(op, ["x"], "y")], "y")
    layers, reasons = layers_of(graph)
    assert not layers and reasons["y"].startswith(reason)


def test_products_that_are_not_rows_by_a_matrix() -> None:
    graph = _graph({"x": TensorType(DType.U8, (2, 3, 8))}, {"w": np.ones((8, 4), np.int8)}, [(MatMul(), ["x", "w"], "y")], "y")
    assert layers_of(graph)[1] == {"y": "it multiplies [2, 3, 8] by [8, 4], not rows by a matrix"}
