"""Conv of bytes and bfloat16: panels and planar tiles over channel-blocked data, or one window a channel when it is depthwise."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.kernels.panel_pack import joined
from sparsec.backends.cpu.lower.base import blocked, stream_cycles
from sparsec.backends.cpu.lower.conv_problem import BYTES, PLANAR_CHANNELS, conv_problem, iteration_dims, row_fours
from sparsec.backends.cpu.lower.conv_views import conv_op, dense_view, full_operands, is_depthwise, wanted_halo
from sparsec.backends.cpu.lower.explain import Facts, candidates, considered
from sparsec.backends.cpu.lower.integers import is_integer, sums_in_float, without_bias
from sparsec.backends.cpu.lower.linear import LinearPlan, plan_linear, schedule_linear
from sparsec.backends.cpu.lower.narrow import has_panels
from sparsec.backends.cpu.lower.operands import extra_kinds, extra_layouts, padded_lanes
from sparsec.backends.cpu.lower.planar import PlanarPlan, schedule_planar
from sparsec.backends.cpu.lower.planar_conv import plan_conv, planar_applies
from sparsec.backends.cpu.lower.sparse import plan_sparse
from sparsec.backends.cpu.lower.winograd import (
    WinogradPlan,
    filtering_plans,
    schedule_winograd,
)
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked, Layout
from sparsec.compiler.schedule import Cost, LayerSchedule, Level
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

Plan = LinearPlan | WinogradPlan | PlanarPlan
_NARROW_TAPS = 4  # what a window of bytes or bfloat16 costs in taps: conversions to float32 and back


def narrow_options(graph: Graph, node: Node, isa: Isa, kernels: frozenset[str] | None) -> list[LayoutOption]:
    """Options of a convolution of bytes or bfloat16; none where only products of wider numbers take it."""
    x, y = graph.types[node.inputs[0]], graph.types[node.output]
    kinds = extra_kinds(graph, node, 2, 1)
    op = conv_op(node)
    if kinds is None or x.rank != 4 or 0 in x.shape or (op.zero and any(op.pads)):  # halos hold zeros
        return []
    out = blocked(y, 1, isa)
    if is_depthwise(graph, node):
        taps = prod(graph.types[node.inputs[1]].shape[2:])
        cycles = stream_cycles(x.nbytes + y.nbytes) + y.elements / isa.lanes * (taps + _NARROW_TAPS) / isa.fma_per_cycle
        exact = not is_integer(graph, node) or sums_in_float(graph, node)
        return [LayoutOption((out, None, *extra_layouts(kinds, out)), (out,), cycles)] if exact else []
    if not has_panels(graph, node, isa):
        return []
    orders: list[Layout] = [blocked(x, 1, isa)]
    if x.shape[1] <= PLANAR_CHANNELS < isa.lanes:
        orders.insert(0, Blocked(1, BYTES))
    if x.dtype is DType.U8 and isa.lanes > BYTES and row_fours(op, graph.types[node.inputs[1]]):
        orders.insert(0, Blocked(1, x.shape[1]))
    options = []
    for layout in orders:
        assert isinstance(layout, Blocked)
        source = x.with_layout(Blocked(1, layout.block, wanted_halo(graph, node)))
        plans = considered(_plans(graph, node, source, y.with_layout(out), isa), _facts(graph, node, isa), kernels)
        cycles = min(p.cycles for p in plans)
        options.append(LayoutOption((layout, None, *extra_layouts(kinds, out)), (out,), cycles))
    return options


def _plans(graph: Graph, node: Node, source: TensorType, y: TensorType, isa: Isa) -> list[Plan]:
    """The ways to compute a convolution of bytes or bfloat16 between blocked tensors."""
    bare = without_bias(graph, node)
    kinds = extra_kinds(graph, bare, 2, 1)
    assert kinds is not None
    full = [t if isinstance(t.layout, Blocked) else t.with_layout(y.layout) for t in full_operands(graph, bare, kinds)]
    problem = conv_problem(graph, bare, kinds, source, y, full, isa)
    tail = padded_lanes(problem.epilogue, kinds, y.shape[1], isa)
    plans: list[Plan] = [plan_linear(problem, isa, tail)]
    per_row = row_channels(source.dtype, isa)
    filters = joined(dense_view(graph.constants[node.inputs[1]], conv_op(node).groups), per_row)
    assert isinstance(source.layout, Blocked)
    listed = plan_sparse(problem, filters, isa, tail)
    if listed is not None and source.layout.block % per_row == 0:
        plans.append(listed)
    if source.dtype is DType.BF16:
        plans += filtering_plans(graph, node, problem, source.layout, isa, tail)
    if planar_applies(graph, bare, source, y, isa):
        plans.append(plan_conv(graph, bare, kinds, source, y, isa))
    return plans


def _facts(graph: Graph, node: Node, isa: Isa) -> Facts:
    w, per_row = graph.constants[node.inputs[1]], row_channels(graph.types[node.inputs[0]].dtype, isa)
    return Facts(-(-w.shape[1] // per_row) * prod(w.shape[2:]), np.count_nonzero(w) / max(w.size, 1), isa)


def schedule_narrow(graph: Graph, node: Node, isa: Isa, kernels: frozenset[str] | None) -> LayerSchedule:
    """The best schedule of a convolution of bytes or bfloat16 as the graph is laid out."""
    x, y = graph.types[node.inputs[0]], graph.types[node.output]
    if is_depthwise(graph, node):
        (option,) = narrow_options(graph, node, isa, kernels)
        traffic = x.nbytes + y.nbytes
        cost = Cost(option.cycles, node.op.macs(graph.in_types(node)), {"L2": traffic}, "compute")
        return LayerSchedule(node.name, "depthwise", (Level("L2", iteration_dims(graph, node).reduced),), cost)
    facts = _facts(graph, node, isa)
    plans = considered(_plans(graph, node, x, y, isa), facts, kernels)
    best = min(plans, key=lambda p: p.cycles)
    traffic, macs = sum(t.nbytes for t in (*graph.in_types(node), y) if t), node.op.macs(graph.in_types(node))
    if isinstance(best, PlanarPlan):
        layer = schedule_planar(node, best, macs, traffic, isa)
    elif isinstance(best, WinogradPlan):
        layer = schedule_winograd(node, best, plans[0].cycles, macs, traffic, isa)
    else:
        layer = schedule_linear(node, best, iteration_dims(graph, node), macs, traffic, isa)
    return replace(layer, candidates=candidates(plans, best, facts))
