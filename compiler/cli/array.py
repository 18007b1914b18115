"""What `compile` and `explain` say of programs for arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.compiler.cli.console import Steps, count, emit_json, say, size, table
from sparsec.compiler.cli.options import CompileOptions

if TYPE_CHECKING:
    from sparsec.backends.aie.machine import Machine
    from sparsec.backends.aie.simulate.model import ArrayModel


def is_array(target: str) -> bool:
    """Whether a target's name is one of an array."""
    return target.startswith("aie2:")


def compile_for_array(model: Path, output: Path | None, options: CompileOptions, steps: Steps, *, json: bool) -> None:
    """`sparsec compile --target aie2:...`. UsageError for options that arrays do not have."""
    from sparsec.compiler import array_driver

    made = array_driver.compile_array(model, output, progress=steps, **options.array_arguments(bfloat16=True))
    if json:
        emit_json(made.manifest)
    else:
        summary(made)


def summary(model: ArrayModel) -> None:
    """What is computed where, in a few lines."""
    parts = model.manifest["parts"]
    layers = [layer for p in parts if p["kind"] == "array" for layer in p["layers"]]
    host = [node for p in parts if p["kind"] == "host" for node in p["nodes"]]
    say(f"{model.manifest['name']} for {model.machine.name}: {model.directory}")
    weights = sum((model.directory / p["weights"]).stat().st_size for p in parts if p["kind"] == "array")
    macs = sum(layer["macs"] for layer in layers)
    say(f"  {len(layers)} layers on the array in {len(parts)} parts, {count(macs)}MAC, weights {size(weights)}")
    if narrowed(model.machine):
        say(f"  {in_use(model.machine)}")
    say(f"  {len(host)} nodes on the host; `sparsec explain {model.directory}` says why, `sparsec simulate` runs it")


def explain_array(folder: Path, *, json: bool) -> None:
    """`sparsec explain DIR` of an array program: every node, where it went and how, or why it is not on the array."""
    from sparsec.backends.aie.simulate.model import ArrayModel

    model = ArrayModel(folder)
    manifest = model.manifest
    rows = [r for i, part in enumerate(manifest["parts"]) for r in _rows(i, part, manifest)]
    if json:
        emit_json(rows)
        return
    table(("part", "node", "where", "how, or why not on the array"), [[str(v) for v in r.values()] for r in rows])
    if narrowed(model.machine):
        say(in_use(model.machine))


def narrowed(machine: Machine) -> bool:
    """Whether only some columns of an array compute."""
    from sparsec.backends.aie.part import part_of

    part = part_of(machine.grid)
    return part is not None and not part.whole


def in_use(machine: Machine) -> str:
    """Which part of an array computes, and why no more does."""
    from sparsec.backends.aie.part import part_of

    part = part_of(machine.grid)
    if part is None:
        return f"{machine.name}: no two adjacent columns have shims that reach DDR"
    return f"{machine.name}: {part.told()}" + (f" ({part.why})" if part.why else "")


def _rows(number: int, part: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    def row(node: str, where: str, how: str) -> dict[str, Any]:
        return {"part": number, "node": node, "where": where, "how": how}

    if part["kind"] == "host":
        return [row(n, "host", manifest["on_host"][n]) for n in part["nodes"]]
    found = []
    for layer in part["layers"]:
        over = manifest["passed_over"].get(layer["node"])
        found.append(row(layer["node"], "array", _how(layer) + (f"; {over}" if over else "")))
    return found + [row(n, "array", "its values are made where they are read: nothing is moved") for n in part["views"]]


def _how(layer: Mapping[str, Any]) -> str:
    """How a layer is computed, in words."""
    tiles = "one tile" if layer["tiles"] == 1 else f"{layer['tiles']} tiles of {layer['rows']} rows"
    weights = "weights stay in the cores" if layer["weights_kept"] else "weights are sent for every tile"
    if layer["tiles"] == 1:
        weights = "weights are sent once"
    blocks = "" if layer["blocks"] == layer["all_blocks"] else f"; {layer['blocks']} of {layer['all_blocks']} blocks of weights"
    blocks += f"; {layer['products']}" if layer["products"] else ""
    if layer["weights_from"]:
        weights = f"weights come out of {layer['weights_from']!r}, {'once' if layer['tiles'] == 1 else 'as cores take them'}"
    part = f"channels {layer['channels'][0]} to {layer['channels'][1]}; " if layer["channels"] else ""
    buffers = "; one buffer of data, so that loading and multiplying take turns" if layer["data_buffers"] == 1 else ""
    how = f"{part}{layer['cut']}; {tiles}, {weights}{blocks}{buffers if layer['tiles'] > 1 else ''}"
    return f"{how}; {_neighbours(layer)}"


def _neighbours(layer: Mapping[str, Any]) -> str:
    """What becomes of a layer's results, and when it begins, in words."""
    kept = [told for key, told in (("stays", "for the next layer"), ("held", "until they are added")) if layer[key]]
    if kept:
        every = layer["every"]
        part = f", and of every {every} rows and columns one goes to DDR" if every > 1 else " and go to DDR"
        results = f"results stay in memory tiles {' and '.join(kept)}" + (part if layer["leaves"] else ", never in DDR")
    else:
        results = f"results go to DDR, as {layer['not_kept']}"
    late = layer["begins_late"]
    return results + (f"; {late}" if late else "")
