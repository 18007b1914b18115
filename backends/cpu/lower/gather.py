"""Gather, GatherElements, GatherND: row-major copies by computed positions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel
from sparsec.backends.cpu.kernels import gather as kernels
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.gather_elements import GatherElements
from sparsec.compiler.ops.gather_nd import GatherND
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

_ELEMENT_CYCLES = 3.0  # for an element that is found alone


class _LowerGathering(Lowering):
    """What the three have in common: operands data and indices, all row-major."""

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, i, y = graph.types[node.inputs[0]], graph.types[node.inputs[1]], graph.types[node.output]
        try:
            self.kernel(node, x, i)
        except ValueError:  # more dimensions than the kernel has
            return ()
        cycles = stream_cycles(2 * y.nbytes + i.nbytes) + _ELEMENT_CYCLES * i.elements
        return (LayoutOption((ROW_MAJOR, ROW_MAJOR), (ROW_MAJOR,), cycles),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        x, i, y = ctx.view(node.inputs[0]), ctx.view(node.inputs[1]), ctx.view(node.output)
        kernel, geometry = self.kernel(node, x.type, i.type)
        ctx.call(node, kernel, geometry, [x.ref, i.ref, y.ref])

    @abstractmethod
    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        """The kernel for data `x` and indices `i`. ValueError when there is none."""


@lowering
class LowerGather(_LowerGathering):
    """Slices along one axis."""

    op = Gather

    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        assert isinstance(node.op, Gather)
        return kernels.gather(x.shape, node.op.axis, i.elements, x.dtype.itemsize, i.dtype)


@lowering
class LowerGatherElements(_LowerGathering):
    """Single elements of lines."""

    op = GatherElements

    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        assert isinstance(node.op, GatherElements)
        geometry = kernels.elements_geometry(x.shape, i.shape, node.op.axis)
        return kernels.GatherElements(x.dtype.itemsize, i.dtype), geometry


@lowering
class LowerGatherND(_LowerGathering):
    """Slices by tuples of indices."""

    op = GatherND

    def kernel(self, node: Node, x: TensorType, i: TensorType) -> tuple[Kernel, Geometry]:
        assert isinstance(node.op, GatherND)
        return kernels.GatherNd(x.dtype.itemsize, i.dtype), kernels.nd_geometry(x.shape, i.shape, node.op.batch_dims)
