"""A run as a Chrome trace, which Perfetto opens: a process a tile, a thread for its core and for each DMA channel.

The file is bounded: where a run has more intervals than `limit`, those of one thread that begin in the same slot of time are
shown as one, named by what most of its cycles went to, and slots double until they fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.simulate.array import ArrayState
from sparsec.backends.aie.simulate.report import Layer
from sparsec.backends.aie.simulate.run import Finished
from sparsec.backends.aie.simulate.timeline import BEGIN, CAUSE, END, NUMBER, TAG, WORK, Cause, Timeline, cause_of

Array = np.ndarray[Any, Any]
LIMIT = 200_000


@dataclass(frozen=True)
class Track:
    """One line of a picture: what it is of, and its intervals. `tile` is None for the control stream."""

    tile: Tile | None
    group: str
    name: str
    timeline: Timeline


@dataclass(frozen=True)
class Span:
    """An interval to show: begin and end in cycles, what it is, of which buffer, and how many intervals it stands for."""

    begin: int
    end: int
    cause: Cause
    buffer: str
    number: int
    work: int
    count: int


def tracks(array: ArrayState) -> list[Track]:
    """Everything that did something: control, then tile by tile from the shims, cores before channels."""
    found = [Track(None, "control", "control stream", array.control)]
    for tile in array.grid.tiles():
        group = f"{array.grid.kind(tile).value}{tile}"
        if tile in array.cores:
            found.append(Track(tile, group, "core", array.cores[tile].timeline))
        for (where, direction, index), channel in array.channels.items():
            if where == tile:
                found.append(Track(tile, group, f"{direction.name} {index}", channel.timeline))
    return [t for t in found if len(t.timeline)]


def spans(array: ArrayState, track: Track, slot: int, begin: int = 0, end: int | None = None) -> list[Span]:
    """A track's intervals within [begin, end), those that begin in one slot of `slot` cycles as one."""
    rows = track.timeline.rows() if end is None else track.timeline.within(begin, end)
    tags = _known(rows[:, TAG])
    found = []
    for part in _groups(rows, slot):
        long = part[int(np.argmax(_by_cause(rows[part])))]
        found.append(
            Span(
                int(rows[part[0], BEGIN]),
                int(rows[part[-1], END]),
                cause_of(int(rows[long, CAUSE])),
                array.ddr.name(int(tags[long])) if track.tile is not None else "",
                int(rows[long, NUMBER]),
                int(rows[part, WORK].sum()),
                len(part),
            )
        )
    return found


def _known(tags: Array) -> Array:
    """Tags, those that are not known yet as the next that is: a channel learns what it waits for when it comes."""
    last = np.where(tags > 0, np.arange(tags.size), tags.size - 1)
    following = np.minimum.accumulate(last[::-1])[::-1] if tags.size else last
    return tags[following]


def _groups(rows: Array, slot: int) -> Iterator[Array]:
    """The indices of rows that are shown as one."""
    if not len(rows):
        return
    number = rows[:, BEGIN] // slot if slot > 1 else np.arange(len(rows))
    yield from np.split(np.arange(len(rows)), np.flatnonzero(np.diff(number)) + 1)


def _by_cause(rows: Array) -> Array:
    """For every row, the cycles of all rows with its cause."""
    spent = np.bincount(rows[:, CAUSE], rows[:, END] - rows[:, BEGIN])
    found: Array = spent[rows[:, CAUSE]]
    return found


def slot_for(found: Sequence[Track], limit: int) -> int:
    """The shortest slot, a power of two, with which tracks have at most `limit` spans."""
    slot = 1
    while _count(found, slot) > limit:
        slot *= 2
    return slot


def _count(found: Sequence[Track], slot: int) -> int:
    if slot == 1:
        return sum(len(t.timeline) for t in found)
    return sum(int(np.unique(t.timeline.rows()[:, BEGIN] // slot).size) for t in found)


def layer_at(layers: Sequence[Layer], marks: Sequence[int]) -> Any:
    """A function from a cycle to the name of the layer whose window it is in, empty before the first."""
    ends = np.array([marks[s.end - 1] if s.end else 0 for s in layers], np.int64)
    first = marks[layers[0].first - 1] if layers and layers[0].first else 0

    def at(cycle: int) -> str:
        i = int(np.searchsorted(ends, cycle, side="right"))
        return "" if not layers or cycle < first or i >= len(layers) else layers[i].name

    return at


def chrome_trace(machine: Machine, parts: Sequence[tuple[Finished, Sequence[Layer]]], limit: int = LIMIT) -> str:
    """The JSON of one or more parts, each with its layers, one after another. Microseconds are cycles at the machine's clock."""
    processes: dict[str, int] = {}
    threads: dict[tuple[str, str], int] = {}
    events: list[dict[str, Any]] = []
    begin = 0
    for finished, layers in parts:
        found = tracks(finished.array)
        slot = slot_for(found, max(1, limit // len(parts)))
        layer = layer_at(layers, finished.marks)
        for track in found:
            pid = processes.setdefault(track.group, len(processes) + 1)
            tid = threads.setdefault((track.group, track.name), len(threads) + 1)
            for span in spans(finished.array, track, slot):
                events.append(_event(finished.array, track, span, layer(span.begin), begin, machine) | {"pid": pid, "tid": tid})
        begin += finished.cycles
    names: list[dict[str, Any]] = []
    for group, pid in processes.items():
        names.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": group}})
        names.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}})
    for (group, name), tid in threads.items():
        names.append({"ph": "M", "name": "thread_name", "pid": processes[group], "tid": tid, "args": {"name": name}})
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": names + events}, separators=(",", ":"))


def _event(array: ArrayState, track: Track, span: Span, layer: str, begin: int, machine: Machine) -> dict[str, Any]:
    """A span of a part that begins at cycle `begin`."""
    per_cycle = 1e6 / machine.clock_hz
    name = title(array, track, span)
    args: dict[str, Any] = {"layer": layer, "cycle": begin + span.begin, "cycles": span.end - span.begin}
    if span.work:
        args["words" if track.name != "core" else "products"] = span.work
    if span.count > 1:
        args["intervals"] = span.count
    return {
        "ph": "X",
        "name": f"{layer}: {name}" if layer else name,
        "cat": span.cause.value,
        "ts": round((begin + span.begin) * per_cycle, 6),
        "dur": round((span.end - span.begin) * per_cycle, 6),
        "args": args,
    }


def title(array: ArrayState, track: Track, span: Span) -> str:
    """What a span is, in a few words."""
    if track.tile is None:
        if span.cause is Cause.PEER:
            return f"wait for results, operation {span.number}"
        return f"operation {span.number}" if span.count == 1 else f"{span.count} operations to {span.number}"
    if track.name == "core":
        waits = span.cause in (Cause.DATA, Cause.WEIGHTS, Cause.RESULTS)
        return f"wait for {span.buffer}" if waits and span.buffer else span.cause.value
    what = span.buffer or f"descriptor {span.number}"
    return what if span.cause is Cause.BUSY else f"{what}: {_CHANNEL_WORDS[span.cause]}"


_CHANNEL_WORDS = {Cause.LOCK: "wait for lock", Cause.PEER: "wait for peer", Cause.START: "descriptor", Cause.IDLE: "idle"}
