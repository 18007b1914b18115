"""ConvTranspose: by its definition, row-major."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering
from sparsec.backends.cpu.lower.direct import direct_options, lower_direct, schedule_direct
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


@lowering
class LowerConvTranspose(Lowering):
    """Transposed convolutions, constant or computed weights."""

    op = ConvTranspose

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        return direct_options(graph, node, isa)

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        return schedule_direct(graph, node, isa, super().schedule(graph, node, isa, threads))

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        lower_direct(ctx, node)
