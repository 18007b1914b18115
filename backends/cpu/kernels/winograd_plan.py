"""Whether and how to compute a layer by Winograd's minimal filtering: a predicted time, and the choice of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.panel_plan import (
    CLEARLY,
    DRAM,
    ISSUE,
    LATENCY,
    LOADS,
    outputs_move,
    overlapped,
    rate,
    split,
)

# Vector instructions to transform one tile of inputs and of outputs, memory accesses included, counted in the C.
_IN = {2: 64, 4: 240}
_OUT = {2: 50, 4: 150}
WRITE = 16.0  # bytes a cycle to scratch in L2
_PIECES = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # that are transformed together


@dataclass(frozen=True, slots=True)
class WinogradProblem:
    """A stride-1 3x3 convolution: n images of oh x ow outputs, channels in vectors; `epilogue_ops` as in PanelProblem. `k`: input
    channels that a panel reads, 0 for all.
    """

    n: int
    oh: int
    ow: int
    in_blocks: int
    out_blocks: int
    epilogue_ops: int = 1
    k: int = 0
    full: int = 0


@dataclass(frozen=True, slots=True)
class WinogradTiling:
    """The names are those of WinogradKernel and WinogradGeometry."""

    m: int
    r: int
    tiles_y: int
    tiles_x: int
    tw: int
    tw_tail: int
    full: int
    tails: int
    block_pieces: int
    group: int

    @property
    def block_tiles(self) -> int:
        """Tiles that are transformed together, at most."""
        return self.block_pieces * self.tw


@dataclass(frozen=True, slots=True)
class WinogradPart:
    """One kernel call: `panels` panels of `tiling.r` vectors, from output-channel block `block` on."""

    block: int
    panels: int
    tiling: WinogradTiling
    cycles: float


def scratch_bytes(t: WinogradTiling, in_blocks: int, isa: Isa) -> int:
    """Bytes of transformed inputs and products of a block of tiles and a group of panels."""
    return (t.m + 2) ** 2 * t.block_tiles * (in_blocks + t.r * t.group) * isa.vector_bytes


def cycles(problem: WinogradProblem, isa: Isa, t: WinogradTiling, panels: int) -> float:
    """Predicted cycles of one thread for `panels` panels: transforms, products with their weights fetched ahead, and scratch."""
    frequencies, tiles = (t.m + 2) ** 2, problem.n * t.tiles_y * t.tiles_x
    pieces, k = t.full + t.tails, problem.k or problem.in_blocks * isa.lanes
    product = 0.0
    row = t.r * isa.vector_bytes  # a weight row; a panel's rows at one frequency are read again for every piece
    near = problem.in_blocks * t.block_tiles * isa.vector_bytes  # one frequency of the transformed tiles, read by every panel
    for count, tw in ((t.full, t.tw), (t.tails, t.tw_tail)):
        units = (tw * t.r / isa.fma_per_cycle, (tw + t.r) / LOADS, (tw * t.r + t.r + tw) / ISSUE)
        busiest = max(*units, LATENCY, row / rate(k * row), tw * 4 / rate(near))
        product += count * panels * frequencies * (k * busiest + tw * t.r * 1.5 + 20)
    epilogue = t.m**2 * (1 + problem.epilogue_ops) * t.r * panels
    transforms = tiles * (_IN[t.m] * problem.in_blocks + _OUT[t.m] * t.r * panels + epilogue) / 2
    blocks, groups = -(-pieces // t.block_pieces), -(-panels // t.group)
    weights = frequencies * k * t.r * panels * isa.vector_bytes
    scratch, inputs = scratch_bytes(t, problem.in_blocks, isa), frequencies * near
    outputs = scratch - inputs
    written = min(WRITE, rate(scratch))
    move = blocks * (inputs / written + groups * (inputs / rate(scratch) + 2 * outputs / written))
    fetched = weights / DRAM + (blocks - 1) * weights / rate(weights + scratch)
    moved = outputs_move(problem.n * problem.oh * problem.ow, t.r * panels, problem.out_blocks, problem.full, isa)
    return overlapped(product, fetched) + transforms + move + moved


def choose(problem: WinogradProblem, isa: Isa, sizes: tuple[int, ...] = (2, 4), vectors: int = 0) -> tuple[WinogradPart, ...]:
    """The parts of the fastest predicted plan with m among `sizes`; channel blocks that are no multiple of r get a call.

    `vectors`: the r to use where there are so many blocks, 0 for any.
    """
    best: tuple[WinogradPart, ...] = ()
    for m in sizes:
        most = min(vectors or 8, problem.out_blocks, (isa.registers - 1) // 2)
        widths = range(min(vectors, most) or 1, most + 1)
        for r in sorted(widths, key=lambda width: abs(width - 2)):
            parts = [_best(problem, isa, m, r, 0, problem.out_blocks // r)]
            if rest := problem.out_blocks % r:
                parts.append(_best(problem, isa, m, rest, problem.out_blocks - rest, 1))
            if not best or total(parts) < CLEARLY * total(best):
                best = tuple(parts)
    return best


def total(parts: tuple[WinogradPart, ...] | list[WinogradPart]) -> float:
    """Predicted cycles of a plan."""
    return sum(p.cycles for p in parts)


def _best(problem: WinogradProblem, isa: Isa, m: int, r: int, block: int, panels: int) -> WinogradPart:
    tiles_y, tiles_x = -(-problem.oh // m), -(-problem.ow // m)
    tw, full, tw_tail, tails = split(problem.n * tiles_y * tiles_x, (isa.registers - 1) // r - 1)
    best = None
    for pieces in (n for n in _PIECES if n < 2 * (full + tails)):  # the fewest that do: scratch grows with them
        for group in range(1, panels + 1):
            if group == panels or group & (group - 1) == 0:
                t = WinogradTiling(m, r, tiles_y, tiles_x, tw, tw_tail, full, tails, min(pieces, full + tails), group)
                part = WinogradPart(block, panels, t, cycles(problem, isa, t, panels))
                if best is None or part.cycles < CLEARLY * best.cycles:
                    best = part
    assert best is not None  # there is at least one piece
    return best
