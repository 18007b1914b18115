"""What the estimators read of a graph: its layers over images, in the order in which an array would run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce

INPUT = ""  # the name under which layers read the network's input


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer over images: `kind` is conv, max, average, global (pooling of everything), add or concat.

    `inputs` are names of layers, or INPUT. Shapes are (channels, height, width) of one image; of an addition or concatenation,
    `source` is the first operand's. `kernel` and `strides` are (height, width), `pads` (top, left, bottom, right).
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    source: tuple[int, int, int]
    result: tuple[int, int, int]
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution, 0 of others."""
        if self.kind != "conv":
            return 0
        return prod(self.result) * prod(self.kernel) * self.source[0] // self.groups

    @property
    def weights(self) -> int:
        """Weights of a convolution, 0 of others."""
        return self.result[0] * prod(self.kernel) * self.source[0] // self.groups if self.kind == "conv" else 0


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """The convolutions, poolings, additions and concatenations of [N, C, H, W] values.

    What works element by element on one value (normalisation, activation) is part of its producer, and everything after the last
    image (classifiers) is left out. Operands come before what reads them; of an addition, the shorter branch comes first.
    """
    found: dict[str, Layer] = {}
    made_by: dict[str, str] = {}
    for node in graph:
        layer = _layer(graph, node, made_by)
        if layer is not None:
            found[layer.name] = layer
            made_by[node.output] = layer.name
        elif graph.types[node.output].rank == 4:
            images = [v for v in node.inputs if v in made_by]
            made_by[node.output] = made_by[images[0]] if images else INPUT
    return _ordered(found)


def _layer(graph: Graph, node: Node, made_by: Mapping[str, str]) -> Layer | None:
    """The layer that `node` is, None where it is none."""
    out = graph.types[node.output]
    images = [v for v in node.inputs if v and v not in graph.constants and graph.types[v].rank == 4]
    if not images or (out.rank != 4 and not isinstance(node.op, Reduce)):
        return None
    names = tuple(made_by.get(v, INPUT) for v in images)
    _, c, h, w = graph.types[images[0]].shape
    shape, result = (c, h, w), (c, 1, 1)
    if out.rank == 4:
        result = (out.shape[1], out.shape[2], out.shape[3])
    match node.op:
        case Conv(strides=(sh, sw), pads=(top, left, bottom, right), groups=groups):
            _, _, kh, kw = graph.types[node.inputs[1]].shape
            return Layer(node.name, "conv", names[:1], shape, result, (kh, kw), (sh, sw), (top, left, bottom, right), groups)
        case Pool(kind=("max" | "avg") as kind, kernel=(kh, kw), strides=(sh, sw), pads=(top, left, bottom, right)):
            if (kh, kw) == (h, w) and result[1:] == (1, 1):
                return Layer(node.name, "global", names, shape, result, (kh, kw))
            name = {"max": "max", "avg": "average"}[kind]
            return Layer(node.name, name, names, shape, result, (kh, kw), (sh, sw), (top, left, bottom, right))
        case Reduce(over=(2, 3)):
            return Layer(node.name, "global", names, shape, result, (h, w))
        case Concat(axis=1):
            return Layer(node.name, "concat", names, shape, result)
        case Map() if len(images) > 1 and all(graph.types[v].shape == out.shape for v in images):
            return Layer(node.name, "add", names, shape, result)
    return None


def _ordered(found: Mapping[str, Layer]) -> tuple[Layer, ...]:
    """Depth first from what nobody reads, operands from left to right, those of additions by depth."""
    depth = {INPUT: 0}
    for layer in found.values():
        depth[layer.name] = 1 + max(depth[v] for v in layer.inputs)
    read = {v for layer in found.values() for v in layer.inputs}
    order: dict[str, Layer] = {}
    for last in (layer for layer in found.values() if layer.name not in read):
        waiting = [last.name]
        while waiting:
            layer = found[waiting[-1]]
            operands = sorted(layer.inputs, key=depth.__getitem__) if layer.kind == "add" else list(layer.inputs)
            missing = [v for v in operands if v != INPUT and v not in order]
            if missing:
                waiting.append(missing[0])
                continue
            order.setdefault(layer.name, layer)
            waiting.pop()
    return tuple(order.values())
