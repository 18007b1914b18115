"""Stride-1 3x3 convolutions by minimal filtering: when that is predicted to be faster, and its kernel calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.panel_plan import LEVELS
from sparsec.backends.cpu.kernels.winograd import WinogradGeometry, WinogradKernel, applies, pack, pack_listed
from sparsec.backends.cpu.kernels.winograd_plan import (
    WinogradPart,
    WinogradProblem,
    WinogradTiling,
    choose,
    scratch_bytes,
)
from sparsec.backends.cpu.lower.base import LowerContext
from sparsec.backends.cpu.lower.conv_views import conv_op, dense_view
from sparsec.backends.cpu.lower.linear import (
    Linear,
    extra_strides,
    shifted,
)
from sparsec.backends.cpu.lower.sparse import mean_rows
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked, Layout
from sparsec.compiler.schedule import Cost, LayerSchedule, Level, Loop, LoopKind

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """Parts that cover the channel blocks of a convolution. `listed`: panels read lists of `kept` input channels, on average."""

    problem: Linear
    in_channels: int
    parts: tuple[tuple[WinogradPart, int], ...]  # with the lanes to keep in the last block, 0 for all
    kept: int = 0

    @property
    def listed(self) -> bool:
        """Whether panels leave input channels out."""
        return self.kept > 0

    @property
    def cycles(self) -> float:
        """Predicted cycles of one thread."""
        return sum(p.cycles for p, _ in self.parts)


def plan_winograd(p: Linear, in_channels: int, isa: Isa, tail_lanes: int, *, vectors: int = 0, kept: int = 0) -> WinogradPlan:
    """The best parts for a convolution that the family applies to, as predicted.

    `kept` > 0: panels of `vectors` vectors list the input channels that they read, so many on average.
    """
    blocks = ceil(p.oc / isa.lanes)
    alone = 1 if tail_lanes and blocks > 1 else 0
    problem = WinogradProblem(
        p.n, p.oh, p.ow, ceil(in_channels / isa.lanes), blocks - alone, len(p.epilogue.steps), kept, p.kinds.count("full")
    )
    parts = [(part, tail_lanes if blocks == 1 else 0) for part in choose(problem, isa, vectors=vectors)]
    if alone:
        for part in choose(replace(problem, out_blocks=1), isa):
            parts.append((replace(part, block=blocks - 1), tail_lanes))
    return WinogradPlan(p, in_channels, tuple(parts), kept)


def plan_listed(p: Linear, w: Array, isa: Isa, tail_lanes: int) -> WinogradPlan | None:
    """The best plan that leaves out input channels which are zero throughout a panel; None for dense weights. w: [OC, 9, IC]."""
    plans = [
        plan_winograd(p, w.shape[2], isa, tail_lanes, vectors=r, kept=kept)
        for r, kept in mean_rows(channels_view(w), isa.lanes).items()
    ]
    return min(plans, key=lambda plan: plan.cycles, default=None)


def filtering_plans(graph: Graph, node: Node, problem: Linear, layout: Layout, isa: Isa, tail: int) -> list[WinogradPlan]:
    """The ways to compute a convolution by minimal filtering; none where it does not apply."""
    op, w = conv_op(node), graph.types[node.inputs[1]]
    blocks = layout == Blocked(1, isa.lanes, getattr(layout, "halo", ()))
    if not (applies(w.shape[2:], op.strides, op.dilations, op.groups) and blocks):
        return []
    plans: list[WinogradPlan] = [plan_winograd(problem, w.shape[1], isa, tail)]
    filtered = plan_listed(problem, dense_view(graph.constants[node.inputs[1]], 1), isa, tail)
    return [*plans, *([filtered] if filtered is not None else [])]


def channels_view(w: Array) -> Array:
    """[OC, taps, IC] as [OC, 1, IC]: the largest magnitude of each channel's taps, for counting the channels that are kept."""
    largest: Array = np.abs(w).max(axis=1, keepdims=True)
    return largest


def schedule_winograd(node: Node, plan: WinogradPlan, direct_cycles: float, macs: int, traffic: int, isa: Isa) -> LayerSchedule:
    """The plan's loops in the schedule's terms (of its first part)."""
    part = plan.parts[0][0]
    t = part.tiling
    pieces = t.full + t.tails
    levels = (
        Level("L3", (Loop("tiles", ceil(pieces / t.block_pieces)),), ("w",)),
        Level(
            "L2",
            (
                Loop("OC", ceil(part.panels / t.group)),
                Loop("frequency", (t.m + 2) ** 2),
                Loop("OC", t.group),
                Loop("tiles", t.block_pieces),
            ),
            ("x",),
        ),
        Level("L1", (Loop("IC", plan.in_channels),), ("x",)),
        Level(
            "registers",
            (
                Loop("tiles", t.tw, LoopKind.UNROLLED),
                Loop("OC", t.r, LoopKind.UNROLLED),
                Loop("OC", isa.lanes, LoopKind.VECTOR),
            ),
            ("y",),
        ),
    )
    gain = direct_cycles / plan.cycles
    fewer = 9 * t.m**2 / (t.m + 2) ** 2
    reason = f"F({t.m}x{t.m}, 3x3) multiplies {fewer:.2f} times less: predicted {gain:.2f} times faster"
    if plan.listed:
        reason += f"; {plan.kept} of {plan.in_channels} channels a panel are not zero"
    cost = Cost(plan.cycles, macs, {"L2": traffic}, "compute")
    return LayerSchedule(node.name, "winograd", levels, cost, plan, reason)


def shared_tiling(part: WinogradPart, threads: int) -> WinogradTiling:
    """The tiling with work for all threads: a block of tiles for each, and two groups of outputs, where that can be."""
    t = part.tiling
    if threads == 1:
        return t
    pieces = t.full + t.tails
    block_pieces = min(t.block_pieces, ceil(pieces / threads))
    groups = ceil(2 * threads / ceil(pieces / block_pieces))
    return replace(t, block_pieces=block_pieces, group=min(t.group, ceil(part.panels / groups)))


def lower_winograd(
    ctx: LowerContext, node: Node, plan: WinogradPlan, x: Ref, x_block: int, y: Ref, extras: Sequence[Ref], weights: Array
) -> None:
    """Append the calls of a plan. `x` is the address of the first input that the first output reads; weights [OC, 3, 3, IC]."""
    p, lanes = plan.problem, ctx.isa.lanes
    for part, tail_lanes in plan.parts:
        t = shared_tiling(part, ctx.threads)
        first = part.block * lanes
        outputs = weights[first : first + part.panels * t.r * lanes]
        lists: list[Ref] = []
        if plan.listed:
            packed, channel, begin = pack_listed(outputs, t.m, t.r, lanes, t.group)
            offsets = (channel // lanes * t.block_tiles * lanes + channel % lanes).astype(np.int32)
            lists = [ctx.pack(offsets), ctx.pack(begin)]
        else:
            packed = pack(outputs, t.m, t.r, lanes, t.group)
        far = scratch_bytes(t, ceil(plan.in_channels / lanes), ctx.isa) > LEVELS[1][0]
        kernel = WinogradKernel(t.m, t.r, t.tw, t.tw_tail, p.epilogue, p.kinds, tail_lanes, plan.listed, far, p.types)
        geometry = WinogradGeometry(
            in_blocks=ceil(plan.in_channels / lanes),
            panels=part.panels,
            group=t.group,
            tiles_y=t.tiles_y,
            tiles_x=t.tiles_x,
            oh=p.oh,
            ow=p.ow,
            full=t.full,
            tails=t.tails,
            block_pieces=t.block_pieces,
            block_tiles=t.block_tiles,
            x_batch=p.x.batch,
            x_block=x_block,
            x_row=p.x.row,
            y_batch=p.y.batch,
            y_block=p.y.block,
            y_row=p.y.row,
            **extra_strides(p),
        )
        moved = shifted(p, extras, part.block, lanes)
        ctx.call(
            node, kernel, geometry, [x, ctx.pack(packed), *lists, *moved, y.at(part.block * p.y.block * p.types.result.itemsize)]
        )
