"""The files of an array program: control streams, core programs, weights, their text, and a manifest that orders them.

manifest.json           parts in order, where values are, which operations belong to which layer
core_C_R.bin            the program of the core in column C and row R, bundles of 16 bytes
core.s                  the same as assembly
partK/control.bin       the control stream of part K, NPU transactions
partK/control.txt       the same as text
partK/weights.bin       its weights: argument 0; the activations are argument 1
partK/part.mlir         the same streams in mlir-aie's dialects, for arrays that mlir-aie knows
NAME_streams.S and .h, Makefile, CMakeLists.txt    see `rules`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.sparse import told_products
from sparsec.backends.aie.mlir import CoreFile, part_text
from sparsec.backends.aie.part import part_of
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, HostPart, Staying
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.rules import rules
from sparsec.compiler.graph import Graph
from sparsec.compiler.segments import host_record, interface

MANIFEST = "manifest.json"
FORMAT = 6


def emit(program: ArrayProgram) -> dict[str, bytes]:
    """File contents by path in the output folder. Host parts, which the C backend makes, are only named."""
    files: dict[str, bytes] = {}
    machine = program.machine
    cores: dict[Tile, CoreFile] = {}
    if program.core:
        used = part_of(machine.grid)
        files["core.s"] = program.core_text.encode()
        for tile in used.cores() if used else ():
            name = f"core_{tile.column}_{tile.row}.bin"
            files[name] = program.core
            cores[tile] = CoreFile(f"../{name}", program.core)
    parts = []
    for i, part in enumerate(program.parts):
        folder = f"part{i}"
        if isinstance(part, HostPart):
            parts.append(host_record(part.graph, folder))
            continue
        files[f"{folder}/control.bin"] = part.control.encode()
        files[f"{folder}/control.txt"] = part.control.text().encode()
        files[f"{folder}/weights.bin"] = part.weights
        text = part_text(machine, part.control, (len(part.weights), program.activation_bytes), cores)
        if text is not None:
            files[f"{folder}/part.mlir"] = text.encode()
        parts.append(_array(part, folder, program.graph) | {"mlir": f"{folder}/part.mlir" if text is not None else None})
    manifest = _manifest(program, parts)
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    return files | rules(manifest, files)


def _manifest(program: ArrayProgram, parts: list[dict[str, Any]]) -> dict[str, Any]:
    graph = program.graph
    images = {
        value: asdict(image)
        | {"dtype": graph.types[value].dtype.value, "shape": list(graph.types[value].shape), "zero": program.zeros.get(value, 0)}
        for value, image in program.images.items()
    }
    return {
        "format": FORMAT,
        **interface(graph),
        "machine": _machine(program),
        "activation_bytes": program.activation_bytes,
        "images": images,
        "parts": parts,
        "on_host": dict(program.reasons),
        "passed_over": dict(program.passed_over),
    }


def _machine(program: ArrayProgram) -> dict[str, Any]:
    return {"name": program.machine.name, "parameters": {p.key: p.value for p in program.machine.parameters()}}


def _array(part: ArrayPart, folder: str, graph: Graph) -> dict[str, Any]:
    layers = [
        _layer(plan, graph, ends) | {"begins_late": late} | _kept(s)
        for plan, ends, late, s in zip(part.plans, pairwise(part.ends), part.late, part.staying, strict=True)
    ]
    inner = {p.layer.y for p, s in zip(part.plans, part.staying, strict=True) if not s.leaves or s.every > 1}
    made = list(dict.fromkeys([*(v for p in part.plans for v in p.layer.made), *(v.output for v in part.views)]))
    taken = [*(p.layer.values for p in part.plans), *(v.inputs for v in part.views)]
    read = dict.fromkeys(v for values in taken for v in values if v not in made)
    return {
        "kind": "array",
        "control": f"{folder}/control.bin",
        "weights": f"{folder}/weights.bin",
        "inputs": list(read),
        "outputs": [v for v in made if v not in inner],
        "layers": layers,
        "views": [v.node for v in part.views],
    }


def _kept(s: Staying) -> dict[str, Any]:
    return {"stays": s.stays, "held": s.held, "leaves": s.leaves, "every": s.every, "not_kept": s.why}


def _layer(plan: LayerPlan, graph: Graph, ends: tuple[int, int]) -> dict[str, Any]:
    t, layer = plan.tiling, plan.layer
    node = next(n for n in graph if n.name == layer.node)
    return {
        "node": layer.node,
        "channels": layer.part_of(graph),
        "origin": list(node.origin),
        "operations": list(ends),
        "macs": layer.macs(graph),
        "element": layer.element.name,
        "blocks": sum(layer.block_counts),
        "all_blocks": layer.computed_blocks if layer.computed else layer.all_blocks,
        "weights_from": layer.computed.value if layer.computed else None,
        "products": told_products(t),
        "cut": t.told,
        "tiles": t.tiles,
        "rows": t.rows,
        "weights_kept": t.kept,
        "data_buffers": t.buffers,
    }


def parse_manifest(text: str) -> Mapping[str, Any]:
    """The manifest's data."""
    found: Mapping[str, Any] = json.loads(text)
    return found
