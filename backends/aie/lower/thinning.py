"""Layers that read every n-th row and column of a value find these in an image of their own.

What only such layers want in DDR, 1x1 kernels of one stride, leaves memory tiles without the positions between, if everybody else
finds it in memory tiles: as the shortcut of a stage whose first block has a stride reads the last results of the stage before. In
the graph a Slice stands for the positions that leave, which the layer before makes beside its results, and the readers behind it
have no stride.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sparsec.backends.aie.lower.chaining import readers
from sparsec.backends.aie.lower.geometry import BYTE, Thinned, Window
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.partition import layers_of
from sparsec.backends.aie.lower.views import views_of
from sparsec.compiler.errors import LimitError
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.types import TensorType


class AllLeave(LimitError):
    """All results of some layers are wanted in DDR after all, and not only those of every n-th row and column."""

    def __init__(self, layers: Sequence[ConvLayer]) -> None:
        """Of the layers, of which there are some."""
        self.values = [layer.y for layer in layers]
        told = ", ".join(map(repr, self.values))
        super().__init__(f"all of {told} leaves for DDR, and not only what is read of it with a stride", node=layers[0].node)


def ask_for_thinned(layers: Iterable[ConvLayer], all_leave: Iterable[bool]) -> None:
    """AllLeave where layers whose results are thinned out are among those of which all results leave."""
    wrong = [layer for layer, all_of_it in zip(layers, all_leave, strict=True) if layer.thinned and all_of_it]
    if wrong:
        raise AllLeave(wrong)


def with_thinned(graph: Graph, left_whole: Collection[str] = ()) -> tuple[Graph, dict[str, Thinned]]:
    """The graph with a Slice where results are thinned out, but for the values `left_whole`, and what becomes of them, by the node
    that makes them."""
    layers = layers_of(graph)[0]
    found: dict[str, Thinned] = {}
    for layer in layers.values():
        every = 0 if layer.y in left_whole else _stride(graph, layers, layer)
        if every:
            made, thinned = _sliced(graph, layers, layer, every)
            if _wanted_thinned(made, layer, thinned):
                graph, found[layer.node] = made, thinned
    return graph, found


def _readers(graph: Graph, layers: Mapping[str, ConvLayer], value: str) -> list[Node]:
    """The nodes that read a value as 1x1 kernels with a stride."""
    users = [n for n in graph.users[value] if isinstance(n.op, Conv | Pool) and n.name in layers]
    return [n for n in users if _steps_over(layers[n.name]) and n.inputs.count(value) == 1 and layers[n.name].x == value]


def _steps_over(layer: ConvLayer) -> bool:
    window = layer.window
    return window.kernel == (1, 1) and window.stride > 1 and window.pads == (0, 0)


def _stride(graph: Graph, layers: Mapping[str, ConvLayer], layer: ConvLayer) -> int:
    """With which stride others read what a layer makes, 0 where with none, or with several."""
    strides = {layers[n.name].window.stride for n in _readers(graph, layers, layer.y)}
    if layer.element is not BYTE or layer.wide or graph.types[layer.y].rank != 4:
        return 0
    rows, columns = graph.types[layer.y].shape[2:]
    every = strides.pop() if len(strides) == 1 else 0
    out = (-(-rows // every), -(-columns // every)) if every else ()
    return every if all(graph.types[n.output].shape[2:] == out for n in _readers(graph, layers, layer.y)) else 0


def _sliced(graph: Graph, layers: Mapping[str, ConvLayer], layer: ConvLayer, every: int) -> tuple[Graph, Thinned]:
    """The graph with a Slice of a layer's results before the first that reads them with a stride; none of these has one then."""
    y, taking = layer.y, {n.name for n in _readers(graph, layers, layer.y)}
    of = graph.types[y]
    sizes = (*of.shape[:2], *(-(-n // every) for n in of.shape[2:]))
    value = _new(f"{y}_every_{every}", graph.types)
    nodes: list[Node] = []
    name, origin = _new(value, {n.name for n in graph.nodes}), next(n.origin for n in graph.nodes if n.name in taking)
    for node in graph.nodes:
        if node.name not in taking:
            nodes.append(node)
            continue
        if all(n.name != name for n in nodes):
            nodes.append(Node(name, Slice((0,) * 4, (1, 1, every, every), sizes), (y,), (value,), origin))
        assert isinstance(node.op, Conv | Pool)
        inputs = tuple(value if v == y else v for v in node.inputs)
        nodes.append(replace(node, op=replace(node.op, strides=(1, 1)), inputs=inputs))
    types = {**graph.types, value: TensorType(of.dtype, sizes)}
    made = Graph(graph.name, graph.inputs, graph.outputs, tuple(nodes), types, graph.constants)
    return made, Thinned(name, value, every, sizes[2] * sizes[3] / (of.shape[2] * of.shape[3]))


def _wanted_thinned(graph: Graph, layer: ConvLayer, thinned: Thinned) -> bool:
    """Whether nobody else wants all of the results in DDR, as far as it does not depend on how layers are cut."""
    layers: Sequence[ConvLayer] = list(layers_of(graph)[0].values())
    i = next(i for i, other in enumerate(layers) if other.node == layer.node)
    views, _ = views_of(graph, {other.y for other in layers})
    who = readers(graph, views, [replace(o, thinned=thinned) if o.node == layer.node else o for o in layers])[i]
    if who.next and (layers[i + 1].window != Window() or layer.y in layers[i + 1].values[1:]):
        return False
    return not who.others and (who.next or who.adder >= 0)


def _new(name: str, taken: Collection[str]) -> str:
    """A name that nothing has yet."""
    found, n = name, 0
    while found in taken:
        n += 1
        found = f"{name}_{n}"
    return found
