"""Conv on the CPU: panels over channel-blocked (or planar) data with a halo, or one window a channel when it is depthwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.depthwise import depthwise, pack_depthwise
from sparsec.backends.cpu.kernels.panel_pack import tap_offsets
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.backends.cpu.lower.conv_narrow import narrow_options, schedule_narrow
from sparsec.backends.cpu.lower.conv_problem import PLANAR_CHANNELS, conv_problem, iteration_dims, panel_weights
from sparsec.backends.cpu.lower.conv_views import conv_op, dense_view, full_operands, is_depthwise, is_fast, wanted_halo
from sparsec.backends.cpu.lower.direct import direct_options, lower_direct, schedule_direct
from sparsec.backends.cpu.lower.explain import Facts, candidates, considered, elsewhere
from sparsec.backends.cpu.lower.integers import first_sums, is_integer, without_bias
from sparsec.backends.cpu.lower.linear import Linear, LinearPlan, lower_linear, plan_linear, schedule_linear
from sparsec.backends.cpu.lower.narrow import is_narrow, types_of
from sparsec.backends.cpu.lower.operands import extra_kinds, extra_layouts, extra_refs, full_types, padded_lanes
from sparsec.backends.cpu.lower.planar import PlanarPlan, lower_planar, schedule_planar
from sparsec.backends.cpu.lower.planar_conv import plan_conv, planar_applies
from sparsec.backends.cpu.lower.sparse import plan_sparse
from sparsec.backends.cpu.lower.winograd import (
    WinogradPlan,
    filtering_plans,
    lower_winograd,
    schedule_winograd,
)
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.schedule import Candidate, LayerSchedule
from sparsec.compiler.target import LayoutOption

Array = np.ndarray[Any, Any]
Plan = LinearPlan | WinogradPlan | PlanarPlan
_DIRECT_ONLY = "only two-dimensional float32 convolutions of constant weights have sparse kernels"


@lowering
class LowerConv(Lowering):
    """Two-dimensional convolutions of float32, bfloat16 and bytes with constant weights; all others by the direct kernel."""

    op = Conv

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        if is_narrow(graph, node):
            return narrow_options(graph, node, isa, self.kernels)
        if not is_fast(graph, node):
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
        if x.shape[1] <= PLANAR_CHANNELS and isa.lanes > 1:
            orders.insert(0, Blocked(1, 1))
        options = []
        for layout in orders:
            assert isinstance(layout, Blocked)
            source = x.with_layout(Blocked(1, layout.block, wanted_halo(graph, node)))
            problem = conv_problem(
                graph, node, kinds, source, y.with_layout(out), [y.with_layout(out)] * kinds.count("full"), isa
            )
            plans = _plans(graph, node, problem, layout, isa)
            if planar_applies(graph, node, source, y.with_layout(out), isa):
                plans.append(plan_conv(graph, node, kinds, source, y.with_layout(out), isa))
            cycles = min(p.cycles for p in considered(plans, _facts(graph, node, problem, isa), self.kernels))
            options.append(LayoutOption((layout, None, *extra_layouts(kinds, out)), (out,), cycles))
        return [*options, *self._planar_options(graph, node, kinds, isa)]

    def _planar_options(self, graph: Graph, node: Node, kinds: tuple[str, ...], isa: Isa) -> list[LayoutOption]:
        """Options with a planar input or output, which only the planar kernels have."""
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        blocked_x, blocked_y = Blocked(1, isa.lanes, wanted_halo(graph, node)), blocked(y, 1, isa)
        options = []
        for a, b in ((ROW_MAJOR, ROW_MAJOR), (ROW_MAJOR, blocked_y), (blocked_x, ROW_MAJOR)):
            source, result = x.with_layout(a), y.with_layout(b)
            allowed = self.kernels is None or "planar" in self.kernels
            if allowed and isa.lanes > 1 and planar_applies(graph, node, source, result, isa):
                cycles = plan_conv(graph, node, kinds, source, result, isa).cycles
                bare = a.without_halo() if isinstance(a, Blocked) else a
                options.append(LayoutOption((bare, None, *extra_layouts(kinds, b)), (b,), cycles))
        return options

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        reads_halo = graph.types[node.inputs[0]].rank == 4 and isinstance(graph.types[node.inputs[0]].layout, Blocked)
        return wanted_halo(graph, node) if operand == 0 and reads_halo else ()

    def overwrites(self, graph: Graph, node: Node) -> Sequence[str]:
        fast = (is_fast(graph, node) or is_narrow(graph, node)) and not is_depthwise(graph, node)
        y = graph.types[node.output].dtype
        return [v for v in node.inputs[2:] if v != node.inputs[0] and graph.types[v].dtype is y] if fast else ()

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        if is_narrow(graph, node):
            return schedule_narrow(graph, node, isa, self.kernels)
        if not is_fast(graph, node):
            layer = schedule_direct(graph, node, isa, super().schedule(graph, node, isa, threads))
            return replace(layer, candidates=(Candidate("direct loops", layer.cost.cycles, False, _DIRECT_ONLY),))
        if is_depthwise(graph, node):
            layer = super().schedule(graph, node, isa, threads)
            return LayerSchedule(layer.node, "depthwise", layer.levels, layer.cost)
        kinds = extra_kinds(graph, node, 2, 1)
        assert kinds is not None
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        source = x if isinstance(x.layout, Blocked) else x.with_layout(Blocked(1, isa.lanes, wanted_halo(graph, node)))
        result = y if isinstance(y.layout, Blocked) else y.with_layout(blocked(y, 1, isa))
        full = [t if isinstance(t.layout, Blocked) else result for t in full_operands(graph, node, kinds)]
        problem = conv_problem(graph, node, kinds, source, result, full, isa)
        plans = _plans(graph, node, problem, source.layout, isa)
        direct_cycles, facts = plans[0].cycles, _facts(graph, node, problem, isa)
        planar = [plan_conv(graph, node, kinds, x, y, isa)] if planar_applies(graph, node, x, y, isa) else []
        every, as_stored = considered([*plans, *planar], facts, self.kernels), (source, result) == (x, y)
        best = min(every if as_stored else planar, key=lambda p: p.cycles)
        traffic, macs = sum(t.nbytes for t in (*graph.in_types(node), y) if t), node.op.macs(graph.in_types(node))
        if isinstance(best, PlanarPlan):
            layer = schedule_planar(node, best, macs, traffic, isa)
        elif isinstance(best, WinogradPlan):
            layer = schedule_winograd(node, best, direct_cycles, macs, traffic, isa)
        else:
            layer = schedule_linear(node, best, iteration_dims(graph, node), macs, traffic, isa)
        found = candidates(every, best, facts)
        return replace(layer, candidates=found if as_stored else elsewhere(found))

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        start = None
        if is_integer(ctx.graph, node):
            signed = ctx.isa.signed_data and not is_depthwise(ctx.graph, node)
            start = first_sums(ctx.graph, node, ctx.isa.lanes, signed=signed)
            node = without_bias(ctx.graph, node)
        elif not is_fast(ctx.graph, node) and not is_narrow(ctx.graph, node):
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
            types, packed = types_of(ctx.graph, node, ctx.isa), pack_depthwise(weights, ctx.isa.lanes)
            kernel, geometry = depthwise(
                x.type,
                y.type,
                weights.shape[2:],
                op.strides,
                op.dilations,
                op.pads,
                ctx.isa,
                op.epilogue,
                kinds,
                tuple(full),
                types,
            )
            first = [] if start is None else [ctx.pack(start.astype(np.float32))]
            ctx.call(node, kernel, geometry, [x.ref, ctx.pack(packed), *first, *extras, y.ref])
            return
        origins = iter(strides_of(t).origin * t.dtype.itemsize for t in full)
        extras = [e.at(next(origins)) if k == "full" else e for e, k in zip(extras, kinds, strict=True)]
        if isinstance(layer.plan, WinogradPlan):
            before = op.pads[0] * x.strides.dims[2] + op.pads[1] * x.strides.dims[3]
            corner = x.interior.at(-before * x.type.dtype.itemsize)
            taps_inside = weights.transpose(0, 2, 3, 1)
            lower_winograd(ctx, node, layer.plan, corner, x.strides.block, y.interior, extras, taps_inside)
            return
        if isinstance(layer.plan, PlanarPlan):
            taps = tap_offsets(weights.shape[2:], op.dilations, op.pads[:2], x.strides.dims[2:])
            filters = dense_view(weights, op.groups)
            lower_planar(ctx, node, layer.plan, x.interior, y.interior, extras, filters, taps, start)
            return
        assert isinstance(layer.plan, LinearPlan)
        panels = panel_weights(weights, op, x, layer.plan.problem, ctx.isa)
        lower_linear(ctx, node, layer.plan, x.interior, y.interior, extras, panels, start)


def _plans(graph: Graph, node: Node, problem: Linear, layout: Layout, isa: Isa) -> list[Plan]:
    """The ways to compute a convolution between blocked tensors: direct, and by minimal filtering where it applies."""
    op, w = conv_op(node), graph.types[node.inputs[1]]
    tail = padded_lanes(problem.epilogue, problem.kinds, w.shape[0], isa)
    plans: list[Plan] = [plan_linear(problem, isa, tail)]
    listed = plan_sparse(problem, dense_view(graph.constants[node.inputs[1]], op.groups), isa, tail)
    if listed is not None:
        plans.append(listed)
    return [*plans, *filtering_plans(graph, node, problem, layout, isa, tail)]


def _facts(graph: Graph, node: Node, problem: Linear, isa: Isa) -> Facts:
    w = graph.constants[node.inputs[1]]
    rows = prod(w.shape[1:]) if problem.shared else problem.rows  # panels over groups read the inputs of several
    return Facts(rows, np.count_nonzero(w) / max(w.size, 1), isa)
