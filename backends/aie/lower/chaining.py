"""Which results stay in memory tiles, for the next layer or until a later one adds them, and which of them DDR needs as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from sparsec.backends.aie.descriptor_forms import MOST_TURNS
from sparsec.backends.aie.lower.circuits import keeps_way_out
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM
from sparsec.backends.aie.lower.geometry import BFLOAT16, BYTE, Window
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.leaving import leaving_rows, period_of
from sparsec.backends.aie.lower.memory_places import MemoryPlaces
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.views import View
from sparsec.compiler.graph import Graph

_TASKS = 3  # descriptors of a core's results that stay
_MOST_BY_BLOCK = 2  # tiles, each of which is two tasks in the queue of a channel


@dataclass(frozen=True, slots=True)
class Readers:
    """Who reads a layer's results: the `next` layer, as its data; a later one that adds them, by its number (`adder`, -1: none);
    `others`, which want them in DDR; and who wants them `thinned` there. Those that are `shared` are views of others, or have
    these."""

    next: bool
    adder: int
    others: bool
    thinned: bool = False
    shared: bool = False

    def leave(self, *, here: bool, held: bool) -> bool:
        """Whether results go to DDR that the next layer finds in memory tiles (`here`), and that are `held` there for the
        adder."""
        return self.thinned or self.all_leave(here=here, held=held)

    def all_leave(self, *, here: bool, held: bool) -> bool:
        """Whether all of them do."""
        return self.others or (self.next and not here) or (self.adder >= 0 and not held) or not (here or held)


def shared_values(views: Mapping[str, View]) -> set[str]:
    """Values that are views of others, or have these."""
    return {v for view in views.values() for v in (*view.inputs, view.output)}


def readers(graph: Graph, views: Mapping[str, View], layers: Sequence[ConvLayer]) -> list[Readers]:
    """Of the results of layers that follow one another. What is bfloat16 is always wanted, as it is checked by layer."""
    shared = shared_values(views)
    outputs = {p.value for p in graph.outputs}
    found = []
    for i, layer in enumerate(layers):
        y, users = layer.y, {n.name for n in graph.users[layer.y]}
        after = layers[i + 1] if i + 1 < len(layers) else None
        adders = [k for k in range(i + 1, len(layers)) if layers[k].residual == y != layers[k].x and layers[k].node in users]
        adder = adders[0] if len(adders) == 1 and layers[adders[0]].output_blocks == layer.output_blocks else -1
        reading = after is not None and after.x == y
        own = {layers[adder].node} if adder >= 0 else set()
        own |= {after.node} if after is not None and reading else set()
        own |= {layer.thinned.node} if layer.thinned else set()
        later = any(y in layers[k].values for k in range(i + 2, len(layers)) if k != adder)  # parts of a layer read it again
        others = y in outputs or y in shared or bool(users - own) or later
        others = others or layer.element is BFLOAT16
        found.append(Readers(reading, adder, others, layer.thinned is not None, y in shared))
    return found


def apart(before: Tiling, after: Tiling) -> str:
    """Why a layer's results cannot stay for the next one, "" where they can: it has to read them alone, position by position, in
    tiles of the same rows or of one, from memory tiles that the results reach."""
    one, other = before.layer, after.layer
    if other.x != one.y or one.y in (other.residual, other.computed and other.computed.value) or not _whole(one, other):
        return "the next layer reads something else"
    if other.window != Window():
        return "the next layer reads rows or columns around each position"
    if one.element is not other.element or one.wide:
        return "the next layer reads other elements"
    if after.mode.streams > 1 and after.tiles * after.parts > LOCK_MAXIMUM:
        return "there are more of its parts than locks count"
    if after.rows not in (1, before.rows):
        return f"the next layer has tiles of {after.rows} rows"
    return _cut_apart(before, after, "the next layer", parts_of_one(before, after))


def not_added(before: Tiling, adder: Tiling) -> str:
    """Why a layer that adds the results of an earlier one cannot do so where they are, "" where it can: it has tiles of the same
    rows and columns. Where each of several streams takes its own blocks of channels, a descriptor has no dimension left for
    these: tiles have one row, or there are few of them, whose blocks are sent one by one."""
    one, other = before.layer, adder.layer
    if other.residual != one.y or one.first_block or other.first_block or one.wide or not one.element is other.element is BYTE:
        return "the layer that adds them adds something else"
    if sent_by_block(adder) and (
        (adder.tiles > _MOST_BY_BLOCK and not adder.mode.own)
        or adder.tiles * adder.layer.output_blocks > MOST_TURNS * adder.mode.residual_streams
    ):
        return "the layer that adds them has several streams of residuals, and too many tiles of several rows"
    if adder.mode.chain > 1:
        return f"the layer that adds them has {adder.mode.told}"
    if adder.share.residual_columns != before.share.stored_columns:
        return "the layer that adds them has rows of another length"
    if adder.rows != before.rows:
        return f"the layer that adds them has tiles of {adder.rows} rows"
    return _cut_apart(before, adder, "the layer that adds them", int(before.mode.cut is adder.mode.cut))


def _whole(one: ConvLayer, other: ConvLayer) -> bool:
    return one.output_blocks == other.input_blocks and one.first_block == other.first_block == 0


def parts_of_one(before: Tiling, after: Tiling) -> int:
    """How many parts of the positions of a layer one of the layer before is, which follow one another in its memory tile: one
    where both have the same cut, several of a column if these are whole tiles; 0 where they are not parts of one."""
    if before.mode.cut is after.mode.cut:
        return 1
    (columns, one), (others, many) = before.mode.groups, after.mode.groups
    if columns != others or columns != before.mode.grid.columns or many % one:
        return 0
    count = many // one
    rows = {before.band, before.tiles * before.rows, count * after.band, count * after.tiles * after.rows}
    return count if len(rows) == 1 else 0


def _cut_apart(before: Tiling, after: Tiling, told: str, parts_of_each: int) -> str:
    """Why results do not lie as a later layer reads them, which is `told` so, and of whose parts of the positions so many are one
    of theirs."""
    if not parts_of_each:
        return f"{told} has {after.mode.told}"
    parts, blocks, grid = before.mode.channel_parts, before.layer.output_blocks, before.mode.grid
    sent = {s.part: s.memory.column for s in before.mode.homes}
    if any(abs(c - sent[before.mode.parts(c, r)[0]]) > 1 for c in range(grid.columns) for r in range(grid.core_rows)):
        return "memory tiles reach only their neighbours"
    if not all(s.reaches(sent[s.part // parts_of_each]) for carriers in after.mode.carriers() for s in carriers):
        return "memory tiles reach only their neighbours"
    if blocks < parts:
        return "not all cores have results"
    if blocks % parts and before.tiles > 1:
        return "cores have unequal numbers of results in each tile"
    if before.tiles > _TASKS * tiles_at_once(before, after.rows):
        return "there are more of its parts than descriptors count"
    return ""


def sent_by_block(adder: Tiling) -> bool:
    """Whether the residual of a layer, if it is in memory tiles, is sent one block of channels after the other."""
    return adder.mode.residual_streams > 1 and adder.rows > 1


def tiles_at_once(t: Tiling, laid: int) -> int:
    """Tiles of a core's results that a descriptor brings to where they stay, in tiles of `laid` rows."""
    if by_lanes(t, laid):
        return MOST_TURNS
    return max(1, MOST_TURNS // t.most_results) if t.rows == laid else 1


def by_lanes(t: Tiling, laid: int) -> bool:
    """Whether cores send results lane by lane, whose columns lie together: where they stay in tiles of one row, so that a
    descriptor has a dimension left for all blocks of channels of a tile; of rows with nothing between them."""
    return t.rows != laid and t.share.result_pitch == t.share.lane


def handed(who: Readers, before: Tiling, after: Tiling, *, held: bool) -> str:
    """Why a layer's results cannot stay for the next one, "" where they can; they may be `held` for a later one as well."""
    if why := apart(before, after):
        return why
    if before.rows != after.rows and (held or (who.leave(here=True, held=held) and not by_lanes(before, after.rows))):
        return f"they leave as well, or are held, and the next layer has tiles of {after.rows} rows"
    if who.leave(here=True, held=held):
        if not keeps_way_out(before.mode, after.mode):
            return "they leave for DDR as well, through circuits that the next layer changes"
        return uncounted(before)
    return ""


def not_held(who: Readers, before: Tiling, adder: Tiling, *, here: bool) -> str:
    """Why a layer's results cannot be held for the layer that adds them, "" where they can; they may be `here` for the next."""
    return not_added(before, adder) or (uncounted(before) if who.leave(here=here, held=True) else "")


def counted(before: Tiling) -> bool:
    """Whether a lock counts all of a core's results, by blocks of channels, that stay and leave."""
    return before.most_results * before.tiles <= LOCK_MAXIMUM


def counts_tiles(before: Tiling) -> bool:
    """Whether it counts tiles where results stay and leave, as blocks of channels are too many: all of them, or those of a tile
    more than from one that leaves to the next, and of tiles behind the last one, which never leave."""
    tiles = max(period_of(before) + 1, *(behind(before, part) for part in range(before.mode.position_parts)))
    return not counted(before) and tiles * before.most_results > LOCK_MAXIMUM


def uncounted(before: Tiling) -> str:
    """Why results cannot stay and leave, "" where they can: locks count their blocks, or tiles, which have one row then, so that
    a descriptor takes all blocks of one."""
    fits = not counts_tiles(before) or (before.rows == 1 and before.tiles <= LOCK_MAXIMUM)
    return "" if fits else "there are more of its parts than locks count"


def behind(t: Tiling, positions: int) -> int:
    """Tiles of a part of the positions behind the last one that leaves, or all where none does."""
    return t.tiles - 1 - max((tile for tile, _, _ in leaving_rows(t, positions)), default=-1)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What layers that follow one another may leave in memory tiles: whose results stay for the next one (`why` not: "" where
    they may), and by layer the one that adds its results where they are (`adders`, -1: none)."""

    tilings: Sequence[Tiling]
    readers: Sequence[Readers]
    why: Sequence[str]
    adders: Sequence[int]

    @staticmethod
    def of(graph: Graph, views: Mapping[str, View], tilings: Sequence[Tiling], apart: Set[str] = frozenset()) -> Neighbours:
        """Of given ways: as much as possible, for the next layer rather than for a later one; values that are `apart` are not
        held for a later one."""
        who, last = readers(graph, views, [t.layer for t in tilings]), "it is the last layer of its part"
        for i, t in enumerate(tilings):
            if t.layer.y in apart and who[i].adder >= 0:
                who[i] = replace(who[i], adder=-1, others=True)
        made = Neighbours(tilings, who, [last] * len(tilings), [r.adder for r in who])
        why, adders = list(made.why), [-1] * len(tilings)
        for i, reader in enumerate(who):
            both = made.may_hold(i, here=True) and made.may_stay(i, held=True)
            if both or (made.may_hold(i, here=False) and not made.may_stay(i, held=False)):
                adders[i] = reader.adder
            if i + 1 < len(tilings):
                why[i] = handed(reader, tilings[i], tilings[i + 1], held=adders[i] >= 0)
        return Neighbours(tilings, who, why, adders)

    @property
    def joined(self) -> list[bool]:
        """Whose results may stay for the next layer."""
        return [not why for why in self.why]

    @property
    def all_leave(self) -> list[bool]:
        """Whose results may all leave for DDR, where what may stay does."""
        there = zip(self.readers, self.joined, self.adders, strict=True)
        return [who.all_leave(here=joined, held=adder >= 0) for who, joined, adder in there]

    @property
    def leave(self) -> list[bool]:
        """Whose results leave for DDR, where what may stay does."""
        there = zip(self.readers, self.joined, self.adders, strict=True)
        return [who.leave(here=joined, held=adder >= 0) for who, joined, adder in there]

    def may_stay(self, i: int, *, held: bool) -> bool:
        """Whether results of a layer may stay for the next, where they are held or not."""
        after = self.tilings[i + 1 : i + 2]
        return bool(after) and not handed(self.readers[i], self.tilings[i], after[0], held=held)

    def may_hold(self, i: int, *, here: bool) -> bool:
        """Whether they may be held for the layer that adds them, where they are here for the next or not."""
        k = self.readers[i].adder
        return k >= 0 and not not_held(self.readers[i], self.tilings[i], self.tilings[k], here=here)


def in_ddr_before(views: Mapping[str, View], before: Tiling, after: Tiling) -> bool:
    """Whether the data of a layer are in DDR when the layer before begins."""
    return after.layer.x not in before.layer.made and after.layer.x not in shared_values(views)


def in_ddr_but_last(before: Tiling, after: Tiling, memory: Sequence[MemoryPlaces], *, shared: bool) -> bool:
    """Whether the first tiles of a layer's data, as many as memory tiles have room for, and their residual, are in DDR when the
    layer before has but the last tile of each part of the positions left to bring there; not where its results are `shared`."""
    one, other = before.layer, after.layer
    apart = one.fan == other.fan == 1 and other.computed is None and other.residual != one.y
    if other.x != one.y or shared or not apart or before.tiles == 1:
        return False
    late: set[int] = set()
    for part in range(before.mode.position_parts):
        first, valid = before.first_row(part), before.valid_rows(part)
        late |= {first + row for row in range((valid - 1) // before.rows * before.rows, valid)}
    stride, tiles = other.window.stride, min(after.tiles, max(a.before for places in memory for a in places.arrivals))
    for part in range(after.mode.position_parts):
        first = after.first_row(part) * stride - other.window.pads[0]
        if not late.isdisjoint(range(first, first + (tiles - 1) * after.rows * stride + after.source.source_reach)):
            return False
    return True
