"""A core by itself, with a DMA that tests play: its program on tiles and chunks that are laid into its memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.program import (
    BLOCKS_OFFSET,
    CONTROL_OFFSET,
    LOCKS,
    SPARSE_BYTES,
    Kind,
    Parameters,
    core_program,
    entries,
)
from sparsec.backends.aie.core.timing import Latencies
from sparsec.backends.aie.lower.chunks import Chunk, Steps
from sparsec.backends.aie.lower.paging import Spot

Array = np.ndarray[Any, Any]
PARAMETERS, DATA, WEIGHTS, RESULTS, PARTIAL = 0xFF00, 0x0, 0x8000, 0xC100, (0xD000, 0xE400)
SLOT = 0x2000


class Bench:
    """A core whose DMA is played by the test: `tiles` of data, each multiplied by all chunks, whose entry is the
    number of their kind. 4 vectors of results are `result_bytes`. With `pairs`, chunks make two results, for sparse products."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        tiles: Sequence[Array],
        chunks: Sequence[Chunk],
        vectors: int,
        *,
        steps: Steps | None = None,
        shifts: tuple[int, int] = (0, 0),
        kept: bool = False,
        result_bytes: int = 128,
        bounds: tuple[int, int] | None = None,
        scaling: tuple[int, int, int] | None = None,
        fast: bool = True,
        pairs: bool = False,
    ) -> None:
        self.core = Core(core_program(kinds, PARAMETERS, 16384), Latencies(4, 4, 4), 65536, 8192, fast)
        self.tiles, self.result_bytes = tiles, result_bytes * vectors
        slots = len(chunks) if kept else 1
        steps = steps or Steps()
        first = RESULTS - result_bytes
        self.pairs, self.step = pairs, vectors * result_bytes + result_bytes
        spot = Spot(SLOT, 1, int(not kept))  # a page for each
        begins = dict(zip(kinds, entries(tuple(kinds)), strict=True))
        asked = [(c, kinds[c.entry]) for c in chunks]
        made = [replace(c, entry=begins[kind], bias=c.bias if kind.has_bias else None) for c, kind in asked]
        lead = max(c.lead for c in made)
        self.chunks = [b"\0" * (lead - c.lead) + c.pack(steps, spot) for c in made] * (1 if kept else len(tiles))
        control = WEIGHTS + lead + CONTROL_OFFSET
        blocks = len(chunks) * (1 + pairs)  # of results, and of the residual
        self.parameters = Parameters(
            *(len(tiles), vectors, DATA, 2 * DATA, first, 2 * first, 1 if kept else len(tiles)),
            *(steps.registers, len(chunks), control, WEIGHTS + slots * SLOT, slots * SLOT, *shifts),
            *(BLOCKS_OFFSET + SPARSE_BYTES * pairs, PARTIAL[1] - PARTIAL[0]),
            *(1, slots, 1, blocks, 4 if pairs else 2, blocks, 1, 0 if kept else slots),
            apart=self.step,
            bounds=bounds,
            scaling=scaling,
        )
        self.slots = slots
        self.results: list[Array] = []

    def run(self) -> list[Array]:
        """The results of every chunk that ends with some."""
        s, locks, arrived, slot = self.core.state, Counter[int](), 0, 0
        while True:
            meeting = self.core.resume()
            if meeting.kind == "rel":
                locks[meeting.lock] += meeting.value
                if meeting.lock == LOCKS.results_full:
                    for i in range(1 + self.pairs):
                        at = RESULTS + i * self.step
                        self.results.append(s.memory[at : at + self.result_bytes].copy())
                    locks[LOCKS.results_free] += 1 + self.pairs
                continue
            if meeting.lock in (LOCKS.layer_even, LOCKS.layer_odd):
                if arrived:
                    assert not any(locks[i] for i in (LOCKS.data_free, LOCKS.weights_free))
                    return self.results
                words = np.array(self.parameters.words(), np.int32).view(np.uint8)
                s.write(PARAMETERS, words, 4)
                continue
            if meeting.lock == LOCKS.data_full:
                s.write(DATA, self.tiles[arrived], 32)
                arrived += 1
                locks[LOCKS.data_free] -= 1
                continue
            if meeting.lock == LOCKS.weights_full and meeting.value:
                s.write(WEIGHTS + slot * SLOT, np.frombuffer(self.chunks.pop(0), np.uint8), 32)
                slot = (slot + 1) % self.slots
                locks[LOCKS.weights_free] -= 1
                continue
            locks[meeting.lock] -= meeting.value


def offsets_of(rng: np.random.Generator, blocks: int, vectors: int, last: int, unit: int = 32) -> list[int]:
    """Where the data of blocks begin, in order: `last` vectors of `unit` bytes are a tile."""
    return sorted(unit * int(o) for o in rng.integers(0, last - 4 * vectors, blocks))
