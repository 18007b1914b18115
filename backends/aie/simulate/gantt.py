"""A run, or one of its layers, as a picture: SVG with a line for the control stream, each core and each channel.

It is bounded whatever the run's length: a line has at most `_SLOTS` pieces, coloured by what most of their cycles went to.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.simulate.report import Layer
from sparsec.backends.aie.simulate.run import Finished
from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.backends.aie.simulate.trace import Span, Track, spans, title, tracks
from sparsec.compiler.errors import UsageError

_SLOTS = 600
_WIDTH, _LEFT, _LINE, _TOP = 1200, 170, 12, 64
_COLOURS = {
    Cause.COMPUTE: "#2e7d32",
    Cause.BUSY: "#1565c0",
    Cause.LOCK: "#9e9e9e",
    Cause.PEER: "#cfd8dc",
    Cause.START: "#5c6bc0",
    Cause.DATA: "#ef6c00",
    Cause.WEIGHTS: "#fbc02d",
    Cause.RESULTS: "#8e24aa",
    Cause.CASCADE: "#00acc1",
    Cause.IDLE: "#eceff1",
}
_NAMES = {
    Cause.COMPUTE: "compute",
    Cause.DATA: "core waits for data",
    Cause.WEIGHTS: "for weights",
    Cause.RESULTS: "for results to leave",
    Cause.CASCADE: "for the cascade",
    Cause.BUSY: "words move",
    Cause.START: "descriptor, latency",
    Cause.LOCK: "wait for lock",
    Cause.PEER: "for peer",
    Cause.IDLE: "nothing asked",
}


def gantt(machine: Machine, finished: Finished, layers: Sequence[Layer], only: str | None = None) -> str:
    """The SVG text, of the layer named `only` or of everything. UsageError when there is no such layer."""
    begin, end, shown = _window(finished, layers, only)
    array = finished.array
    slot = max(1, -(-(end - begin) // _SLOTS))
    scale = (_WIDTH - _LEFT - 20) / max(1, end - begin)
    lines: list[str] = []
    y = _TOP
    group = ""
    for track in tracks(array):
        found = spans(array, track, slot, begin, end)
        if not found:
            continue
        if track.group != group:
            y += 4
            group = track.group
            lines.append(f'<text x="4" y="{y + 9}" font-weight="bold">{escape(group)}</text>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 9}" text-anchor="end">{escape(track.name)}</text>')
        lines += [_bar(track, s, title(array, track, s), begin, scale, y) for s in _joined(found)]
        y += _LINE
    lines += _layer_marks(finished, shown, begin, scale, y)
    lines += _axis(machine, begin, end, scale, y)
    what = f"layer {only}" if only else "whole run"
    time = f"{(end - begin) / machine.clock_hz * 1e6:,.1f} us"
    head = f"{machine.name}, {what}: cycles {begin:,} to {end:,} ({time}); estimates of a model"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 40}" font-family="sans-serif" font-size="9">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<text x="4" y="16" font-size="13">{escape(head)}</text>\n'
        + "\n".join([*_legend(), *lines])
        + "\n</svg>\n"
    )


def _window(finished: Finished, layers: Sequence[Layer], only: str | None) -> tuple[int, int, list[tuple[str, int, int]]]:
    """Cycles to show, and the layers in them with their own."""
    marks = (0, *finished.marks)
    bounds = [(s.name, marks[s.first], marks[s.end]) for s in layers]
    if only is None:
        return 0, finished.cycles, bounds
    chosen = [b for b in bounds if b[0] == only]
    if not chosen:
        raise UsageError(f"there is no layer {only!r} on the array: expected one of {', '.join(s.name for s in layers)}")
    return chosen[0][1], chosen[0][2], chosen


def _joined(found: Sequence[Span]) -> list[Span]:
    """Neighbours of one cause and buffer as one, whose descriptors may differ."""
    made: list[Span] = []
    for s in found:
        last = made[-1] if made else None
        if last and (last.cause, last.buffer, last.end) == (s.cause, s.buffer, s.begin):
            made[-1] = Span(last.begin, s.end, s.cause, s.buffer, s.number, last.work + s.work, last.count + s.count)
        else:
            made.append(s)
    return made


def _bar(track: Track, s: Span, name: str, begin: int, scale: float, y: int) -> str:
    x, width = _LEFT + (s.begin - begin) * scale, max(0.3, (s.end - s.begin) * scale)
    colour = _COLOURS[s.cause]
    tip = escape(f"{track.group} {track.name}: {name}, cycles {s.begin:,} to {s.end:,}")
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_LINE - 2}" fill="{colour}"><title>{tip}</title></rect>' + (
        f'<text x="{x + 2:.1f}" y="{y + 8}" fill="white" font-size="8">{escape(name)}</text>' if _fits(s, name, width) else ""
    )


def _fits(s: Span, name: str, width: float) -> bool:
    return s.cause in (Cause.BUSY, Cause.COMPUTE, Cause.DATA, Cause.RESULTS, Cause.START) and width > 5 * len(name)


def _legend() -> list[str]:
    made, x = [], 4
    for cause, name in _NAMES.items():
        made.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{_COLOURS[cause]}" stroke="#90a4ae" stroke-width="0.5"/>')
        made.append(f'<text x="{x + 14}" y="35" font-size="10">{name}</text>')
        x += 24 + 6 * len(name)
    return made


def _layer_marks(finished: Finished, shown: Sequence[tuple[str, int, int]], begin: int, scale: float, bottom: int) -> list[str]:
    """A line where each layer begins, and its name where there is room."""
    made, free = [], 0.0
    for name, first, last in shown:
        x = _LEFT + (first - begin) * scale
        made.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 16}" y2="{bottom}" stroke="#b71c1c" stroke-width="0.5"/>')
        if x >= free and (last - first) * scale > 12:
            made.append(f'<text x="{x + 2:.1f}" y="{_TOP - 8}" fill="#b71c1c">{escape(name)}</text>')
            free = x + 6 + 5.2 * len(name)
    return made


def _axis(machine: Machine, begin: int, end: int, scale: float, y: int) -> list[str]:
    made = []
    step = 10 ** max(0, len(str(end - begin)) - 2)
    while (end - begin) // step > 12:
        step *= 2
    for cycle in range(-(-begin // step) * step, end + 1, step):
        x = _LEFT + (cycle - begin) * scale
        made.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 5}" stroke="black" stroke-width="0.5"/>')
        made.append(f'<text x="{x:.1f}" y="{y + 15}" text-anchor="middle">{cycle:,}</text>')
    made.append(f'<text x="{_LEFT}" y="{y + 30}">cycles of {machine.clock_hz / 1e9:g} GHz</text>')
    return made
