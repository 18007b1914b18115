"""Which planar kernel to use for a layer: the lists that its zeros allow, a predicted time for each tiling, and the choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import cost, row_channels
from sparsec.backends.cpu.kernels.panel_plan import ISSUE, LEVELS, LOADS, overlapped, rate, split
from sparsec.backends.cpu.kernels.planar import legal
from sparsec.backends.cpu.kernels.planar_dot import legal as legal_dot
from sparsec.backends.cpu.kernels.planar_pack import runs, subsets
from sparsec.compiler.dtypes import DType

Array = np.ndarray[Any, Any]
_OUTPUTS = (8, 4, 2, 1)  # of a panel
_EXACT = (4, 2)  # outputs whose subsets may have lists of their own: 15 and 3 lists
_TILE_BYTES = (24 << 10, 48 << 10, 192 << 10, 1 << 62)  # of packed inputs: within L1, a little beyond, within L2, all

# Cycles, measured on cores with 512-bit vectors (docs/kernels.md): the end of a list whose length varies; a vector of inputs
# copied, or transposed, into the tile; a vector of sums added to in scratch; of outputs stored, or transposed and stored; a
# short run of a planar channel beyond L2, which lies in a page of its own and is not prefetched.
_WHOLE = 2.0  # whole lines that follow each other come so much faster than the parts of lines that `rate` is about
_LIST, _COPY, _TRANSPOSE, _SUM, _STORE, _TURN, _PAGE = 12.0, 1.5, 6.0, 2.0, 1.5, 7.0, 40.0
_FOURS, _TOGETHER = 2.5, 2.0  # a vector of fours of bytes turned into the tile; of outputs put together by fours, and spread
_APART = 3.0  # times that, from lines that lie apart
_PAIRS = 4.0  # a vector of pairs of bfloat16 turned into the tile (counted in instructions, not measured)


@dataclass(frozen=True, slots=True)
class Lists:
    """A way to list a layer's weights: `entries[c]` rows, over all panels, are multiplied for c outputs each."""

    r: int
    masks: tuple[int, ...]
    k_run: int
    entries: tuple[tuple[int, int], ...]  # (outputs, rows)
    panels: int

    @property
    def weights(self) -> int:
        """Weights that are stored, zeros between them included."""
        return sum(c * rows for c, rows in self.entries)


@dataclass(frozen=True, slots=True)
class PlanarProblem:
    """A layer as planar kernels see it: n images of `positions`, `oc` outputs of `rows` inputs each, that is of `ic` channels.
    `passes`: the epilogue is applied in a pass of its own (as for a blocked output always); it reads `full` tensors.

    `data`: the type of the inputs; rows and `ic` are counted in as many channels as a weight row has. `packs` says whether panels
    of four outputs put their results together, `reduced` whether weights are as `Isa.reduced_cost` wants them; `y_bytes` is the
    size of a result. `apart`: inputs of a vector's positions do not lie side by side, or on lines that those of other taps do.
    """

    n: int
    positions: int
    oc: int
    rows: int
    ic: int
    x_blocked: bool
    y_blocked: bool
    passes: bool = False
    epilogue_ops: int = 1
    full: int = 0
    data: DType = DType.F32
    packs: bool = False
    reduced: bool = False
    y_bytes: int = 4
    apart: bool = False

    def legal(self, r: int, s: int, lists: int, isa: Isa) -> bool:
        """Whether there is a kernel of r outputs and s vectors of positions."""
        if self.data is DType.F32:
            return legal(r, s, lists, isa)
        return legal_dot(r, s, lists, isa, self.data, reduced=self.reduced)


@dataclass(frozen=True, slots=True)
class PlanarChoice:
    """The names are those of PlanarKernel and PlanarGeometry."""

    lists: Lists
    s: int
    s_tail: int
    full: int
    tails: int
    chunk_rows: int
    cycles: float


def listings(w: Array) -> list[Lists]:
    """The ways to list weights w[OC, rows]: shared by all outputs of a panel, or exactly, a list for every subset that occurs."""
    found = []
    for r in _OUTPUTS:
        if r > 1 and r > w.shape[0]:
            continue
        subset = subsets(w, r)
        panels = subset.shape[0]
        occurring = np.bincount(subset.ravel(), minlength=1 << r)
        needed = int(occurring[1:].sum())
        full = (1 << r) - 1
        k_run = 1
        for longer in (8, 4, 2):  # as long as it costs no products
            if r > 1 and int(runs(subset, longer).sum()) * longer <= 1.02 * needed:
                k_run, needed = longer, int(runs(subset, longer).sum()) * longer
                break
        found.append(Lists(r, (full,), k_run, ((r, needed),), panels))
        exact = tuple(int(m) for m in np.flatnonzero(occurring) if m)
        if r in _EXACT and exact not in ((), (full,)):
            by_outputs = np.bincount([m.bit_count() for m in exact], weights=occurring[list(exact)]).astype(int)
            found.append(Lists(r, exact, 1, tuple((c, int(n)) for c, n in enumerate(by_outputs) if n), panels))
    return found


def cycles(p: PlanarProblem, isa: Isa, lists: Lists, s: int, chunk_rows: int, *, cold: bool = False) -> float:
    """Predicted cycles of one thread for a tile of `s` vectors of positions and all panels. `cold`: weights come from memory."""
    compute = 0.0
    for outputs, rows in lists.entries:
        shared = outputs > 1
        fma = cost(p.data, isa, s, outputs, reduced=p.reduced) / isa.fma_per_cycle
        loads = (s + outputs + 1 / lists.k_run) / LOADS
        issue = (outputs * s + outputs + (s if shared else 0) + 3 / lists.k_run) / ISSUE
        compute += rows * max(fma, loads, issue)
    chunks, vector = -(-p.rows // chunk_rows), isa.vector_bytes
    outputs = -(-p.oc // lists.r) * lists.r
    compute += chunks * lists.panels * (len(lists.masks) * _LIST + 6)
    packs = p.packs and lists.r % 4 == 0
    compute += outputs * s * _SUM * (chunks - 1 + (1 if (p.passes or p.y_blocked) and not packs else 0))
    tile_bytes = min(chunk_rows, p.rows) * s * vector
    read = sum(n for _, n in lists.entries) * s * vector
    weights = lists.weights * 4 + sum(n for _, n in lists.entries) / lists.k_run
    move = read / (LEVELS[0][1] if tile_bytes <= LEVELS[0][0] else min(rate(tile_bytes) * _WHOLE, LEVELS[0][1]))
    move += weights / rate(1 << 62 if cold else weights)
    total = overlapped(compute, move) + 60
    return total + p.rows * s * _brought(p) + _stored(p, isa, outputs, s, packs=packs)


def _brought(p: PlanarProblem) -> float:
    """Cycles to bring a vector of inputs into the tile."""
    if not p.x_blocked:
        return _COPY
    if p.data is DType.F32:
        return _TRANSPOSE
    each = _FOURS if p.data is DType.U8 else _PAIRS
    return _APART * each if p.apart else each


def _stored(p: PlanarProblem, isa: Isa, outputs: int, s: int, *, packs: bool) -> float:
    """Cycles to bring a tile's inputs from where they are, and its outputs to where they belong."""
    size = p.n * p.positions * 4
    result = p.y_bytes * p.oc
    x_rate, y_rate = rate(size * p.ic), rate(p.n * p.positions * result)
    x_pages = 0.0 if p.x_blocked or x_rate > LEVELS[2][1] else p.ic * _PAGE
    y_pages = 0.0 if p.y_blocked or y_rate > LEVELS[2][1] else p.oc * (1 + p.full) * _PAGE
    moved = p.ic * s * isa.vector_bytes / x_rate + max(1, p.full) * result * s * isa.lanes / y_rate
    return (
        x_pages
        + y_pages
        + moved
        + outputs * s * ((_TOGETHER if packs else _TURN if p.y_blocked else _STORE) + p.epilogue_ops / 2)
    )


def tilings(p: PlanarProblem, isa: Isa, lists: Lists) -> Iterator[tuple[int, int, int, int, int]]:
    """(s, full, s_tail, tails, chunk_rows) of every legal tiling."""
    vectors = -(-p.positions // isa.lanes)
    block = isa.lanes // row_channels(p.data, isa)
    step = max(block if p.x_blocked else 1, lists.k_run)
    seen = set()
    for most in range(min(vectors, isa.registers), 0, -1):
        cut = split(vectors, most)
        s = cut[0]
        if not p.legal(lists.r, s, len(lists.masks), isa):
            continue
        for size in _TILE_BYTES:
            chunk = min(max(size // (s * isa.vector_bytes) // step, 1) * step, p.rows, (1 << 16) // step * step)
            if chunk < p.rows:
                chunk = chunk // step * step
            if (cut, chunk) not in seen:
                seen.add((cut, chunk))
                yield *cut, chunk


def choose(p: PlanarProblem, isa: Isa, ways: Sequence[Lists]) -> PlanarChoice:
    """The fastest predicted way."""
    best: PlanarChoice | None = None
    for lists in ways:
        for s, full, s_tail, tails, chunk in tilings(p, isa, lists):
            total = p.n * full * cycles(p, isa, lists, s, chunk)
            total += cycles(p, isa, lists, s, chunk, cold=True) - cycles(p, isa, lists, s, chunk)
            if tails:
                total += p.n * tails * cycles(p, isa, lists, s_tail, chunk)
            if best is None or total < best.cycles:
                best = PlanarChoice(lists, s, s_tail, full, tails, chunk, total)
    assert best is not None  # one output a panel and one vector are always legal
    return best
