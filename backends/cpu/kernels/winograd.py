"""winograd: stride-1 3x3 convolutions by minimal filtering, F(2x2, 3x3) and F(4x4, 3x3).

Tiles of (m + 2)^2 inputs and the weights are transformed to (m + 2)^2 frequencies, at each of which the convolution is a matrix
product over channels, carried by the panel micro-kernel; m^2 outputs a tile come back. Multiplications fall by 2.25 (m = 2) or 4
(m = 4); the weights grow by 1.8 or 4. Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015
(B and A by Toom and Cook's interpolation).

bfloat16 becomes float32 where it is read, and weights are rounded before they are transformed: the same products as those of
panels, but for float32 rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.elements import element
from sparsec.backends.cpu.kernels.panel_epilogue import EXTRAS, Types, epilogue_context, extra_pointers
from sparsec.backends.cpu.kernels.panel_pack import occupied_rows
from sparsec.backends.cpu.scalar_c import float_literal
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program

Array = np.ndarray[Any, Any]

DEPTH = 64  # input channels that are summed in one chain
# The points beside 0 and infinity, in pairs of opposite sign: 1 for m = 2, and for m = 4 two whose powers are exact in float32
# and which a search over sixteenths found to lose the least accuracy (a quarter of the largest error of the usual 1 and 2).
POINTS: dict[int, tuple[float, ...]] = {2: (1.0,), 4: (5 / 8, 3 / 2)}


def filter_transform(m: int) -> Array:
    """G, float64 [m + 2, 3]: rows for the points 0, p, -p, ..., infinity, each over the product of its point's differences."""
    points = [0.0, *(sign * p for p in POINTS[m] for sign in (1, -1))]
    scale = [np.prod([p - q for q in points if q != p]) for p in points]
    finite = np.array([[p**k for k in range(3)] for p in points]) / np.array(scale)[:, None]
    return np.vstack([finite, [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class WinogradGeometry(Geometry):
    """Extents in tiles of m x m outputs and strides in elements.

    The n * tiles_y * tiles_x tiles are cut into `full` pieces of tw and then `tails` of tw_tail; `block_pieces` pieces, at most
    `block_tiles` tiles, are transformed together, and so are the outputs of `group` panels. x points at the first input that the
    first output reads, and oh + 2 rows of ow + 2 positions exist from there on (the halo of the padding among them).
    """

    in_blocks: int
    panels: int
    group: int
    tiles_y: int
    tiles_x: int
    oh: int
    ow: int
    full: int
    tails: int
    block_pieces: int
    block_tiles: int
    x_batch: int
    x_block: int
    x_row: int
    y_batch: int
    y_block: int
    y_row: int
    e_batch: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})
    e_block: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})
    e_row: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})


@dataclass(frozen=True, slots=True)
class WinogradKernel(Kernel):
    """F(m x m, 3 x 3): `tw` tiles and `r` vectors of output channels in the register tile; the rest as in PanelKernel.

    `listed`: each panel reads the input channels of a list of its own, at all frequencies (a channel dropped with all its taps
    stays so in the Winograd domain): `lists` are offsets into transformed tiles, panel p's from list_begin[p] on. `far`: the
    scratch is larger than L2, so its lines are fetched ahead. `types`: data are F32 or BF16; weights are float32.
    """

    m: int
    r: int
    tw: int
    tw_tail: int = 0
    epilogue: Program = field(default_factory=Program)
    extras: tuple[str, ...] = ()
    tail_lanes: int = 0
    listed: bool = False
    far: bool = False
    types: Types = field(default_factory=Types)
    family: ClassVar[str] = "winograd"
    template: ClassVar[str] = "winograd.c.j2"
    geometry: ClassVar[type[Geometry]] = WinogradGeometry

    def label(self) -> str:
        last = f"_{self.epilogue.steps[-1].fn}" if self.epilogue.steps else ""
        return f"{self.types.data.value}_winograd{self.m}_{self.tw}x{self.r}{last}"

    def pointers(self) -> tuple[Pointer, ...]:
        lists = (Pointer("lists", "int32_t"), Pointer("list_begin", "int32_t")) if self.listed else ()
        extras = extra_pointers(self.types.of_extras(len(self.extras)))
        x, y = Pointer("x", self.types.data.c), Pointer("y", self.types.result.c, const=False)
        return (x, Pointer("w"), *lists, *extras, y)

    @property
    def bfloat16(self) -> bool:
        return self.types.bfloat16 or self.epilogue.mentions(DType.BF16)

    def scratch_bytes(self, geometry: WinogradGeometry, isa: Isa) -> int:
        tiles = geometry.block_tiles  # an odd number of vectors between frequencies spreads them over the cache's sets
        vectors = (geometry.in_blocks * tiles | 1) + (self.r * geometry.group * tiles | 1)
        return (self.m + 2) ** 2 * vectors * isa.vector_bytes

    def context(self, isa: Isa) -> dict[str, Any]:
        shared = epilogue_context(self.epilogue, self.extras, self.tail_lanes, isa, self.types)
        suffix = {"channel": "_q", "full": "_p", "scalar": "_s"}
        operands = zip(self.extras, self.types.of_extras(len(self.extras)), strict=True)
        kinds = [(f"e{i}", suffix[kind], t.c) for i, (kind, t) in enumerate(operands)]
        return {
            **shared,
            "x": element("x", self.types.data),
            "points": [_c(p) for p in POINTS[self.m]],
            "squares": [_c(p * p) for p in POINTS[self.m]],
            "cubes": [_c(p**3) for p in POINTS[self.m]],
            "sum": _c(sum(p * p for p in POINTS[self.m])),
            "product": _c(float(np.prod(POINTS[self.m])) ** 2),
            "pieces": [tw for tw in (self.tw, self.tw_tail) if tw],
            "depth": max(1, DEPTH // isa.lanes),
            "unroll": 4 if isa.lanes > 1 else 1,
            "output_parameters": "".join(f", {f'const {c} *' if s == '_p' else 'vec '}{e}{s}" for e, s, c in kinds),
            "output_arguments": "".join(f", {e}{s}" for e, s, _ in kinds),
            "call_arguments": "".join(f", {e}" for e, _, _ in kinds),
            "start_of": self._start_of,
        }

    def _start_of(self, piece: str) -> str:
        """The first tile of a piece, in C."""
        if not self.tw_tail:
            return f"{piece} * {self.tw}"
        full = f"g->full * {self.tw} + ({piece} - g->full) * {self.tw_tail}"
        return f"({piece} < g->full ? {piece} * {self.tw} : {full})"


def _c(value: float) -> str:
    return f"v_set1({float_literal(value)})"


def transform(w: Array, m: int) -> Array:
    """G w G' of w[OC, 3, 3, IC], in float64: [(m + 2)^2, OC, IC]."""
    g = filter_transform(m)
    u: Array = np.einsum("ai,oijc,bj->aboc", g, w.astype(np.float64), g)
    return u.reshape(-1, *u.shape[2:])


def pack(w: Array, m: int, r: int, lanes: int, group: int) -> Array:
    """float32 weights of w[OC, 3, 3, IC], zero beyond OC and IC, as one vector: for each `group` of panels (fewer in the last)
    [frequency][panel][input channel][r * lanes].
    """
    u = transform(w, m)
    frequencies, oc, ic = u.shape
    width, depth = r * lanes, -(-ic // lanes) * lanes
    panels = -(-oc // width)
    padded = np.zeros((frequencies, panels * width, depth), np.float32)
    padded[:, :oc, :ic] = u
    by_panel = padded.reshape(frequencies, panels, width, depth).swapaxes(2, 3)
    return np.concatenate([by_panel[:, p : p + group].ravel() for p in range(0, panels, group)])


def pack_listed(w: Array, m: int, r: int, lanes: int, group: int) -> tuple[Array, Array, Array]:
    """(weights, channels, begin) of w[OC, 3, 3, IC]: for each `group` of panels [frequency][panel][kept channel][r * lanes], each
    panel's kept channels, and where they begin. A channel is kept where any tap of any of the panel's outputs is not zero.
    """
    u, width = transform(w, m), r * lanes
    kept: Array = occupied_rows(w.reshape(w.shape[0], 9, -1), width).max(axis=1)
    panels = []
    for p, keep in enumerate(kept):
        outputs = u[:, p * width : (p + 1) * width, keep]
        padded = np.zeros((len(u), int(keep.sum()), width), np.float32)
        padded[:, :, : outputs.shape[1]] = outputs.transpose(0, 2, 1)
        panels.append(padded)
    parts = [np.concatenate(panels[p : p + group], axis=1).ravel() for p in range(0, len(panels), group)]
    begin = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return np.concatenate(parts), np.nonzero(kept)[1], begin


def applies(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], groups: int) -> bool:
    """Whether a convolution is one that this family computes."""
    return tuple(kernel) == (3, 3) and tuple(strides) == tuple(dilations) == (1, 1) and groups == 1
