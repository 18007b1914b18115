"""Static memory planning: arena offsets from liveness.

Offline dynamic storage allocation is NP-hard; first-fit over a few orders gets within a percent or two of the bound on real
networks (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020, section 5). The best of the
orders is taken, and the lower bound (the largest sum of simultaneously live buffers) is reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsec.backends.cpu.program import ALIGN, ArenaBuffer


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets of every buffer, the bytes they span (`peak`) and the bytes that any plan needs (`lower_bound`)."""

    offsets: dict[str, int]
    peak: int
    lower_bound: int


def _aligned(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def lower_bound(buffers: Sequence[ArenaBuffer]) -> int:
    """The largest sum of live bytes at any call."""
    events = sorted({b.first for b in buffers})
    return max((sum(_aligned(b.nbytes) for b in buffers if b.first <= t <= b.last) for t in events), default=0)


def _first_fit(buffers: Sequence[ArenaBuffer]) -> tuple[dict[str, int], int]:
    placed: list[tuple[int, int, ArenaBuffer]] = []
    offsets: dict[str, int] = {}
    for b in buffers:
        size, at = _aligned(b.nbytes), 0
        for start, end, _ in sorted((s, e, o.name) for s, e, o in placed if o.first <= b.last and b.first <= o.last):
            if start - at >= size:
                break
            at = max(at, end)
        offsets[b.name] = at
        placed.append((at, at + size, b))
    return offsets, max((e for _, e, _ in placed), default=0)


def plan_memory(buffers: Sequence[ArenaBuffer]) -> MemoryPlan:
    """Place buffers that are alive at the same time apart, in as little memory as the tried orders allow."""
    orders: list[Callable[[ArenaBuffer], tuple[int, ...]]] = [
        lambda b: (-b.nbytes, b.first),
        lambda b: (b.first, -b.nbytes),
        lambda b: (-(b.last - b.first), -b.nbytes, b.first),
        lambda b: (-b.nbytes * (b.last - b.first + 1), b.first),
    ]
    bound = lower_bound(buffers)
    best: tuple[dict[str, int], int] | None = None
    for order in orders:
        found = _first_fit(sorted(buffers, key=order))
        if best is None or found[1] < best[1]:
            best = found
        if best[1] == bound:
            break
    offsets, peak = best if best is not None else ({}, 0)
    return MemoryPlan(offsets, peak, bound)
