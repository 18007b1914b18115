"""How a layer is cut over the cores: positions, output channels, or both; and which circuits that takes.

Each core has two streams, data and weights. A stream serves one core, a column, a row, or all, and what it serves it serves at 4
bytes a cycle: positions over all cores suit large images with few channels (every core reads a part of the data, all read the
same weights), channels over all cores suit small images with many. In between, groups of columns or of rows share positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, cached_property
from itertools import pairwise

from sparsec.backends.aie.part import Part, part_of
from sparsec.backends.aie.registers import Grid, Tile
from sparsec.backends.aie.switch import Channel, Flow


class Cut(Enum):
    """Which cores share data or weights."""

    BOTH = "positions over columns, channels over rows"
    POSITIONS = "positions over all cores"
    CHANNELS = "channels over all cores"
    PAIRS = "positions over pairs of columns, channels over their cores"
    HALVES = "positions over columns and halves of rows, channels over the rows of a half"


ARRIVING = (4, 5)  # S2MM channels of a memory tile that its shim's channels feed; those below take results of the column's cores
LEAVING = (5, 4)  # its MM2S channels to the shim; the second where no stream to cores takes it
CORE_DATA, CORE_WEIGHTS = 0, 1  # S2MM channels of a core
_CHAINS = (2, 4)  # cores of a column that make sums together
_REACHING = 4  # MM2S channels of a memory tile that read in its neighbours, the first ones


@dataclass(frozen=True, slots=True)
class Stream:
    """One MM2S channel of a memory tile, the part of the data or weights that it sends, and the cores that take it. `sources` are
    the columns whose shims bring it, the memory tile's own or next to it; channels that read there are the first four. `step` is
    the place in their chains of the cores that take data: which of the input channels these are."""

    memory: Tile
    channel: int
    part: int
    cores: tuple[Tile, ...]
    sources: tuple[int, ...]
    step: int = 0

    def reaches(self, column: int) -> bool:
        """Whether its channel reads the memory tile of a column."""
        far = abs(column - self.memory.column)
        return far == 0 or (far == 1 and self.channel < _REACHING)


@dataclass(frozen=True)
class Mode:
    """A cut on an array. A group of cores that share positions has one stream of data, or several `streams`: these carry the same
    data, but each only the residual of its own cores, every `streams`-th part of the channels. `grid` is cut over, which lies in
    a larger machine where `part` says.

    `chain` cores of a column that follow one another, from north to south, make sums together: each has a part of the input
    channels, data and weights, and passes its sums on through the cascade; the last one has the residual and the results.

    With `own` streams of weights, one for each core, these bring the residuals of the cores as well. A column has one stream of
    data then: parts of the positions that halves of its rows have follow each other, and a core passes over the other's.

    In a `narrow` form results leave memory tiles through one channel, though there may be two, as the next layer wants the other.

    With `weights_first` each core's weights come before its data, through the same stream, so that memory tiles have two channels
    for results: where each stream of data is one core's, and weights come once. These may be `channelwise`: each part of the
    positions has its own, as parts of the channels take such places.
    """

    cut: Cut
    grid: Grid
    streams: int = 1
    chain: int = 1
    own: bool = False
    part: Part | None = None
    narrow: bool = False
    weights_first: bool = False
    channelwise: bool = False

    @property
    def told(self) -> str:
        """What it is, in words."""
        if self.weights_first:
            alone = replace(self, weights_first=False, channelwise=False)
            return f"{alone.told}, {'their own ' if self.channelwise else ''}weights before data"
        if self.chain > 1:
            return f"{self.cut.value}, input channels over chains of {self.chain} of them"
        if self.own:
            return f"{self.cut.value}, a stream of weights and residuals to each core"
        return self.cut.value if self.streams == 1 else f"{self.cut.value}, {self.streams} streams of data to each of the groups"

    @cached_property
    def groups(self) -> tuple[int, int]:
        """Groups of columns, and of rows of cores, that have positions of their own."""
        g = self.grid
        return {
            Cut.BOTH: (g.columns, 1),
            Cut.POSITIONS: (g.columns, g.core_rows),
            Cut.CHANNELS: (1, 1),
            Cut.PAIRS: (g.columns // 2, 1),
            Cut.HALVES: (g.columns, 2),
        }[self.cut]

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Columns and rows of a group."""
        columns, rows = self.groups
        return self.grid.columns // columns, self.grid.core_rows // rows

    @cached_property
    def position_parts(self) -> int:
        """Parts that positions are cut in."""
        return self.groups[0] * self.groups[1]

    @cached_property
    def channel_parts(self) -> int:
        """Parts that output channels are cut in."""
        return self.sizes[0] * self.sizes[1] // self.chain

    @cached_property
    def weight_parts(self) -> int:
        """Parts that weights are cut in: those of the output channels, of each the parts of the input channels; of all that for
        each part of the positions, if these have weights of their own."""
        return self.channel_parts * self.chain * (self.position_parts if self.channelwise else 1)

    def step(self, row: int) -> int:
        """The place of the cores in a row in their chains: 0 begins, the last one has results."""
        return self.chain - 1 - row % self.chain

    def finishes(self, row: int) -> bool:
        """Whether the cores in a row have results."""
        return row % self.chain == 0

    def weight_part(self, column: int, row: int) -> int:
        """The part of the weights of the core in a column and a row of cores."""
        positions, channels = self.parts(column, row)
        return (positions * self.channel_parts * self.channelwise + channels) * self.chain + self.step(row)

    @property
    def residual_streams(self) -> int:
        """Streams that bring the residuals of a group of cores, each those of every so many-th block of channels."""
        return self.channel_parts if self.own else self.streams

    @property
    def sharing(self) -> int:
        """Cores that share a stream with residuals, each with channels of its own."""
        return self.channel_parts // self.residual_streams

    @property
    def together(self) -> int:
        """Parts of the positions that one stream of data carries."""
        return self.groups[1] if self.own else 1

    def parts(self, column: int, row: int) -> tuple[int, int]:
        """The part of positions and of channels of the core in a column and a row of cores."""
        columns, rows = self.sizes
        positions = column // columns * self.groups[1] + row // rows
        return positions, column % columns * (rows // self.chain) + row % rows // self.chain

    def core(self, column: int, row: int) -> Tile:
        """The tile of the core in a column and a row of cores."""
        return Tile(column, self.grid.first_core_row + row)

    def _cores(self, positions: int | None = None, channels: int | None = None, step: int | None = None) -> tuple[Tile, ...]:
        """The cores with a part of the positions, or of the channels, or of the input channels."""
        found = []
        for c in range(self.grid.columns):
            for r in range(self.grid.core_rows):
                own = self.parts(c, r)
                if positions in (None, own[0]) and channels in (None, own[1]) and step in (None, self.step(r)):
                    found.append(self.core(c, r))
        return tuple(found)

    @cache  # noqa: B019 - there are few modes
    def data(self) -> tuple[Stream, ...]:
        """The streams of data, by part of the positions, each from the columns of its group of cores."""
        rows, columns = self.groups[1], self.sizes[0]
        found = []
        if self.chain > 1:
            return self._chained_data()
        for p in range(self.position_parts):
            sender, sources = _spread(p // rows * columns, columns)
            before = sum(s == sender for s, _ in self._few())
            channel = before + p % rows // self.together
            found.append(Stream(Tile(sender, 1), channel, p, self._cores(positions=p), sources))
        return tuple(found)

    @cached_property
    def homes(self) -> tuple[Stream, ...]:
        """The streams of data of whole tiles, by part of the positions: where these stay, memory tiles that send them hold them,
        whether or not cores of a chain take parts of them from others."""
        return replace(self, streams=1, chain=1, own=False, weights_first=False, channelwise=False).data()

    def _chained_data(self) -> tuple[Stream, ...]:
        """The streams of data where each part of the input channels has its own: these are spread over the columns of a group."""
        rows, columns, used = self.groups[1], self.sizes[0], Counter[int]()
        found = []
        for p in range(self.position_parts):
            for step in range(self.chain):
                column = p // rows * columns + step * columns // self.chain
                channel = sum(at == column for at, _ in self._few()) + used[column]
                cores = self._cores(positions=p, step=step)
                found.append(Stream(Tile(column, 1), channel, p, cores, (column,), step))
                used[column] += 1
        return tuple(found)

    @cache  # noqa: B019
    def carriers(self) -> tuple[tuple[Stream, ...], ...]:
        """The streams that carry the data of a part of the positions to its cores, by part: one, or several, out of memory tiles
        that reach all of these data."""
        if self.streams == 1:
            return tuple((s,) for s in self.data())
        used = Counter(column for column, _ in self._few())
        found = []
        for s in self.data():
            first = s.part // self.groups[1] * self.sizes[0]
            near = [c for c in range(first, first + self.sizes[0]) if all(abs(c - source) <= 1 for source in s.sources)]
            made = []
            for i in range(self.streams):
                column = near[i * len(near) // self.streams]
                parts = range(i, self.channel_parts, self.streams)
                cores = tuple(c for p in parts for c in self._cores(positions=s.part, channels=p))
                made.append(Stream(Tile(column, 1), used[column], s.part, cores, s.sources))
                used[column] += 1
            found.append(tuple(made))
        return tuple(found)

    @cache  # noqa: B019
    def weights(self) -> tuple[Stream, ...]:
        """The streams of weights, spread over the columns that take them; behind the channels of data, unless there are so few
        of them that each comes from several columns."""
        if self.own:
            return tuple(self._own_weights())
        if self.weights_first:
            return tuple(replace(s, part=s.part * self.chain * self.channelwise + s.step) for s in self.data())
        if few := self._few():
            parts = ((divmod(p, self.chain), at, sources) for p, (at, sources) in enumerate(few))
            return tuple(
                Stream(Tile(at, 1), 0, part * self.chain + step, self._cores(channels=part, step=step), sources, step)
                for (part, step), at, sources in parts
            )
        columns, rows = self.sizes
        used = [sum(s.memory.column == c for s in self._data_streams) for c in range(self.grid.columns)]
        found = []
        for p in range(self.weight_parts):
            part, step = divmod(p, self.chain)
            column = p // rows + p % rows % self.groups[0] * columns
            found.append(Stream(Tile(column, 1), used[column], p, self._cores(channels=part, step=step), (column,), step))
            used[column] += 1
        return tuple(found)

    def _own_weights(self) -> Iterator[Stream]:
        """A stream of weights for each core, from the memory tile of its column."""
        for column in range(self.grid.columns):
            first = len({s.channel for s in self.data() if s.memory.column == column})
            for row in range(self.grid.core_rows):
                part = self.weight_part(column, row)
                yield Stream(Tile(column, 1), first + row, part, (self.core(column, row),), (column,))

    @cache  # noqa: B019
    def _few(self) -> list[tuple[int, tuple[int, ...]]]:
        """By stream of weights its sender and the columns it comes from, where there are more columns than streams."""
        n, columns = self.weight_parts, self.grid.columns
        if n >= columns or self.own or self.weights_first:
            return []
        cuts = [p * columns // n for p in range(n + 1)]
        return [_spread(first, end - first) for first, end in pairwise(cuts)]

    @cache  # noqa: B019
    def arriving(self, column: int, *, weights: bool, spread: bool = True) -> tuple[tuple[Stream, int, int], ...]:
        """What comes through a column's shim: streams, which of their portions and of how many. Without `spread`, all of a
        stream comes through the column that sends it."""
        found = []
        for s in self.weights() if weights else self.data():
            sources = s.sources if spread else (s.memory.column,)
            if column in sources:
                found.append((s, sources.index(column), len(sources)))
        return tuple(found)

    @property
    def column_streams(self) -> int:
        """Streams of data with parts of their own that come through a column's shim."""
        return max(1, self.groups[1] * self.chain // self.sizes[0])

    @cache  # noqa: B019
    def leaving(self, column: int) -> int:
        """How many channels take results from the memory tile of a column to DDR."""
        taken = {s.channel for s in (*self._data_streams, *self.weights()) if s.memory.column == column}
        return 1 if self.narrow or LEAVING[1] in taken else 2

    def leave_through(self, column: int, channel: int) -> range:
        """The rows of cores whose results one of these channels takes."""
        return range(channel * self.chain, self.grid.core_rows, self.leaving(column) * self.chain)

    @property
    def _data_streams(self) -> tuple[Stream, ...]:
        return tuple(s for carriers in self.carriers() for s in carriers)

    @property
    def possible(self) -> bool:
        """Whether memory tiles have channels for all streams, which reach what they send, and one for results."""
        sent = (*self._data_streams, *self.weights())
        near = {core: s.memory.column for s in self.data() for core in s.cores}
        if self.own and not all(s.reaches(near[core]) for s in self.weights() for core in s.cores):
            return False
        return all(s.channel < LEAVING[0] and (s.channel < _REACHING or len(s.sources) == 1) for s in sent)

    @property
    def leaves_less(self) -> bool:
        """Whether more channels take results out of memory tiles where none is for weights: those of several cores of each."""
        both = replace(self, weights_first=True)
        several = sum(map(self.finishes, range(self.grid.core_rows))) > 1
        return several and any(self.leaving(c) < both.leaving(c) for c in range(self.grid.columns))

    def common_flows(self) -> list[Flow]:
        """Circuits between shims and memory tiles, and of the results of all cores, of which every mode has some."""
        g = self.grid
        found = []
        for c in range(g.columns):
            shim, memory = Tile(c, 0), Tile(c, 1)
            found += [Flow(Channel(shim, i), (Channel(memory, to),)) for i, to in enumerate(ARRIVING)]
            found += [Flow(Channel(self.core(c, r), 0), (Channel(memory, r),)) for r in range(g.core_rows)]
            found += [Flow(Channel(memory, channel), (Channel(shim, i),)) for i, channel in enumerate(LEAVING)]
        return found

    def flows(self) -> list[Flow]:
        """All circuits."""
        g = self.grid
        idle = {Channel(self.core(c, r), 0) for c in range(g.columns) for r in range(g.core_rows) if not self.finishes(r)}
        idle |= {Channel(Tile(c, 1), LEAVING[i]) for c in range(g.columns) for i in range(self.leaving(c), len(LEAVING))}
        found = [flow for flow in self.common_flows() if flow.source not in idle]
        weights = () if self.weights_first else self.weights()
        for streams, channel in ((self._data_streams, CORE_DATA), (weights, CORE_WEIGHTS)):
            cores: dict[Channel, list[Tile]] = {}
            for s in streams:
                cores.setdefault(Channel(s.memory, s.channel), []).extend(s.cores)
            found += [Flow(source, tuple(Channel(t, channel) for t in taking)) for source, taking in cores.items()]
        return found


def _spread(first: int, columns: int) -> tuple[int, tuple[int, ...]]:
    """A column out of several, and those of them whose memory it reaches."""
    sender = first + min(1, columns - 1) if columns > 2 else first
    return sender, tuple(c for c in range(first, first + columns) if abs(c - sender) <= 1)


def modes(grid: Grid) -> tuple[Mode, ...]:
    """The cuts that the part of an array has channels for whose columns have a shim below a memory tile."""
    part = part_of(grid)
    if part is None or part.grid.core_rows > part.grid.columns or not grid.memory_rows:
        return ()
    grid = part.grid
    cuts = [Cut.BOTH, Cut.POSITIONS, Cut.CHANNELS]
    cuts += [Cut.PAIRS] if grid.columns % 2 == 0 and grid.columns > 2 else []
    cuts += [Cut.HALVES] if grid.core_rows % 2 == 0 and grid.core_rows > 2 else []
    found = [Mode(cut, part.grid, part=None if part.whole else part) for cut in cuts]
    chained = [replace(mode, chain=n) for n in _CHAINS for mode in found if mode.sizes[1] % n == 0]
    first = (replace(mode, weights_first=True) for mode in (*found, *chained) if mode.channel_parts == 1 and mode.leaves_less)
    channelwise = [replace(mode, weights_first=True, channelwise=True) for mode in found if mode.channel_parts == 1]
    return (
        *(form for mode in found for form in _forms(mode)),
        *(mode for mode in (*chained, *first, *channelwise) if mode.possible),
    )


def _forms(mode: Mode) -> list[Mode]:
    """A cut with one stream of data to each group of cores; with as many as make two in each column: these take what comes
    through its shim as fast as it comes, and leave two channels for results; with as many as its shim feeds, for residuals
    that are in memory tiles; and with a stream of weights and residuals to each core."""
    columns, most = mode.grid.columns, len(LEAVING) * mode.sizes[0]
    counts = (n for n in range(2, most + 1) if mode.channel_parts % n == 0)
    made = [form for n in counts if (form := replace(mode, streams=n)).possible]
    leaving = [form for form in made if all(form.leaving(c) == len(LEAVING) for c in range(columns))]
    own = replace(mode, own=True)
    return [mode, *dict.fromkeys([*leaving[-1:], *made[-1:]]), *([own] if mode.channel_parts > 1 and own.possible else [])]
