"""CpuTarget: the Target contract for CPUs, by dispatch on the op's lowering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sparsec.backends.cpu.isa import Isa, host_isa, isa_named, isas
from sparsec.backends.cpu.lower.base import LOWERINGS, LowerContext, Lowering, View, stream_cycles
from sparsec.backends.cpu.lower.copies import copy_to_port
from sparsec.backends.cpu.lower.explain import FAMILIES
from sparsec.backends.cpu.lower.halo import fill_halo
from sparsec.backends.cpu.lower.registry import load_all
from sparsec.backends.cpu.program import ArenaBuffer, Call, Interface, Program, Ref, Space
from sparsec.backends.cpu.storage import StorageGroups, group_extents, storage_groups, strides_of, ties_of, unite_in_place
from sparsec.compiler.errors import InternalError, UsageError
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.relayout import Relayout
from sparsec.compiler.schedule import Cost, LayerSchedule, Schedule
from sparsec.compiler.target import LayoutOption, Ties

_PIECES = 4  # of a thread's share
_PIECE_CYCLES = 20_000.0  # a piece takes at least this long, well above the price of fetching its number


@dataclass(frozen=True)
class CpuTarget:
    """A CPU with an instruction set, compiled for a number of threads.

    `kernels` restricts convolutions and products to families of kernels where one of these applies; None for all.
    """

    isa: Isa
    threads: int = 1
    kernels: frozenset[str] | None = None

    def __post_init__(self) -> None:
        load_all()
        if not 1 <= self.threads <= 1024:
            raise UsageError(f"--threads must be from 1 to 1024, not {self.threads}")
        if unknown := sorted((self.kernels or frozenset()) - set(FAMILIES)):
            raise UsageError(f"--kernels: there is no family {unknown[0]!r} of kernels: give some of {', '.join(FAMILIES)}")

    @staticmethod
    def named(name: str, threads: int = 1, kernels: Iterable[str] = ()) -> CpuTarget:
        """The target that the user calls `name` (`host` is the best that this machine runs); no `kernels` means all."""
        return CpuTarget(host_isa() if name == "host" else isa_named(name), threads, frozenset(kernels) or None)

    @property
    def name(self) -> str:
        """As the user writes it."""
        return self.isa.name

    def require_bfloat16(self) -> None:
        """UsageError unless there are kernels for products of bfloat16."""
        if not self.isa.bf16:
            having = ", ".join(isa.name for isa in isas() if isa.bf16)
            raise UsageError(f"{self.name} has no products of bfloat16: give --precision fp32, or --target {having}")

    def _lowering(self, node: Node) -> Lowering | None:
        found = LOWERINGS.get(type(node.op))
        return found.choosing_from(self.kernels) if found and self.kernels else found

    def legal(self, graph: Graph, node: Node) -> Sequence[LayoutOption]:
        """Layout options of the node; empty when no kernel takes it."""
        if nothing_to_compute(graph, node):
            rows = tuple(None if v == ABSENT or v in graph.constants else ROW_MAJOR for v in node.inputs)
            return (LayoutOption(rows, (ROW_MAJOR,) * len(node.outputs), 0.0),)
        found = self._lowering(node)
        options = found.legal(graph, node, self.isa) if found else ()
        if node.inputs and node.inputs[0] in graph.constants and not isinstance(node.op, Concat):
            # constants are stored row-major, and folding leaves none as data but very large ones
            return [o for o in options if not isinstance(o.inputs[0], Blocked)]
        return options

    def conversion_cycles(self, graph: Graph, value: str, source: Layout, target: Layout) -> float:
        """A conversion reads and writes the value once, the transposing side at half speed."""
        t = graph.types[value]
        return stream_cycles(t.with_layout(source).nbytes + 2 * t.with_layout(target).nbytes)

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        """The halo that the node wants on a blocked operand."""
        found = self._lowering(node)
        return found.halo(graph, node, operand) if found and not nothing_to_compute(graph, node) else ()

    def _groups(self, graph: Graph) -> StorageGroups:
        aliases = [
            a
            for node in reversed(graph.nodes)
            if (f := self._lowering(node)) and not nothing_to_compute(graph, node)
            for a in f.aliases(graph, node)
        ]
        return storage_groups(graph, aliases)

    def _overwrites(self, graph: Graph) -> Callable[[Node], Sequence[str]]:
        def of(node: Node) -> Sequence[str]:
            found = self._lowering(node)
            return found.overwrites(graph, node) if found and not nothing_to_compute(graph, node) else ()

        return of

    def ties(self, graph: Graph) -> Ties:
        """Values kept in one buffer."""
        return ties_of(graph, self._groups(graph))

    def cost(self, graph: Graph, node: Node) -> LayerSchedule:
        """The best schedule for the node as the graph is laid out."""
        if nothing_to_compute(graph, node):
            return LayerSchedule(node.name, "nothing", (), Cost(0.0))
        found = self._lowering(node)
        if found is None:
            raise InternalError(f"node {node.name!r} ({node.op.name}) reached scheduling without a kernel", node=node.name)
        return found.schedule(graph, node, self.isa, self.threads)

    def lower(self, graph: Graph, schedule: Schedule) -> Program:
        """Kernel calls for every node in order; buffers with their lifetimes."""
        groups = self._groups(graph)
        unite_in_place(graph, groups, self._overwrites(graph))
        views, buffers = place_values(graph, groups)
        ctx = LowerContext(graph, self.isa, self.threads, views)
        for node in graph.nodes:
            if nothing_to_compute(graph, node):
                continue
            found = LOWERINGS[type(node.op)]
            found.lower(ctx, node, schedule.layers[node.name])
            for value in node.outputs:
                layout = graph.types[value].layout
                if isinstance(layout, Blocked) and layout.halo and not isinstance(node.op, Relayout):
                    fill_halo(ctx, node, value)
        copy_ports(ctx)
        return Program(
            graph.name,
            self.isa,
            self.threads,
            tuple(Interface(v, graph.types[v]) for v in graph.inputs),
            tuple(Interface(p.name, graph.types[p.value]) for p in graph.outputs),
            share_out(ctx.calls, schedule, self.threads),
            _lifetimes(ctx, buffers),
            ctx.weights,
        )


def share_out(calls: Sequence[Call], schedule: Schedule, threads: int) -> tuple[Call, ...]:
    """Give every call the number of pieces that its work is dealt out in: a few more than threads where it is long enough.

    A thread that loses its core for a moment then holds the others up by a piece and not by its whole share.
    """
    per_node = Counter(c.node for c in calls)
    shared = []
    for call in calls:
        layer = schedule.layers.get(call.node)
        cycles = layer.cost.cycles / per_node[call.node] if layer else 0.0
        pieces = max(1, min(_PIECES, int(cycles / (threads * _PIECE_CYCLES))))
        shared.append(replace(call, parts=threads * pieces if threads > 1 else 1))
    return tuple(shared)


def nothing_to_compute(graph: Graph, node: Node) -> bool:
    """Whether a node's results have no elements."""
    return all(graph.types[v].elements == 0 for v in node.outputs)


def place_values(graph: Graph, groups: StorageGroups) -> tuple[dict[str, View], dict[str, int]]:
    """The view of every computed value and graph input, and the size of every arena buffer.

    A group that leaves through exactly one port, row-major and whole, is computed right in the caller's array.
    """
    computed = {v: t for v, t in graph.types.items() if v not in graph.constants}
    extents = group_extents(computed, groups)
    ports: dict[str, list[str]] = {}
    for p in graph.outputs:
        ports.setdefault(groups.find(p.value)[0], []).append(p.name)
    inputs = {groups.find(v)[0]: v for v in graph.inputs}
    views: dict[str, View] = {}
    buffers: dict[str, int] = {}
    for value, t in computed.items():
        root, block = groups.find(value)
        low, size = extents[root]
        strides = strides_of(t)
        offset = (block - low) * strides.block * t.dtype.itemsize
        if root in inputs:
            ref = Ref(Space.INPUT, inputs[root], offset)
        elif len(ports.get(root, ())) == 1 and _is_whole(graph, groups, root, size):
            ref = Ref(Space.OUTPUT, ports[root][0], offset)
        else:
            ref = Ref(Space.ARENA, root, offset)
            buffers[root] = size
        views[value] = View(ref, t, strides)
    return views, buffers


def _is_whole(graph: Graph, groups: StorageGroups, root: str, size: int) -> bool:
    port = next(p for p in graph.outputs if groups.find(p.value)[0] == root)
    t = graph.types[port.value]
    return not isinstance(t.layout, Blocked) and t.nbytes == size


def copy_ports(ctx: LowerContext) -> None:
    """Copy the outputs that could not be computed in the caller's array (inputs, constants, values that leave twice)."""

    for port in ctx.graph.outputs:
        view = ctx.view(port.value)
        if (view.ref.space, view.ref.buffer) != (Space.OUTPUT, port.name):
            copy_to_port(ctx, port, view)


def _lifetimes(ctx: LowerContext, buffers: dict[str, int]) -> tuple[ArenaBuffer, ...]:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, call in enumerate(ctx.calls):
        for ref in call.operands:
            if ref.space is Space.ARENA:
                first.setdefault(ref.buffer, i)
                last[ref.buffer] = i
    return tuple(ArenaBuffer(name, size, first[name], last[name]) for name, size in buffers.items() if name in first)
