"""Where the values of layers lie in the activation buffer: an image for each, with room for what tiles read around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparsec.backends.aie.lower.geometry import Image, element_bytes, heads_of, plane
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.views import View, roots, views_of
from sparsec.compiler.graph import Graph

_ALIGN = 64
_Around = tuple[int, int, int, int]  # rows above, columns left, rows and columns from the first on


def images_of(graph: Graph, tilings: Sequence[Tiling], views: Mapping[str, View]) -> tuple[dict[str, Image], int]:
    """An image for every value of layers and views, parts of views within the whole; and the bytes of all."""
    within = roots(views)
    around: dict[str, list[_Around]] = {}
    parts: dict[str, None] = {}
    for value, need in [n for t in tilings for n in _needs(t)]:
        around.setdefault(within.get(value, (value, 0))[0], []).append(need)
    for view in views.values():
        for value in (*view.inputs, view.output):
            around.setdefault(within.get(value, (value, 0))[0], [])
            parts |= {value: None} if value in within else {}
    images: dict[str, Image] = {}
    at = 0
    for value, needs in around.items():
        images[value] = _surrounded(graph, value, at, needs)
        at += -(-images[value].nbytes // _ALIGN) * _ALIGN
    for value in (*parts, *(v for v in within if v not in parts)):
        root, block = within[value]
        whole, extent = images[root], plane(graph.types[value])
        assert extent is not None
        images[value] = replace(whole.part(block, extent[0]), last=extent[3], heads=heads_of(graph.types[value]))
    return images, at


def _needs(t: Tiling) -> list[tuple[str, _Around]]:
    """What a tiling reads and writes of its values."""
    layer, share = t.layer, t.source
    above, left = layer.window.pads
    last = (t.bands - 1) * t.band + (t.tiles - 1) * t.rows  # the first row of the last tile
    below = last * share.window.stride - above + share.source_reach
    found = [(value, (0, 0, 0, 0)) for value in layer.made]
    found.append((layer.x, (above, left, below, share.source_columns - left)))
    if layer.residual:
        found.append((layer.residual, (0, 0, last + share.rows, share.residual_columns)))
    if layer.computed:
        found.append((layer.computed.value, (0, 0, layer.computed.rows, 0)))
    return found


def _surrounded(graph: Graph, value: str, at: int, needs: Sequence[_Around]) -> Image:
    extent = plane(graph.types[value])
    assert extent is not None
    channels, rows, columns, last = extent
    top, left = (max((n[i] for n in needs), default=0) for i in range(2))
    bottom, right = (max([size, *(n[i] for n in needs)]) for i, size in ((2, rows), (3, columns)))
    size = element_bytes(graph.types[value])
    return Image(at, channels, rows, columns, top, left, top + bottom, left + right, size, last, heads_of(graph.types[value]))


def surroundings(graph: Graph, layers: Mapping[str, ConvLayer]) -> tuple[dict[str, int], dict[str, str]]:
    """The byte that surrounds each value which layers read; and why some layers, by node, cannot have theirs.

    A value's image is surrounded by one byte, and so are those that share it.
    """
    views, _ = views_of(graph, {layer.y for layer in layers.values()})
    within = roots(views)
    family: dict[str, tuple[int, str]] = {}
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        layer = layers.get(node.name)
        if layer is None or layer.outside is None:
            continue
        root = within.get(layer.x, (layer.x, 0))[0]
        byte, other = family.setdefault(root, (layer.outside, layer.node))
        if byte != layer.outside:
            reasons[layer.node] = f"it needs {layer.outside} around its data, and {other!r}, which reads them as well, {byte}"
    read = {v for layer in layers.values() for v in layer.values}
    members = {*read, *within, *(v for view in views.values() for v in (*view.inputs, view.output))}
    return {v: family[r][0] for v in sorted(members) if (r := within.get(v, (v, 0))[0]) in family}, reasons
