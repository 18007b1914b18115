"""Convolutions and matrix products with constant weights as one problem: rows of positions times panels of outputs.

The tiles (how many positions and vectors of outputs the micro-kernel keeps in registers, how remainders are covered, which loop
is outside) are chosen by `kernels.panel_plan`; here a layer is brought to its terms and its choice to kernel calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.kernels.panel import PanelGeometry, PanelKernel
from sparsec.backends.cpu.kernels.panel_epilogue import EXTRAS, Types, operations
from sparsec.backends.cpu.kernels.panel_plan import PanelProblem, choose
from sparsec.backends.cpu.kernels.panel_plan import Part as PanelPart
from sparsec.backends.cpu.lower.base import LowerContext
from sparsec.backends.cpu.lower.panel_weights import PanelWeights
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Node
from sparsec.compiler.scalar import Program
from sparsec.compiler.schedule import Cost, LayerSchedule, Level, Loop, LoopKind

Array = np.ndarray[Any, Any]
_PREFETCH = 1024  # bytes: weights that come from beyond L2 are wanted about 250 FMAs later
_CHUNK = 512  # products in a partial sum: long sums are split, for accuracy
_FEW = 4  # positions of a tile below which weights stream as fast as they can anyway, and prefetching slows them


@dataclass(frozen=True, slots=True)
class Image:
    """Strides in elements of a blocked tensor seen as [channel blocks][batch][rows][columns]."""

    batch: int
    block: int
    row: int


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer as the panel kernel sees it.

    `oc` output channels over n images of oh x ow positions; `x_step`, `x`, `y` are strides; the outputs of a row lie `y_step`
    positions apart. Every output reads `n_runs` runs of `k_run` inputs, `rows` weight rows in all (the mean where groups or zeros
    make panels differ, which `shared` denies). `sparse`: weight rows that are zero throughout a panel are left out.
    `lines` is that of PanelProblem. `types` are the element types; where a weight row has several channels, inputs are counted in
    as many.
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
    y_step: int = 1
    sparse: bool = False
    lines: int = 0
    types: Types = field(default_factory=Types)


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


def plan_linear(p: Linear, isa: Isa, tail_lanes: int, vectors: int = 0) -> LinearPlan:
    """The cheapest cover of the channel blocks by kernels, as predicted, with `vectors` vectors of outputs a panel (0: any).

    `tail_lanes` > 0: lanes beyond so many channels of the last block must be cleared, which makes that block a part of its own.
    """
    blocks = ceil(p.oc / isa.lanes)
    alone = 1 if tail_lanes and blocks > 1 else 0
    widths = (vectors, vectors) if vectors else (8, 1)
    first = choose(_panel_problem(p, isa, blocks - alone), isa, *widths)
    cover = [(0, c, tail_lanes if blocks == 1 else 0) for c in first]
    if alone:
        cover += [(blocks - 1, c, tail_lanes) for c in choose(_panel_problem(p, isa, 1), isa)]
    return LinearPlan(p, tuple(_part(p, isa, start + c.block, c, tail) for start, c, tail in cover))


def _panel_problem(p: Linear, isa: Isa, blocks: int) -> PanelProblem:
    size, per_row = p.types.data.itemsize, row_channels(p.types.data, isa)
    x_bytes = size * max(p.x.batch * p.n, p.x.row * p.oh, p.ow * p.x_step) * max(1, per_row * p.rows // max(p.x_step, 1))
    steps, full = operations(p.epilogue), p.kinds.count("full")
    return PanelProblem(p.n, p.oh, p.ow, blocks, p.rows, p.k_run, x_bytes, steps, full, p.lines, p.types)


def _part(p: Linear, isa: Isa, first: int, chosen: PanelPart, tail_lanes: int) -> Part:
    t = chosen.tiling
    kernel = PanelKernel(
        r=t.r,
        k_run=p.k_run,
        x_step=p.x_step,
        tw=t.tw,
        tw_tail=t.tw_tail,
        th=t.th,
        th_tail=t.th_tail,
        shared_runs=p.shared,
        oc_outer=t.oc_outer,
        prefetch=_PREFETCH if t.oc_outer and t.th * t.tw >= _FEW else 0,
        epilogue=p.epilogue,
        extras=p.kinds,
        tail_lanes=tail_lanes,
        chunk=_CHUNK // p.k_run if p.rows > 2 * _CHUNK and p.types.data is DType.F32 else 0,
        y_step=p.y_step,
        types=p.types,
    )
    geometry = PanelGeometry(
        n=p.n,
        panels=chosen.panels,
        n_runs=p.n_runs if p.shared else 0,
        x_full=t.x_full,
        x_tail=t.x_tail,
        y_full=t.y_full,
        y_tail=t.y_tail,
        x_batch=p.x.batch,
        x_row=p.x.row,
        y_batch=p.y.batch,
        y_block=p.y.block,
        y_row=p.y.row,
        **extra_strides(p),
    )
    return Part(first, chosen.panels, kernel, geometry, chosen.cycles)


@dataclass(frozen=True, slots=True)
class Dims:
    """The layer's iteration dimensions, as its op's axis map names them: images, rows, columns, outputs, and what is summed."""

    n: str
    rows: str
    columns: str
    out: str
    reduced: tuple[Loop, ...]


def schedule_linear(node: Node, plan: LinearPlan, dims: Dims, macs: int, traffic: int, isa: Isa) -> LayerSchedule:
    """The plan's loops in the schedule's terms (of its first part, when channel blocks need two)."""
    p, main = plan.problem, plan.parts[0]
    k, g = main.kernel, main.geometry
    panels = (Loop(dims.out, g.panels),)
    every = (Loop(dims.n, p.n), Loop(dims.rows, g.y_full + g.y_tail), Loop(dims.columns, g.x_full + g.x_tail))
    tiles = tuple(loop for loop in every if loop.extent > 1)
    levels = (
        Level("L3", panels if k.oc_outer else tiles, ("w",) if k.oc_outer else ("x",)),
        Level("L2", tiles if k.oc_outer else panels, ("x",) if k.oc_outer else ("w",)),
        Level("L1", dims.reduced, ("x",)),
        Level(
            "registers",
            (
                *(Loop(d, n, LoopKind.UNROLLED) for d, n in ((dims.rows, k.th), (dims.columns, k.tw)) if n > 1),
                *((Loop(dims.out, k.r, LoopKind.UNROLLED),) if k.r > 1 else ()),
                Loop(dims.out, isa.lanes, LoopKind.VECTOR),
            ),
            ("y",),
        ),
    )
    order = (
        "outputs outside, so that a panel of weights stays in L2" if k.oc_outer else "positions outside: all weights stay in L2"
    )
    reason = f"{k.th * k.tw} positions x {k.r} vectors in registers; {order}"
    if p.sparse:
        reason += f"; {p.rows} weight rows a panel are not zero throughout"
    reason += p.types.reason(isa)
    return LayerSchedule(node.name, "panel", levels, Cost(plan.cycles, macs, {"L2": traffic}, "compute"), plan, reason)


def lower_linear(
    ctx: LowerContext,
    node: Node,
    plan: LinearPlan,
    x: Ref,
    y: Ref,
    extras: Sequence[Ref],
    w: PanelWeights,
    start: Array | None = None,
) -> None:
    """Append the calls of a plan. `x` and `y` are the addresses of the first interior elements; `start`, for integers, is what
    the sums of each output begin with.
    """
    lanes, p = ctx.isa.lanes, plan.problem
    for part in plan.parts:
        offsets, begin, weights = w.part(part.first_block * lanes, part.kernel.r * lanes, part.panels)
        lists = [ctx.pack(offsets), *([] if p.shared else [ctx.pack(begin)])]
        moved = shifted(p, extras, part.first_block, lanes)
        sums = [] if start is None else [ctx.pack(start).at(part.first_block * lanes * 4)]
        at = part.first_block * p.y.block * p.types.result.itemsize
        operands = [x, ctx.pack(weights), *lists, *sums, *moved, y.at(at)]
        ctx.call(node, part.kernel, part.geometry, operands)


def shifted(p: Linear, extras: Sequence[Ref], first_block: int, lanes: int) -> list[Ref]:
    """Addresses of the extra operands for the outputs from channel block `first_block` on."""
    steps = [image.block if image else lanes for image in p.extras]
    sizes = [t.itemsize for t in p.types.of_extras(len(extras))]
    return [
        e if kind == "scalar" else e.at(first_block * step * size)
        for e, kind, step, size in zip(extras, p.kinds, steps, sizes, strict=True)
    ]


def extra_strides(p: Linear) -> dict[str, tuple[int, ...]]:
    """The geometry's fields that hold the strides of the epilogue's full operands."""
    images = [e for e in p.extras if e is not None]
    spare = (0,) * (EXTRAS - len(images))
    return {f"e_{name}": tuple(getattr(e, name) for e in images) + spare for name in ("batch", "block", "row")}
