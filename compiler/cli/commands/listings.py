"""`sparsec ops`, `sparsec passes`, `sparsec targets`: what there is, generated from the code."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sparsec.compiler.cli.array import in_use
from sparsec.compiler.cli.console import emit_json, say, table
from sparsec.compiler.cli.options import JsonOption


class OpsForm(StrEnum):
    """Which table `sparsec ops` prints."""

    onnx = "onnx"
    ir = "ir"


def ops(
    form: Annotated[
        OpsForm,
        typer.Option("--form", metavar="onnx|ir", help="onnx: operators that models may use; ir: operators of the graph IR."),
    ] = OpsForm.onnx,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: JsonOption = False,
) -> None:
    """List the supported operators.

    For each ONNX operator: what it becomes in the graph IR, and which of its forms are refused.
    """
    from sparsec.compiler.cli.reference import ir_operators, markdown_table, onnx_operators

    columns, rows = onnx_operators() if form is OpsForm.onnx else ir_operators()
    if json:
        emit_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif markdown:
        say(markdown_table(columns, rows))
    else:
        table(columns, rows)


def passes(json: JsonOption = False) -> None:
    """List the passes and pipelines.

    `sparsec compile --passes` takes both, with the options that are listed here, as fold,fuse{option=value}.
    """
    from sparsec.compiler.cli.reference import pass_rows, pipeline_rows

    rows, pipelines = pass_rows(), pipeline_rows()
    if json:
        columns = ("pass", "options", "summary")
        emit_json({"passes": [dict(zip(columns, r, strict=True)) for r in rows], "pipelines": dict(pipelines)})
        return
    table(("pass", "options", "what it does"), rows)
    say("")
    table(("pipeline", "passes"), pipelines)


def targets(
    array: Annotated[
        str | None, typer.Argument(metavar="[ARRAY]", help="An array whose parameters to show, as aie2:npu1.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the machines to compile for.

    `--target host`, the default, is the best that this machine runs. bfloat16 says how `--precision bf16` is computed: by
    products of two, or by widening each number to float32; other targets refuse it. Arrays of AI-Engine cores are simulated; with
    ARRAY, or aie2:FILE.toml, all that is known of one is shown, with where each number comes from.
    """
    from sparsec.backends.aie.machine import machine_named, machines
    from sparsec.backends.cpu.isa import host_isa, isas, runs_here
    from sparsec.backends.systolic.dataflow import SAT, SEVEN

    if array is not None:
        machine = machine_named(array)
        parameters = machine.parameters()
        if json:
            emit_json([{"parameter": p.key, "value": p.value, "source": p.source} for p in parameters])
        else:
            table(("parameter", ">value", "source"), [[p.key, str(p.value), p.source] for p in parameters])
            say(in_use(machine))
        return

    host = host_isa()
    rows = [
        {
            "target": isa.name,
            "runs here": runs_here(isa),
            "host": isa is host,
            "float32 lanes": isa.lanes,
            "bfloat16": {0: "", 1: "widened", 2: "products"}[isa.bf16],
            "C flags": " ".join(isa.cflags),
        }
        for isa in isas()
    ]
    arrays = [
        {"target": m.name, "cores": f"{m.columns} x {m.rows}", "int8 MACs a cycle": m.macs_per_cycle, "GHz": m.clock_hz / 1e9}
        for m in machines()
    ]
    systolic = [
        {"target": f"{family}:RxC", "dataflows": " ".join(d.value for d in found)}
        for family, found in (("flexisaga", SEVEN), ("sat", SAT))
    ]
    if json:
        emit_json([*rows, *arrays, *systolic])
        return
    shown = [
        [
            str(r["target"]),
            "yes (host)" if r["host"] else "yes" if r["runs here"] else "no",
            str(r["float32 lanes"]),
            str(r["bfloat16"]),
            str(r["C flags"]),
        ]
        for r in rows
    ]
    table(("target", "runs here", ">float32 lanes", "bfloat16", "C flags"), shown)
    say("")
    shown = [[str(v) for v in a.values()] for a in arrays]
    table(("array", ">cores", ">int8 MACs a cycle", ">GHz"), shown)
    say("")
    table(("systolic array, as flexisaga:16x16", "dataflows"), [list(a.values()) for a in systolic])
