"""Where the cycles of a run went, layer by layer, beside what the machine could have done at best.

A layer's window begins when the control stream has carried out the last operation before it and ends with its own last. What
happens in a window counts for its layer, so where layers overlap, the first cycles of one are found in the one before.

The roofline of a layer is the most that any one resource was really used in its window, in cycles: products of the busiest
core at one vector instruction a cycle, words of the busiest channel of every kind at its rate, and DDR traffic at the
machine's bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.part import part_of, peak
from sparsec.backends.aie.registers import Direction, Kind, Tile
from sparsec.backends.aie.simulate.array import ArrayState, ChannelKey
from sparsec.backends.aie.simulate.run import Finished
from sparsec.backends.aie.simulate.timeline import CHANNEL_CAUSES, CORE_CAUSES, TAG, WORK, Cause
from sparsec.compiler.errors import InternalError, ModelError

_WORD = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as the manifest has it: its name, its operations [first, end) of the control stream, its dense products and what
    they multiply, by the name among the machine's matrix instructions."""

    name: str
    first: int
    end: int
    macs: int
    element: str = "int8"

    @staticmethod
    def of(entry: Mapping[str, Any]) -> tuple[Layer, ...]:
        """The layers of a part of the manifest. ModelError when an entry is none."""
        try:
            return tuple(
                Layer(_named(e), e["operations"][0], e["operations"][1], e["macs"], e["element"]) for e in entry["layers"]
            )
        except (KeyError, TypeError, IndexError) as exc:
            raise ModelError(f"the manifest's layers of {entry.get('control')!r} are not as expected: {exc!r}") from exc


def _named(entry: Mapping[str, Any]) -> str:
    """A layer's name: that of its node, and which channels of it."""
    part = entry.get("channels")
    return f"{entry['node']} [{part[0]}-{part[1]}]" if part else str(entry["node"])


@dataclass(frozen=True)
class ChannelUse:
    """What a channel did in a window: cycles by cause, and the words that it moved, by what they are."""

    cycles: Mapping[Cause, int]
    words: Mapping[str, int]


@dataclass(frozen=True)
class LayerCycles:
    """One layer. `begin` and `end` bound its window in cycles; `macs` are the dense layer's, `least` the cycles that they take
    the array at its peak, `products` those that cores started (vector instructions of the busiest core, and of all); DDR in
    bytes; `roofline` cycles by resource."""

    name: str
    begin: int
    end: int
    macs: int
    least: float
    busiest_products: int
    products: int
    cores: Mapping[Tile, Mapping[Cause, int]]
    channels: Mapping[ChannelKey, ChannelUse]
    ddr_read: int
    ddr_written: int
    roofline: Mapping[str, int]

    @property
    def cycles(self) -> int:
        """The window's length."""
        return self.end - self.begin

    @property
    def bound(self) -> tuple[str, int]:
        """The resource that the roofline is made of, and its cycles."""
        name = max(self.roofline, key=lambda r: self.roofline[r])
        return name, self.roofline[name]

    def mean(self) -> dict[Cause, float]:
        """Cycles of a core by cause, averaged over cores."""
        count = max(1, len(self.cores))
        return {cause: sum(c[cause] for c in self.cores.values()) / count for cause in CORE_CAUSES}

    @property
    def peak_share(self) -> float:
        """Dense products over what the array could have done in the window; above 1 where zeros were skipped well."""
        return self.least / self.cycles if self.cycles else 0.0


@dataclass(frozen=True)
class RunCycles:
    """A run of one control stream: its layers, and all of it as one."""

    machine: Machine
    layers: tuple[LayerCycles, ...]
    whole: LayerCycles

    def text(self) -> str:
        """A table for people: a line a layer, then the whole."""
        return _table(self.machine, [*self.layers, self.whole])


def measure(machine: Machine, finished: Finished, layers: Sequence[Layer]) -> RunCycles:
    """Cut a run into its layers. InternalError when it took less than its roofline: then the model is wrong."""
    array, marks = finished.array, finished.marks
    if bad := next((s for s in layers if not 0 <= s.first <= s.end <= len(marks)), None):
        raise ModelError(
            f"layer {bad.name!r} has operations {bad.first} to {bad.end}: the control stream has {len(marks)}; compile again"
        )
    found = []
    for layer in layers:
        begin, end = (0, *marks)[layer.first], (0, *marks)[layer.end]
        least = layer.macs / peak(machine, layer.element)
        found.append(_window(machine, array, layer.name, (begin, end), layer.macs, least))
    macs, least = sum(s.macs for s in layers), sum(f.least for f in found)
    return RunCycles(machine, tuple(found), _window(machine, array, "all", (0, finished.cycles), macs, least))


def _window(machine: Machine, array: ArrayState, name: str, window: tuple[int, int], macs: int, least: float) -> LayerCycles:
    begin, end = window
    cores = {t: c.timeline.cycles(begin, end) for t, c in array.cores.items()}
    products = [int(c.timeline.within(begin, end)[:, WORK].sum()) for c in array.cores.values()]
    channels = {key: _use(array, key, begin, end) for key in array.channels}
    moved = {
        d: _WORD * sum(sum(u.words.values()) for k, u in channels.items() if k[1] is d and array.grid.kind(k[0]) is Kind.SHIM)
        for d in Direction
    }
    read, written = moved[Direction.MM2S], moved[Direction.S2MM]
    busiest = max(products, default=0)
    roofline = {"products": busiest, **_streams(array, channels)}
    for what, volume in (("DDR reads", read), ("DDR writes", written)):
        roofline[what] = -(-volume // machine.costs.ddr_bytes_per_cycle)
    used = LayerCycles(name, begin, end, macs, least, busiest, sum(products), cores, channels, read, written, roofline)
    if used.bound[1] > used.cycles:
        raise InternalError(
            f"layer {name!r} took {used.cycles} cycles in simulation, less than the {used.bound[1]} of its {used.bound[0]}: "
            "the model of the array is wrong"
        )
    return used


def _use(array: ArrayState, key: ChannelKey, begin: int, end: int) -> ChannelUse:
    timeline = array.channels[key].timeline
    rows = timeline.within(begin, end)
    words = np.bincount(rows[:, TAG], rows[:, WORK], 1).astype(np.int64) if len(rows) else np.zeros(1, np.int64)
    named = {array.ddr.name(t): int(words[t]) for t in np.flatnonzero(words).tolist()}
    return ChannelUse({c: n for c, n in timeline.cycles(begin, end).items() if c in CHANNEL_CAUSES}, named)


def _streams(array: ArrayState, channels: Mapping[ChannelKey, ChannelUse]) -> dict[str, int]:
    """Cycles of the busiest channel of each kind of tile and direction, from its words and its rate."""
    found: dict[str, int] = {}
    for key, use in channels.items():
        what = f"{array.grid.kind(key[0]).value} {'in' if key[1] is Direction.S2MM else 'out'}"
        cycles = int(sum(use.words.values()) / array.channels[key].words_per_cycle)
        found[what] = max(found.get(what, 0), cycles)
    return found


_SHOWN = (
    ("compute", (Cause.COMPUTE,)),
    ("pipe", (Cause.PIPELINE,)),
    ("banks", (Cause.BANK,)),
    ("jumps", (Cause.JUMP,)),
    ("lock", (Cause.LOCK,)),
    ("data", (Cause.DATA,)),
    ("weights", (Cause.WEIGHTS,)),
    ("results", (Cause.RESULTS,)),
    ("cascade", (Cause.CASCADE,)),
    ("idle", (Cause.IDLE,)),
)


def _table(machine: Machine, layers: Sequence[LayerCycles]) -> str:
    """One line a layer: cycles, share of the peak rate, roofline, then where a mean core's time went in percent."""
    head = ["layer", "cycles", "% peak", "roofline", "bound by", "x roofline", *(name for name, _ in _SHOWN), "DDR MB"]
    rows = []
    for layer in layers:
        bound, least = layer.bound
        mean = layer.mean()
        row = [layer.name, f"{layer.cycles:,}", f"{100 * layer.peak_share:.1f}", f"{least:,}", bound]
        row.append(f"{layer.cycles / least:.2f}" if least else "-")
        row += [f"{100 * sum(mean[c] for c in causes) / max(1, layer.cycles):.1f}" for _, causes in _SHOWN]
        row.append(f"{(layer.ddr_read + layer.ddr_written) / 1e6:.2f}")
        rows.append(row)
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    left = {0, 4}
    lines = [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in (head, *rows)
    ]
    most = peak(machine, "int8")
    note = (
        f"{machine.name}: cycles are a model's estimates. % peak: the dense layer's products over {most:,} "
        f"a cycle ({peak(machine, 'bf16'):,} of bfloat16). From compute on: % of the cycles of a core, mean of all"
    )
    part = part_of(machine.grid)
    if most != machine.macs_per_cycle and part is not None:
        note += f"\n{part.told()}; the whole array's peak is {machine.macs_per_cycle:,} a cycle"
    return "\n".join([*(line.rstrip() for line in lines), note]) + "\n"
