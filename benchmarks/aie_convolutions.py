"""The convolutions of a network on a simulated array as a table: equal ones together, densities beside one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sparsec.compiler.cli.console import plain_table

_ALL = "all convolutions"


@dataclass(frozen=True)
class LayerRow:
    """A convolution in its network: products when dense, cycles, and the resource that it used longest with its cycles."""

    layer: str
    macs: int
    cycles: int
    bound: tuple[str, int]


@dataclass(frozen=True)
class Measured:
    """A layer, `times` of which are in the network (the mean of them), or all of them, at a share of the blocks: of all of them,
    or in every row of blocks so many of every 4 (`even`).

    `bound` is the resource that was used longest, and for how many cycles. `speed_up` is over the dense one, `at_most` what the
    bound allows of it; both are None where nothing dense was measured.
    """

    layer: str
    times: int
    density: float
    macs: int
    cycles: float
    bound: tuple[str, float]
    peak_share: float
    speed_up: float | None = None
    at_most: float | None = None
    even: bool = False


def measured(
    density: float, found: Sequence[LayerRow], dense: Sequence[LayerRow], peak: int, *, even: bool = False
) -> list[Measured]:
    """The convolutions of a network, equal ones together, and all of them, beside the `dense` ones where there are any."""
    before = {m.layer: m for m in _of_network(1.0, dense, peak)} if dense else {}
    return [replace(beside(m, before.get(m.layer)), even=even) for m in _of_network(density, found, peak)]


def share_of_blocks(density: float, *, even: bool) -> str:
    """A share of the blocks in words."""
    return f"{100 * density:g} %{' even' if even else ''}"


def _of_network(density: float, convolutions: Sequence[LayerRow], peak: int) -> Iterator[Measured]:
    by_layer: dict[str, list[LayerRow]] = {}
    for layer in convolutions:
        by_layer.setdefault(layer.layer, []).append(layer)
    for name, found in by_layer.items():
        bound = Counter(f.bound[0] for f in found).most_common(1)[0][0]
        yield _mean(name, density, found, len(found), bound, peak)
    yield _mean(_ALL, density, convolutions, 1, "", peak)


def _mean(name: str, density: float, found: Sequence[LayerRow], times: int, bound: str, peak: int) -> Measured:
    macs, cycles, least = (sum(values) for values in zip(*((f.macs, f.cycles, f.bound[1]) for f in found), strict=True))
    return Measured(name, times, density, macs // times, cycles / times, (bound, least / times), macs / cycles / peak)


def beside(m: Measured, dense: Measured | None) -> Measured:
    """With its speed-ups over the dense one."""
    if dense is None:
        return m
    return replace(m, speed_up=dense.cycles / m.cycles, at_most=dense.cycles / m.bound[1])


def limits(found: Sequence[Measured], goal: float) -> str:
    """A line about layers for which their busiest resource forbids a speed-up over the dense ones, and about the others; "" where
    nothing dense was measured."""
    layers = [m for m in found if m.layer != _ALL and m.speed_up is not None and m.at_most is not None]
    forbidden = [m for m in layers if m.at_most is not None and m.at_most < goal]
    others = [m for m in layers if m not in forbidden]
    if not layers:
        return ""
    by = Counter[str]()
    for m in forbidden:
        by[m.bound[0]] += m.times
    count, every = (sum(m.times for m in some) for some in (forbidden, layers))
    told = f"by their busiest resource for {count} of {every} layers"
    if forbidden:
        told += f" ({', '.join(f'{name} {n}' for name, n in by.most_common())}), which are {_together(forbidden):.2f} times dense"
    if others:
        told += f"; the other {every - count} are {_together(others):.2f} times dense"
    return f"{goal} times dense is forbidden {told}"


def _together(layers: Sequence[Measured]) -> float:
    """The speed-up of layers that all have one."""
    return sum(m.times * m.cycles * (m.speed_up or 0.0) for m in layers) / sum(m.times * m.cycles for m in layers)


def layers_table(found: Sequence[Sequence[Measured]]) -> str:
    """A line a layer, the densities beside one another."""
    head = ["layer", ">times", ">MMAC"]
    lines = [[m.layer, str(m.times), f"{m.macs / 1e6:.1f}"] for m in found[0]]
    for column in found:
        density, even = column[0].density, column[0].even
        ends = [">of peak"] if density == 1 else [">speed-up", ">at most"]
        head += [f">cycles, {share_of_blocks(density, even=even)}", *ends, ">at least", "by"]
        for line, m in zip(lines, column, strict=True):
            gains = [_ratio(m.speed_up), _ratio(m.at_most)] if density != 1 else [f"{100 * m.peak_share:.0f} %"]
            line += [f"{m.cycles:,.0f}", *gains, f"{m.bound[1]:,.0f}", m.bound[0]]
    return plain_table(head, lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
