"""What the control of every kind of tile starts from: the plan, where tensors are in DDR, and locks of memory tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparsec.backends.aie.descriptor_forms import MEMORY
from sparsec.backends.aie.descriptors import Dim
from sparsec.backends.aie.lower.chaining import counts_tiles
from sparsec.backends.aie.lower.geometry import Image, Share
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.leaving import RESULT_PIECES, Leaving
from sparsec.backends.aie.lower.memory_places import Arrival, MemoryPlaces, What
from sparsec.backends.aie.lower.modes import Mode
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.writer import Writer
from sparsec.backends.aie.registers import Grid
from sparsec.compiler.errors import FitError

_LOCKS = 32  # of a memory tile for one layer
_WRAP = MEMORY.fields["d0_wrap"].maximum  # words that a dimension of its descriptors counts
NONE_QUEUED = (0, 0, 0)
OVER_EACH_OTHER = (Dim(1, 8), Dim(1, 255), Dim(1))  # words that nobody needs: 2,040 of them in 262


@dataclass(frozen=True, slots=True)
class Pair:
    """The locks of a ring: of full and of free places."""

    full: int
    free: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where a layer's tensors are in the arguments: images, of results that of what leaves, and the byte offset of the layer's
    weights; `computed` is the image of weights that are not constant."""

    x: Image
    y: Image
    residual: Image | None
    weights: int
    computed: Image | None = None

    @staticmethod
    def of(layer: ConvLayer, images: Mapping[str, Image], weights: int) -> Traffic:
        """A layer's images, or its channels' parts of them."""
        first, (read, made) = layer.first_block, layer.channels
        residual = images[layer.residual].part(first, made) if layer.residual else None
        source = images[layer.x].part(layer.first_source, read)
        computed = images[layer.computed.value] if layer.computed else None
        return Traffic(source, images[layer.left].part(first, made), residual, weights, computed)


@dataclass(frozen=True, slots=True)
class Links:
    """How a layer meets its neighbours: whether its data are `here`, in memory tiles, when it begins, or come `ahead`, while the
    layer before computes, or `follow` all of that one's results but those of its last tiles; whether the residual that is `added`
    is here; whether its own results stay there, in tiles of how many rows (`laid`); and whether they leave for DDR, in how many
    pieces at most, those of the last tiles `apart`, so that the next layer knows.
    Weights that come `at_once`, or in equal pieces, take a descriptor less than those of which some come while the layer before
    computes. Where the next layer's circuits wait for that, a core `tells` when it has all of its data and weights. Tasks of
    cores' channels that are `queued` while the layer before computes take so many buffers of data, pages, and blocks of the
    residual, that it has `left`. Whether words of data, and of weights, come into these while cores compute the last unit of the
    layer before (`prefetch`)."""

    here: bool = False
    added: bool = False
    ahead: bool = False
    follow: bool = False
    stays: bool = False
    laid: int = 0
    leaves: bool = True
    apart: bool = False
    pieces: int = RESULT_PIECES
    at_once: bool = False
    tells: bool = False
    queued: tuple[int, int, int] = NONE_QUEUED
    left: tuple[int, int, int] = NONE_QUEUED
    prefetch: tuple[bool, bool] = (False, False)

    def finds(self, what: What) -> bool:
        """Whether it finds such things in memory tiles when it begins."""
        return (what is What.DATA and self.here) or (what is What.RESIDUAL and self.added)


ALONE = Links()


def behind_first(pages: tuple[int, int], residual: Sequence[tuple[int, int]], tiles: int) -> list[tuple[int, int]]:
    """The order on a stream that brings a core's weights and residual: chains, and how often each runs, of pages and of a tile's
    residual. That of the first tile comes behind the first page, as no task of the core's channel that is queued early may begin
    with it; those of further tiles behind all pages."""
    first, times = pages
    rest = [(chain, turns * (tiles - 1)) for chain, turns in residual]
    return [(first, 1), *residual, (first, times - 1), *rest] if residual else [pages]


@dataclass(frozen=True)
class TileControl:
    """Makes the operations of one layer for tiles of one kind. `turn` counts the layers before: neighbours share no locks."""

    grid: Grid
    plan: LayerPlan
    traffic: Traffic
    writer: Writer
    turn: int
    links: Links

    @property
    def tiling(self) -> Tiling:
        """How the layer is cut."""
        return self.plan.tiling

    @property
    def share(self) -> Share:
        """What a core computes of one tile."""
        return self.plan.tiling.share

    @property
    def mode(self) -> Mode:
        """How cores share it."""
        return self.plan.tiling.mode

    def locks(self, places: MemoryPlaces, what: What, number: int) -> Pair:
        """Of a portion in a memory tile: parts of tiles or pages."""
        return self._pair(self._pairs(places, what) + number)

    def evenly_apart(self, places: MemoryPlaces, arrival: Arrival) -> tuple[int, int] | None:
        """Words of the only pages of several cores, and from one to the next, where one descriptor brings all, and the lock
        of the first counts them."""
        if not self.mode.channelwise or len(arrival.weights) < 2:
            return None
        portions = [places.weights[i] for i in arrival.weights]
        sizes = {self.tiling.page_bytes[p.stream.part] for p in portions}
        steps = {b.at - a.at for a, b in pairwise(portions)}
        size, step = max(sizes) // 4, max(steps) // 4
        alike = len(sizes) == len(steps) == 1 and (step == size or (step > size and size <= _WRAP))
        return (size, step) if alike else None

    def stream_lock(self, places: MemoryPlaces, number: int, stream: int) -> int:
        """What tells one of several streams that parts of a portion of data have come: the first, that it is full, the next one
        the lock that the one before gives when it begins to send them."""
        if not stream:
            return self.locks(places, What.DATA, number).full
        return self._lock(2 * (self._pairs(places) + self.grid.core_rows) + number * (self.mode.streams - 1) + stream - 1)

    def result_locks(self, places: MemoryPlaces, row: int) -> Pair:
        """Of the core in a row: its results."""
        return self._pair(self._pairs(places) + row)

    def _pairs(self, places: MemoryPlaces, before: What | None = None) -> int:
        """How many pairs portions have, or those `before` a kind; a residual that is there takes none."""
        kinds = list(What)
        some = kinds if before is None else kinds[: kinds.index(before)]
        return sum(len(places.portions(k)) for k in some if not (k is What.RESIDUAL and self.links.added))

    def _pair(self, number: int) -> Pair:
        return Pair(self._lock(2 * number), self._lock(2 * number + 1))

    def _lock(self, number: int) -> int:
        """One of the layer's locks. FitError where it has no more."""
        if number >= _LOCKS:
            raise FitError(
                f"layer {self.plan.layer.node!r} in a memory tile",
                demand=f"more than {_LOCKS} locks",
                bound=f"{_LOCKS} for each of two layers that follow one another",
                remedy="cut the layer in another way",
                node=self.plan.layer.node,
            )
        return self.turn % 2 * _LOCKS + number

    @property
    def leaving(self) -> Leaving:
        """In which order results leave."""
        return Leaving(self.tiling, self.links.pieces, self.links.stays and counts_tiles(self.tiling))
