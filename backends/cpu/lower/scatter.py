"""ScatterElements, ScatterND: a copy of the data, then its updates in place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel
from sparsec.backends.cpu.kernels import gather as kernels
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.backends.cpu.lower.copies import copy_bytes
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.scatter_elements import ScatterElements
from sparsec.compiler.ops.scatter_nd import ScatterND
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

_ELEMENT_CYCLES = 6.0


class _LowerScattering(Lowering):
    """What both have in common: operands data, indices and updates, all row-major."""

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, i, u = (graph.types[v] for v in node.inputs)
        try:
            kernel, _ = self.kernel(node, x, i)
            kernel.context(isa)
        except (ValueError, UnsupportedError):  # more dimensions than the kernel has, or no such reduction of these types
            return ()
        cycles = stream_cycles(2 * x.nbytes + u.nbytes + i.nbytes) + _ELEMENT_CYCLES * i.elements
        return (LayoutOption((ROW_MAJOR,) * 3, (ROW_MAJOR,), cycles),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        x, i, u = (ctx.view(v) for v in node.inputs)
        y = ctx.view(node.output)
        copy_bytes(ctx, node, x, y)
        if i.type.elements:
            kernel, geometry = self.kernel(node, x.type, i.type)
            ctx.call(node, kernel, geometry, [i.ref, u.ref, y.ref])

    @abstractmethod
    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        """The kernel for data `x` and indices `i`. ValueError when there is none."""


@lowering
class LowerScatterElements(_LowerScattering):
    """Single elements of lines."""

    op = ScatterElements

    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        assert isinstance(node.op, ScatterElements)
        geometry = kernels.elements_geometry(x.shape, i.shape, node.op.axis)
        return kernels.ScatterElements(x.dtype, i.dtype, node.op.reduction), geometry


@lowering
class LowerScatterND(_LowerScattering):
    """Slices by tuples of indices."""

    op = ScatterND

    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        assert isinstance(node.op, ScatterND)
        return kernels.ScatterNd(x.dtype, i.dtype, node.op.reduction), kernels.nd_geometry(x.shape, i.shape)
