"""What the AI-Engine backend has to show: a network's convolutions, and a matrix product, on a simulated array.

    python benchmarks/aie_array.py                      ResNet-50 and a product of 1024 x 1024 x 1024 on aie2:npu1
    python benchmarks/aie_array.py squeezenet --densities 1 0.5
    python benchmarks/aie_array.py --only-product

The network is compiled as a whole, seeded weights, dense and with shares of its 8 x 8 blocks, random ones and even rows of them
(2 or 1 of every 4, as the patterns `block:8x8/2:4` and `block:8x8/1:4` keep), and executed from the emitted streams; its outputs,
and those of the product, have to be the interpreter's to the last bit. Cycles of a layer are from the end of the one before to
its own end, and `at least` is the roofline of what was carried out: what the busiest resource, which is named, took at its full
rate. `at most` is the speed-up over the dense layer that this resource allows: where it is below a goal, the resource forbids
that, and a line says for how many layers, and what the others reach together. Cycles are a model's estimates. `aie_layers.py`
compiles each layer by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.aie_convolutions import LayerRow, Measured, beside, layers_table, limits, measured
from benchmarks.aie_layers import Shape, measure
from benchmarks.aie_networks import measure as measure_network
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.part import peak as peak_of

DENSITIES = (1.0, 0.5, 0.25)
EVEN = (0.5, 0.25)
PRODUCT = Shape((1024, 1024), (32, 32), (1, 1), 1, (0, 0, 0, 0), residual=False)
GOALS = {1.0: ("of peak", 0.5), 0.5: ("times dense", 1.6), 0.25: ("times dense", 2.5)}
PRODUCT_GOAL = 0.8


def product(target: str, densities: Sequence[float], peak: int) -> Iterator[Measured]:
    """The matrix product at each share of the blocks."""
    dense: Measured | None = None
    for density in densities:
        cycles, _, bound = measure(PRODUCT, density, target)
        if cycles is not None:
            made = Measured("1024 x 1024 x 1024", 1, density, PRODUCT.macs, cycles, bound, PRODUCT.macs / cycles / peak)
            dense = made if density == 1 else dense
            yield beside(made, dense)


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
    where = ", even rows" if m.even else ""
    return f"{m.layer}, {100 * m.density:g} % of blocks{where}: {m.cycles:,.0f} cycles, {share}{gain}{least}{wanted}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="resnet50", help="of `python -m models list` (default: resnet50)")
    parser.add_argument("--target", default="aie2:npu1", help="the array (default: aie2:npu1)")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of the image (default: 224)")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES, help="shares of blocks (default: 1 0.5 0.25)")
    parser.add_argument("--even", type=float, nargs="*", default=EVEN, help="the same in even rows (default: 0.5 0.25)")
    parser.add_argument("--only-product", action="store_true", help="leave out the network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    options = parser.parse_args(arguments)
    peak = peak_of(machine_named(options.target), "int8")
    rows: list[Measured] = []
    columns: list[list[Measured]] = []
    whole: list[str] = []
    dense: tuple[LayerRow, ...] = ()
    wanted = [(density, even) for even, every in enumerate((options.densities, options.even)) for density in every]
    for density, even in () if options.only_product else wanted:
        row = measure_network(options.network, options.size, options.target, density, even=bool(even))
        dense = row.convolutions if density == 1 else dense
        columns.append(measured(density, row.convolutions, dense, peak, even=row.even))
        rows += columns[-1]
        goal = GOALS.get(density) if (options.network, options.target, options.size) == ("resnet50", "aie2:npu1", 224) else None
        line = told(columns[-1][-1], goal)
        print(line, file=sys.stderr)
        whole.append(line)
        if goal and density != 1 and (limited := limits(columns[-1], goal[1])):
            whole.append(f"  {limited}")
        whole.append(f"  the whole network: {row.cycles:,} cycles, and {row.seconds:.0f} s of processor time to find out")
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
