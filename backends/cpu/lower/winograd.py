"""Stride-1 3x3 convolutions by minimal filtering: when that is predicted to be faster, and its kernel calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.winograd import WinogradGeometry, WinogradKernel, pack
from sparsec.backends.cpu.kernels.winograd_plan import WinogradPart, WinogradProblem, choose
from sparsec.backends.cpu.lower.base import LowerContext
from sparsec.backends.cpu.lower.linear import Linear, extra_strides, shifted
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.graph import Node
from sparsec.compiler.schedule import Cost, LayerSchedule, Level, Loop, LoopKind

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """Parts that cover the channel blocks of a convolution; `x_block` is the stride of its input's channel blocks."""

    problem: Linear
    in_channels: int
    parts: tuple[tuple[WinogradPart, int], ...]  # with the lanes to keep in the last block, 0 for all

    @property
    def cycles(self) -> float:
        """Predicted cycles of one thread."""
        return sum(p.cycles for p, _ in self.parts)


def plan_winograd(p: Linear, in_channels: int, isa: Isa, tail_lanes: int) -> WinogradPlan:
    """The best parts for a convolution that the family applies to, as predicted."""
    blocks = ceil(p.oc / isa.lanes)
    alone = 1 if tail_lanes and blocks > 1 else 0
    problem = WinogradProblem(p.n, p.oh, p.ow, ceil(in_channels / isa.lanes), blocks - alone, len(p.epilogue.steps))
    parts = [(part, tail_lanes if blocks == 1 else 0) for part in choose(problem, isa)]
    if alone:
        last = WinogradProblem(p.n, p.oh, p.ow, problem.in_blocks, 1, problem.epilogue_ops)
        for part in choose(last, isa):
            parts.append((WinogradPart(blocks - 1, part.panels, part.tiling, part.cycles), tail_lanes))
    return WinogradPlan(p, in_channels, tuple(parts))


def schedule_winograd(node: Node, plan: WinogradPlan, direct_cycles: float, macs: int, traffic: int, isa: Isa) -> LayerSchedule:
    """The plan's loops in the schedule's terms (of its first part)."""
    part = plan.parts[0][0]
    t = part.tiling
    pieces = t.full + t.tails
    levels = (
        Level("L3", (Loop("tiles", ceil(pieces / t.block_pieces)),), ("w",)),
        Level("L2", (Loop("OC", part.panels), Loop("frequency", (t.m + 2) ** 2), Loop("tiles", t.block_pieces)), ("x",)),
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
    reason = f"F({t.m}x{t.m}, 3x3) multiplies {9 * t.m**2 / (t.m + 2) ** 2:.2f} times less: predicted {gain:.2f} times faster"
    cost = Cost(plan.cycles, macs, {"L2": traffic}, "compute")
    return LayerSchedule(node.name, "winograd", levels, cost, plan, reason, f"direct panels, {direct_cycles:.0f} cycles")


def lower_winograd(
    ctx: LowerContext, node: Node, plan: WinogradPlan, x: Ref, x_block: int, y: Ref, extras: Sequence[Ref], weights: Array
) -> None:
    """Append the calls of a plan. `x` is the address of the first input that the first output reads; weights [OC, 3, 3, IC]."""
    p, lanes = plan.problem, ctx.isa.lanes
    for part, tail_lanes in plan.parts:
        t = part.tiling
        first = part.block * lanes
        packed = pack(weights[first : first + part.panels * t.r * lanes], t.m, t.r, lanes)
        kernel = WinogradKernel(t.m, t.r, t.tw, t.tw_tail, p.epilogue, p.kinds, tail_lanes)
        geometry = WinogradGeometry(
            in_blocks=ceil(plan.in_channels / lanes),
            panels=part.panels,
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
        ctx.call(node, kernel, geometry, [x, ctx.pack(packed), *moved, y.at(part.block * p.y.block * 4)])
