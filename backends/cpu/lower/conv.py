"""Conv on the CPU: panels over channel-blocked (or planar) data with a halo, or one window a channel when it is depthwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd, prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.depthwise import depthwise, pack_depthwise
from sparsec.backends.cpu.kernels.panel_pack import blocked_channels, expand_groups, tap_offsets
from sparsec.backends.cpu.kernels.winograd import applies
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, View, blocked, lowering, stream_cycles
from sparsec.backends.cpu.lower.direct import direct_options, lower_direct, schedule_direct
from sparsec.backends.cpu.lower.explain import Facts, candidates, considered
from sparsec.backends.cpu.lower.linear import Dims, Image, Linear, LinearPlan, lower_linear, plan_linear, schedule_linear
from sparsec.backends.cpu.lower.operands import extra_kinds, extra_layouts, extra_refs, full_types, padded_lanes
from sparsec.backends.cpu.lower.panel_weights import PanelWeights, run_length
from sparsec.backends.cpu.lower.sparse import plan_sparse
from sparsec.backends.cpu.lower.winograd import WinogradPlan, lower_winograd, plan_listed, plan_winograd, schedule_winograd
from sparsec.backends.cpu.storage import Strides, strides_of
from sparsec.compiler.axes import DimKind
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked, Layout
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.schedule import Candidate, LayerSchedule, Loop
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_DIRECT_ONLY = "only two-dimensional float32 convolutions of constant weights have sparse kernels"
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
    """Two-dimensional float32 convolutions with constant weights; all others by the direct kernel."""

    op = Conv

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        if x.dtype.value != "f32" or x.rank != 4 or node.inputs[0] in graph.constants or node.inputs[1] not in graph.constants:
            return direct_options(graph, node, isa)
        kinds = extra_kinds(graph, node, 2, 1)
        if kinds is None:
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
            plans = _plans(graph, node, problem, layout, isa)
            cycles = min(p.cycles for p in considered(plans, _facts(graph, node, problem, isa), self.kernels))
            options.append(LayoutOption((layout, None, *extra_layouts(kinds, out)), (out,), cycles))
        return options

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        panels = isinstance(graph.types[node.output].layout, Blocked)
        return wanted_halo(graph, node) if operand == 0 and panels else ()

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        if not isinstance(graph.types[node.output].layout, Blocked):
            layer = schedule_direct(graph, node, isa, super().schedule(graph, node, isa, threads))
            return replace(layer, candidates=(Candidate("direct loops", layer.cost.cycles, False, _DIRECT_ONLY),))
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
        facts = _facts(graph, node, problem, isa)
        choices = considered(plans, facts, self.kernels)
        best = min(choices, key=lambda p: p.cycles)
        traffic, macs = sum(t.nbytes for t in (*graph.in_types(node), y) if t), node.op.macs(graph.in_types(node))
        if isinstance(best, WinogradPlan):
            layer = schedule_winograd(node, best, plans[0].cycles, macs, traffic, isa)
        else:
            layer = schedule_linear(node, best, _dims(graph, node), macs, traffic, isa)
        return replace(layer, candidates=candidates(choices, best, facts))

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        if not isinstance(ctx.graph.types[node.output].layout, Blocked):
            lower_direct(ctx, node)
            return
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
        panels = _panel_weights(weights, op, x, layer.plan.problem)
        lower_linear(ctx, node, layer.plan, x.interior, y.interior, extras, panels)


def _plans(graph: Graph, node: Node, problem: Linear, layout: Layout, isa: Isa) -> list[LinearPlan | WinogradPlan]:
    """The ways to compute a convolution: direct, and by minimal filtering where it applies."""
    op, w = conv_op(node), graph.types[node.inputs[1]]
    tail = padded_lanes(problem.epilogue, problem.kinds, w.shape[0], isa)
    plans: list[LinearPlan | WinogradPlan] = [plan_linear(problem, isa, tail)]
    listed = plan_sparse(problem, dense_view(graph.constants[node.inputs[1]], op.groups), isa, tail)
    if listed is not None:
        plans.append(listed)
    if applies(w.shape[2:], op.strides, op.dilations, op.groups) and layout == Blocked(1, isa.lanes, getattr(layout, "halo", ())):
        plans.append(plan_winograd(problem, w.shape[1], isa, tail))
        filtered = plan_listed(problem, dense_view(graph.constants[node.inputs[1]], 1), isa, tail)
        if filtered is not None:
            plans.append(filtered)
    return plans


def _facts(graph: Graph, node: Node, problem: Linear, isa: Isa) -> Facts:
    w = graph.constants[node.inputs[1]]
    rows = prod(w.shape[1:]) if problem.shared else problem.rows  # panels over groups read the inputs of several
    return Facts(rows, np.count_nonzero(w) / max(w.size, 1), isa)


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


def _panel_weights(weights: Array, op: Conv, x: View, problem: Linear) -> PanelWeights:
    """The weights [OC, IC / groups, KH, KW] with where a blocked or planar input has its channels and taps."""
    layout, s = x.type.layout, x.strides
    assert isinstance(layout, Blocked)
    taps_inside = weights.transpose(0, 2, 3, 1).reshape(weights.shape[0], -1, weights.shape[1])
    channels = blocked_channels(x.type.shape[1], layout.block, s.block)
    taps = tap_offsets(weights.shape[2:], op.dilations, op.pads[:2], s.dims[2:])
    return PanelWeights(taps_inside, op.groups, problem.k_run, channels, taps, layout.block if problem.sparse else 0)


def dense_view(weights: Array, groups: int) -> Array:
    """[OC, IC / groups, *kernel] as [OC, taps, IC], with zeros between groups."""
    taps_inside = np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1, weights.shape[1])
    return taps_inside if groups == 1 else expand_groups(taps_inside, groups)
