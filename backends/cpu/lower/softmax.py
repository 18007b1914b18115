"""Softmax: row-major float32, along any axis."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.softmax import softmax
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption

_WORK = 12  # vector operations an element: mostly the exponential


@lowering
class LowerSoftmax(Lowering):
    """Softmax and its logarithm."""

    op = Softmax

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x = graph.types[node.inputs[0]]
        if x.dtype is not DType.F32:
            return ()
        return (LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), stream_cycles(3 * x.nbytes) + _WORK * x.elements / isa.lanes),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = node.op, ctx.view(node.inputs[0]), ctx.view(node.output)
        assert isinstance(op, Softmax)
        kernel, geometry = softmax(x.type.shape, op.axis, log=op.log)
        ctx.call(node, kernel, geometry, [x.ref, y.ref])
