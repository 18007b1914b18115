"""Systolic arrays: cycles against SCALE-Sim and generated Verilog, sparse over dense networks, and training steps.

    python benchmarks/systolic.py                                    all parts: about half an hour
    python benchmarks/systolic.py --parts scale-sim,rtl,training     a minute
    python benchmarks/systolic.py --parts networks --models resnet50 --json out.json --svg docs/systolic.svg

Parts: scale-sim (dense cycles against the goldens, n:m against its rule), rtl (Icarus Verilog against the simulator on random
products), networks (FlexiSAGA), traffic (bytes and energy of one network), training (SAT). Cycles are those of our model of the
arrays. Exits with 1 where something that has to be equal is not.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from itertools import product as product_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import systolic_networks, systolic_traffic, systolic_training
from benchmarks.systolic_picture import picture
from sparsec.backends.systolic import (
    Dataflow,
    Level,
    Machine,
    Mapping,
    dense_cycles,
    grouped_cycles,
    lower,
    product,
    simulate,
)
from sparsec.backends.systolic.cosimulate import available, cosimulate
from sparsec.backends.systolic.isa import Format
from sparsec.backends.systolic.units import sore
from sparsec.compiler.cli.console import plain_table

Array = np.ndarray[Any, Any]
GOLDENS = Path(__file__).parents[1] / "tests" / "golden" / "systolic" / "scalesim.csv"
PARTS = ("scale-sim", "rtl", "networks", "traffic", "training")
RTL_MAPPINGS = (
    *(Mapping(d) for d in (Dataflow.DOS, Dataflow.DWS, Dataflow.DIS, Dataflow.CSOS)),
    *(Mapping(d, f) for d in (Dataflow.SOS, Dataflow.SWS, Dataflow.SIS) for f in (Format.BITMAP, Format.COLUMNS)),
    *(Mapping(d, None, 2, 4) for d in (Dataflow.NMOS, Dataflow.NMWS)),
)
Records = list[dict[str, Any]]


def simulated(machine: Machine, m: int, k: int, n: int, mapping: Mapping) -> int:
    """Cycles of a dense product's stream."""
    w, x = np.ones((m, k), np.int8), np.ones((k, n), np.int8)
    if mapping.group:
        w[:, np.arange(k) % mapping.group >= mapping.keep] = 0
    made = lower(machine, [(product(w, x), mapping)])
    return simulate(made.stream, made.weights, x, m * n, Level.TIMING).total.cycles


def scale_sim() -> Records:
    """Every golden: SCALE-Sim's total, ours by formula and by stream. Its m are positions, its n output channels."""
    found: Records = []
    with GOLDENS.open() as file:
        for row in csv.DictReader(file):
            n, k, m, rows, cols = (int(row[c]) for c in ("m", "k", "n", "rows", "cols"))
            for dataflow, column in ((Dataflow.DOS, "os"), (Dataflow.DWS, "ws"), (Dataflow.DIS, "is")):
                r, c = (cols, rows) if dataflow is Dataflow.DOS else (rows, cols)
                formula = dense_cycles(dataflow, r, c, m, k, n)
                stream = simulated(Machine("flexisaga", r, c, 1), m, k, n, Mapping(dataflow))
                theirs = int(row[f"{column}_cycles"])
                name = {"product": f"{n}x{k}x{m}", "array": f"{rows}x{cols}", "dataflow": dataflow.value}
                found.append(
                    {**name, "scale_sim": theirs, "formula": formula, "stream": stream, "equal": formula == stream == theirs + 1}
                )
    for keep, group in ((2, 4), (1, 4), (2, 8), (2, 16)):
        formula = grouped_cycles(Dataflow.NMWS, 16, 16, 256, 1024, 196, keep, group)
        rule = dense_cycles(Dataflow.DWS, 16, 16, 256, 1024 * keep // group, 196)
        stream = simulated(Machine("sat", 16, 16, 16), 256, 1024, 196, Mapping(Dataflow.NMWS, None, keep, group))
        name = {"product": "196x1024x256", "array": "16x16", "dataflow": f"nmWS {keep}:{group}"}
        found.append({**name, "scale_sim": rule - 1, "formula": formula, "stream": stream, "equal": formula == stream == rule})
    return found


def rtl(count: int) -> Records:
    """Random products with tails in all nine dataflows and formats of weights; empty without Icarus Verilog."""
    found: Records = []
    for seed in range(count if available() else 0):
        rng = np.random.default_rng(seed)
        (rows, cols), (m, k, n) = rng.integers(1, 9, 2).tolist(), rng.integers(1, 40, 3).tolist()
        w = np.where(rng.random((m, k)) < rng.choice([0.1, 0.3, 0.6]), rng.integers(-128, 128, (m, k)), 0).astype(np.int8)
        x = rng.integers(-128, 128, (k, n)).astype(np.int8)
        machine = Machine("flexisaga", rows, cols, 4)
        for mapping in RTL_MAPPINGS:
            dataflow = mapping.dataflow
            if dataflow.grouped:
                w = grouped_weights(w, mapping.keep, mapping.group)
            made = lower(machine, [(product(w, x), mapping)])
            ours = simulate(made.stream, made.weights, x, m * n)
            with tempfile.TemporaryDirectory() as folder:
                theirs = cosimulate(machine, made.stream, made.weights, x, m * n, Path(folder))
            values = np.array_equal(ours.output, theirs.output) and np.array_equal(ours.output.reshape(m, n), w.astype(int) @ x)
            cycles = (ours.total.cycles, ours.total.tail) == (theirs.cycles, theirs.tail)
            name = {"product": f"{m}x{k}x{n}", "array": f"{rows}x{cols}", "dataflow": dataflow.value}
            name["weights"] = mapping.format.name.lower() if mapping.format else "packed" if dataflow is Dataflow.CSOS else ""
            found.append(
                {
                    **name,
                    "simulator": ours.total.cycles,
                    "rtl": theirs.cycles,
                    "tail": theirs.tail,
                    "equal": bool(values and cycles),
                }
            )
    return found


def grouped_weights(w: Array, keep: int, group: int) -> Array:
    """`w` [M, K] with the `keep` largest magnitudes of every `group` columns."""
    return sore(w.astype(np.int16), keep, group, 1).dense(w.shape[1], group).astype(np.int8)


def networks(arguments: argparse.Namespace) -> Records:
    """Sparse over dense, row by row."""
    found: Records = []
    low, high = systolic_networks.PAPER
    print(f"pruned over dense weights, best of seven dataflows a layer in both (published: {low} to {high})")
    for row in systolic_networks.rows(arguments.models, arguments.sides, arguments.sparsities, arguments.vectors):
        alone = "  ".join(f"{name} {row.dense / cycles:.2f}" for name, cycles in row.alone.items())
        best = f"{row.speedup:5.2f} (over dense dataflows {row.dense / row.best:.2f})"
        print(f"{row.model:13} {row.array:16} {row.pattern:28} kept {100 * row.kept:4.1f} %  {best}   {alone}", flush=True)
        found.append(row.record)
    inside = [r for r in found if low <= r["speedup"] <= high]
    print(f"{len(inside)} of {len(found)} lie in the published range")
    return found


def traffic(arguments: argparse.Namespace) -> Records:
    """Bytes, waiting and energy by dataflow."""
    found = list(systolic_traffic.rows(arguments.models[0], arguments.sides[len(arguments.sides) // 2]))
    columns = ("weights", "dataflow", ">M cycles", ">double-buffered", ">exposed", ">SRAM MB", ">DRAM MB", ">mJ")
    cells = []
    for r in found:
        cycles = [f"{v / 1e6:.2f}" for v in (r.cycles, r.double, r.exposed)]
        cells.append([r.weights, r.dataflow, *cycles, f"{r.sram / 1e6:.0f}", f"{r.dram / 1e6:.1f}", f"{r.energy / 1e3:.2f}"])
    print(f"{found[0].model} on {found[0].array}: what operands move, a layer after the other")
    print(plain_table(columns, cells))
    return [r.record for r in found]


def training(arguments: argparse.Namespace) -> Records:
    """Training steps."""
    chosen = [m for m in systolic_training.MODELS if m in arguments.training_models]
    found = list(systolic_training.rows(chosen))
    columns = ("model", "array", ">batch", ">B/cycle", "pattern", ">FF", ">BP", ">WU", ">step", ">ceiling", ">waiting")
    cells = []
    for r in found:
        stages = [f"{r.dense[s] / r.sparse[s]:.2f}" for s in ("FF", "BP", "WU")]
        share = f"{100 * r.waiting / sum(r.sparse.values()):.1f} %"
        bandwidth = f"{r.bytes_per_cycle:g}" if r.bytes_per_cycle else "any"
        cells.append(
            [r.model, r.array, str(r.batch), bandwidth, r.pattern, *stages, f"{r.speedup:.2f}", f"{r.ceiling:.2f}", share]
        )
    print("a training step over a dense one (published: 1.75 on average at 2:8)")
    print(plain_table(columns, cells))
    for array, limit in product_of(systolic_training.ARRAYS, systolic_training.BANDWIDTHS):
        some = [r.speedup for r in found if r.array == array and r.pattern == "2:8" and r.bytes_per_cycle == limit]
        memory = f"{limit:g} bytes a cycle" if limit else "no limit of memory"
        print(f"{array}, 2:8, {memory}: {np.mean(some):.2f} on average")
    return [r.record for r in found]


def show(title: str, records: Records) -> None:
    """Records as a table."""
    print(f"{title}: {sum(r['equal'] for r in records)} of {len(records)} equal")
    if records:
        print(plain_table(list(records[0]), [[str(v) for v in r.values()] for r in records]))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument(
        "--models", default=",".join(systolic_networks.MODELS), help="of the parts networks and (the first) traffic"
    )
    parser.add_argument("--training-models", default=",".join(systolic_training.MODELS), help="of the part training")
    parser.add_argument("--sides", default="8,16,32", help="of the arrays of the part networks")
    parser.add_argument("--sparsities", default="50,60,70,80,90", help="in percent")
    parser.add_argument(
        "--vectors", choices=systolic_networks.VECTORS, default="outputs", help="pruned together; none: weights one by one"
    )
    parser.add_argument("--products", type=int, default=20, help="random products of the part rtl")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path, help="a picture of the part networks")
    found = parser.parse_args(arguments)
    found.parts, found.models, found.training_models = (v.split(",") for v in (found.parts, found.models, found.training_models))
    if unknown := set(found.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    found.sides = [int(s) for s in found.sides.split(",")]
    found.sparsities = [float(s) / 100 for s in found.sparsities.split(",")]
    return found


def main(arguments: list[str] | None = None) -> int:
    asked = parse(arguments)
    results: dict[str, Records] = {}
    if "scale-sim" in asked.parts:
        results["scale_sim"] = scale_sim()
        show("cycles, ours and SCALE-Sim 3.0.0 (whose totals are one less)", results["scale_sim"])
    if "rtl" in asked.parts:
        results["rtl"] = rtl(asked.products)
        show("cycles and sums, generated Verilog and simulator", results["rtl"])
        if not results["rtl"]:
            print("Icarus Verilog is not installed: nothing was compared")
    if "networks" in asked.parts:
        results["networks"] = networks(asked)
    if "traffic" in asked.parts:
        results["traffic"] = traffic(asked)
    if "training" in asked.parts:
        results["training"] = training(asked)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.svg:
        asked.svg.write_text(picture(results.get("networks", [])), encoding="utf-8")
    return int(any(not r.get("equal", True) for part in results.values() for r in part))


if __name__ == "__main__":
    sys.exit(main())
