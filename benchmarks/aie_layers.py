"""Convolutions of a network, each by itself, on a simulated AI-Engine array: cycles beside what the machine allows.

    python benchmarks/aie_layers.py                     ResNet-50's layers on aie2:npu1
    python benchmarks/aie_layers.py --layers 4          only the four layers with most products

Every different layer is compiled by itself with seeded weights, dense and with a share of its 8 x 8 blocks, and executed from its
emitted streams; results are compared with the interpreter. A layer that a network has several times counts as often. Cycles are
a model's estimates.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import models
from models.byte_layer import conv_graph
from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.network import lower
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.part import peak as peak_of
from sparsec.backends.aie.simulate.model import ArrayModel
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.errors import FitError, InternalError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.segments import Part
from sparsec.passes.pipelines import DEFAULT

DENSITIES = (1.0, 0.5, 0.25)
SHIFT = 14  # so that sums of bytes fill bytes


@dataclass(frozen=True)
class Shape:
    """A convolution."""

    channels: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: int
    pads: tuple[int, int, int, int]
    residual: bool

    def __str__(self) -> str:
        kernel, size = "x".join(map(str, self.kernel)), "x".join(map(str, self.size))
        more = (f"/{self.stride}" if self.stride > 1 else "") + (" +" if self.residual else "")
        return f"{self.channels[0]} > {self.channels[1]} {kernel}{more} @{size}"

    @property
    def macs(self) -> int:
        """Products of the dense layer."""
        rows, columns = (
            (n + self.pads[i] + self.pads[2 + i] - self.kernel[i]) // self.stride + 1 for i, n in enumerate(self.size)
        )
        return rows * columns * self.channels[0] * self.channels[1] * self.kernel[0] * self.kernel[1]


@dataclass(frozen=True)
class Row:
    """A layer at a density: cycles, None where it does not fit, and the roofline: the most cycles of any resource, and which."""

    layer: str
    times: int
    density: float
    macs: int
    cycles: int | None
    seconds: float
    bound: tuple[str, int] = ("", 0)


def shapes_of(name: str) -> Counter[Shape]:
    """The convolutions of a network, how often each is there."""
    graph = run_pipeline(import_model(models.build(name, seed=0)), DEFAULT)
    found: Counter[Shape] = Counter()
    for node in graph:
        if isinstance(node.op, Conv) and node.op.groups == 1:
            x, w = graph.types[node.inputs[0]].shape, graph.types[node.inputs[1]].shape
            residual = any(graph.types[v].rank == 4 and v not in graph.constants for v in node.inputs[2:])
            pads = node.op.pads
            shape = Shape((x[1], w[0]), (x[2], x[3]), (w[2], w[3]), node.op.strides[0], (*pads[:2], *pads[2:4]), residual)  # type: ignore[arg-type]
            found[shape] += 1
    return found


def measure(shape: Shape, density: float, target: str, of_four: int = 4) -> tuple[int | None, float, tuple[str, int]]:
    """Cycles of the layer's whole stream, the seconds that simulating took, and the roofline, for weights of which a share of the
    8 x 8 blocks is not zero, or so many of every four. InternalError for wrong values."""
    rng = np.random.default_rng(0)
    graph = conv_graph(
        rng,
        shape.channels,
        shape.size,
        shape.kernel,
        stride=shape.stride,
        pads=shape.pads,
        residual=shape.residual,
        shift=SHIFT,
        residual_shift=SHIFT - 2,
        density=density,
        of_four=of_four,
    )
    feeds = {v: rng.integers(0, 256, graph.types[v].shape).astype(np.uint8) for v in graph.inputs}
    start = time.perf_counter()
    try:
        run = _run(graph, feeds, target)
    except FitError:
        return None, 0.0, ("", 0)
    seconds = time.perf_counter() - start
    if not np.array_equal(run.outputs["y"], interpret(graph, feeds)["y"]):
        raise InternalError(f"{shape} at density {density}: the array's results are not the interpreter's")
    return run.cycles, seconds, run.parts[0].cycles(machine_named(target)).whole.bound


def _run(graph: Graph, feeds: Mapping[str, Any], target: str) -> Any:
    def no_host(entry: Mapping[str, Any]) -> Part:
        raise InternalError(f"{entry['nodes']} should be on the array")

    with tempfile.TemporaryDirectory() as folder:
        for name, data in emit(lower(graph, machine_named(target))).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return ArrayModel(folder).run(feeds, no_host)


def table(rows: Sequence[Row], peak: int) -> str:
    """Layers and their sum, each density in columns of its own; what bounds it is the busiest resource, with its cycles."""
    columns = ["layer", ">times", ">MMAC"]
    for d in DENSITIES:
        columns += [f">cycles at {100 * d:g} %", ">of peak"] if d == 1 else [f">cycles at {100 * d:g} %", ">speed-up"]
        columns.append("bound by")
    by_layer: dict[str, list[Row]] = {}
    for r in rows:
        by_layer.setdefault(r.layer, []).append(r)
    lines = [_line(name, found, peak) for name, found in by_layer.items()]
    whole = [found for found in by_layer.values() if all(r.cycles is not None for r in found)]
    if not whole:
        return plain_table(columns, lines)
    total = [
        Row(
            "all that fit",
            1,
            d,
            sum(f[i].macs * f[i].times for f in whole),
            sum((f[i].cycles or 0) * f[i].times for f in whole),
            0.0,
            ("roofline", sum(f[i].bound[1] * f[i].times for f in whole)),
        )
        for i, d in enumerate(DENSITIES)
    ]
    return plain_table(columns, [*lines, _line("all that fit", total, peak)])


def _line(name: str, found: Sequence[Row], peak: int) -> list[str]:
    cells = [name, str(found[0].times), f"{found[0].macs / 1e6:.1f}"]
    dense = found[0].cycles
    for r in found:
        if r.cycles is None:
            cells += ["does not fit", "", ""]
            continue
        if r.density == 1:
            cells += [f"{r.cycles:,}", f"{100 * r.macs / r.cycles / peak:.0f} %"]
        else:
            cells += [f"{r.cycles:,}", f"{dense / r.cycles:.2f}" if dense else ""]
        cells.append(f"{r.bound[0]} {r.bound[1]:,}")
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet50", help="of models/")
    parser.add_argument("--target", default="aie2:npu1")
    parser.add_argument("--layers", type=int, default=0, metavar="N", help="only those with most products; 0 is all")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out those with most products")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    machine = machine_named(options.target)
    shapes = sorted(shapes_of(options.model).items(), key=lambda s: -s[0].macs * s[1])
    shapes = shapes[options.first : options.first + options.layers if options.layers else None]
    rows: list[Row] = []
    for shape, times in shapes:
        for density in DENSITIES:
            cycles, seconds, bound = measure(shape, density, options.target)
            rows.append(Row(str(shape), times, density, shape.macs, cycles, seconds, bound))
            told = f"{cycles:,} cycles, at least {bound[1]:,} by {bound[0]}" if cycles else "does not fit"
            print(f"{shape}, {100 * density:g} %: {told}, {seconds:.0f} s", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    most = peak_of(machine, "int8")
    print(f"{options.model} on {machine.name}, {most} int8 products a cycle")
    print(table(rows, most))


if __name__ == "__main__":
    main()
