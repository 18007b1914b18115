"""Layers whose weights are 2:4 on a simulated AI-Engine array, beside dense ones and ones without half of their 8 x 8 blocks.

    python benchmarks/aie_sparse_b.py                   layers of ResNet-50, and matrix products, on aie2:npu1
    python benchmarks/aie_sparse_b.py --only 3x3        those with 3x3 in their names

Every layer is compiled by itself with seeded weights in the way that the cost model prefers, and executed from its emitted
streams; results are compared with the interpreter. Cycles are a model's estimates; speed-ups are over the dense layer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.aie_layers import Shape, measure
from sparsec.backends.aie.machine import machine_named
from sparsec.compiler.cli.console import plain_table

PATTERNS = {"dense": (1.0, 4), "block:8x8@50%": (0.5, 4), "2:4": (1.0, 2)}  # shares of blocks, weights of every four
_PADS = (1, 1, 1, 1)
_NONE = (0, 0, 0, 0)
SHAPES = (
    Shape((128, 128), (28, 28), (3, 3), 1, _PADS, False),
    Shape((256, 256), (14, 14), (3, 3), 1, _PADS, False),
    Shape((512, 512), (7, 7), (3, 3), 1, _PADS, False),
    Shape((512, 128), (28, 28), (1, 1), 1, _NONE, False),
    Shape((1024, 256), (14, 14), (1, 1), 1, _NONE, False),
    Shape((256, 1024), (14, 14), (1, 1), 1, _NONE, True),
    Shape((2048, 512), (7, 7), (1, 1), 1, _NONE, False),
    Shape((512, 512), (16, 32), (1, 1), 1, _NONE, False),
    Shape((1024, 1024), (32, 32), (1, 1), 1, _NONE, False),
)


@dataclass(frozen=True)
class Row:
    """A layer with a pattern: cycles, and the roofline of what was carried out: the busiest resource and its cycles."""

    layer: str
    pattern: str
    macs: int
    cycles: int
    bound_by: str
    bound: int
    seconds: float


def rows_of(shape: Shape, target: str) -> list[Row]:
    """The layer with all patterns."""
    found = []
    for pattern, (density, of_four) in PATTERNS.items():
        cycles, seconds, (by, bound) = measure(shape, density, target, of_four)
        if cycles is not None:
            found.append(Row(str(shape), pattern, shape.macs, cycles, by, bound, seconds))
            print(f"{shape}, {pattern}: {cycles:,} cycles, at least {bound:,} by {by}, {seconds:.0f} s", file=sys.stderr)
    return found


def table(rows: Sequence[Row], peak: int) -> str:
    """A line for each layer; `at least` is the roofline of the layer with 2:4 weights."""
    head = ["layer", ">MMAC", ">cycles, dense", ">of peak"]
    head += [part for p in list(PATTERNS)[1:] for part in (f">{p}", ">speed-up")] + [">at least", "by"]
    by_layer: dict[str, dict[str, Row]] = {}
    for r in rows:
        by_layer.setdefault(r.layer, {})[r.pattern] = r
    lines = []
    for name, found in by_layer.items():
        dense = found["dense"]
        line = [name, f"{dense.macs / 1e6:.1f}", f"{dense.cycles:,}", f"{100 * dense.macs / dense.cycles / peak:.0f} %"]
        for pattern in list(PATTERNS)[1:]:
            row = found.get(pattern)
            line += [f"{row.cycles:,}", f"{dense.cycles / row.cycles:.2f}"] if row else ["does not fit", ""]
        last = found.get("2:4", dense)
        lines.append([*line, f"{last.bound:,}", last.bound_by])
    return plain_table(head, lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="aie2:npu1")
    parser.add_argument("--only", default="", metavar="TEXT", help="only layers with this in their names")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    machine = machine_named(options.target)
    rows = [r for shape in SHAPES if options.only in str(shape) for r in rows_of(shape, options.target)]
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    print(f"{machine.name}, {machine.macs_per_cycle} int8 products a cycle")
    print(table(rows, machine.macs_per_cycle))


if __name__ == "__main__":
    main()
