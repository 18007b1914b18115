"""GroupNorm: the lines of groups of row-major float32 data."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.norm import group_norm
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.group_norm import GroupNorm
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerGroupNorm(Lowering):
    """Group and instance normalisation."""

    op = GroupNorm

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        types = graph.in_types(node)
        if any(t is None or t.dtype is not DType.F32 for t in types):
            return ()
        x = graph.types[node.inputs[0]]
        return (LayoutOption((ROW_MAJOR,) * len(types), (ROW_MAJOR,), stream_cycles(4 * x.nbytes)),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = node.op, ctx.view(node.inputs[0]), ctx.view(node.output)
        assert isinstance(op, GroupNorm)
        kernel, geometry = group_norm(x.type.shape, op.groups, op.epsilon)
        ctx.call(node, kernel, geometry, [x.ref, *(ctx.view(v).ref for v in node.inputs[1:]), y.ref])
