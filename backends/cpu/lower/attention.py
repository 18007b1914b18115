"""Attention: fused, on tokens blocked by features (heads are ranges of blocks) or row-major."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.attention import attention
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.schedule import Cost, LayerSchedule
from sparsec.compiler.target import LayoutOption

_EFFICIENCY = 0.5  # of the FMA peak, softmax and transposition included


@lowering
class LowerAttention(Lowering):
    """Fused attention in float32."""

    op = Attention

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        assert isinstance(node.op, Attention)
        types = [graph.types[v] for v in node.inputs if v != ABSENT]
        y = graph.types[node.output]
        z = node.op.sizes(graph.in_types(node))
        mask = graph.types[node.inputs[3]] if len(node.inputs) > 3 and node.inputs[3] != ABSENT else None
        if any(t.dtype is not DType.F32 for t in types) or 0 in y.shape or (mask is not None and mask.shape[-1:] != (z.l,)):
            return ()
        rest = (ROW_MAJOR,) * (len(node.inputs) - 3)
        cycles = self._cycles(graph, node, isa)
        options = [LayoutOption((ROW_MAJOR, ROW_MAJOR, ROW_MAJOR, *rest), (ROW_MAJOR,), 1.3 * cycles)]
        if y.rank == 3 and z.d % isa.lanes == 0 and z.dv % isa.lanes == 0:
            inputs = tuple(blocked(graph.types[v], 2, isa) for v in node.inputs[:3])
            options.append(LayoutOption((*inputs, *rest), (blocked(y, 2, isa),), cycles))
        return options

    def _cycles(self, graph: Graph, node: Node, isa: Isa) -> float:
        macs = node.op.macs(graph.in_types(node))
        return stream_cycles(0) + macs / isa.lanes / isa.fma_per_cycle / _EFFICIENCY

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        layer = super().schedule(graph, node, isa, threads)
        cost = Cost(self._cycles(graph, node, isa), node.op.macs(graph.in_types(node)), layer.cost.bytes, "compute")
        return LayerSchedule(layer.node, layer.kernel, layer.levels, cost)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        assert isinstance(node.op, Attention)
        q, k, v = (ctx.view(name) for name in node.inputs[:3])
        y = ctx.view(node.output)
        masked = len(node.inputs) > 3 and node.inputs[3] != ABSENT
        mask = ctx.view(node.inputs[3]) if masked else None
        kernel, geometry = attention(node.op, q.type, k.type, v.type, mask.type if mask else None, y.type, ctx.isa)
        refs = [q.ref, k.ref, v.ref, *([mask.ref] if mask else []), y.ref]
        ctx.call(node, kernel, geometry, refs)
