"""What the AI-Engine backend has to show: a network's convolutions, and a matrix product, on a simulated array.

    python benchmarks/aie_array.py                      ResNet-50 and a product of 1024 x 1024 x 1024 on aie2:npu1
    python benchmarks/aie_array.py squeezenet --densities 1 0.5
    python benchmarks/aie_array.py --only-product

The network is compiled as a whole, seeded weights, dense and with shares of its 8 x 8 blocks, and executed from the emitted
streams; its outputs, and those of the product, have to be the interpreter's to the last bit. Cycles of a layer are from the end
of the one before to its own end, and `at least` is the roofline of what was carried out: what the busiest resource, which is
named, took at its full rate. `at most` is the speed-up over the dense layer that this resource allows: where it is below a goal,
the resource forbids that. Cycles are a model's estimates. `aie_layers.py` compiles each layer by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.aie_layers import Shape, measure
from benchmarks.aie_networks import LayerRow, Row
from benchmarks.aie_networks import measure as measure_network
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.part import peak as peak_of
from sparsec.compiler.cli.console import plain_table

DENSITIES = (1.0, 0.5, 0.25)
PRODUCT = Shape((1024, 1024), (32, 32), (1, 1), 1, (0, 0, 0, 0), residual=False)
GOALS = {1.0: ("of peak", 0.5), 0.5: ("times dense", 1.6), 0.25: ("times dense", 2.5)}
PRODUCT_GOAL = 0.8
_ALL = "all convolutions"


@dataclass(frozen=True)
class Measured:
    """A layer, `times` of which are in the network (the mean of them), or all of them, at a share of the blocks.

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


def measured(row: Row, dense: Row | None, peak: int) -> list[Measured]:
    """The convolutions of a network, equal ones together, and all of them."""
    before = {m.layer: m for m in _of_network(dense, peak)} if dense else {}
    return [_beside(m, before.get(m.layer)) for m in _of_network(row, peak)]


def _of_network(row: Row, peak: int) -> Iterator[Measured]:
    by_layer: dict[str, list[LayerRow]] = {}
    for layer in row.convolutions:
        by_layer.setdefault(layer.layer, []).append(layer)
    for name, found in by_layer.items():
        bound = Counter(f.bound[0] for f in found).most_common(1)[0][0]
        yield _mean(name, row.density, found, len(found), bound, peak)
    whole = _mean(_ALL, row.density, row.convolutions, 1, "", peak)
    yield whole


def _mean(name: str, density: float, found: Sequence[LayerRow], times: int, bound: str, peak: int) -> Measured:
    macs, cycles, least = (sum(values) for values in zip(*((f.macs, f.cycles, f.bound[1]) for f in found), strict=True))
    return Measured(name, times, density, macs // times, cycles / times, (bound, least / times), macs / cycles / peak)


def _beside(m: Measured, dense: Measured | None) -> Measured:
    """With its speed-ups over the dense one."""
    if dense is None:
        return m
    ratios = dense.cycles / m.cycles, dense.cycles / m.bound[1]
    return Measured(m.layer, m.times, m.density, m.macs, m.cycles, m.bound, m.peak_share, *ratios)


def product(target: str, densities: Sequence[float], peak: int) -> Iterator[Measured]:
    """The matrix product at each share of the blocks."""
    dense: Measured | None = None
    for density in densities:
        cycles, _, bound = measure(PRODUCT, density, target)
        if cycles is not None:
            made = Measured("1024 x 1024 x 1024", 1, density, PRODUCT.macs, cycles, bound, PRODUCT.macs / cycles / peak)
            dense = made if density == 1 else dense
            yield _beside(made, dense)


def layers_table(found: Sequence[Sequence[Measured]]) -> str:
    """A line a layer, the densities beside one another."""
    head = ["layer", ">times", ">MMAC"]
    lines = [[m.layer, str(m.times), f"{m.macs / 1e6:.1f}"] for m in found[0]]
    for column in found:
        density = column[0].density
        ends = [">of peak"] if density == 1 else [">speed-up", ">at most"]
        head += [f">cycles, {100 * density:g} %", *ends, ">at least", "by"]
        for line, m in zip(lines, column, strict=True):
            gains = [_ratio(m.speed_up), _ratio(m.at_most)] if density != 1 else [f"{100 * m.peak_share:.0f} %"]
            line += [f"{m.cycles:,.0f}", *gains, f"{m.bound[1]:,.0f}", m.bound[0]]
    return plain_table(head, lines)


def told(m: Measured, goal: tuple[str, float] | None) -> str:
    """A line about the whole, beside what is asked of it."""
    share = f"{100 * m.peak_share:.1f} % of peak"
    gain = "" if m.speed_up is None or m.density == 1 else f", {m.speed_up:.2f} times dense (at most {m.at_most:.2f})"
    wanted = ""
    if goal:
        reached = m.peak_share if goal[0] == "of peak" else m.speed_up
        shown = f"{100 * goal[1]:.0f} % of peak" if goal[0] == "of peak" else f"{goal[1]} times dense"
        wanted = f"; goal {shown}: {'met' if reached is not None and reached >= goal[1] else 'missed'}"
    least = f", at least {m.bound[1]:,.0f}"
    return f"{m.layer}, {100 * m.density:g} % of blocks: {m.cycles:,.0f} cycles, {share}{gain}{least}{wanted}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="resnet50", help="of `python -m models list` (default: resnet50)")
    parser.add_argument("--target", default="aie2:npu1", help="the array (default: aie2:npu1)")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of the image (default: 224)")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES, help="shares of blocks (default: 1 0.5 0.25)")
    parser.add_argument("--only-product", action="store_true", help="leave out the network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    options = parser.parse_args(arguments)
    peak = peak_of(machine_named(options.target), "int8")
    rows: list[Measured] = []
    columns: list[list[Measured]] = []
    whole: list[str] = []
    dense: Row | None = None
    for density in () if options.only_product else options.densities:
        row = measure_network(options.network, options.size, options.target, density)
        dense = row if density == 1 else dense
        columns.append(measured(row, dense, peak))
        rows += columns[-1]
        goal = GOALS.get(density) if (options.network, options.target, options.size) == ("resnet50", "aie2:npu1", 224) else None
        whole.append(told(columns[-1][-1], goal))
        whole.append(f"  the whole network: {row.cycles:,} cycles, and {row.seconds:.0f} s of processor time to find out")
        print(whole[-2], file=sys.stderr)
    for m in product(options.target, options.densities, peak):
        rows.append(m)
        goal = ("of peak", PRODUCT_GOAL) if m.density == 1 and options.target == "aie2:npu1" else None
        whole.append(told(m, goal))
    if columns:
        print(layers_table(columns))
    print("\n".join(whole))
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
