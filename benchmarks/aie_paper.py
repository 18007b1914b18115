"""Block sparsity on AIE2 arrays as published, by the paper's estimator, and by ours that counts products.

    python benchmarks/aie_paper.py                 three networks on 2x2 .. 8x8 cores, dense and with half of the 8x8 blocks
    python benchmarks/aie_paper.py --log FILE      beside the instructions that the paper's authors logged, layer by layer

Published are totals of D'Alberto et al., arXiv 2407.09453. All times are estimates from shapes; nothing is run. The log is a
CSV file (.gz or not) with the columns model, k, weights, instruction, layer, start_us, end_us, duration_us, iterations.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import models
from sparsec.backends.aie.estimate.network import Layer, layers_of
from sparsec.backends.aie.estimate.paper import LayerTime, paper_layers
from sparsec.backends.aie.estimate.physical import physical_layers
from sparsec.backends.aie.machine import machine_named
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.errors import LimitError, UsageError
from sparsec.compiler.importer.api import import_model

SIZES = range(2, 9)
DENSITIES = {"dense": 1.0, "sparse": 0.5}
NETWORKS = {"resnet50": "resnet50", "inceptionv3": "inception_v3", "vgg16_nofc": "vgg16"}  # published name -> of models/

# Milliseconds, dense and with 50 % of the 8x8 blocks (arXiv 2407.09453); the published logs are of these sizes.
PUBLISHED = {
    (2, "resnet50"): (24.923, 15.826),
    (2, "inceptionv3"): (42.838, 24.405),
    (2, "vgg16_nofc"): (44.762, 26.086),
    (4, "resnet50"): (10.773, 7.065),
    (4, "inceptionv3"): (17.410, 10.125),
    (4, "vgg16_nofc"): (13.710, 8.852),
    (8, "resnet50"): (6.377, 4.602),
    (8, "inceptionv3"): (9.093, 5.666),
    (8, "vgg16_nofc"): (9.203, 6.502),
}


@dataclass(frozen=True)
class Row:
    """A network on an array: milliseconds, None where unknown. `note` says why there is none, or what no log confirms."""

    k: int
    model: str
    weights: str
    published_ms: float | None
    paper_ms: float | None
    physical_ms: float
    roofline_ms: float
    note: str = ""

    @property
    def error(self) -> float | None:
        """Of the paper's estimator as we have it, against what is published."""
        if self.published_ms is None or self.paper_ms is None:
            return None
        return self.paper_ms / self.published_ms - 1


@dataclass
class Logged:
    """A layer of the log: microseconds from its first to its last instruction."""

    name: str
    begin: float
    end: float = 0.0
    segments: int = 0
    moved: dict[str, float] = field(default_factory=dict)

    @property
    def time(self) -> float:
        """From its first instruction to its last."""
        return self.end - self.begin


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE too")
    parser.add_argument("--log", type=Path, metavar="FILE", help="compare with logged instructions, layer by layer")
    arguments = parser.parse_args(argv)
    networks = {name: layers_of(import_model(models.build(model, seed=0))) for name, model in NETWORKS.items()}
    if arguments.log:
        try:
            print(compare(networks, read_log(arguments.log)))
        except (UsageError, OSError) as exc:
            parser.error(str(exc))
        return 0
    rows = [row(k, name, weights, layers) for name, layers in networks.items() for k in SIZES for weights in DENSITIES]
    print(report(rows))
    if arguments.json:
        records = [{key: value for key, value in asdict(r).items() if value != ""} for r in rows]
        arguments.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


def row(k: int, model: str, weights: str, layers: Sequence[Layer]) -> Row:
    """All estimates of one cell."""
    density, machine = DENSITIES[weights], machine_named(f"aie2:{k}x{k}")
    published = dict(zip(DENSITIES, PUBLISHED.get((k, model), (None, None)), strict=True))[weights]
    paper, note = None, ""
    try:
        times = paper_layers(layers, k, density)
        paper = sum(t.time for t in times) / 1e3
        doubts = [t.doubt for t in times if t.doubt]
        note = f"{doubts[0]}{_more(len(doubts) - 1)}: cut along input channels, which no log shows" if doubts else ""
    except LimitError as exc:
        note = str(exc)
    ours = physical_layers(layers, machine, density)
    ms = 1e3 / machine.clock_hz
    return Row(k, model, weights, published, paper, sum(t.cycles for t in ours) * ms, sum(t.roofline for t in ours) * ms, note)


def report(rows: Sequence[Row]) -> str:
    """The rows as a table, and how well the paper's estimator is met."""
    columns = [">k", "model", "weights", ">published ms", ">paper ms", ">error", ">physical ms", ">roofline ms", "note"]
    cells = [
        [
            str(r.k),
            r.model,
            r.weights,
            _ms(r.published_ms),
            _ms(r.paper_ms),
            "" if r.error is None else f"{100 * r.error:+.2f} %",
            _ms(r.physical_ms),
            _ms(r.roofline_ms),
            r.note,
        ]
        for r in rows
    ]
    errors = [abs(r.error) for r in rows if r.error is not None]
    summary = f"paper against published, {len(errors)} totals: median {median(errors):.2%}, at most {max(errors):.2%}"
    return (
        f"{plain_table(columns, cells)}\n{summary}\n"
        "All times are estimates. The paper's charge a convolution's input tile where output channels belong (docs/aie_paper.md)."
    )


def _more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def read_log(path: Path) -> dict[tuple[str, int, str], list[Logged]]:
    """The layers of every run in a log of instructions, in order, without inputs and concatenations (which take no time)."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    found: dict[tuple[str, int, str], list[Logged]] = {}
    for run, layer in _logged(csv.DictReader(text.splitlines()), path):
        found.setdefault(run, []).append(layer)
    return found


def _logged(lines: csv.DictReader[str], path: Path) -> Iterator[tuple[tuple[str, int, str], Logged]]:
    """A layer is what lies between two WRITEs."""
    layer: Logged | None = None
    for line in lines:
        try:
            run, what = (line["model"], int(line["k"]), line["weights"]), line["instruction"]
            begin, end, duration = (float(line[column]) for column in ("start_us", "end_us", "duration_us"))
        except (KeyError, ValueError, TypeError) as exc:
            raise UsageError(f"{path}: line {lines.line_num}: expected the columns of an instruction log: {exc}") from None
        if layer is None:
            layer = Logged("", begin)
        layer.begin, layer.end = min(layer.begin, begin), max(layer.end, end)
        layer.moved[what] = layer.moved.get(what, 0.0) + duration
        layer.segments += what == "WRITEFM"
        layer.name = line["layer"] or layer.name
        if what == "WRITE":
            if not layer.name.startswith(("data_", "concat_")):
                yield run, layer
            layer = None


def compare(networks: Mapping[str, Sequence[Layer]], log: Mapping[tuple[str, int, str], Sequence[Logged]]) -> str:
    """Per run, how many layers take the logged time within 2 %, and the others."""
    summary, apart = [], []
    for (model, k, weights), logged in log.items():
        if model not in networks or weights not in DENSITIES:
            raise UsageError(f"the log has {model!r}, {weights!r}: expected {', '.join(networks)}, {' or '.join(DENSITIES)}")
        times = paper_layers(networks[model], k, DENSITIES[weights])
        if len(times) != len(logged):
            raise UsageError(f"the log has {len(logged)} layers of {model} on {k}x{k}: expected {len(times)}")
        off = [(t, seen) for t, seen in zip(times, logged, strict=True) if abs(t.time - seen.time) > 0.02 * seen.time + 0.05]
        total, total_logged = sum(t.time for t in times), sum(seen.time for seen in logged)
        counts = f"{len(times) - len(off)}/{len(times)}"
        summary.append([model, str(k), weights, f"{total_logged / 1e3:.3f}", f"{total / 1e3:.3f}", counts])
        apart += [[model, str(k), weights, *_difference(t, seen)] for t, seen in off]
    parts = [plain_table(["model", ">k", "weights", ">logged ms", ">paper ms", ">layers within 2 %"], summary)]
    if apart:
        columns = ["model", ">k", "weights", "layer", ">logged us", ">paper us", ">LOAD", ">paper", ">WRITE", ">paper"]
        parts += ["", plain_table([*columns, ">segments", ">paper"], apart)]
    return "\n".join(parts)


def _difference(t: LayerTime, seen: Logged) -> list[str]:
    numbers = (seen.time, t.time, seen.moved.get("LOAD", 0.0), t.load, seen.moved.get("WRITE", 0.0), t.write)
    return [t.layer.name, *(f"{n:.1f}" for n in numbers), str(seen.segments), str(len(t.segments))]


if __name__ == "__main__":
    raise SystemExit(main())
