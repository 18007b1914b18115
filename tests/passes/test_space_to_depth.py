"""Convolutions with a stride and few channels as ones without: the same integers, fewer blocks of weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.types import TensorType
from sparsec.passes.space_to_depth import SpaceToDepth
from tests.passes.helpers import check, graph_of, ops, rejections

ROUNDED = "add(a0,a1);cast.f32(t0);mul(t1,0.0625);round(t2);relu(t3);min(t4,255.0);cast.u8(t5)"


def _graph(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, int, int, int],
    channels: tuple[int, int] = (3, 10),
    *,
    kind: str = "u8",
    zero: int = 0,
    front: str = "",
) -> Graph:
    """A convolution behind the lines `front`, which make %x of the input; none make %x the input."""
    out = [(n + pads[i] + pads[2 + i] - kernel[i]) // stride + 1 for i, n in enumerate(size)]
    ic, oc = channels
    w = "bf16" if kind == "bf16" else "i8"
    how = f"strides=({stride}, {stride}), dilations=(1, 1), pads={pads}, " + ("wide=true" if kind == "bf16" else f"zero={zero}")
    epilogue, bias, y = ("", "", "f32") if kind == "bf16" else (f", epilogue='{ROUNDED}'", ", %b", "u8")
    lines = [
        front or f"input %x: {kind}[1,{ic},{size[0]},{size[1]}]",
        f"%y = Conv(%x, %w{bias}) {{{how}{epilogue}}} -> {y}[1,{oc},{out[0]},{out[1]}]",
        'output "y" = %y',
    ]
    constants = f"w: {w}[{oc},{ic},{kernel[0]},{kernel[1]}]" + ("" if kind == "bf16" else f"\nb: i32[{oc},1,1]")
    return graph_of("\n".join(lines), constants=constants)


def _whole_range(rng: np.random.Generator, t: TensorType) -> np.ndarray:
    if t.dtype.is_float:
        return rng.integers(-9, 9, t.shape).astype(t.dtype.numpy)  # sums of whole numbers are exact in any order
    bounds = np.iinfo(t.dtype.numpy)
    return rng.integers(bounds.min, bounds.max + 1, t.shape).astype(t.dtype.numpy)


def _equal(before: Graph, after: Graph, rng: np.random.Generator) -> None:
    feeds = {v: _whole_range(rng, before.types[v]) for v in before.inputs}
    expected, found = interpret(before, feeds), interpret(after, feeds)
    assert all(np.array_equal(found[k], v) for k, v in expected.items())


def _macs(graph: Graph) -> int:
    return sum(n.op.macs(graph.in_types(n)) for n in graph)


def _blocks(graph: Graph) -> int:
    """Blocks of 8 input channels that hold weights, over the positions of the kernel."""
    (conv,) = (n for n in graph if isinstance(n.op, Conv))
    w = graph.constants[conv.inputs[1]]
    return sum(bool(w[:, at : at + 8, i, j].any()) for at in range(0, w.shape[1], 8) for i, j in np.ndindex(w.shape[2:]))


@settings(max_examples=60)
@given(st.data())
def test_sums_are_the_same(data: st.DataObject) -> None:
    """Kernels that strides divide or not, padding on any side, odd sizes, data with and without signs, any zero point. Floats
    that are no whole numbers are summed in another order."""
    stride = data.draw(st.integers(2, 4), "stride")
    kernel = data.draw(st.tuples(st.integers(2, 7), st.integers(2, 7)), "kernel")
    before = [data.draw(st.integers(0, k - 1), "pad") for k in kernel]
    after = [data.draw(st.integers(0, k), "pad behind") for k in kernel]
    size = [data.draw(st.integers(max(1, k - p), 12), "size") for k, p in zip(kernel, before, strict=True)]
    channels = data.draw(st.integers(1, 4), "channels"), data.draw(st.sampled_from((1, 8, 11)), "outputs")
    kind = data.draw(st.sampled_from(("u8", "i8", "bf16")), "type")
    zero = data.draw(st.integers(*{"u8": (0, 255), "i8": (-128, 127), "bf16": (0, 0)}[kind]), "zero")
    pads = (before[0], before[1], after[0], after[1])
    graph = _graph((size[0], size[1]), kernel, stride, pads, channels, kind=kind, zero=zero)
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    graph = replace(graph, constants={v: _whole_range(rng, graph.types[v]) for v in graph.constants})
    done = check(SpaceToDepth(), graph, tolerance=1e-5 if kind == "bf16" else 0)
    _equal(graph, done, rng)
    assert _blocks(done) < _blocks(graph) or done is graph
    assert _macs(done) == _macs(graph)


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "before", "after"),
    [
        ((7, 7), 2, (3, 3, 3, 3), 49, 28),  # ResNet: 4 x 4 positions of 8 + 4 channels, the 4 not in the kernel's last row
        ((3, 3), 2, (0, 0, 1, 1), 9, 6),  # SqueezeNet, MobileNetV2
        ((16, 16), 16, (0, 0, 0, 0), 256, 96),  # patches
    ],
)
def test_blocks_of_known_stems(
    kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int], before: int, after: int
) -> None:
    graph = _graph((32, 32), kernel, stride, pads, zero=7)
    graph = replace(graph, constants={**graph.constants, "w": np.ones_like(graph.constants["w"])})
    done = check(SpaceToDepth(), graph, tolerance=0)
    assert (_blocks(graph), _blocks(done)) == (before, after)
    conv = done.nodes[-1]
    assert isinstance(conv.op, Conv) and conv.op.strides == (1, 1) and conv.name == graph.nodes[0].name
    assert conv.op.zero == 7 and not any(conv.op.pads)


QUANTISED = """input %f: f32[1,3,11,9]
%q = Map(%f) {program='mul(a0,4.0);round(t0);add(t1,5.0);relu(t2);min(t3,255.0);cast.u8(t4)'} -> u8[1,3,11,9]
"""


def _pad(pads: str, fill: float, shape: str, mode: str = "constant") -> str:
    return QUANTISED + f'%x = Pad(%q) {{pads={pads}, mode="{mode}", fill={fill}}} -> u8[{shape}]'


@pytest.mark.parametrize(
    ("front", "size", "pads", "made"),
    [
        (QUANTISED.replace("%q", "%x"), (11, 9), (1, 1, 1, 1), ["Map", "Pad"]),
        (_pad("(0, 0, 1, 2, 0, 0, 1, 0)", 5.0, "1,3,13,11"), (13, 11), (0, 0, 0, 0), ["Map", "Pad"]),
        (_pad("(0, 0, 1, 2, 0, 0, 1, 0)", 5.0, "1,3,13,11"), (13, 11), (1, 1, 1, 1), ["Map", "Pad"]),
        (_pad("(0, 0, 1, 2, 0, 0, 1, 0)", 4.0, "1,3,13,11"), (13, 11), (1, 1, 1, 1), ["Map", "Pad", "Pad"]),
        (_pad("(0, 0, 1, 2, 0, 0, 1, 0)", 0.0, "1,3,13,11", "edge"), (13, 11), (1, 0, 1, 0), ["Map", "Pad", "Pad"]),
        (_pad("(0, 0, -1, 2, 0, 0, 1, 0)", 5.0, "1,3,11,11"), (11, 11), (1, 0, 1, 0), ["Map", "Pad", "Pad"]),
        (_pad("(0, 0, 30, 2, 0, 0, -10, 0)", 5.0, "1,3,31,11"), (31, 11), (1, 0, 0, 0), ["Map", "Pad", "Pad"]),
        (_pad("(0, 0, 0, 0, 0, 0, 22, 0)", 5.0, "1,3,33,9"), (33, 9), (1, 0, 0, 0), ["Map", "Pad"]),
    ],
)
def test_padding_in_front_becomes_one(
    front: str, size: tuple[int, int], pads: tuple[int, int, int, int], made: list[str]
) -> None:
    graph = _graph(size, (3, 3), 2, pads, zero=5, front=front)
    done = check(SpaceToDepth(), graph, tolerance=0)
    assert ops(done) == [*made, "Reshape", "Transpose", "Reshape", "Conv"]
    _equal(graph, done, np.random.default_rng(2))


def test_what_is_read_may_lie_in_the_padding_of_a_pad_in_front() -> None:
    """Its windows end above the data, of which nothing is left then: both are padded, one after the other."""
    line = QUANTISED.replace("11,9", "1,9") + "%x = Pad(%q) {pads=(0, 0, 5, 0, 0, 0, 0, 0), fill=5.0} -> u8[1,3,6,9]"
    graph = _graph((6, 9), (3, 3), 4, (0, 0, 0, 0), zero=5, front=line)
    done = check(SpaceToDepth(), graph, tolerance=0)
    assert ops(done)[:3] == ["Map", "Pad", "Pad"]
    _equal(graph, done, np.random.default_rng(2))


@pytest.mark.parametrize(
    ("front", "arguments", "reason"),
    [
        (
            "input %v: u8[1,3,9,9]\n%x = Map(%v) {program='max(a0,3)'} -> u8[1,3,9,9]",
            ((9, 9), (3, 3), 2, (1, 1, 1, 1)),
            "its data come from 'x', which the host may not compute",
        ),
        (
            "input %x: u8[1,3,9,9]\n%z = Map(%x) {program='max(a0,3)'} -> u8[1,3,9,9]\noutput \"z\" = %z",
            ((9, 9), (3, 3), 2, (1, 1, 1, 1)),
            "others read its data 'x' as well, in their own order",
        ),
        ("", ((9, 9), (3, 3), 2, (1, 1, 1, 1), (8, 16)), "its 18 blocks of 8 x 8 weights would be 18"),
        ("", ((9, 9), (1, 1), 2, (0, 0, 0, 0), (3, 8)), "its 1 blocks of 8 x 8 weights would be 1"),
        ("", ((9, 9), (3, 3), 2, (3, 1, 1, 1)), "whole windows lie in its padding"),
    ],
)
def test_what_stays(front: str, arguments: tuple, reason: str) -> None:
    graph = _graph(*arguments, front=front)
    graph = replace(graph, constants={**graph.constants, "w": np.ones_like(graph.constants["w"])})
    assert rejections(SpaceToDepth(), graph) == [f"space_to_depth: y: {reason}"]


def test_groups_and_batches_stay() -> None:
    how = f"{{strides=(2, 2), dilations=(1, 1), pads=(1, 1, 1, 1), groups=2, epilogue='{ROUNDED}'}}"
    lines = f'input %x: u8[1,2,8,8]\n%y = Conv(%x, %w, %b) {how} -> u8[1,4,4,4]\noutput "y" = %y'
    for text, weights in ((lines, "4,1,3,3"), (lines.replace("[1,", "[2,").replace("groups=2, ", ""), "4,2,3,3")):
        graph = graph_of(text, constants=f"w: i8[{weights}]\nb: i32[4,1,1]")
        assert rejections(SpaceToDepth(), graph) == [
            "space_to_depth: y: it is no convolution of one image in one group without dilation"
        ]


def test_no_stride_and_other_numbers_stay() -> None:
    assert rejections(SpaceToDepth(), _graph((9, 9), (3, 3), 1, (1, 1, 1, 1))) == []
    real = "input %x: f32[1,3,9,9]\n%y = Conv(%x, %w) {strides=(2, 2), dilations=(1, 1), pads=(1, 1, 1, 1)} -> f32[1,8,5,5]"
    assert rejections(SpaceToDepth(), graph_of(real + '\noutput "y" = %y', constants="w: f32[8,3,3,3]")) == []


def test_terms_are_some_of_the_weights() -> None:
    x, w = TensorType(DType.U8, (1, 2, 4, 4)), TensorType(DType.I8, (8, 2, 2, 2))
    made = Conv((1, 1), (1, 1), (0, 0, 0, 0), terms=5)
    assert made.macs([x, w]) == 9 * 8 * 5
    with pytest.raises(ModelError, match="do not have 9 terms: expected 8 at most"):
        replace(made, terms=9).infer([x, w])
