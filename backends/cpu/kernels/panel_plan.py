"""Which panel kernel to use for a layer: candidates, a predicted time for each, and the choice.

The prediction is a roofline a tile: cycles of the busiest unit (FMA, loads, instruction issue) against cycles to bring the tile's
weights and inputs from the cache level in which they stay between uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import cost
from sparsec.backends.cpu.kernels.panel import PanelKernel, legal
from sparsec.backends.cpu.kernels.panel_epilogue import Types
from sparsec.compiler.dtypes import DType

# A server core of the last years: loads and instructions a cycle, FMA latency, and (bytes, bytes a cycle) of each cache level as
# one core of a busy machine sees it (docs/kernels.md).
LOADS, ISSUE, LATENCY = 1.6, 5.0, 4.0
DRAM = 4.0
CLEARLY = 0.96  # what a prediction must gain to overrule the usual choice
LEVELS = ((24 << 10, 64.0), (768 << 10, 20.0), (8 << 20, 8.0), (1 << 62, DRAM))


@dataclass(frozen=True, slots=True)
class PanelProblem:
    """A layer as panel kernels see it: n x oh x ow output positions, `blocks` vectors of output channels, and k weight rows for
    each of them in runs of k_run. `x_bytes` is the size of the input, `epilogue_ops` the vector instructions that an output
    vector costs beside its store, `full` the tensors like the output that the epilogue reads. `lines`: inputs a position that are
    brought to L1, which neighbouring taps and positions share and whole cache lines make more; 0 for k.

    `types`: of bytes and bfloat16, a weight row has several inputs.
    """

    n: int
    oh: int
    ow: int
    blocks: int
    k: int
    k_run: int
    x_bytes: int
    epilogue_ops: int = 1
    full: int = 0
    lines: int = 0
    types: Types = field(default_factory=Types)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the positions of a layer are cut, and the loop order; the names are those of PanelKernel and PanelGeometry."""

    r: int
    th: int
    tw: int
    th_tail: int
    tw_tail: int
    x_full: int
    x_tail: int
    y_full: int
    y_tail: int
    oc_outer: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One kernel call: `panels` panels of `tiling.r` vectors, from output-channel block `block` on."""

    block: int
    panels: int
    tiling: Tiling
    cycles: float


def split(extent: int, most: int) -> tuple[int, int, int, int]:
    """(size, full, tail size, tails): `extent` in as few pieces of at most `most` as can be, which differ by one at most."""
    pieces = -(-extent // most)
    size = -(-extent // pieces)
    tails = pieces * size - extent
    return size, pieces - tails, (size - 1 if tails else 0), tails


def tilings(problem: PanelProblem, isa: Isa, r: int) -> Iterator[Tiling]:
    """Every legal tiling with `r` vectors of output channels, widest tiles first."""
    seen = set()
    for positions in range((isa.registers - 1) // r - 1, 0, -1):
        for th in range(1, min(positions, problem.oh) + 1):
            tw, x_full, tw_tail, x_tail = split(problem.ow, max(1, positions // th))
            y_full, th_tail = divmod(problem.oh, th)
            shape = (th, tw, th_tail, tw_tail, x_full, x_tail, y_full, int(th_tail > 0))
            if (
                shape in seen
                or not legal(PanelKernel(r, 1, 1, tw, th=th, types=problem.types), isa)
                or (th > 1 and x_full + x_tail > 1)
            ):
                continue
            seen.add(shape)
            for oc_outer in (True, False):
                yield Tiling(r, *shape, oc_outer)


def cycles(problem: PanelProblem, isa: Isa, tiling: Tiling, panels: int) -> float:
    """Predicted cycles of one thread for `panels` panels."""
    weights = problem.k * tiling.r * isa.vector_bytes
    tiles = []  # (how many, compute cycles, input bytes)
    for ny, th in ((tiling.y_full, tiling.th), (tiling.y_tail, tiling.th_tail)):
        for nx, tw in ((tiling.x_full, tiling.tw), (tiling.x_tail, tiling.tw_tail)):
            if ny * nx:
                tiles.append(
                    (problem.n * ny * nx, _tile(problem, isa, th * tw, tiling.r), th * tw * (problem.lines or problem.k) * 4)
                )
    positions = sum(count for count, _, _ in tiles)
    # the inner loop's operand stays in the level that holds it, the outer loop's comes from further away
    near_w, far_w = weights, weights * panels
    total = 0.0
    for count, compute, inputs in tiles:
        if tiling.oc_outer:
            again = inputs / rate(problem.x_bytes) + weights / rate(near_w + inputs)
            first = inputs / rate(problem.x_bytes) + weights / rate(max(far_w, LEVELS[1][0]))
            share = 1 / positions
        else:
            again = inputs / rate(inputs) + weights / rate(far_w + inputs)
            first = inputs / rate(max(problem.x_bytes, LEVELS[1][0])) + weights / rate(far_w)
            share = 1 / panels
        move = share * first + (1 - share) * again
        total += count * panels * overlapped(compute, move)
    positions_y = problem.n * problem.oh * problem.ow * problem.types.result.itemsize // 4
    total += outputs_move(positions_y, tiling.r * panels, problem.blocks, problem.full, isa)
    return max(total, far_w / DRAM)  # a network's weights are used once a run, and come from DRAM


def _tile(problem: PanelProblem, isa: Isa, positions: int, r: int) -> float:
    products = cost(problem.types.data, isa, positions, r, reduced=problem.types.reduced)
    fma = products / isa.fma_per_cycle
    loads = (positions + r) / LOADS
    issue = (
        positions * r + r + (positions if problem.types.data is not DType.F32 or not isa.broadcast_operand or r > 1 else 0) + 1
    ) / ISSUE
    run = 2.0 / problem.k_run
    epilogue = positions * r * (1.0 + problem.epilogue_ops / 2) + 30
    return problem.k * (max(fma, loads, issue, LATENCY) + run) + epilogue


def overlapped(compute: float, move: float) -> float:
    """Cycles of computing while operands are moved: neither hides all of the other."""
    return max(compute, move) + 0.3 * min(compute, move)


def outputs_move(positions: int, vectors: int, blocks: int, full: int, isa: Isa) -> float:
    """Cycles to bring `vectors` of the `blocks` output vectors at each position where they belong, and `full` tensors alike to
    the core: the lines that are read, since one that is written is read before unless it holds a `full` operand.
    """
    size = positions * isa.vector_bytes
    return size * vectors * max(1, full) / rate(size * blocks)


def rate(size: float) -> float:
    """Bytes a cycle at which an operand of `size` bytes streams, from the level that holds it."""
    return next(rate for capacity, rate in LEVELS if size <= capacity)


def _widest(types: Types, isa: Isa) -> int:
    """The most vectors of outputs that one position leaves registers for."""
    return max(r for r in range(1, isa.registers) if legal(PanelKernel(r, 1, 1, 1, types=types), isa))


@lru_cache(4096)
def choose(problem: PanelProblem, isa: Isa, most_r: int = 8, least_r: int = 1) -> tuple[Part, ...]:
    """The parts of the fastest predicted plan: panels of one r, and one narrower panel where the blocks are no multiple of r."""
    best: tuple[Part, ...] = ()
    most_r = min(most_r, problem.blocks, _widest(problem.types, isa))
    widths = range(min(least_r, most_r), most_r + 1)
    for r in sorted(widths, key=lambda width: abs(width - 2)):  # two vectors are the usual choice: weights stream best
        parts = [_best(problem, isa, r, 0, problem.blocks // r)]
        if rest := problem.blocks % r:
            parts.append(_best(problem, isa, rest, problem.blocks - rest, 1))
        if not best or sum(p.cycles for p in parts) < CLEARLY * sum(p.cycles for p in best):
            best = tuple(parts)
    return best


def _best(problem: PanelProblem, isa: Isa, r: int, block: int, panels: int) -> Part:
    options = ((cycles(problem, isa, t, panels), t) for t in tilings(problem, isa, r))
    predicted, tiling = min(options, key=lambda option: option[0])
    return Part(block, panels, tiling, predicted)
