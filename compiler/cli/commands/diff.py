"""`sparsec diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsec.compiler.cli.console import emit_json, say
from sparsec.compiler.cli.options import DimOption, InputOption, JsonOption


def diff(
    old: Annotated[
        Path, typer.Argument(metavar="OLD", help="An .onnx file, or a dump (.txt) that --dump-ir wrote.", show_default=False)
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="What to compare it with.", show_default=False)],
    dim: DimOption = None,
    shape: InputOption = None,
    json: JsonOption = False,
) -> None:
    """Say what differs between two graphs.

    Lines begin with - (only in OLD), + (only in NEW), ~ (changed) and = (counts). Two dumps of one run show what the passes
    between them did.
    """
    from sparsec.compiler.cli.graphs import read_graph
    from sparsec.compiler.text.diff import diff_graphs

    text = diff_graphs(read_graph(old, dim, shape), read_graph(new, dim, shape))
    if json:
        emit_json({"equal": not text, "lines": text.splitlines()})
    else:
        say(text.rstrip("\n") or "no difference")
