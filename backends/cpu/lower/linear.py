"""Convolutions and matrix products with constant weights as one problem: rows of positions times panels of outputs.

Tiles are chosen here: how many positions and vectors of outputs the micro-kernel keeps in registers, how the remainder of a row
and of the outputs is covered, and which loop is outside. The estimate counts instructions; see `docs/kernels.md` for how it
compares with measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.panel import PanelGeometry, PanelKernel
from sparsec.backends.cpu.lower.base import LowerContext
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.graph import Node
from sparsec.compiler.schedule import Cost, LayerSchedule, Level, Loop, LoopKind
from sparsec.compiler.scalar import Program

Array = np.ndarray[Any, Any]
PANEL_CACHE = 768 << 10  # bytes of weights up to which they stay in L2 while positions are the outer loop
_TILE_CYCLES = 30.0  # entering a tile, clearing and storing accumulators
_RUN_CYCLES = 1.0


@dataclass(frozen=True, slots=True)
class Image:
    """Strides in elements of a blocked tensor seen as [channel blocks][batch][rows][columns]."""

    batch: int
    block: int
    row: int


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer as the panel kernel sees it.

    `oc` output channels over n images of oh x ow positions; `x_step`, `x` and `y` are strides. Every output reads `n_runs` runs of
    `k_run` inputs, `rows` weight rows in all (the average where groups make panels differ, which `shared` denies).
    """

    oc: int
    n: int
    oh: int
    ow: int
    k_run: int
    x_step: int
    x: Image
    y: Image
    extras: tuple[Image | None, ...]
    kinds: tuple[str, ...]
    epilogue: Program
    shared: bool
    rows: int
    n_runs: int


@dataclass(frozen=True, slots=True)
class Part:
    """A range of channel blocks computed by one kernel call."""

    first_block: int
    panels: int
    kernel: PanelKernel
    geometry: PanelGeometry
    cycles: float


@dataclass(frozen=True, slots=True)
class LinearPlan:
    """How a linear layer is computed: parts that cover its channel blocks."""

    problem: Linear
    parts: tuple[Part, ...]

    @property
    def cycles(self) -> float:
        """Predicted cycles of one thread."""
        return sum(p.cycles for p in self.parts)


def split(extent: int, most: int) -> tuple[int, int, int, int]:
    """`extent` as the fewest tiles of at most `most`, of two widths that differ by one: (width, count, tail width, tail count)."""
    count = ceil(extent / most)
    width = ceil(extent / count)
    full = extent - count * (width - 1)
    return (width, full, width - 1, count - full) if full < count else (width, count, 0, 0)


def tile_cycles(positions: int, r: int, isa: Isa) -> float:
    """Cycles that one weight row takes on a tile: arithmetic, loads, or the latency of too few accumulators."""
    fma = positions * r / isa.fma_per_cycle
    broadcasts = positions if r > 1 or not isa.broadcast_operand else 0
    loads = (r + broadcasts) / 2.0
    return max(fma, loads, 4.0)


def tiles_for(p: Linear, r: int, isa: Isa) -> Iterator[tuple[int, int]]:
    """Register tiles (th, tw) that fit beside r weight vectors and one broadcast."""
    room = (isa.registers - r - 1) // r
    widths = {split(p.ow, most)[0] for most in range(1, min(room, p.ow) + 1)}
    for tw in sorted(widths, reverse=True):
        for th in range(1, min(room // tw, p.oh) + 1):
            yield th, tw


def estimate(p: Linear, r: int, panels: int, th: int, tw: int, isa: Isa) -> float:
    """Predicted cycles of a part."""
    w, full, tail, tails = split(p.ow, tw)
    h, rows, htail, htails = split(p.oh, th)
    total = 0.0
    for hh, nh in ((h, rows), (htail, htails)):
        for ww, nw in ((w, full), (tail, tails)):
            if nh and nw:
                per_tile = tile_cycles(hh * ww, r, isa) * p.rows + _RUN_CYCLES * p.n_runs + _TILE_CYCLES + 2.0 * hh * ww * r
                total += per_tile * nh * nw
    return total * panels * p.n


def plan_linear(p: Linear, isa: Isa, tail_lanes: int) -> LinearPlan:
    """The cheapest cover of the channel blocks by one or two kernels, by estimate."""
    blocks = ceil(p.oc / isa.lanes)
    alone = 1 if tail_lanes and blocks > 1 else 0  # a block whose padded lanes must be cleared is a part of its own
    best: tuple[float, list[tuple[int, int, int, int, int]]] | None = None
    for r in range(1, min(blocks - alone or 1, isa.registers // 4, 8) + 1):
        pieces = [(0, (blocks - alone) // r, r)]
        if (blocks - alone) % r:
            pieces.append(((blocks - alone) // r * r, 1, (blocks - alone) % r))
        if alone:
            pieces.append((blocks - 1, 1, 1))
        cover, total = [], 0.0
        for first, panels, width in pieces:
            options = [(estimate(p, width, panels, th, tw, isa), -th * tw, th, tw) for th, tw in tiles_for(p, width, isa)]
            if not options:
                break
            cycles, _, th, tw = min(options)
            total += cycles
            cover.append((first, panels, width, th, tw))
        else:
            if best is None or total < best[0]:
                best = (total, cover)
    assert best is not None
    return LinearPlan(p, tuple(_part(p, isa, *piece, tail_lanes=tail_lanes if piece[0] + piece[1] * piece[2] == blocks else 0) for piece in best[1]))


def _part(p: Linear, isa: Isa, first: int, panels: int, r: int, th: int, tw: int, *, tail_lanes: int) -> Part:
    w, full, tail, tails = split(p.ow, tw)
    h, rows, htail, htails = split(p.oh, th)
    weight_bytes = panels * r * isa.lanes * p.rows * 4
    kernel = PanelKernel(
        r=r,
        k_run=p.k_run,
        x_step=p.x_step,
        tw=w,
        tw_tail=tail,
        th=h,
        th_tail=htail,
        shared_runs=p.shared,
        oc_outer=weight_bytes > PANEL_CACHE,
        epilogue=p.epilogue,
        extras=p.kinds,
        tail_lanes=tail_lanes,
    )
    images = [e for e in p.extras if e is not None]
    spare = (0,) * (2 - len(images))
    geometry = PanelGeometry(
        n=p.n,
        panels=panels,
        n_runs=p.n_runs if p.shared else 0,
        x_full=full,
        x_tail=tails,
        y_full=rows,
        y_tail=htails,
        x_batch=p.x.batch,
        x_row=p.x.row,
        y_batch=p.y.batch,
        y_block=p.y.block,
        y_row=p.y.row,
        e_batch=tuple(e.batch for e in images) + spare,
        e_block=tuple(e.block for e in images) + spare,
        e_row=tuple(e.row for e in images) + spare,
    )
    return Part(first, panels, kernel, geometry, estimate(p, r, panels, th, tw, isa))


def schedule_linear(node: Node, plan: LinearPlan, macs: int, traffic: int, isa: Isa) -> LayerSchedule:
    """The plan's loops in the schedule's terms."""
    p, main = plan.problem, plan.parts[0]
    k, g = main.kernel, main.geometry
    oc = Loop("OC", g.panels)
    pos = tuple(lp for lp in (Loop("N", p.n), Loop("OH", g.y_full + g.y_tail), Loop("OW", g.x_full + g.x_tail)) if lp.extent > 1)
    outer, inner = ((oc,), pos) if k.oc_outer else (pos, (oc,))
    levels = (
        Level("L3", outer, ("w",) if k.oc_outer else ("x",)),
        Level("L2", inner, ("x",) if k.oc_outer else ("w",)),
        Level("L1", (Loop("IC*K", p.rows),), ("x",)),
        Level(
            "registers",
            (
                Loop("OH", k.th, LoopKind.UNROLLED),
                Loop("OW", k.tw, LoopKind.UNROLLED),
                Loop("OC", k.r, LoopKind.UNROLLED),
                Loop("OC", isa.lanes, LoopKind.VECTOR),
            ),
            ("y",),
        ),
    )
    return LayerSchedule(node.name, "panel", levels, Cost(plan.cycles, macs, {"L2": traffic}, "compute"), plan)


Pack = Callable[[int, int, int], tuple[Array, Array, Array]]


def lower_linear(
    ctx: LowerContext, node: Node, plan: LinearPlan, x: Ref, y: Ref, extras: Sequence[Ref], pack: Pack
) -> None:
    """Append the calls of a plan. `pack(first block, panels, r)` gives offsets, run_begin and weights of a part."""
    lanes, p = ctx.isa.lanes, plan.problem
    for part in plan.parts:
        offsets, begin, weights = pack(part.first_block, part.panels, part.kernel.r)
        lists = [ctx.pack(offsets.astype(np.int32))]
        if not p.shared:
            lists.append(ctx.pack(begin.astype(np.int32)))
        shifted = [
            e.at(part.first_block * (lanes if kind == "channel" else image.block if image else 0) * 4) if kind != "scalar" else e
            for e, kind, image in zip(extras, p.kinds, p.extras, strict=True)
        ]
        operands = [x, ctx.pack(weights), *lists, *shifted, y.at(part.first_block * p.y.block * 4)]
        ctx.call(node, part.kernel, part.geometry, operands)
