"""One core's program on bfloat16: values against numpy, in every kind of product, and cycles by block and tile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sparsec.backends.aie.core.program import Kind
from sparsec.backends.aie.lower.chunks import Chunk
from sparsec.backends.aie.lower.geometry import BFLOAT16, Share, Window
from tests.backends.aie.core_bench import PARTIAL, Bench, offsets_of

Array = np.ndarray[Any, Any]
BF16 = np.dtype(ml_dtypes.bfloat16)
PARTS = [(False, True), (True, True), (True, False)]
STEPS = Share(Window(), 1, 1, 16, BFLOAT16).steps


def _bits(x: float) -> int:
    return int(np.float32(x).view(np.int32))


def _whole(rng: np.random.Generator, *shape: int) -> Array:
    """Small whole numbers, whose sums of products float32 holds exactly, in any order."""
    return rng.integers(-12, 13, shape).astype(BF16)


def _sums(data: Array, offsets: list[int], weights: Array, bias: Array, vectors: int) -> Array:
    """float64 [positions, 8]."""
    sums = np.tile(bias.astype(np.float64), (16 * vectors, 1))
    for offset, block in zip(offsets, weights, strict=True):
        sums += data[offset // 2 : offset // 2 + 128 * vectors].reshape(-1, 8).astype(np.float64) @ block.astype(np.float64)
    return sums


@pytest.mark.parametrize(("blocks", "vectors"), [(1, 1), (5, 3), (33, 1)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("cuts", [(False, False), (True, True)])
@pytest.mark.parametrize("fast", [False, True])
def test_products(blocks: int, vectors: int, residual: bool, kept: bool, cuts: tuple[bool, bool], fast: bool) -> None:
    """Two tiles by two chunks, whole numbers: to the last bit, whichever way the simulator takes."""
    rng = np.random.default_rng([blocks, vectors])
    last = 64 + 4 * vectors
    tiles = [_whole(rng, 32 * last + 2 * 128 * vectors) for _ in range(2)]
    offsets = offsets_of(rng, blocks, vectors, last, 64)
    weights = _whole(rng, 2, blocks, 8, 8)
    bias = rng.integers(-500, 500, (2, 8)).astype(np.float32)
    added = [64 * last + i * 256 * vectors for i in range(2)]
    kind = Kind(residual=residual, bfloat16=True, cuts=cuts)
    chunks = [Chunk(bias[i], weights[i], offsets, 1, added[i]) for i in range(2)]
    data = [t.view(np.uint8) for t in tiles]
    bounds = (_bits(-7), _bits(300)) if any(cuts) else None
    bench = Bench([Kind(), kind], data, chunks, vectors, steps=STEPS, kept=kept, result_bytes=256, bounds=bounds, fast=fast)
    results = bench.run()
    assert len(results) == 4
    for n, result in enumerate(results):
        tile, i = tiles[n // 2], n % 2
        sums = _sums(tile, offsets, weights[i], bias[i], vectors)
        if residual:
            sums += tile[added[i] // 2 : added[i] // 2 + 128 * vectors].reshape(-1, 8).astype(np.float64)
        expected = np.clip(sums, -7 if cuts[0] else None, 300 if cuts[1] else None) if any(cuts) else sums
        assert np.array_equal(result.view(BF16).reshape(-1, 8), expected.astype(BF16))
    assert residual or bench.core.stalls["bank"] == 0


@pytest.mark.parametrize(("taps", "vectors"), [(1, 1), (9, 3), (32, 2)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("cuts", [(False, False), (True, True)])
@pytest.mark.parametrize("fast", [False, True])
def test_lanes(taps: int, vectors: int, residual: bool, cuts: tuple[bool, bool], fast: bool) -> None:
    """Two chunks of a depthwise convolution, whole numbers: to the last bit, whichever way the simulator takes."""
    rng = np.random.default_rng([taps, vectors])
    last = 64 + 4 * vectors
    data, offsets = _whole(rng, 32 * last + 2 * 128 * vectors), offsets_of(rng, taps, vectors, last, 64)
    weights, bias = _whole(rng, 2, taps, 8), rng.integers(-500, 500, (2, 8)).astype(np.float32)
    added = [64 * last + i * 256 * vectors for i in range(2)]
    kind = Kind(depthwise=True, residual=residual, bfloat16=True, cuts=cuts)
    chunks = [Chunk(bias[i], weights[i], offsets, 0, added[i]) for i in range(2)]
    bounds = (_bits(-7), _bits(300)) if any(cuts) else None
    bench = Bench([kind], [data.view(np.uint8)], chunks, vectors, steps=STEPS, result_bytes=256, bounds=bounds, fast=fast)
    for i, result in enumerate(bench.run()):
        sums = _sums(data, offsets, np.array([np.diag(w.astype(np.float32)) for w in weights[i]]), bias[i], vectors)
        if residual:
            sums += data[added[i] // 2 : added[i] // 2 + 128 * vectors].reshape(-1, 8).astype(np.float64)
        expected = np.clip(sums, -7 if cuts[0] else None, 300 if cuts[1] else None) if any(cuts) else sums
        assert np.array_equal(result.view(BF16).reshape(-1, 8), expected.astype(BF16))


@pytest.mark.parametrize("parts", [2, 3])
def test_lanes_in_parts(parts: int) -> None:
    rng, vectors = np.random.default_rng(parts), 2
    data = _whole(rng, 32 * 80)
    kinds = [Kind(depthwise=True, starts_partial=a, ends_partial=b, bfloat16=True) for a, b in PARTS]
    chunks, total = [], np.zeros((16 * vectors, 8))
    for part in range(parts):
        offsets, weights = offsets_of(rng, 7, vectors, 80, 64), _whole(rng, 7, 8)
        kind = 0 if part == 0 else 2 if part == parts - 1 else 1
        chunks.append(Chunk(np.zeros(8, np.float32), weights, offsets, kind, partial=PARTIAL[0], goes_on=kind > 0))
        total += _sums(data, offsets, np.array([np.diag(w.astype(np.float32)) for w in weights]), np.zeros(8), vectors)
    (result,) = Bench(kinds, [data.view(np.uint8)], chunks, vectors, steps=STEPS, result_bytes=256).run()
    assert np.array_equal(result.view(BF16).reshape(-1, 8), total.astype(BF16))


def test_maxima() -> None:
    rng, vectors = np.random.default_rng(4), 2
    data = rng.normal(-50, 9, 32 * 80).astype(BF16)
    offsets, start = offsets_of(rng, 9, vectors, 80, 64), np.full(8, 0xFF80FF80, np.uint32).view(np.int32)
    chunks = [Chunk(start, np.ones((9, 8), BF16), [o + 64 * n for o in offsets], 0) for n in range(2)]
    kind = Kind(depthwise=True, maximum=True, bfloat16=True)
    results = Bench([kind], [data.view(np.uint8)], chunks, vectors, steps=STEPS, result_bytes=256).run()
    for n, result in enumerate(results):
        expected = np.max([data[o // 2 + 32 * n : o // 2 + 32 * n + 128 * vectors].astype(np.float32) for o in offsets], axis=0)
        assert np.array_equal(result.view(BF16), expected)


@pytest.mark.parametrize("kind", [Kind(bfloat16=True), Kind(bfloat16=True, residual=True)], ids=["plain", "residual"])
@pytest.mark.parametrize("fast", [False, True])
def test_transposed_blocks(kind: Kind, fast: bool) -> None:
    """[output, input] as they lie in a computed tensor: the same results in the same cycles."""
    rng = np.random.default_rng(3)
    data, weights = _whole(rng, 32 * 80 + 2 * 256), _whole(rng, 6, 8, 8)
    offsets, bias = offsets_of(rng, 6, 2, 72, 64), np.zeros(8, np.float32)
    turned = weights.reshape(6, 8, 2, 4).transpose(0, 2, 3, 1).reshape(6, 2, 4, 8)  # operands [4 outputs, 8 inputs]
    stored = turned.reshape(6, 2, 8, 4).transpose(0, 2, 1, 3).reshape(6, 8, 8)  # which a chunk stores that way
    found = []
    for made, blocks in ((kind, weights), (replace(kind, transposed=True), stored)):
        chunk = Chunk(bias, blocks, offsets, 0, 64 * 72)
        bench = Bench([made], [data.view(np.uint8)], [chunk], 2, steps=STEPS, result_bytes=256, fast=fast)
        found.append((bench.run()[0], bench.core.now))
    assert np.array_equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    sums = _sums(data, offsets, weights, bias, 2)
    if kind.residual:
        sums += data[32 * 72 : 32 * 72 + 256].reshape(-1, 8).astype(np.float64)
    assert np.array_equal(found[1][0].view(BF16).reshape(-1, 8), sums.astype(BF16))


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("blocks", [6, 9, 26])
def test_sums_in_parts(parts: int, vectors: int, blocks: int) -> None:
    """Partial sums are float32: nothing is rounded to bfloat16 between the parts."""
    rng = np.random.default_rng([parts, vectors, blocks])
    data = _whole(rng, 32 * 80)
    kinds = [Kind(starts_partial=a, ends_partial=b, bfloat16=True) for a, b in PARTS]
    bias = rng.integers(-5000, 5000, 8).astype(np.float32)
    chunks, total = [], np.tile(bias.astype(np.float64), (16 * vectors, 1))
    for part in range(parts):
        offsets, weights = offsets_of(rng, blocks, vectors, 80, 64), _whole(rng, blocks, 8, 8)
        kind = 0 if part == 0 else 2 if part == parts - 1 else 1
        chunks.append(Chunk(bias, weights, offsets, kind, partial=PARTIAL[0], goes_on=kind > 0))
        total += _sums(data, offsets, weights, np.zeros(8), vectors)
    (result,) = Bench(kinds, [data.view(np.uint8)], chunks, vectors, steps=STEPS, result_bytes=256).run()
    assert np.array_equal(result.view(BF16).reshape(-1, 8), total.astype(BF16))


@pytest.mark.parametrize("fast", [False, True])
def test_real_numbers_are_within_float32s_sums(fast: bool) -> None:
    """The bound holds for any order of the sums: as many roundings as additions, then the one to bfloat16."""
    rng = np.random.default_rng(4)
    vectors, blocks = 2, 60
    data, weights = rng.normal(0, 1, 32 * 120).astype(BF16), rng.normal(0, 1, (blocks, 8, 8)).astype(BF16)
    offsets, bias = offsets_of(rng, blocks, vectors, 112, 64), rng.normal(0, 1, 8).astype(np.float32)
    chunk = Chunk(bias, weights, offsets, 0)
    (result,) = Bench(
        [Kind(bfloat16=True)], [data.view(np.uint8)], [chunk], vectors, steps=STEPS, result_bytes=256, fast=fast
    ).run()
    exact = _sums(data, offsets, weights, bias, vectors)
    size = _sums(abs(data), offsets, abs(weights), abs(bias), vectors)
    slack = (8 * blocks + 1) * 2.0**-24 * size
    assert np.all(
        abs(result.view(BF16).reshape(-1, 8).astype(np.float64) - exact) <= 1.01 * slack + 2.0**-8 * (abs(exact) + slack)
    )


@pytest.mark.parametrize("shape", [(8, 8), (8,)])
def test_a_block_takes_eight_cycles_and_a_tile_none_beside(shape: tuple[int, ...]) -> None:
    """Both numbers are the slopes of cycles over blocks and tiles: 128 products a cycle or 16 lanes, two stores for a vector."""
    kind = Kind(bfloat16=True, depthwise=len(shape) == 1)

    def cycles(blocks: int, vectors: int) -> int:
        data = np.zeros(32 * 420, BF16)
        offsets = [64 * i for i in range(blocks)]
        chunk = Chunk(np.zeros(8, np.float32), np.ones((blocks, *shape), BF16), offsets, 0)
        bench = Bench([kind], [data.view(np.uint8)], [chunk], vectors, steps=STEPS, result_bytes=256)
        bench.run()
        return bench.core.now

    assert cycles(60, 8) - cycles(40, 8) == 8 * 20 * 8
    assert cycles(40, 8) - cycles(40, 7) == 40 * 8
