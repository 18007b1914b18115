"""One core's program on tiles and chunks that are laid into its memory: values against numpy, cycles by block and tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.execute import saturated
from sparsec.backends.aie.core.program import LOCKS, Kind, core_program
from sparsec.backends.aie.core.timing import Latencies
from sparsec.backends.aie.lower.chunks import Chunk, Steps

Array = np.ndarray[Any, Any]
PARAMETERS, DATA, WEIGHTS, RESULTS = 0xFF00, 0x0, 0x8000, 0xC000


def _run(kinds: list[Kind], data: Array, chunks: list[bytes], tiles: int, added_at: int = 0) -> tuple[Core, list[Array]]:
    """Multiply one activation tile by chunks; returns the core and each chunk's results."""
    core = Core(core_program(kinds, PARAMETERS, 16384), Latencies(4, 4, 4), 65536, 8192)
    s = core.state
    words = [1, len(chunks), tiles, DATA, 2 * DATA, WEIGHTS, 2 * WEIGHTS, RESULTS, 2 * RESULTS, 32, 32, 32, added_at]
    s.write(PARAMETERS, np.array(words, np.int32).view(np.uint8), 4)
    results = []
    queue = list(chunks)
    while True:
        meeting = core.resume()
        if (meeting.kind, meeting.lock) == ("acq", LOCKS.data_full):
            s.write(DATA, data, 32)  # not before: the program begins by clearing its memory
        if (meeting.kind, meeting.lock) == ("acq", LOCKS.weights_full):
            s.write(WEIGHTS, np.frombuffer(queue.pop(0), np.uint8), 32)
        if (meeting.kind, meeting.lock) == ("rel", LOCKS.results_full):
            results.append(s.memory[RESULTS : RESULTS + 128 * tiles].copy())
        if (meeting.kind, meeting.lock) == ("rel", LOCKS.layer_free):
            return core, results


@pytest.mark.parametrize(("blocks", "tiles"), [(1, 1), (2, 3), (5, 2), (8, 4), (33, 1)])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_products(blocks: int, tiles: int, signed: bool, residual: bool) -> None:
    rng = np.random.default_rng([blocks, tiles, signed])
    vectors = 64
    data = rng.integers(0, 256, 32 * (vectors + 4 * tiles), np.uint8)
    offsets = sorted(32 * int(o) for o in rng.integers(0, vectors - 4 * tiles, blocks))
    added_at = -(-data.size // 32) * 32
    added = rng.integers(0, 256, (2, 128 * tiles), np.uint8)
    data = np.concatenate((data, added.reshape(-1)))
    kind = Kind(data=signed, result=signed, added=(not signed) if residual else None)
    weights = rng.integers(-127, 128, (2, blocks, 8, 8), np.int8)
    bias = rng.integers(-5000, 5000, (2, 8), np.int32)
    chunks = [Chunk(bias[i], weights[i], offsets, 9 + i, 6, 1).pack(Steps()) for i in range(2)]
    core, results = _run([Kind(depthwise=True), kind], data, chunks, tiles, added_at)
    bytes_of = {False: np.uint8, True: np.int8}
    for i, result in enumerate(results):
        sums = np.tile(bias[i].astype(np.int64), (16 * tiles, 1))
        for offset, block in zip(offsets, weights[i], strict=True):
            at = data[offset : offset + 128 * tiles].view(bytes_of[signed]).reshape(-1, 8).astype(np.int64)
            sums += at @ block.astype(np.int64)
        if residual:
            sums += added[i].view(bytes_of[not signed]).reshape(-1, 8).astype(np.int64) << 6
        assert np.array_equal(result.reshape(-1, 8), saturated(sums, 9 + i, signed))
    assert residual or core.stalls["bank"] == 0


def test_depthwise() -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 32 * 40, np.uint8)
    offsets = [32 * o for o in (0, 1, 2, 10, 11, 12, 20, 21, 22)]
    weights, bias = rng.integers(-127, 128, (9, 8), np.int8), rng.integers(-999, 999, 8, np.int32)
    _, (result,) = _run([Kind(depthwise=True)], data, [Chunk(bias, weights, offsets, 7).pack(Steps())], 2)
    sums = np.tile(bias.astype(np.int64), (32, 1))
    for offset, w in zip(offsets, weights, strict=True):
        sums += data[offset : offset + 256].reshape(-1, 8).astype(np.int64) * w
    assert np.array_equal(result.reshape(-1, 8), saturated(sums, 7, False))


def test_a_block_takes_four_cycles_and_a_tile_four_more() -> None:
    """Both numbers are the slopes of cycles over blocks and tiles: what the machine's ports and its matrix unit allow."""

    def cycles(blocks: int, tiles: int) -> int:
        data = np.zeros(32 * 900, np.uint8)
        chunk = Chunk(np.zeros(8, np.int32), np.ones((blocks, 8, 8), np.int8), [32 * i for i in range(blocks)], 4).pack(Steps())
        return _run([Kind()], data, [chunk], tiles)[0].now

    assert cycles(60, 8) - cycles(40, 8) == 8 * 20 * 4
    assert cycles(40, 8) - cycles(40, 7) == 40 * 4 + 4
