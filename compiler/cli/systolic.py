"""What `compile`, `simulate` and `explain` say of networks on systolic arrays."""

from __future__ import annotations

import json as text
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.compiler.cli.console import Steps, emit_json, say, size, table
from sparsec.compiler.cli.options import CompileOptions
from sparsec.compiler.errors import VerificationError

if TYPE_CHECKING:
    import numpy as np

    from sparsec.backends.systolic.folder import Emitted
    from sparsec.backends.systolic.network import Network, NetworkRun
    from sparsec.backends.systolic.traffic import Memory, Traffic

    Arrays = dict[str, np.ndarray[Any, Any]]

_FAMILIES = ("flexisaga:", "sat:")
_TOLERANCE = 1e-4  # of the largest magnitude of an output: float32 sums in another order


def is_systolic(target: str) -> bool:
    """Whether a target's name is one of a systolic array."""
    return target.startswith(_FAMILIES)


def holds_systolic(folder: Path) -> bool:
    """Whether `folder` was compiled for a systolic array."""
    try:
        manifest = text.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and is_systolic(str(manifest.get("target", "")))


def compile_for_systolic(model: Path, output: Path | None, options: CompileOptions, steps: Steps, *, json: bool) -> None:
    """`sparsec compile --target flexisaga:16x16`. UsageError for options that arrays do not have."""
    from sparsec.compiler import systolic_driver

    made = systolic_driver.compile_systolic(model, output, progress=steps, **options.array_arguments())
    network = made.network()
    if json:
        emit_json(_record(network))
        return
    say(f"{network.graph.name} for {network.machine.name}: {made.folder}")
    weights = sum(len(layer.weights or b"") for layer in made.layers)
    cycles = f"{network.cost:,} cycles by our model{_waiting(network)}"
    say(f"  {len(made.layers)} layers on the array, {cycles}, weights {size(weights)}")
    host = [part["nodes"] for part in made.manifest["parts"] if part["kind"] == "host"]
    say(f"  {sum(map(len, host))} nodes on the host, epilogues included, in {len(host)} libraries")
    say(f"  `sparsec explain {made.folder}` compares the dataflows, `sparsec simulate` runs it")


def _waiting(network: Network) -> str:
    from sparsec.backends.systolic.explain import timing

    return f" with {timing(network.memory)}" if network.memory else ""


def explain_systolic(subject: Path, options: CompileOptions, *, json: bool, quiet: bool) -> None:
    """`sparsec explain`, of a folder or of a model for a target: the cycles of every dataflow for every layer."""
    from sparsec.backends.systolic.explain import MOVED, columns, moved, rows, totals
    from sparsec.backends.systolic.folder import read_folder
    from sparsec.backends.systolic.network import with_traffic
    from sparsec.compiler import systolic_driver

    if subject.is_dir():
        network = read_folder(subject).network()
        if memory := options.more.get("memory"):
            network = with_traffic(network, memory)
    else:
        with Steps("explain", quiet=quiet) as steps:
            network = systolic_driver.plan_systolic(subject, progress=steps, **options.array_arguments("cc"))
    if json:
        emit_json(_record(network))
        return
    table(columns(network), list(rows(network)))
    say("")
    if network.memory:
        table(MOVED, list(moved(network)))
        say("")
    for line in totals(network):
        say(line)


def _record(network: Network) -> dict[str, Any]:
    """Of a network, for programs."""
    layers = []
    for choice in network.choices:
        first = choice.products()[0]
        layers.append(
            {
                "node": choice.layer.node.name,
                "origin": list(choice.layer.node.origin),
                "products": len(choice.products()),
                "m": first.m,
                "k": first.k,
                "n": first.n,
                "dataflow": choice.mapping.dataflow.value,
                "cycles": {d.value: cycles for d, cycles in choice.table.items()},
                "traffic": {d.value: asdict(moved) for d, moved in choice.traffic.items()},
            }
        )
    memory = asdict(network.memory) if network.memory else None
    head = {"target": network.machine.name, "cycles": network.cycles, "cost": network.cost, "memory": memory}
    return {**head, "layers": layers, "host": dict(network.host)}


def simulate_systolic(
    folder: Path,
    feeds_of: Callable[[Any], Arrays],
    output: Path | None,
    memory: Memory | None,
    *,
    check: bool,
    json: bool,
    quiet: bool,
) -> None:
    """`sparsec simulate DIR`; `feeds_of` makes the inputs from what the graph needs. VerificationError when outputs differ.

    Traffic is counted with `memory`, by default with what the folder was compiled for, if anything.
    """
    import numpy as np

    from sparsec.backends.systolic.folder import read_folder
    from sparsec.compiler import systolic_driver
    from sparsec.compiler.interpreter import interpret
    from sparsec.compiler.report import TensorInfo

    emitted = read_folder(folder)
    inputs = emitted.manifest["inputs"].items()
    feeds = feeds_of(tuple(TensorInfo(name=v, dtype=i["dtype"], shape=tuple(i["shape"])) for v, i in inputs))
    with Steps("simulate", quiet=quiet) as steps:
        steps("simulate")
        run = systolic_driver.simulate_systolic(folder, feeds)
        if check:
            steps("check")
            _check(run, interpret(emitted.network().graph, feeds))
    if output is not None:
        with output.open("wb") as file:
            np.savez(file, **run.outputs)  # type: ignore[arg-type]
    _show(run, _traffic_of(run, emitted, memory or emitted.memory), check=check, json=json)


def _check(run: NetworkRun, expected: Arrays) -> None:
    """VerificationError when an output differs by more than the order of float32 sums can make it."""
    import numpy as np

    for name, wanted in expected.items():
        found = run.outputs[name].astype(np.float64)
        off, top = float(np.abs(found - wanted).max(initial=0)), float(np.abs(wanted).max(initial=0))
        if not off <= _TOLERANCE * top:
            raise VerificationError(
                f"output {name!r} of the simulation differs from the interpreter's by up to {off:.3g}, of {top:.3g}", tensor=name
            )


def _traffic_of(run: NetworkRun, emitted: Emitted, memory: Memory | None) -> dict[str, Traffic]:
    """What every layer moved; nothing without a memory."""
    from sparsec.backends.systolic.traffic import traffic

    if memory is None:
        return {}
    return {e.node: traffic(run.layers[e.node], memory, e.data.dtype.itemsize) for e in emitted.layers}


def _show(run: NetworkRun, moved: dict[str, Traffic], *, check: bool, json: bool) -> None:
    """A row a layer, and the sum."""
    rows: list[dict[str, Any]] = [
        {
            "layer": name,
            "cycles": layer.total.cycles,
            "of them shifting operands in": layer.total.preload,
            "folds": layer.total.folds,
            "multiplications": layer.total.macs,
            "roofline": layer.roofline,
            "weights read": layer.total.weight_values,
            "data read": layer.total.data_values,
            **(_bytes(moved[name]) if moved else {}),
        }
        for name, layer in run.layers.items()
    ]
    cycles = sum(layer.total.cycles for layer in run.layers.values())
    whole = _sum(moved)
    if json:
        emit_json({"cycles": cycles, **(_bytes(whole) if whole else {}), "layers": rows})
        return
    columns = tuple(name if name == "layer" else f">{name}" for name in rows[0]) if rows else ("layer",)
    table(columns, [[_cell(v) for v in row.values()] for row in rows])
    say("")
    if whole:
        say(f"SRAM {size(whole.sram_bytes)}, DRAM {size(whole.dram_bytes)}, {whole.energy:,.1f} uJ")
        say(f"{whole.cycles:,} cycles with loads, by our model")
    say(f"{cycles:,} cycles, by our model{'; outputs equal those of the interpreter' if check else ''}")


def _sum(moved: dict[str, Traffic]) -> Traffic | None:
    from sparsec.backends.systolic.traffic import total

    return total(moved.values()) if moved else None


def _bytes(moved: Traffic) -> dict[str, Any]:
    named = {"with loads": moved.cycles, "SRAM bytes": moved.sram_bytes}
    return {**named, "DRAM read": moved.dram_read, "DRAM written": moved.dram_written, "uJ": moved.energy}


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if isinstance(value, float) else str(value)
