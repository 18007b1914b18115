"""Sums times a number of 16 bits: every sum rounds as float32 does, or the host divides."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.lower.scaling import finished, fitting
from sparsec.backends.aie.program import ArrayPart
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.scalar import Program
from sparsec.passes.byte_means import ByteMeans
from tests.backends.aie.networks import check_run, compile_for
from tests.passes.helpers import graph_of

Array = np.ndarray[Any, Any]
RANGES = {DType.U8: (0, 255), DType.I8: (-128, 127)}
GLOBAL = 'Reduce(%d) {kind="mean", over=(2, 3)}'
POOL = 'Pool(%d) {{kind="avg", kernel={}, strides={}, dilations=(1, 1), pads={}, include_pad=true}}'


def _means(count: int, zeros: tuple[int, int], power: int, dtype: DType) -> tuple[Array, Array, Fraction]:
    """Every sum of bytes without their zero point, its mean in float32 as bytes of another scale, and what scales it."""
    low, high = RANGES[dtype]
    sums = np.arange(count * (low - zeros[0]), count * (high - zeros[0]) + 1)
    mean = sums.astype(np.float32) / np.float32(count) * np.float32(2.0**power)
    return sums, np.clip(np.round(mean) + zeros[1], low, high).astype(np.int64), Fraction(2) ** power / count


@given(
    st.integers(0, 84).map(lambda n: 2 * n + 1),
    st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    st.integers(0, 4),
    st.sampled_from(list(RANGES)),
)
def test_means_of_odd_counts_always_have_a_way(count: int, zeros: tuple[int, int], power: int, dtype: DType) -> None:
    """Up to 169 positions, results on a scale as fine as the data's or finer: none lies halfway, one rounding is enough."""
    offset = 128 if dtype is DType.U8 else 0
    sums, wanted, scale = _means(count, (zeros[0] + offset, zeros[1] + offset), power, dtype)
    centre = -((int(sums[0]) + int(sums[-1]) + 1) // 2)
    found = fitting(sums + centre, wanted, dtype, scale, zeros[1] + offset - scale * centre)
    assert found is not None
    way, left = found
    assert left == 0
    assert 0 < way.factor < 2**15
    x = (sums + centre).tolist()
    assert all(-(2**15) <= v < 2**15 and abs(v * way.factor + way.added) < 2**31 for v in (x[0], x[-1]))
    products = [v * way.factor + way.added for v in x]  # in whole numbers of any size, halves to even
    exact = [round(Fraction(p, 1 << way.shift)) for p in products]
    assert np.array_equal(np.clip(exact, *RANGES[dtype]), wanted)


@pytest.mark.parametrize("count", [6, 12, 36, 49, 100, 144])
@pytest.mark.parametrize("power", [-1, 0])
def test_halves_are_rounded_to_even_by_two_shifts(count: int, power: int) -> None:
    sums, wanted, scale = _means(count, (0, 0), power, DType.U8)
    x = sums - 128 * count
    found = fitting(x, wanted, DType.U8, scale, scale * 128 * count)
    assert found is not None
    way, left = found
    halves = (2 * sums * scale.numerator % scale.denominator == 0) & (2 * sums * scale.numerator // scale.denominator % 2 == 1)
    assert (left > 0) == halves.any()
    assert np.array_equal(finished(x, way, left, DType.U8), wanted)


def test_where_no_multiplication_rounds_alike_there_is_none() -> None:
    """Halves that are rounded to even before an odd zero point is added become odd."""
    sums, wanted, scale = _means(12, (0, 33), 0, DType.U8)
    assert fitting(sums - 1530, wanted, DType.U8, scale, 33 + scale * 1530) is None


def _graph(mean: str, shape: tuple[int, int, int], out: tuple[int, int], zero: int = 4, scale: float = 32.0) -> Graph:
    c, rows, columns = shape
    text = f"mul(a0,{scale!r});round(t0);add(t1,{float(zero)!r});relu(t2);min(t3,255.0);cast.u8(t4)"
    return graph_of(
        "\n".join(
            [
                f"input %x: u8[1,{c},{rows},{columns}]",
                f"%d = Map(%x) {{program='cast.f32(a0);sub(t0,6.0);mul(t1,0.0625)'}} -> f32[1,{c},{rows},{columns}]",
                f"%m = {mean} -> f32[1,{c},{out[0]},{out[1]}]",
                f"%y = Map(%m) {{program='{text}'}} -> u8[1,{c},{out[0]},{out[1]}]",
                'output "y" = %y',
            ]
        )
    )


@pytest.mark.parametrize(
    ("mean", "shape", "out", "fans"),
    [
        (GLOBAL, (1280, 7, 7), (1, 1), [16]),
        (GLOBAL, (270, 13, 13), (1, 1), [16, 1]),  # 32 blocks, and one with what is left
        (GLOBAL, (544, 7, 7), (1, 1), [16, 4]),  # 64 blocks, and 4 that cores have of their own as well
        (GLOBAL, (20, 3, 3), (1, 1), [1]),
        (POOL.format((3, 3), (1, 1), (1, 1, 1, 1)), (40, 9, 11), (9, 11), [4]),
        (POOL.format((3, 2), (2, 2), (0, 0, 0, 0)), (16, 13, 12), (6, 6), [1]),
    ],
)
def test_means_are_exact_on_the_array(mean: str, shape: tuple[int, int, int], out: tuple[int, int], fans: list[int]) -> None:
    before = _graph(mean, shape, out)
    graph = run_pipeline(before, (ByteMeans(),))
    program = compile_for(graph)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert [p.layer.fan for p in part.plans] == fans
    check_run(program, before, np.random.default_rng(0))


@pytest.mark.parametrize("zero", [-100, 0, 99])
def test_signed_bytes_have_means_too(zero: int) -> None:
    """What is added to products may be negative."""
    text = f"mul(a0,32.0);round(t0);add(t1,{zero}.0);max(t2,-128.0);min(t3,127.0);cast.i8(t4)"
    before = graph_of(
        f"""input %x: i8[1,130,7,7]
        %d = Map(%x) {{program='cast.f32(a0);add(t0,3.0);mul(t1,0.03125)'}} -> f32[1,130,7,7]
        %m = {GLOBAL} -> f32[1,130,1,1]
        %y = Map(%m) {{program='{text}'}} -> i8[1,130,1,1]
        output "y" = %y"""
    )
    program = compile_for(run_pipeline(before, (ByteMeans(),)))
    assert not program.reasons
    check_run(program, before, np.random.default_rng(4))


def test_scaled_and_other_layers_take_turns() -> None:
    """A program with both kinds of product, on a smaller array."""
    mean = _graph(GLOBAL, (64, 5, 5), (1, 1))
    check_run(compile_for(run_pipeline(mean, (ByteMeans(),)), "aie2:2x2"), mean, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (_graph(GLOBAL, (8, 17, 17), (1, 1)), "its sums are from -1734 to 71961, and cores multiply sums of 16 bits"),
        (
            _graph(GLOBAL, (8, 3, 4), (1, 1), zero=5, scale=16.0),
            "no multiplication by 16 bits scales its sums by 0.0833333 and rounds all of them as float32 does",
        ),
    ],
)
def test_reasons_for_the_host(graph: Graph, reason: str) -> None:
    made = run_pipeline(graph, (ByteMeans(),))
    assert layer_of(made, made.nodes[0]) == reason
    check_run(compile_for(made), graph, np.random.default_rng(2))  # sums are the array's then, and the host divides


@pytest.mark.parametrize(
    ("mean", "size", "reason"),
    [
        (POOL.format((3, 3), (1, 1), (0, 0, 0, 0)), 2, "it takes a mean of floats, and the array of bytes and bfloat16"),
        (
            POOL.format((3, 3), (1, 1), (1, 1, 1, 1)).replace("true", "false"),
            4,
            "it divides by fewer positions where its windows reach beyond the image",
        ),
        (GLOBAL.replace("(2, 3)", "(1,)"), 4, "it is no mean of rows and columns that keeps its dimensions"),
    ],
)
def test_means_of_floats_are_the_hosts(mean: str, size: int, reason: str) -> None:
    shape = f"f32[1,{1 if 'Reduce' in mean else 8},{size},{size}]"
    graph = graph_of(f'input %d: f32[1,8,4,4]\n%m = {mean} -> {shape}\noutput "y" = %m')
    assert layer_of(graph, graph.nodes[0]) == reason


def test_other_products_keep_their_reason() -> None:
    """A depthwise convolution whose weights are none of a mean, and what is no multiple of sums."""
    graph = run_pipeline(_graph(GLOBAL, (8, 3, 3), (1, 1)), (ByteMeans(),))
    (node,) = graph.nodes
    assert isinstance(node.op, Conv)
    weights = {node.inputs[1]: np.full((8, 1, 3, 3), 100, np.int8)}
    found = layer_of(replace(graph, constants=weights), node)
    assert isinstance(found, str) and found.startswith("its scale 0.222222 is not a power of two up to 1")
    weights = {node.inputs[1]: (np.arange(72) % 5 - 2).astype(np.int8).reshape(8, 1, 3, 3)}
    made = layer_of(replace(graph, constants=weights), node)  # its sums are within 16 bits
    assert isinstance(made, ConvLayer) and made.shifts.scaling is not None and made.alike == 0
    op = replace(node.op, epilogue=Program.parse("cast.f32(a0);exp(t0);round(t1);cast.u8(t2)"))
    assert layer_of(graph, replace(node, op=op)) == "its epilogue's step exp(t0) is none that the array has"


@pytest.mark.parametrize(("scale", "kind"), [(0.37, "i8"), (2.717, "u8"), (1 / 3, "u8")])
def test_bytes_of_another_scale(scale: float, kind: str) -> None:
    """As before a concatenation whose parts have scales of their own: every byte has its result."""
    low, high = RANGES[DType(kind)]
    text = f"cast.f32(a0);sub(t0,9.0);mul(t1,{scale!r});round(t2);add(t3,7.0);max(t4,{low}.0);min(t5,{high}.0);cast.{kind}(t6)"
    made = f"%y = Map(%x) {{program='{text}'}} -> {kind}[1,20,5,9]"
    graph = graph_of(f'input %x: u8[1,20,5,9]\n{made}\noutput "y" = %y')
    program = compile_for(graph)
    assert not program.reasons
    check_run(program, graph, np.random.default_rng(3))
