"""One core's program on tiles and chunks that are laid into its memory: values against numpy, cycles by block and tile."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from sparsec.backends.aie.core.program import PARAMETER_BYTES, Kind, Parameters, core_program
from sparsec.backends.aie.lower.chunks import Chunk
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import FitError
from sparsec.compiler.ops.shift import requantise_by_shift
from tests.backends.aie.core_bench import PARTIAL, Bench, offsets_of

Array = np.ndarray[Any, Any]


def _sums(data: Array, offsets: list[int], weights: Array, bias: Array, vectors: int, signed: bool) -> Array:
    sums = np.tile(bias.astype(np.int64), (16 * vectors, 1))
    for offset, block in zip(offsets, weights, strict=True):
        at = data[offset : offset + 128 * vectors].view(np.int8 if signed else np.uint8).reshape(-1, 8).astype(np.int64)
        sums += at * block if block.ndim == 1 else at @ block.astype(np.int64)
    return sums


@pytest.mark.parametrize(("blocks", "vectors"), [(1, 1), (2, 3), (5, 2), (8, 4), (33, 1)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_products(blocks: int, vectors: int, signed: bool, residual: bool, kept: bool) -> None:
    rng = np.random.default_rng([blocks, vectors, signed])
    last = 64 + 4 * vectors
    tiles = [rng.integers(0, 256, 32 * last + 2 * 128 * vectors, np.uint8) for _ in range(2)]
    offsets = offsets_of(rng, blocks, vectors, last)
    kind = Kind(signed=(signed, not signed, signed), residual=residual)
    weights = rng.integers(-127, 128, (2, blocks, 8, 8), np.int8)
    bias = rng.integers(-5000, 5000, (2, 8), np.int32)
    added = [32 * last + i * 128 * vectors for i in range(2)]
    chunks = [Chunk(bias[i], weights[i], offsets, 1, added[i]) for i in range(2)]
    bench = Bench([Kind(depthwise=True), kind], tiles, chunks, vectors, shifts=(9, 6), kept=kept)
    results = bench.run()
    assert len(results) == 4
    for n, result in enumerate(results):
        data, i = tiles[n // 2], n % 2
        sums = _sums(data, offsets, weights[i], bias[i], vectors, signed)
        if residual:
            more = data[added[i] : added[i] + 128 * vectors].view(np.uint8 if signed else np.int8)
            sums += more.reshape(-1, 8).astype(np.int64) << 6
        assert np.array_equal(
            result.reshape(-1, 8), requantise_by_shift(sums, 9, 0, DType.I8 if signed else DType.U8).view(np.uint8)
        )
    assert residual or bench.core.stalls["bank"] == 0


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("blocks", [6, 9, 26])
def test_sums_in_parts(parts: int, vectors: int, blocks: int) -> None:
    """Of numbers of blocks whose steps are in the header of a chunk without bias, and before it."""
    rng = np.random.default_rng([parts, vectors, blocks])
    data = rng.integers(0, 256, 32 * 80, np.uint8)
    kinds = [Kind(ends_partial=True), Kind(starts_partial=True, ends_partial=True), Kind(starts_partial=True)]
    bias = rng.integers(-5000, 5000, 8, np.int32)
    chunks, total = [], np.tile(bias.astype(np.int64), (16 * vectors, 1))
    for part in range(parts):
        offsets, weights = offsets_of(rng, blocks, vectors, 80), rng.integers(-127, 128, (blocks, 8, 8), np.int8)
        kind = 0 if part == 0 else 2 if part == parts - 1 else 1
        chunks.append(Chunk(bias, weights, offsets, kind, partial=PARTIAL[0], goes_on=kind > 0))
        total += _sums(data, offsets, weights, np.zeros(8, np.int32), vectors, False)
    (result,) = Bench(kinds, [data], chunks, vectors, shifts=(9, 0)).run()
    assert np.array_equal(result.reshape(-1, 8), requantise_by_shift(total, 9, 0, DType.U8))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("blocks", [1, 9])
@pytest.mark.parametrize("signed", [False, True])
def test_the_last_part_adds_a_residual_or_leaves_sums(wide: bool, blocks: int, signed: bool) -> None:
    """Bytes take a residual beside the partial sums; int32 sums are stored as they are."""
    rng, vectors = np.random.default_rng([wide, blocks, signed]), 3
    data = rng.integers(0, 256, 32 * 80 + 128 * vectors, np.uint8)
    last = Kind(signed=(signed, not signed and not wide, False), residual=not wide, starts_partial=True, wide=wide)
    kinds = [Kind(signed=(signed, False, False), ends_partial=True), last]
    bias = rng.integers(-5000, 5000, 8, np.int32)
    chunks, total = [], np.tile(bias.astype(np.int64), (16 * vectors, 1))
    for kind in (0, 1):
        offsets, weights = offsets_of(rng, blocks, vectors, 80), rng.integers(-127, 128, (blocks, 8, 8), np.int8)
        chunks.append(Chunk(bias, weights, offsets, kind, 0 if wide else 32 * 80, PARTIAL[0], kind > 0))
        total += _sums(data, offsets, weights, np.zeros(8, np.int32), vectors, signed)
    (result,) = Bench(kinds, [data], chunks, vectors, shifts=(9, 6), result_bytes=512 if wide else 128).run()
    if wide:
        assert np.array_equal(result.view(np.int32).reshape(-1, 8), total)
        return
    total += data[32 * 80 :].view(np.uint8 if signed else np.int8).reshape(-1, 8).astype(np.int64) << 6
    assert np.array_equal(result.reshape(-1, 8), requantise_by_shift(total, 9, 0, DType.U8))


@pytest.mark.parametrize("cuts", [(True, False), (False, True), (True, True)])
def test_results_within_bounds(cuts: tuple[bool, bool]) -> None:
    rng, vectors = np.random.default_rng(3), 3
    data, offsets = rng.integers(0, 256, 32 * 80, np.uint8), offsets_of(rng, 5, vectors, 80)
    weights, bias = rng.integers(-127, 128, (2, 5, 8, 8), np.int8), rng.integers(-5000, 5000, 8, np.int32)
    chunks = [Chunk(bias, w, offsets, 0) for w in weights]
    bench = Bench([Kind(cuts=cuts)], [data], chunks, vectors, shifts=(9, 0), bounds=(0x14141414, 0x60606060))
    for result, w in zip(bench.run(), weights, strict=True):
        expected = requantise_by_shift(_sums(data, offsets, w, bias, vectors, False), 9, 0, DType.U8)
        expected = np.clip(expected, 0x14 if cuts[0] else 0, 0x60 if cuts[1] else 255)
        assert np.array_equal(result.reshape(-1, 8), expected)


@pytest.mark.parametrize("left", [0, 5])
def test_scaled_sums(left: int) -> None:
    """Times 21,400 and more, shifted twice; a kind beside it that has no scaling."""
    rng, vectors, way = np.random.default_rng(3), 3, (21400, 129511264, 14)
    data, offsets = rng.integers(0, 256, 32 * 80, np.uint8), offsets_of(rng, 49, vectors, 80)
    weights, bias = np.ones((2, 49, 8), np.int8), np.full(8, -6272, np.int32)
    kinds = [Kind(depthwise=True, scaled=True), Kind(depthwise=True)]
    bench = Bench(
        kinds, [data], [Chunk(bias, w, offsets, i) for i, w in enumerate(weights)], vectors, shifts=(left, 0), scaling=way
    )
    results = bench.run()
    assert len(results) == 2
    for i, (result, w) in enumerate(zip(results, weights, strict=True)):
        sums = _sums(data, offsets, w, bias, vectors, False)
        if i == 0:
            narrow = requantise_by_shift(sums, 0, 0, DType.I16).astype(np.int64)
            sums = requantise_by_shift(narrow * way[0] + way[1], way[2], 0, DType.I16)
        assert np.array_equal(result.reshape(-1, 8), requantise_by_shift(sums, left, 0, DType.U8))


@pytest.mark.parametrize("kept", [False, True])
def test_maxima(kept: bool) -> None:
    rng, vectors = np.random.default_rng(4), 2
    data, offsets = rng.integers(0, 256, 32 * 40, np.uint8), [32 * o for o in (0, 1, 2, 10, 11, 12, 20, 21, 22)]
    chunks = [Chunk(np.zeros(8, np.int32), np.ones((9, 8), np.int8), [o + 32 * n for o in offsets], 0) for n in range(2)]
    results = Bench([Kind(depthwise=True, maximum=True)], [data], chunks, vectors, kept=kept).run()
    for n, result in enumerate(results):
        expected = np.max([data[o + 32 * n : o + 32 * n + 128 * vectors] for o in offsets], axis=0)
        assert np.array_equal(result, expected)


def test_a_chunk_takes_as_many_cycles_as_its_last_sums_and_the_next_ones_header() -> None:
    """Slopes of cycles over chunks and over 4 vectors, without locks: what is beside products, and what fetching sums costs."""

    def cycles(kind: Kind, chunks: int, vectors: int) -> int:
        weights, bias, offsets = np.ones((8, 8, 8), np.int8), np.zeros(8, np.int32), [32 * i for i in range(8)]
        partial = kind.starts_partial or kind.ends_partial
        made = Chunk(bias, weights, offsets, 0, partial=PARTIAL[0] * partial, goes_on=kind.starts_partial)
        way = (1, 0, 0) if kind.scaled else None
        bench = Bench([kind], [np.zeros(32 * 400, np.uint8)], [made] * chunks, vectors, scaling=way)
        bench.run()
        return bench.core.now - bench.core.stalls["bank"]

    for kind, chunk, quad in (
        (Kind(), 19, 0),
        (Kind(residual=True), 22, 0),
        (Kind(ends_partial=True), 24, 0),
        (Kind(starts_partial=True, ends_partial=True), 26, 6),
        (Kind(starts_partial=True), 23, 5),
        (Kind(depthwise=True), 19, 0),
        (Kind(depthwise=True, scaled=True), 24, 18),
    ):
        assert cycles(kind, 5, 4) - cycles(kind, 4, 4) == 4 * (32 + quad) + chunk, kind.name
        assert cycles(kind, 4, 5) - cycles(kind, 4, 4) == 4 * (32 + quad), kind.name


def test_depthwise() -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 32 * 40, np.uint8)
    offsets = [32 * o for o in (0, 1, 2, 10, 11, 12, 20, 21, 22)]
    weights, bias = rng.integers(-127, 128, (9, 8), np.int8), rng.integers(-999, 999, 8, np.int32)
    (result,) = Bench([Kind(depthwise=True)], [data], [Chunk(bias, weights, offsets, 0)], 2, shifts=(7, 0)).run()
    assert np.array_equal(
        result.reshape(-1, 8), requantise_by_shift(_sums(data, offsets, weights, bias, 2, False), 7, 0, DType.U8)
    )


def test_a_block_takes_four_cycles_and_a_tile_none_beside() -> None:
    """Both numbers are the slopes of cycles over blocks and tiles: what the machine's ports and its matrix unit allow."""

    def cycles(blocks: int, vectors: int) -> int:
        data = np.zeros(32 * 900, np.uint8)
        offsets = [32 * i for i in range(blocks)]
        chunk = Chunk(np.zeros(8, np.int32), np.ones((blocks, 8, 8), np.int8), offsets, 0)
        bench = Bench([Kind()], [data], [chunk], vectors)
        bench.run()
        return bench.core.now

    assert cycles(60, 8) - cycles(40, 8) == 8 * 20 * 4
    assert cycles(40, 8) - cycles(40, 7) == 40 * 4


def test_parameters_fit_their_place() -> None:
    assert 4 * len(Parameters(*[0] * 7, (0, 0, 0, 0), *[0] * 16, bounds=(0, 0)).words()) <= PARAMETER_BYTES
    assert 4 * len(Parameters(*[0] * 7, (0, 0, 0, 0), *[0] * 16, scaling=(0, 0, 0)).words()) <= PARAMETER_BYTES


def test_a_program_longer_than_jumps_reach_does_not_fit() -> None:
    kinds = [Kind(residual=a, wide=b, depthwise=c, cuts=(d, e)) for a, b, c, d, e in product([False, True], repeat=5)]
    with pytest.raises(FitError, match=r"the core's program does not fit: it is 2173 bundles for 32 kinds of product"):
        core_program(kinds, 0xFE80, 16384)
