"""Pool: on blocked data lanes are channels, and windows test bounds only at the edges; anything else by the definition."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.pool import MAXIMA, blocked_pool
from sparsec.backends.cpu.kernels.pool_direct import pool_direct
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerPool(Lowering):
    """Maximum and average windows over one or two dimensions of float32, maxima of `MAXIMA`; anything else row-major."""

    op = Pool

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        op = node.op
        assert isinstance(op, Pool)
        traffic, work = stream_cycles(x.nbytes + y.nbytes), y.elements * prod(op.kernel)
        options = [LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), traffic + 2.0 * work)]
        types = MAXIMA if op.kind == "max" else (DType.F32,)
        if op.kind in ("max", "avg") and len(op.kernel) <= 2 and x.dtype in types:
            options.append(LayoutOption((blocked(x, 1, isa),), (blocked(y, 1, isa),), traffic + work / isa.lanes / 2))
        return options

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        assert isinstance(node.op, Pool)
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        if isinstance(y.type.layout, Blocked):
            ctx.call(node, *blocked_pool(node.op, x.type, y.type, ctx.isa), [x.ref, y.ref])
        else:
            ctx.call(node, *pool_direct(node.op, x.type.dtype, x.type.shape, y.type.shape), [x.ref, y.ref])
