"""LayerNorm: over the channel blocks of tokens, or over contiguous lines of row-major data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.norm import blocked_norm, row_norm
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption

_PASSES = 3  # over the data: mean, variance, result


@lowering
class LowerLayerNorm(Lowering):
    """Layer and RMS normalisation in float32."""

    op = LayerNorm

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        assert isinstance(node.op, LayerNorm)
        x = graph.types[node.inputs[0]]
        parameters = [v for v in node.inputs[1:] if v != ABSENT]
        line = x.shape[node.op.axis :]
        whole = all(v in graph.constants or graph.types[v].shape == line for v in parameters)
        if x.dtype is not DType.F32 or 0 in x.shape or not whole:
            return ()
        cycles = stream_cycles(_PASSES * x.nbytes)
        wanted = [ROW_MAJOR if v != ABSENT and v not in graph.constants else None for v in node.inputs[1:]]
        options = [LayoutOption((ROW_MAJOR, *wanted), (ROW_MAJOR,), cycles)]
        if node.op.axis == x.rank - 1 and x.rank > 1 and all(v in graph.constants for v in parameters):
            layout = blocked(x, -1, isa)
            options.append(LayoutOption((layout, *wanted), (layout,), cycles))
        return options

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op = node.op
        assert isinstance(op, LayerNorm)
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        scale, bias = (len(node.inputs) > i and node.inputs[i] != ABSENT for i in (1, 2))
        parameters = [self._parameter(ctx, v, x.type.shape[op.axis :], x.type.layout) for v in node.inputs[1:] if v != ABSENT]
        operands = [x.ref, *parameters, y.ref]
        if isinstance(x.type.layout, Blocked):
            blocks, over_blocks = blocked_norm(x.type, y.type, op.epsilon, ctx.isa, rms=op.rms, scale=scale, bias=bias)
            ctx.call(node, blocks, over_blocks, operands)
        else:
            rows, over_rows = row_norm(x.type.shape, op.axis, op.epsilon, rms=op.rms, scale=scale, bias=bias)
            ctx.call(node, rows, over_rows, operands)

    def _parameter(self, ctx: LowerContext, value: str, line: tuple[int, ...], layout: object) -> Ref:
        array = ctx.constant(value)
        if array is None:
            return ctx.view(value).ref
        whole = np.broadcast_to(array, line).reshape(-1)
        if not isinstance(layout, Blocked):
            return ctx.pack(np.ascontiguousarray(whole))
        padded = np.zeros(-(-whole.size // layout.block) * layout.block, np.float32)
        padded[: whole.size] = whole
        return ctx.pack(padded)
