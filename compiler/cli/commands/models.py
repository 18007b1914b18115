"""`sparsec models`: the model builders of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsec.compiler.cli.console import Steps, emit_json, say, size, table
from sparsec.compiler.cli.options import JsonOption, QuietOption
from sparsec.compiler.errors import UsageError

models = typer.Typer(help="List and build models to try (in the repository).", invoke_without_command=True, no_args_is_help=False)


@models.callback()
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models(json: JsonOption = False) -> None:
    """Describe the models that can be built."""
    package = _package()
    infos = [package.describe(name) for name in package.names()]
    if json:
        keys = ("name", "description", "source", "inputs")
        emit_json([{**{k: getattr(i, k) for k in keys}, "options": dict(i.options)} for i in infos])
        return
    rows = [[i.name, " ".join(f"{n}{list(s)}" for n, s in i.inputs), _options(i), i.description] for i in infos]
    table(("model", "inputs", "options", "what it is"), rows)


@models.command("build")
def build_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `sparsec models list`.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write; NAME.onnx by default.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the weights.")] = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Batch size.")] = 1,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of the model. Repeatable.", show_default=False),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Build a model with seeded random weights and save it as ONNX."""
    _package()
    from models import cli

    path = output or Path(f"{name}.onnx")
    with Steps("models", quiet=quiet) as steps:
        steps(f"build {name}")
        try:
            model = cli.write(name, str(path), seed=seed, batch=batch, options=option or [])
        except (ValueError, TypeError) as exc:
            raise UsageError(str(exc)) from None
    say(f"{path}: {len(model.graph.node)} nodes, {size(path.stat().st_size)}")


def _options(info: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in info.options.items())


def _package() -> Any:
    """The repository's `models` package, which is not installed. UsageError outside of the repository."""
    import importlib.util
    import sys

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = importlib.util.find_spec("models._registry") is not None  # another package may be called models
    except ModuleNotFoundError:
        found = False
    if not found:
        raise UsageError("the model builders are not installed with sparsec: run this in the root of its repository")
    import models as package

    return package
