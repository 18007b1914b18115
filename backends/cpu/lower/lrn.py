"""LRN: float32, row-major or on channel blocks."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.lrn import lrn
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption

_WORK = 40  # vector operations an element: mostly the power


@lowering
class LowerLRN(Lowering):
    """Local response normalisation."""

    op = LRN

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x = graph.types[node.inputs[0]]
        if x.dtype is not DType.F32:
            return ()
        cycles = stream_cycles(2 * x.nbytes) + _WORK * x.elements / isa.lanes
        options = [LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), cycles)]
        if x.rank in (3, 4):
            layout = blocked(x, 1, isa)
            options.append(LayoutOption((layout,), (layout,), cycles))
        return options

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = node.op, ctx.view(node.inputs[0]), ctx.view(node.output)
        assert isinstance(op, LRN)
        kernel, geometry = lrn(x.type, y.type, op.size, op.alpha, op.beta, op.bias, ctx.isa)
        ctx.call(node, kernel, geometry, [x.ref, y.ref])
