"""Speed-up over sparsity, a panel a network and a line an array, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.systolic_networks import PAPER

WIDTH, HEIGHT, LEFT, TOP, GAP = 240, 200, 36, 28, 52
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e")


def picture(records: Sequence[Mapping[str, Any]]) -> str:
    """The rows of the part networks whose vectors are as tall as their array; the band is the published range."""
    tall = [r for r in records if r["pattern"].startswith("block:") and "x1/" in r["pattern"]]
    names = list(dict.fromkeys(r["model"] for r in tall))
    top = 1.05 * max((r["speedup"] for r in tall), default=1.0)
    total = LEFT + len(names) * (WIDTH + GAP)
    parts = [_panel([r for r in tall if r["model"] == n], n, LEFT + i * (WIDTH + GAP), top) for i, n in enumerate(names)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{HEIGHT + 76}" font-family="sans-serif" font-size="11">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def _panel(records: Sequence[Mapping[str, Any]], name: str, x: int, top: float) -> str:
    def across(sparsity: float) -> float:
        return x + (sparsity - 0.45) / 0.5 * WIDTH

    def up(speedup: float) -> float:
        return TOP + HEIGHT * (1 - speedup / top)

    out = [f'<text x="{x}" y="{TOP - 10}" font-weight="bold">{name}</text>']
    band = up(PAPER[0]) - up(min(PAPER[1], top))
    out.append(f'<rect x="{x}" y="{up(min(PAPER[1], top)):.1f}" width="{WIDTH}" height="{band:.1f}" fill="#eeeeee"/>')
    for value in range(int(top) + 1):
        out.append(f'<text x="{x - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value}</text>')
        out.append(f'<line x1="{x}" x2="{x + WIDTH}" y1="{up(value):.1f}" y2="{up(value):.1f}" stroke="#cccccc"/>')
    arrays = list(dict.fromkeys(r["array"] for r in records))
    for array, colour in zip(arrays, COLOURS, strict=False):
        points = sorted((_sparsity(r["pattern"]), r["speedup"]) for r in records if r["array"] == array)
        line = " ".join(f"{across(s):.1f},{up(v):.1f}" for s, v in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{across(s):.1f}" cy="{up(v):.1f}" r="3" fill="{colour}"/>' for s, v in points]
        place = x + 70 * arrays.index(array)
        out.append(f'<text x="{place}" y="{TOP + HEIGHT + 36}" fill="{colour}">{array.partition(":")[2]}</text>')
    for sparsity in sorted({_sparsity(r["pattern"]) for r in records}):
        out.append(f'<text x="{across(sparsity):.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{100 * sparsity:.0f} %</text>')
    return "\n".join(out)


def _sparsity(pattern: str) -> float:
    return float(pattern.partition("@")[2].partition("%")[0]) / 100
