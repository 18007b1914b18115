"""`sparsec simulate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.cli.console import Steps, count, emit_json, say, table
from sparsec.compiler.cli.groups import with_groups
from sparsec.compiler.cli.loads import Loads
from sparsec.compiler.cli.options import FeedOption, JsonOption, QuietOption, SeedOption
from sparsec.compiler.cli.systolic import holds_systolic, simulate_systolic
from sparsec.compiler.cli.systolic_training import train_systolic
from sparsec.compiler.errors import UsageError, VerificationError

if TYPE_CHECKING:
    import numpy as np

    from sparsec.backends.aie.simulate.model import ArrayModel, ModelRun
    from sparsec.backends.aie.tolerance import Comparison

    Arrays = dict[str, np.ndarray[Any, Any]]


@with_groups
def simulate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `sparsec compile` wrote for an array.", show_default=False)
    ],
    feed: FeedOption = None,
    seed: SeedOption = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.npz", help="Write the outputs by name.", show_default=False)
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE.json", help="Write a Chrome trace, which Perfetto opens.", show_default=False),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FOLDER", help="Write a picture of every layer's time.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare every output with the interpreter.")] = True,
    training: Annotated[
        bool,
        typer.Option(
            "--training",
            help="Of a folder for sat:RxC: a training step instead: its cycles, dense and with n:m weights, and its values "
            "beside those of numpy.",
        ),
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Images of a training step.")] = 32,
    keep: Annotated[str, typer.Option("--keep", metavar="N:M", help="Weights that a training step multiplies by.")] = "2:8",
    *,
    loads: Loads,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a compiled array program in the simulator, with values and cycles.

    The simulator reads nothing but the folder's streams, programs and weights. Host parts run in their libraries and cost no
    cycles here. Inputs come from files or are random. Cycles are a model's estimates: `sparsec targets aie2:npu1` lists what it
    assumes.
    """
    import numpy as np

    from sparsec.backends.aie.simulate.model import ArrayModel
    from sparsec.compiler import array_driver
    from sparsec.compiler.feeds import random_feeds, read_feeds
    from sparsec.compiler.report import TensorInfo

    if (training or holds_systolic(folder)) and (trace or svg):
        raise UsageError(f"--trace and --svg draw AI-Engine arrays, and {folder} is for a systolic one: leave them out")
    if training:
        if loads.loads or loads.memory:
            raise UsageError("--loads and --memory count what one run moves: leave them out with --training")

        def image(inputs: Any, i: int) -> Arrays:
            return read_feeds(feed, inputs) if feed else random_feeds(inputs, seed + i)

        train_systolic(folder, batch, keep, image, check=check, json=json, quiet=quiet)
        return
    if holds_systolic(folder):
        simulate_systolic(
            folder,
            lambda inputs: read_feeds(feed, inputs) if feed else random_feeds(inputs, seed),
            output,
            loads.parameters(),
            check=check,
            json=json,
            quiet=quiet,
        )
        return
    loads.refuse(str(folder))
    model = ArrayModel(folder)
    inputs = tuple(TensorInfo(name=v, dtype=i["dtype"], shape=tuple(i["shape"])) for v, i in model.manifest["inputs"].items())
    feeds = read_feeds(feed, inputs) if feed else random_feeds(inputs, seed)
    with Steps("simulate", quiet=quiet) as steps:
        steps("simulate")
        run = array_driver.simulate(folder, feeds)
        if check:
            steps("check")
            compared = array_driver.compared(folder, run)
            wanted = array_driver.expected(folder, feeds)
            found = _close(compared, run.outputs, wanted) if compared else _check(run.outputs, wanted)
    if output is not None:
        with output.open("wb") as file:
            np.savez(file, **run.outputs)  # type: ignore[arg-type]
    if trace is not None:
        trace.write_text(run.trace(model.machine), encoding="utf-8")
    if svg is not None:
        _pictures(model, run, svg)
    rows, parts = _layers(model, run), _parts(model, run)
    if json:
        emit_json({"cycles": run.cycles, "seconds": run.cycles / model.machine.clock_hz, "parts": parts, "layers": rows})
        return
    table(_HEAD, [_shown(r) for r in rows])
    say("")
    table(("part", "where", ">nodes", ">MAC", ">cycles"), [_part(p) for p in parts])
    say("")
    say("x roofline: cycles over those of the busiest resource. From compute on: % of a core's cycles, mean of all cores")
    ms = 1e3 * run.cycles / model.machine.clock_hz
    checked = f"; {found}" if check else ""
    clock = f"{model.machine.clock_hz / 1e9:g} GHz"
    say(f"{run.cycles:,} cycles on {model.machine.name}, {ms:.3f} ms at {clock}, by the model{checked}")


def _close(compared: Sequence[Comparison], outputs: Any, expected: Arrays) -> str:
    """What was compared, in words. VerificationError when a layer of bfloat16 is further from the interpreter's result for the
    same data than orders of sums explain, or an output is another one altogether."""
    from sparsec.compiler.verify_model import ROUNDED_TOLERANCE, relative_error

    for layer in compared:
        if not layer.close:
            raise VerificationError(
                f"layer {layer.node!r} differs from the interpreter's result for the same data by up to {layer.difference:.3g}, "
                f"{layer.share:.3g} times what the order of its sums explains",
                node=layer.node,
            )
    worst = max(relative_error(outputs[name], wanted) for name, wanted in expected.items())
    if not worst <= ROUNDED_TOLERANCE:
        raise VerificationError(f"outputs of the simulation are off by up to {worst:.3g} of the interpreter's largest")
    layers = f"{len(compared)} layers within the bound of their sums ({max(c.share for c in compared):.2g} of it)"
    return f"{layers}, outputs within {worst:.2g} of the interpreter's largest"


_HOST = 1e-6  # of the largest value: what float32 functions of libraries differ by from the interpreter's


def _check(outputs: Any, expected: Arrays) -> str:
    """What outputs are, in words. VerificationError when one differs in a bit, or a float by more than host functions do."""
    import numpy as np

    worst = 0.0
    for name, wanted in expected.items():
        if np.array_equal(outputs[name], wanted):
            continue
        off = float(np.max(np.abs(outputs[name].astype(np.float64) - wanted)))
        if wanted.dtype.kind != "f" or not off <= _HOST * float(np.max(np.abs(wanted))):
            raise VerificationError(
                f"output {name!r} of the simulation differs from the interpreter's by up to {off:.3g}", tensor=name
            )
        worst = max(worst, off)
    return f"outputs are the interpreter's within {worst:.2g}" if worst else "outputs equal the interpreter's"


_HEAD = (
    *("layer", ">cycles", ">% of peak", ">x roofline", "bound by", ">compute", ">data", ">weights", ">results", ">idle"),
    *(">blocks kept", "cut"),
)


def _layers(model: ArrayModel, run: ModelRun) -> list[dict[str, Any]]:
    """A row for every layer of the array, as its operations in the control stream took."""
    rows = []
    for part in run.parts:
        for layer, entry in zip(part.cycles(model.machine).layers, part.entry["layers"], strict=True):
            rows.append(
                {
                    "layer": layer.name,
                    "cycles": layer.cycles,
                    "share of peak": layer.peak_share,
                    "roofline": dict(layer.roofline),
                    "bound by": layer.bound[0],
                    "core": {cause.value: cycles for cause, cycles in layer.mean().items()},
                    "DDR bytes": layer.ddr_read + layer.ddr_written,
                    "blocks": f"{entry['blocks']} of {entry['all_blocks']}",
                    "products": entry["products"],
                    "cut": entry["cut"],
                }
            )
    return rows


def _parts(model: ArrayModel, run: ModelRun) -> list[dict[str, Any]]:
    """The parts in order: nodes, products of dense layers and cycles of those on the array."""
    cycles = {p.entry["control"]: p.finished.cycles for p in run.parts}
    found = []
    for i, entry in enumerate(model.manifest["parts"]):
        if entry["kind"] == "host":
            found.append({"part": i, "where": "host", "nodes": len(entry["nodes"]), "macs": None, "cycles": None})
            continue
        nodes = len(entry["layers"]) + len(entry["views"])
        macs = sum(layer["macs"] for layer in entry["layers"])
        found.append({"part": i, "where": "array", "nodes": nodes, "macs": macs, "cycles": cycles.get(entry["control"], 0)})
    return found


def _part(row: dict[str, Any]) -> list[str]:
    """A row as people read it."""
    numbers = ["", ""] if row["cycles"] is None else [count(row["macs"]), f"{row['cycles']:,}"]
    return [str(row["part"]), row["where"], str(row["nodes"]), *numbers]


def _shown(row: dict[str, Any]) -> list[str]:
    """A row as people read it."""
    cycles, core = max(1, row["cycles"]), row["core"]
    work = core["compute"] + core["pipeline"] + core["bank conflicts"] + core["jumps"] + core["lock"]
    times = [work, core["wait for data"], core["wait for weights"], core["wait for results"], core["idle"]]
    least = row["roofline"][row["bound by"]]
    shown = [
        row["layer"],
        f"{row['cycles']:,}",
        f"{100 * row['share of peak']:.0f}",
        f"{cycles / max(1, least):.2f}",
        row["bound by"],
    ]
    kept = row["blocks"] + (", sparse B" if row["products"].startswith("sparse") else "")
    return [*shown, *(f"{100 * t / cycles:.0f}" for t in times), kept, row["cut"]]


def _pictures(model: ArrayModel, run: ModelRun, folder: Path) -> None:
    """One file a layer, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [p for part in run.parts for p in part.pictures(model.machine).items()]
    for i, (layer, picture) in enumerate(pictures):
        (folder / f"{i:03d}_{re.sub('[^A-Za-z0-9_]+', '_', layer)}.svg").write_text(picture, encoding="utf-8")
