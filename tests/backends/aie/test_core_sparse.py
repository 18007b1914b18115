"""One core's program for sparse products: values against numpy, in every kind, and cycles by block and tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsec.backends.aie.core.program import Kind
from sparsec.backends.aie.lower.chunks import Chunk, Steps
from tests.backends.aie.core_bench import PARTIAL, Bench, offsets_of

Array = np.ndarray[Any, Any]
APART = 4096  # bytes from a block of input channels to the next
STEPS = Steps(inner=APART)


def two_of_four(rng: np.random.Generator, *shape: int) -> Array:
    """int8 [..., 16, 8], of which at most two of every four along the second last dimension are not zero."""
    w = rng.integers(-128, 128, shape).astype(np.int8)
    groups = np.moveaxis(w, -2, -1).reshape(*shape[:-2], shape[-1], -1, 4)
    order = np.argsort(rng.random(groups.shape), axis=-1)
    kept = np.where(order < rng.integers(0, 3, groups.shape[:-1])[..., None], groups, 0)
    return np.ascontiguousarray(np.moveaxis(kept.reshape(*shape[:-2], shape[-1], -1), -1, -2)).astype(np.int8)


def _sums(data: Array, offsets: list[int], weights: Array, bias: Array, vectors: int) -> Array:
    """int64 [positions, 16]."""
    sums = np.tile(bias.astype(np.int64), (16 * vectors, 1))
    for offset, block in zip(offsets, weights, strict=True):
        both = [data[at : at + 128 * vectors].reshape(-1, 8).astype(np.int64) for at in (offset, offset + APART)]
        sums += np.concatenate(both, axis=1) @ np.concatenate(block.astype(np.int64), axis=1)
    return sums


def _bytes(sums: Array, shift: int) -> Array:
    return np.clip(np.rint(sums / 2.0**shift), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("blocks", "vectors"), [(1, 1), (5, 3), (18, 2)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("cuts", [(False, False), (True, True)])
@pytest.mark.parametrize("fast", [False, True])
def test_products(blocks: int, vectors: int, residual: bool, kept: bool, cuts: tuple[bool, bool], fast: bool) -> None:
    """Two tiles by two chunks, whichever way the simulator takes."""
    rng = np.random.default_rng([blocks, vectors])
    last = 64 + 4 * vectors
    tiles = [rng.integers(0, 256, 2 * APART + 4 * 128 * vectors).astype(np.uint8) for _ in range(2)]
    offsets = offsets_of(rng, blocks, vectors, last)
    weights = two_of_four(rng, 2, blocks, 2, 16, 8)
    bias = rng.integers(-50000, 50000, (2, 16)).astype(np.int32)
    added = [2 * APART + i * 256 * vectors for i in range(2)]
    kind = Kind(residual=residual, sparse=True, cuts=cuts)
    bounds = (0x1E1E1E1E, 0x64646464) if any(cuts) else None
    chunks = [Chunk(bias[i], weights[i], offsets, 1, added[i], others=128 * vectors) for i in range(2)]
    bench = Bench(
        *([Kind(), kind], tiles, chunks, vectors),
        **{"steps": STEPS, "kept": kept, "shifts": (9, 5), "fast": fast, "pairs": True, "bounds": bounds},
    )
    results = bench.run()
    assert len(results) == 8
    for n, result in enumerate(results):
        tile, i, half = tiles[n // 4], n // 2 % 2, n % 2
        sums = _sums(tile, offsets, weights[i], bias[i], vectors)[:, 8 * half : 8 * half + 8]
        if residual:
            at = added[i] + half * 128 * vectors
            sums = sums + (tile[at : at + 128 * vectors].reshape(-1, 8).astype(np.int64) << 5)
        expected = np.clip(_bytes(sums, 9), 0x1E, 0x64) if any(cuts) else _bytes(sums, 9)
        assert np.array_equal(result.reshape(-1, 8), expected)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("vectors", [1, 4])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("blocks", [6, 27])
def test_sums_in_parts(parts: int, vectors: int, wide: bool, fast: bool, blocks: int) -> None:
    """Their results are bytes, or the sums themselves."""
    rng = np.random.default_rng([parts, vectors, blocks])
    data = rng.integers(0, 256, 3 * APART).astype(np.uint8)
    ends = [(False, True), (True, True), (True, False), (False, False)]
    kinds = [Kind(starts_partial=a, ends_partial=b, wide=wide and not b, sparse=True) for a, b in ends]
    bias = rng.integers(-50000, 50000, 16).astype(np.int32)
    chunks, total = [], np.tile(bias.astype(np.int64), (16 * vectors, 1))
    for i in range(parts):
        offsets, weights = offsets_of(rng, blocks, vectors, 80), two_of_four(rng, blocks, 2, 16, 8)
        kind = 3 if parts == 1 else 0 if i == 0 else 2 if i == parts - 1 else 1
        chunks.append(Chunk(bias, weights, offsets, kind, partial=PARTIAL[0], goes_on=i > 0))
        total += _sums(data, offsets, weights, np.zeros(16), vectors)
    size = 512 if wide else 128
    results = Bench(kinds, [data], chunks, vectors, steps=STEPS, shifts=(10, 0), result_bytes=size, fast=fast, pairs=True).run()
    made = np.concatenate([r.view(np.int32 if wide else np.uint8).reshape(-1, 8) for r in results], axis=1)
    assert np.array_equal(made, total if wide else _bytes(total, 10))


def test_a_block_takes_eight_cycles_and_a_tile_two_beside() -> None:
    """The slopes of cycles over blocks and tiles: each cycle a sparse product, and a bias set for either half of the outputs."""

    def cycles(blocks: int, vectors: int, *, residual: bool = False) -> int:
        data = np.zeros(0x8000, np.uint8)
        chunk = Chunk(np.zeros(16, np.int32), np.zeros((blocks, 2, 16, 8), np.int8), [32 * i for i in range(blocks)], 0)
        kind = Kind(sparse=True, residual=residual)
        bench = Bench([kind], [data], [chunk], vectors, steps=STEPS, pairs=True)
        bench.run()
        assert residual or bench.core.stalls["bank"] == 0
        return bench.core.now

    assert cycles(40, 8) - cycles(20, 8) == 8 * 20 * 8
    assert cycles(40, 8) - cycles(40, 7) == 40 * 8 + 2
