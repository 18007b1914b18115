"""Conv on the CPU: panels over channel-blocked (or planar) data with a halo, or one window a channel when it is depthwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.depthwise import depthwise, pack_depthwise
from sparsec.backends.cpu.kernels.winograd import applies
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, View, blocked, lowering, stream_cycles
from sparsec.backends.cpu.lower.linear import Dims, Image, Linear, LinearPlan, lower_linear, plan_linear, schedule_linear
from sparsec.backends.cpu.lower.operands import extra_kinds, extra_layouts, extra_refs, full_types, padded_lanes
from sparsec.backends.cpu.lower.winograd import WinogradPlan, lower_winograd, plan_winograd, schedule_winograd
from sparsec.backends.cpu.storage import Strides, strides_of
from sparsec.compiler.axes import DimKind
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked, Layout
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.schedule import LayerSchedule, Loop
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_PLANAR_CHANNELS = 4  # up to this many input channels, blocking would read mostly padding


def conv_op(node: Node) -> Conv:
    """The node's attributes."""
    assert isinstance(node.op, Conv)
    return node.op


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether every channel has its own window and makes one output."""
    w = graph.types[node.inputs[1]]
    return conv_op(node).groups == w.shape[0] and w.shape[1] == 1 and w.shape[0] > 1


def wanted_halo(graph: Graph, node: Node) -> tuple[tuple[int, int], ...]:
    """Zero positions that the windows read around x: (batch, *spatial), exactly as many as are read."""
    op, x, w, y = conv_op(node), graph.types[node.inputs[0]], graph.types[node.inputs[1]], graph.types[node.output]
    halo = [(0, 0)]
    for i in range(len(op.strides)):
        last = (y.shape[2 + i] - 1) * op.strides[i] + (w.shape[2 + i] - 1) * op.dilations[i] - op.pads[i]
        halo.append((op.pads[i], max(0, last - x.shape[2 + i] + 1)))
    return tuple(halo)


@lowering
class LowerConv(Lowering):
    """Two-dimensional float32 convolutions with constant weights."""

    op = Conv

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        kinds = extra_kinds(graph, node, 2, 1)
        if x.dtype.value != "f32" or x.rank != 4 or node.inputs[1] not in graph.constants or kinds is None or 0 in y.shape:
            return ()
        out = blocked(y, 1, isa)
        if is_depthwise(graph, node):
            taps = prod(graph.types[node.inputs[1]].shape[2:])
            cycles = stream_cycles(x.nbytes + y.nbytes) + y.elements / isa.lanes * taps / isa.fma_per_cycle
            return (LayoutOption((out, None, *extra_layouts(kinds, out)), (out,), cycles),)
        orders: list[Layout] = [blocked(x, 1, isa)]
        if x.shape[1] <= _PLANAR_CHANNELS and isa.lanes > 1:
            orders.insert(0, Blocked(1, 1))
        options = []
        for layout in orders:
            assert isinstance(layout, Blocked)
            source = x.with_layout(Blocked(1, layout.block, wanted_halo(graph, node)))
            problem = conv_problem(
                graph, node, kinds, source, y.with_layout(out), [y.with_layout(out)] * kinds.count("full"), isa
            )
            cycles = min(p.cycles for p in _plans(graph, node, problem, layout, isa))
            options.append(LayoutOption((layout, None, *extra_layouts(kinds, out)), (out,), cycles))
        return options

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        return wanted_halo(graph, node) if operand == 0 else ()

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        if is_depthwise(graph, node):
            layer = super().schedule(graph, node, isa, threads)
            return LayerSchedule(layer.node, "depthwise", layer.levels, layer.cost)
        kinds = extra_kinds(graph, node, 2, 1)
        assert kinds is not None
        y = graph.types[node.output]
        full = [graph.types[v] for v, k in zip(node.inputs[2:], kinds, strict=True) if k == "full"]
        full = [t if isinstance(t.layout, Blocked) else t.with_layout(Blocked(1, isa.lanes)) for t in full]
        problem = conv_problem(graph, node, kinds, graph.types[node.inputs[0]], y, full, isa)
        plans = _plans(graph, node, problem, graph.types[node.inputs[0]].layout, isa)
        best, direct = min(plans, key=lambda p: p.cycles), plans[0]
        traffic, macs = sum(t.nbytes for t in (*graph.in_types(node), y) if t), node.op.macs(graph.in_types(node))
        if isinstance(best, WinogradPlan):
            return schedule_winograd(node, best, direct.cycles, macs, traffic, isa)
        runner_up = f"winograd, {plans[1].cycles:.0f} cycles" if len(plans) > 1 else ""
        return replace(schedule_linear(node, best, _dims(graph, node), macs, traffic, isa), runner_up=runner_up)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        kinds = extra_kinds(ctx.graph, node, 2, 1)
        assert kinds is not None
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        weights = ctx.graph.constants[node.inputs[1]]
        extras = extra_refs(ctx, node, 2, kinds, 1)
        full = full_types(ctx, node, 2, kinds, 1)
        op = conv_op(node)
        if is_depthwise(ctx.graph, node):
            kernel, geometry = depthwise(
                x.type, y.type, weights.shape[2:], op.strides, op.dilations, op.pads, ctx.isa, op.epilogue, kinds, tuple(full)
            )
            ctx.call(node, kernel, geometry, [x.ref, ctx.pack(pack_depthwise(weights, ctx.isa.lanes)), *extras, y.ref])
            return
        origins = iter(strides_of(t).origin for t in full)
        extras = [e.at(next(origins) * 4) if k == "full" else e for e, k in zip(extras, kinds, strict=True)]
        if isinstance(layer.plan, WinogradPlan):
            corner = x.interior.at(-4 * (op.pads[0] * x.strides.dims[2] + op.pads[1] * x.strides.dims[3]))
            taps_inside = weights.transpose(0, 2, 3, 1)
            lower_winograd(ctx, node, layer.plan, corner, x.strides.block, y.interior, extras, taps_inside)
            return
        assert isinstance(layer.plan, LinearPlan)
        packer = ConvPacker(weights, op, x, layer.plan.problem.k_run, ctx.isa.lanes)
        lower_linear(ctx, node, layer.plan, x.interior, y.interior, extras, packer.pack)


def _plans(graph: Graph, node: Node, problem: Linear, layout: Layout, isa: Isa) -> list[LinearPlan | WinogradPlan]:
    """The ways to compute a convolution: direct, and by minimal filtering where it applies."""
    op, w = conv_op(node), graph.types[node.inputs[1]]
    tail = padded_lanes(problem.epilogue, problem.kinds, w.shape[0], isa)
    plans: list[LinearPlan | WinogradPlan] = [plan_linear(problem, isa, tail)]
    if applies(w.shape[2:], op.strides, op.dilations, op.groups) and layout == Blocked(1, isa.lanes, getattr(layout, "halo", ())):
        plans.append(plan_winograd(problem, w.shape[1], isa, tail))
    return plans


def _dims(graph: Graph, node: Node) -> Dims:
    found = node.op.axes(graph.in_types(node)).dims
    reduced = tuple(Loop(d.name, d.extent) for d in found if d.kind is DimKind.REDUCED and d.extent > 1)
    return Dims("N", "OH", "OW", "OC", reduced)


def conv_problem(
    graph: Graph, node: Node, kinds: tuple[str, ...], x: TensorType, y: TensorType, full: Sequence[TensorType], isa: Isa
) -> Linear:
    """The panel kernel's view of a convolution stored as `x`, `y` and `full` say."""
    op, w = conv_op(node), graph.types[node.inputs[1]]
    xs, ys = strides_of(x), strides_of(y)
    n, oc, oh, ow = y.shape
    lanes = x.layout.block  # type: ignore[union-attr]
    k_run = run_length(w.shape[1], op.groups, lanes)
    groups_of = iter(full)
    images = [_image(strides_of(next(groups_of)), isa) if k == "full" else None for k in kinds]
    shared = op.groups == 1
    channels = -(-w.shape[1] // k_run) * k_run
    if not shared:  # a panel that straddles groups reads the inputs of all that it touches
        per = w.shape[0] // op.groups
        channels = int(channels * (1 + (isa.lanes - gcd(per, isa.lanes)) / per))
    taps = prod(w.shape[2:])
    pointwise = taps == 1 and set(op.strides) == {1} and not any(op.pads)
    bare = all(not t.layout.halo for t in (x, y, *full))  # type: ignore[union-attr]
    flat = pointwise and bare
    return Linear(
        oc=oc,
        n=1 if flat else n,
        oh=1 if flat else oh,
        ow=n * oh * ow if flat else ow,
        k_run=k_run,
        x_step=op.strides[1] * lanes,
        x=Image(xs.dims[0], xs.block, xs.dims[2] * op.strides[0]),
        y=_image(ys, isa),
        extras=tuple(images),
        kinds=kinds,
        epilogue=op.epilogue,
        shared=shared,
        rows=channels * taps,
        n_runs=channels // k_run * taps,
    )


def _image(s: Strides, isa: Isa) -> Image:
    return Image(s.dims[0], s.block, s.dims[2])


def run_length(per_group: int, groups: int, lanes: int) -> int:
    """Consecutive channels a run reads: a power of two that divides the block, long where little padding results."""
    if groups > 1:
        return gcd(per_group, lanes)
    best = lanes
    while best > 1 and -(-per_group // best) * best * 20 > 21 * per_group:
        best //= 2
    return best


@dataclass(frozen=True, slots=True)
class ConvPacker:
    """Offsets and weights of a range of channel blocks."""

    weights: Array
    op: Conv
    x: View
    k_run: int
    lanes: int

    def pack(self, first_block: int, panels: int, r: int) -> tuple[Array, Array, Array]:
        """(offsets int32 [runs], run_begin int32 [panels + 1], weights f32 [runs of all panels][k_run][r * lanes])."""
        if self.op.groups == 1:
            offsets, index = self._runs(0, self.weights.shape[1])
            parts = [self._panel((first_block + p * r) * self.lanes, r, index, 0) for p in range(panels)]
            return offsets, np.zeros(0, np.int32), np.concatenate(parts)
        per_out, per_in = self.weights.shape[0] // self.op.groups, self.weights.shape[1]
        all_offsets, begin, parts = [], [0], []
        for p in range(panels):
            lo = (first_block + p * r) * self.lanes
            hi = min(lo + r * self.lanes, self.weights.shape[0])
            first, last = lo // per_out, -(-hi // per_out)
            offsets, index = self._runs(first * per_in, last * per_in)
            all_offsets.append(offsets)
            begin.append(begin[-1] + len(offsets))
            parts.append(self._panel(lo, r, index, first * per_in))
        return np.concatenate(all_offsets), np.asarray(begin), np.concatenate(parts)

    def _runs(self, first: int, last: int) -> tuple[Array, Array]:
        """Offsets of all taps of input channels [first, last), channel runs outermost, and (channel, tap) of every weight row."""
        s, block = self.x.strides, self.x.type.layout.block  # type: ignore[union-attr]
        kh, kw = self.weights.shape[2:]
        starts = np.arange(first, last, self.k_run)
        at = starts // block * s.block + starts % block
        taps = np.arange(kh)[:, None] * self.op.dilations[0] * s.dims[2] + np.arange(kw) * self.op.dilations[1] * s.dims[3]
        origin = self.op.pads[0] * s.dims[2] + self.op.pads[1] * s.dims[3]
        offsets = (at[:, None] + taps.reshape(-1) - origin).reshape(-1)
        channel = starts[:, None, None] + np.arange(self.k_run)
        channel = np.broadcast_to(channel, (len(starts), kh * kw, self.k_run)).reshape(-1)
        tap = np.broadcast_to(np.arange(kh * kw)[:, None], (len(starts), kh * kw, self.k_run)).reshape(-1)
        return offsets, np.stack([channel, tap])

    def _panel(self, first_out: int, r: int, index: Array, first_in: int) -> Array:
        """Weight rows [len(index)][r * lanes]: zero beyond the channels and outside an output's own group."""
        oc, per_in = self.weights.shape[:2]
        flat = self.weights.reshape(oc, per_in, -1)
        channel, tap = index
        rows = np.zeros((channel.size, r * self.lanes), np.float32)
        outs = np.arange(first_out, min(first_out + r * self.lanes, oc))
        own = channel[:, None] - (outs // (oc // self.op.groups)) * per_in
        valid = (own >= 0) & (own < per_in)
        rows[:, : outs.size] = np.where(valid, flat[outs[None, :], np.where(valid, own, 0), tap[:, None]], 0)
        return rows
