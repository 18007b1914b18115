"""The commands of `sparsec` under one roof. Only what `--help` needs is imported here; the commands import the rest."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Literal

import typer

from sparsec.compiler.cli.commands.bench import bench
from sparsec.compiler.cli.commands.compile import compile_model
from sparsec.compiler.cli.commands.diff import diff
from sparsec.compiler.cli.commands.explain import explain
from sparsec.compiler.cli.commands.inspect import inspect
from sparsec.compiler.cli.commands.listings import ops, passes, targets
from sparsec.compiler.cli.commands.models import models
from sparsec.compiler.cli.commands.prune import prune
from sparsec.compiler.cli.commands.quantise import quantise
from sparsec.compiler.cli.commands.run import run
from sparsec.compiler.cli.commands.simulate import simulate
from sparsec.compiler.cli.commands.verify import verify

HELP = """Compile ONNX models to small, fast, self-contained C libraries.

A first session:

  sparsec compile model.onnx             (writes build/model/)

  sparsec verify model.onnx              (compares with onnxruntime)

  sparsec bench build/model --layers     (where the time goes)

Every command explains itself: sparsec COMMAND --help. Exit status: 0 done, 2 usage, 3 bad model, 4 not supported,
5 wrong results, 6 no working C compiler, 7 a limit is not met, 70 a defect of sparsec.
"""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"sparsec {version('sparsec')}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def make_app(markup: Literal["rich"] | None) -> typer.Typer:
    """The application; `markup` None gives help without boxes and colours."""
    app = typer.Typer(
        name="sparsec",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=markup,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    for name, function in (
        ("compile", compile_model),
        ("prune", prune),
        ("quantise", quantise),
        ("run", run),
        ("verify", verify),
        ("bench", bench),
        ("simulate", simulate),
        ("explain", explain),
        ("inspect", inspect),
        ("diff", diff),
        ("ops", ops),
        ("passes", passes),
        ("targets", targets),
    ):
        app.command(name)(function)
    app.add_typer(models, name="models")
    return app


def command() -> Any:
    """The command to run: boxed help in a terminal with colours, plain help elsewhere."""
    fancy = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return typer.main.get_command(make_app("rich" if fancy else None))
