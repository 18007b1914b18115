"""Layers that read every n-th row and column of a value find these in an image of their own.

What only such layers want in DDR, 1x1 kernels of one stride, leaves memory tiles without the positions between, if everybody else
finds it in memory tiles: as the shortcut of a stage whose first block has a stride reads the last results of the stage before. In
the graph a Slice stands for the positions that leave, which the layer before makes beside its results, and the readers behind it
have no stride.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from math import prod

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
    """The graph with a Slice where results are thinned out, but for the values `left_whole`; and what they become, by the node
    that makes them."""
    layers = layers_of(graph)[0]
    found: dict[str, Thinned] = {}
    for node in list(layers):
        taking = [] if layers[node].y in left_whole else _taking(graph, layers, layers[node])
        if not taking:
            continue
        made, thinned = _sliced(graph, layers[node], taking, layers[taking[0].name].window.stride)
        others = {n.name: replace(layers[n.name], x=thinned.value, window=Window()) for n in taking}
        with_it = layers | others | {node: replace(layers[node], thinned=thinned)}
        if _nobody_wants_all(made, with_it, node):
            graph, layers, found[node] = made, with_it, thinned
    return graph, found


def _taking(graph: Graph, layers: Mapping[str, ConvLayer], layer: ConvLayer) -> list[Node]:
    """The nodes that read a layer's results as 1x1 kernels with a stride; none where they have several."""
    of = graph.types[layer.y]
    if layer.element is not BYTE or layer.wide or of.rank != 4:
        return []
    users = [n for n in graph.users[layer.y] if isinstance(n.op, Conv | Pool) and n.name in layers]
    found = [n for n in users if _steps_over(layers[n.name]) and layers[n.name].x == layer.y and n.inputs.count(layer.y) == 1]
    every = {(layers[n.name].window.stride, graph.types[n.output].shape[2:]) for n in found}
    return found if len(every) == 1 and all(out == _thin(of.shape, stride)[2:] for stride, out in every) else []


def _steps_over(layer: ConvLayer) -> bool:
    window = layer.window
    return window.kernel == (1, 1) and window.stride > 1 and window.pads == (0, 0)


def _thin(shape: tuple[int, ...], every: int) -> tuple[int, ...]:
    """The shape of every so many-th row and column."""
    return (*shape[:2], *(-(-n // every) for n in shape[2:]))


def _sliced(graph: Graph, layer: ConvLayer, taking: Sequence[Node], every: int) -> tuple[Graph, Thinned]:
    """The graph with a Slice of a layer's results before the first node that takes every so many-th; none has a stride then."""
    of = graph.types[layer.y]
    sizes = _thin(of.shape, every)
    value = _new(f"{layer.y}_every_{every}", graph.types)
    name = _new(value, {n.name for n in graph.nodes})
    nodes: list[Node] = []
    for node in graph.nodes:
        if node is taking[0]:
            nodes.append(Node(name, Slice((0,) * 4, (1, 1, every, every), sizes), (layer.y,), (value,), node.origin))
        if node in taking:
            assert isinstance(node.op, Conv | Pool)
            inputs = tuple(value if v == layer.y else v for v in node.inputs)
            node = replace(node, op=replace(node.op, strides=(1, 1)), inputs=inputs)
        nodes.append(node)
    types = {**graph.types, value: TensorType(of.dtype, sizes)}
    made = Graph(graph.name, graph.inputs, graph.outputs, tuple(nodes), types, graph.constants)
    return made, Thinned(name, value, every, prod(sizes) / prod(of.shape))


def _nobody_wants_all(graph: Graph, layers: Mapping[str, ConvLayer], node: str) -> bool:
    """Whether nobody else wants all of a node's results in DDR, as far as that does not depend on how layers are cut."""
    i, every = list(layers).index(node), list(layers.values())
    views, _ = views_of(graph, {layer.y for layer in every})
    who, y = readers(graph, views, every)[i], every[i].y
    if who.next and (every[i + 1].window != Window() or y in every[i + 1].values[1:]):
        return False
    return not who.others and (who.next or who.adder >= 0)


def _new(name: str, taken: Collection[str]) -> str:
    """A name that nothing has yet."""
    return next(found for n in count() if (found := f"{name}_{n}" if n else name) not in taken)
