"""ConvTranspose: a convolution a phase of the strides over channel-blocked data, or by its definition, row-major.

Outputs whose position is r modulo the stride (a phase) read the window positions k with (r + pad - k * dilation) divisible by the
stride, and nothing else: each phase is a convolution of stride 1 with those taps, and the phases' results interleave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.panel_pack import blocked_channels
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, View, blocked, lowering
from sparsec.backends.cpu.lower.direct import direct_options, lower_direct, schedule_direct
from sparsec.backends.cpu.lower.linear import Image, Linear, LinearPlan, lower_linear, plan_linear
from sparsec.backends.cpu.lower.operands import extra_kinds, extra_layouts, extra_refs, full_types, padded_lanes
from sparsec.backends.cpu.lower.panel_weights import PanelWeights, run_length
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.schedule import Cost, LayerSchedule
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
_MOST_PHASES = 16  # a kernel call each; larger strides are rare


@dataclass(frozen=True, slots=True)
class Phase:
    """The outputs at `first`, `first` + stride, ... of one dimension: `extent` of them, and their taps.

    Tap i is window position `window[i]` and reads input position `offset[i]` relative to the output's index in the phase.
    """

    first: int
    extent: int
    window: tuple[int, ...]
    offset: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """How a transposed convolution is computed: a plan for every pair of row and column phases."""

    phases: tuple[tuple[Phase, Phase, LinearPlan], ...]

    @property
    def cycles(self) -> float:
        """Predicted cycles of one thread."""
        return sum(plan.cycles for _, _, plan in self.phases)


def phases_of(window: int, stride: int, dilation: int, pad: int, extent: int) -> tuple[Phase, ...]:
    """The phases of one dimension with `extent` outputs."""
    found = []
    for first in range(min(stride, extent)):
        taps = [k for k in range(window) if (first + pad - k * dilation) % stride == 0]
        offsets = tuple((first + pad - k * dilation) // stride for k in taps)
        found.append(Phase(first, -(-(extent - first) // stride), tuple(taps), offsets))
    return tuple(found)


def _op(node: Node) -> ConvTranspose:
    assert isinstance(node.op, ConvTranspose)
    return node.op


def _phases(graph: Graph, node: Node) -> list[tuple[Phase, ...]]:
    """The phases of the rows and of the columns."""
    op, w, y = _op(node), graph.types[node.inputs[1]], graph.types[node.output]
    return [phases_of(w.shape[2 + i], op.strides[i], op.dilations[i], op.pads[i], y.shape[2 + i]) for i in range(2)]


def _in_panels(graph: Graph, node: Node) -> bool:
    """Whether the panel kernel takes the node: two dimensions, float32, one group, constant weights, taps in every phase."""
    op, x = _op(node), graph.types[node.inputs[0]]
    if x.dtype.value != "f32" or x.rank != 4 or 0 in x.shape or op.groups != 1 or prod(op.strides) > _MOST_PHASES:
        return False
    if node.inputs[0] in graph.constants or node.inputs[1] not in graph.constants:
        return False
    return extra_kinds(graph, node, 2, 1) is not None and all(p.window for line in _phases(graph, node) for p in line)


def wanted_halo(graph: Graph, node: Node) -> tuple[tuple[int, int], ...]:
    """Zero positions that the phases read around x: (batch, *spatial), exactly as many as are read."""
    x = graph.types[node.inputs[0]]
    halo = [(0, 0)]
    for size, line in zip(x.shape[2:], _phases(graph, node), strict=True):
        lowest = min(min(p.offset) for p in line)
        highest = max(p.extent - 1 + max(p.offset) for p in line)
        halo.append((max(0, -lowest), max(0, highest - size + 1)))
    return tuple(halo)


@lowering
class LowerConvTranspose(Lowering):
    """Two-dimensional float32 ones with constant weights in panels, phase by phase; all others by the direct kernel."""

    op = ConvTranspose

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        options = list(direct_options(graph, node, isa))
        if not _in_panels(graph, node):
            return options
        kinds = extra_kinds(graph, node, 2, 1)
        assert kinds is not None
        x, out = graph.types[node.inputs[0]], blocked(graph.types[node.output], 1, isa)
        source, y = x.with_layout(Blocked(1, isa.lanes, wanted_halo(graph, node))), graph.types[node.output].with_layout(out)
        plan = _plan(graph, node, kinds, source, y, [y] * kinds.count("full"), isa)
        return [LayoutOption((blocked(x, 1, isa), None, *extra_layouts(kinds, out)), (out,), plan.cycles), *options]

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        panels = isinstance(graph.types[node.output].layout, Blocked)
        return wanted_halo(graph, node) if operand == 0 and panels else ()

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        layer, y = super().schedule(graph, node, isa, threads), graph.types[node.output]
        if not isinstance(y.layout, Blocked):
            return schedule_direct(graph, node, isa, layer)
        kinds = extra_kinds(graph, node, 2, 1)
        assert kinds is not None
        full = [graph.types[v] for v, k in zip(node.inputs[2:], kinds, strict=True) if k == "full"]
        full = [t if isinstance(t.layout, Blocked) else t.with_layout(Blocked(1, isa.lanes)) for t in full]
        plan = _plan(graph, node, kinds, graph.types[node.inputs[0]], y, full, isa)
        cost = Cost(plan.cycles, node.op.macs(graph.in_types(node)), layer.cost.bytes, "compute")
        reason = f"{len(plan.phases)} phases, each a convolution of stride 1"
        return LayerSchedule(node.name, "panel", layer.levels, cost, plan, reason)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        if not isinstance(layer.plan, PhasePlan):
            lower_direct(ctx, node)
            return
        kinds = extra_kinds(ctx.graph, node, 2, 1)
        assert kinds is not None
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        refs, full = extra_refs(ctx, node, 2, kinds, 1), [strides_of(t) for t in full_types(ctx, node, 2, kinds, 1)]
        for rows, columns, plan in layer.plan.phases:

            def corner(row: int, rows: Phase = rows, columns: Phase = columns) -> int:
                return 4 * (rows.first * row + columns.first * ctx.isa.lanes)

            origins = iter(full)
            extras = []
            for ref, kind in zip(refs, kinds, strict=True):
                s = next(origins) if kind == "full" else None
                extras.append(ref if s is None else ref.at(4 * s.origin + corner(s.dims[2])))
            panels = _panel_weights(ctx.graph.constants[node.inputs[1]], x, rows, columns, plan.problem.k_run)
            lower_linear(ctx, node, plan, x.interior, y.interior.at(corner(y.strides.dims[2])), extras, panels)


def _plan(
    graph: Graph, node: Node, kinds: tuple[str, ...], x: TensorType, y: TensorType, full: Sequence[TensorType], isa: Isa
) -> PhasePlan:
    """The panel kernel's plans for the phases of a transposed convolution stored as `x`, `y` and `full` say."""
    op, xs, ic = _op(node), strides_of(x), x.shape[1]
    k_run = run_length(ic, 1, isa.lanes)
    others = iter(full)
    tensors = [y, *(next(others) if k == "full" else None for k in kinds)]
    images = [_strided(t, op.strides[0]) if t is not None else None for t in tensors]
    assert images[0] is not None
    found = []
    for rows, columns in product(*_phases(graph, node)):
        taps, pieces = len(rows.window) * len(columns.window), -(-ic // k_run)
        problem = Linear(
            oc=y.shape[1],
            n=y.shape[0],
            oh=rows.extent,
            ow=columns.extent,
            k_run=k_run,
            x_step=isa.lanes,
            x=Image(xs.dims[0], xs.block, xs.dims[2]),
            y=images[0],
            extras=tuple(images[1:]),
            kinds=kinds,
            epilogue=op.epilogue,
            shared=True,
            rows=pieces * k_run * taps,
            n_runs=pieces * taps,
            y_step=op.strides[1],
        )
        found.append((rows, columns, plan_linear(problem, isa, padded_lanes(op.epilogue, kinds, y.shape[1], isa))))
    return PhasePlan(tuple(found))


def _strided(t: TensorType, rows: int) -> Image:
    s = strides_of(t)
    return Image(s.dims[0], s.block, s.dims[2] * rows)


def _panel_weights(weights: Array, x: View, rows: Phase, columns: Phase, k_run: int) -> PanelWeights:
    """The weights [IC, OC, KH, KW] of one phase, with where a blocked input has its channels and taps."""
    ic, oc, s = weights.shape[0], weights.shape[1], x.strides
    taps = weights[:, :, rows.window, :][:, :, :, columns.window].transpose(1, 2, 3, 0).reshape(oc, -1, ic)
    assert isinstance(x.type.layout, Blocked)
    offsets = np.array([r * s.dims[2] + c * s.dims[3] for r, c in product(rows.offset, columns.offset)], np.int64)
    return PanelWeights(taps, 1, k_run, blocked_channels(ic, x.type.layout.block, s.block), offsets)
