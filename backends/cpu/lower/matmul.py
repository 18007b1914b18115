"""MatMul: panels over tokens where the right operand is a constant matrix, row-major tiles for any other operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.kernels.matmul import FULL, matmul
from sparsec.backends.cpu.kernels.matmul_direct import matmul_direct
from sparsec.backends.cpu.kernels.panel_pack import blocked_channels, joined
from sparsec.backends.cpu.kernels.panel_plan import DRAM
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.backends.cpu.lower.explain import Facts, candidates, considered, elsewhere, wanted
from sparsec.backends.cpu.lower.integers import first_sums, is_integer, without_bias
from sparsec.backends.cpu.lower.linear import Dims, Image, Linear, LinearPlan, lower_linear, plan_linear, schedule_linear
from sparsec.backends.cpu.lower.narrow import has_panels, is_narrow, types_of
from sparsec.backends.cpu.lower.operands import extra_kinds, extra_layouts, extra_refs, padded_lanes
from sparsec.backends.cpu.lower.panel_weights import PanelWeights
from sparsec.backends.cpu.lower.planar import PlanarPlan, has_zeros, lower_planar, schedule_planar
from sparsec.backends.cpu.lower.planar_product import plan_product
from sparsec.backends.cpu.lower.sparse import plan_sparse
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.schedule import Candidate, Cost, LayerSchedule, Loop
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_GENERAL_EFFICIENCY = 0.7  # of the FMA peak
_ROWS_ONLY = "its operands are stored row by row, and the kernel for that reads all weights"


def matmul_op(node: Node) -> MatMul:
    """The node's attributes."""
    assert isinstance(node.op, MatMul)
    return node.op


def constant_weights(graph: Graph, node: Node) -> Array | None:
    """The right operand as [K, N] when it is a constant matrix shared by the whole batch and the left one is not transposed."""
    b = graph.constants.get(node.inputs[1])
    if b is None or matmul_op(node).trans_a or prod(b.shape[:-2]) != 1:
        return None
    flat = b.reshape(b.shape[-2:])
    return flat.T if matmul_op(node).trans_b else flat


@lowering
class LowerMatMul(Lowering):
    """Matrix products."""

    op = MatMul

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        if is_narrow(graph, node):
            return self._narrow(graph, node, isa)
        if not is_fast(graph, node):
            return self._direct(graph, node)
        panels = self._panels(graph, node, isa)
        asked = bool(panels and self.kernels) and bool(wanted(*_plans(graph, node, isa), self.kernels))
        if row_kinds(graph, node) is None or asked:
            return panels
        cycles = _general_cycles(graph, node, isa)
        return [LayoutOption((ROW_MAJOR,) * len(node.inputs), (ROW_MAJOR,), cycles), *panels]

    def _narrow(self, graph: Graph, node: Node, isa: Isa) -> list[LayoutOption]:
        """Options of products of bytes or bfloat16: panels over blocked features, or over one line of them."""
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        kinds = extra_kinds(graph, node, 2, y.rank - 1)
        if constant_weights(graph, node) is None or kinds is None or x.rank != y.rank or not has_panels(graph, node, isa):
            return []
        plans, facts = _plans(graph, node, isa)
        source, result = blocked(x, -1, isa), blocked(y, -1, isa)
        every: list[LinearPlan | PlanarPlan] = [*plans, *_planar(graph, without_bias(graph, node), source, result, isa)]
        every = considered(every, facts, self.kernels)
        return [LayoutOption((source, None, *extra_layouts(kinds, result)), (result,), min(p.cycles for p in every))]

    def _direct(self, graph: Graph, node: Node) -> Sequence[LayoutOption]:
        """The option of the kernel for other types and for sums of nothing: without an epilogue."""
        op = matmul_op(node)
        a, b = (graph.types[v] for v in node.inputs[:2])
        try:
            matmul_direct(a.dtype, a.shape, b.shape, trans_a=op.trans_a, trans_b=op.trans_b)
        except ValueError:
            return ()
        cycles = stream_cycles(graph.types[node.output].nbytes) + op.macs(graph.in_types(node)) / 2.0
        return () if op.epilogue.steps else (LayoutOption((ROW_MAJOR,) * 2, (ROW_MAJOR,), cycles),)

    def _panels(self, graph: Graph, node: Node, isa: Isa) -> list[LayoutOption]:
        """Options of the panel kernel: blocked features, or one line of them, which is stored alike either way."""
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        kinds = extra_kinds(graph, node, 2, y.rank - 1)
        if constant_weights(graph, node) is None or kinds is None or x.rank != y.rank:
            return []
        source, result = blocked(x, -1, isa), blocked(y, -1, isa)
        plans, facts = _plans(graph, node, isa)
        cycles = min(p.cycles for p in considered(plans, facts, self.kernels))
        either: list[LinearPlan | PlanarPlan] = [*plans, *_planar(graph, node, source, result, isa)]
        every = considered(either, facts, self.kernels)
        options = [LayoutOption((source, None, *extra_layouts(kinds, result)), (result,), min(p.cycles for p in every))]
        planar_x, planar_y = Blocked(x.rank - 1, 1), Blocked(y.rank - 1, 1)
        for one, other in ((planar_x, planar_y), (planar_x, result), (source, planar_y)):
            allowed = isa.lanes > 1 and (self.kernels is None or "planar" in self.kernels)
            for plan in _planar(graph, node, one, other, isa) if allowed else ():
                options.append(LayoutOption((one, None, *extra_layouts(kinds, other)), (other,), plan.cycles))
        if prod(x.shape[:-1]) == 1:  # but for the padding of the last block
            choices: list[tuple[Layout, Layout]] = [(source, ROW_MAJOR), (ROW_MAJOR, result), (ROW_MAJOR, ROW_MAJOR)]
            for a, b in choices:
                fits_a = a != ROW_MAJOR or x.shape[-1] % isa.lanes == 0
                fits_b = b != ROW_MAJOR or y.shape[-1] % isa.lanes == 0
                if fits_a and fits_b:
                    options.append(LayoutOption((a, None, *extra_layouts(kinds, b)), (b,), cycles))
        return options

    def overwrites(self, graph: Graph, node: Node) -> Sequence[str]:
        blocked_y = isinstance(graph.types[node.output].layout, Blocked)
        y = graph.types[node.output].dtype
        return [v for v in node.inputs[2:] if v != node.inputs[0] and graph.types[v].dtype is y] if blocked_y else ()

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        if not uses_panels(graph, node, isa):
            layer = super().schedule(graph, node, isa, threads)
            cost = Cost(_general_cycles(graph, node, isa), node.op.macs(graph.in_types(node)), layer.cost.bytes, "compute")
            return replace(layer, cost=cost, candidates=self._row_candidates(graph, node, isa, cost.cycles))
        panels, facts = _plans(graph, node, isa)
        x, y = (graph.types[v].layout for v in (node.inputs[0], node.output))
        seen = without_bias(graph, node) if is_integer(graph, node) else node
        planar = _planar(graph, seen, x, y, isa) if isinstance(x, Blocked) and isinstance(y, Blocked) else []
        mixed = any(isinstance(layout, Blocked) and layout.block != isa.lanes for layout in (x, y))
        plans: list[LinearPlan | PlanarPlan] = [*panels, *planar]
        best = min(planar if mixed else considered(plans, facts, self.kernels), key=lambda p: p.cycles)
        traffic = sum(t.nbytes for t in (*graph.in_types(node), *graph.out_types(node)) if t)
        dims = Dims("", "", "M", "N", (Loop("K", graph.types[node.inputs[0]].shape[-1]),))
        if isinstance(best, PlanarPlan):
            layer = schedule_planar(node, best, node.op.macs(graph.in_types(node)), traffic, isa)
        else:
            layer = schedule_linear(node, best, dims, node.op.macs(graph.in_types(node)), traffic, isa)
        found = candidates(considered(plans, facts, self.kernels), best, facts)
        return replace(layer, candidates=elsewhere(found) if mixed else found)

    def _row_candidates(self, graph: Graph, node: Node, isa: Isa, cycles: float) -> tuple[Candidate, ...]:
        """The row-major kernel, and the panels that lost to it because of the layouts around the node."""
        chosen = Candidate("row-major product", cycles, False, _ROWS_ONLY)
        if not (is_fast(graph, node) and self._panels(graph, node, isa)):
            return (chosen,)
        plans, facts = _plans(graph, node, isa)
        plans = considered(plans, facts, self.kernels)
        others = candidates(plans, min(plans, key=lambda p: p.cycles), facts)
        return elsewhere((chosen, *others))

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        if not isinstance(layer.plan, LinearPlan | PlanarPlan):
            self._general(ctx, node)
            return
        weights = constant_weights(ctx.graph, node)
        assert weights is not None
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        start = None
        if is_integer(ctx.graph, node):
            start = first_sums(ctx.graph, node, ctx.isa.lanes, signed=ctx.isa.signed_data)
            node = without_bias(ctx.graph, node)
        if isinstance(layer.plan, PlanarPlan):
            full = extra_refs(ctx, node, 2, layer.plan.layer.kinds, y.type.rank - 1)
            filters, point = weights.T[:, None, :], np.zeros(1, np.int64)
            lower_planar(ctx, node, layer.plan, x.interior, y.interior, full, filters, point, start)
            return
        problem = layer.plan.problem
        extras = extra_refs(ctx, node, 2, problem.kinds, y.type.rank - 1)
        step = strides_of(x.type).block or ctx.isa.lanes
        channels = blocked_channels(weights.shape[0], ctx.isa.lanes, step)
        filters, per_row = weights.T[:, None, :], row_channels(problem.types.data, ctx.isa)
        if problem.types.data is not DType.F32:
            filters = joined(filters, per_row)
        block = ctx.isa.lanes // per_row
        panels = PanelWeights(filters, 1, block, channels[::per_row], np.zeros(1, np.int64), block if problem.sparse else 0)
        lower_linear(ctx, node, layer.plan, x.interior, y.interior, extras, panels, start)

    def _general(self, ctx: LowerContext, node: Node) -> None:
        op, kinds = matmul_op(node), row_kinds(ctx.graph, node)
        views = [ctx.view(v) for v in node.inputs]
        if not is_fast(ctx.graph, node):
            x, w = (v.type for v in views)
            by_definition = matmul_direct(x.dtype, x.shape, w.shape, trans_a=op.trans_a, trans_b=op.trans_b)
            ctx.call(node, *by_definition, [*(v.ref for v in views), ctx.view(node.output).ref])
            return
        assert kinds is not None
        a, b, *extras = [v.type.shape for v in views]
        full = [e for e, kind in zip(extras, kinds, strict=True) if kind == "full"]
        kernel, geometry = matmul(
            a, b, ctx.isa, trans_a=op.trans_a, trans_b=op.trans_b, epilogue=op.epilogue, kinds=kinds, full=full
        )
        ctx.call(node, kernel, geometry, [*(v.ref for v in views), ctx.view(node.output).ref])


def row_kinds(graph: Graph, node: Node) -> tuple[str, ...] | None:
    """Kinds of the epilogue's operands for the row-major kernel: scalar, row (a value a column), full; None for others."""
    y = graph.types[node.output]
    kinds = []
    for value in node.inputs[2:]:
        t = graph.types[value]
        if t.dtype is not DType.F32:
            return None
        if t.elements == 1:
            kinds.append("scalar")
        elif t.shape[-1:] == y.shape[-1:] and t.elements == y.shape[-1]:
            kinds.append("row")
        elif t.shape[-2:] == y.shape[-2:]:
            kinds.append("full")
        else:
            return None
    return tuple(kinds) if kinds.count("full") <= FULL else None


def is_fast(graph: Graph, node: Node) -> bool:
    """Whether the vector kernels take the node's types and extents."""
    x = graph.types[node.inputs[0]]
    return x.dtype is DType.F32 and 0 not in x.shape


def uses_panels(graph: Graph, node: Node, isa: Isa) -> bool:
    """Whether the graph's layouts are those of the panel kernel. Between row-major values it takes one line of whole blocks."""
    x, y = graph.types[node.inputs[0]], graph.types[node.output]
    if isinstance(x.layout, Blocked) or isinstance(y.layout, Blocked):
        return True
    if not is_fast(graph, node):
        return False
    whole = x.shape[-1] % isa.lanes == 0 and y.shape[-1] % isa.lanes == 0
    line = prod(x.shape[:-1]) == 1 and x.rank == y.rank and constant_weights(graph, node) is not None
    return whole and line and extra_kinds(graph, node, 2, y.rank - 1) is not None


def _general_cycles(graph: Graph, node: Node, isa: Isa) -> float:
    """Predicted cycles of the row-major kernel, packing included."""
    macs, y = node.op.macs(graph.in_types(node)), graph.types[node.output]
    moved = sum(t.nbytes for t in graph.in_types(node) if t) + y.nbytes
    lanes = -(-y.shape[-1] // isa.lanes) * isa.lanes / max(y.shape[-1], 1)
    cycles = stream_cycles(2 * moved) + macs * lanes / isa.lanes / isa.fma_per_cycle / _GENERAL_EFFICIENCY
    weights = sum(graph.types[v].nbytes for v in node.inputs[:2] if v in graph.constants)
    return max(cycles, weights / DRAM)  # as in the plans of panels


def _block_stride(t: TensorType, isa: Isa) -> int:
    return strides_of(t.with_layout(blocked(t, -1, isa))).block if t.rank else 0


def _planar(graph: Graph, node: Node, x: Blocked, y: Blocked, isa: Isa) -> list[PlanarPlan]:
    """The planar plan with features stored as `x` and `y` say, where enough weights are zero and lanes are full of data."""
    weights, kinds = constant_weights(graph, node), extra_kinds(graph, node, 2, graph.types[node.output].rank - 1)
    data = graph.types[node.inputs[0]].dtype
    full = data is DType.F32 or row_channels(data, isa) > 1
    if weights is None or kinds is None or not full or not has_zeros(graph.constants[node.inputs[1]]):
        return []
    return [plan_product(graph, node, kinds, weights, x, y, isa)]


def _plans(graph: Graph, node: Node, isa: Isa) -> tuple[list[LinearPlan], Facts]:
    """The panels that compute a product whose weights are a constant matrix."""
    x, y = graph.types[node.inputs[0]], graph.types[node.output]
    node = without_bias(graph, node) if is_integer(graph, node) else node
    types = types_of(graph, node, isa)
    per_row = row_channels(types.data, isa)
    kinds = extra_kinds(graph, node, 2, y.rank - 1)
    assert kinds is not None
    k, n = x.shape[-1], y.shape[-1]
    full = [Image(0, _block_stride(graph.types[v], isa), 0) for v in node.inputs[2:]]
    problem = Linear(
        oc=n,
        n=1,
        oh=1,
        ow=prod(y.shape[:-1]),
        k_run=isa.lanes // per_row,
        x_step=isa.lanes,
        x=Image(0, _block_stride(x, isa), 0),
        y=Image(0, _block_stride(y, isa), 0),
        extras=tuple(image if kind == "full" else None for kind, image in zip(kinds, full, strict=True)),
        kinds=kinds,
        epilogue=matmul_op(node).epilogue,
        shared=True,
        rows=-(-k // isa.lanes) * isa.lanes // per_row,
        n_runs=-(-k // isa.lanes),
        types=types,
    )
    tail = padded_lanes(problem.epilogue, kinds, n, isa)
    weights = constant_weights(graph, node)
    assert weights is not None
    plans = [plan_linear(problem, isa, tail)]
    filters = weights.T[:, None, :]
    listed = plan_sparse(problem, joined(filters, per_row) if types.data is not DType.F32 else filters, isa, tail)
    if listed is not None:
        plans.append(listed)
    return plans, Facts(-(-k // per_row), np.count_nonzero(weights) / max(weights.size, 1), isa)
