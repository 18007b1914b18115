"""Pool on blocked data: lanes are channels, windows test bounds only at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.pool import blocked_pool
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerPool(Lowering):
    """Maximum and average windows over one or two dimensions."""

    op = Pool

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        op = node.op
        assert isinstance(op, Pool)
        if op.kind not in ("max", "avg") or len(op.kernel) > 2 or x.dtype.value != "f32" or 0 in y.shape:
            return ()
        cycles = stream_cycles(x.nbytes + y.nbytes) + y.elements / isa.lanes * prod(op.kernel) / 2
        return (LayoutOption((blocked(x, 1, isa),), (blocked(y, 1, isa),), cycles),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        assert isinstance(node.op, Pool)
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        kernel, geometry = blocked_pool(node.op, x.type, y.type, ctx.isa)
        ctx.call(node, kernel, geometry, [x.ref, y.ref])
