"""Command line of the models: ``python -m models list`` and ``python -m models build NAME -o FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import onnx

import models


def parse_option(name: str, text: str) -> tuple[str, object]:
    """Read ``key=value`` as an option of the model ``name``, by the type of the option's default."""
    key, separator, value = text.partition("=")
    known = models.describe(name).options
    if not separator or key not in known:
        raise ValueError(f"{name} takes key=value for the keys {', '.join(sorted(known)) or '(none)'}, not {text!r}")
    default = known[key]
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{key} is true or false, not {value!r}")
        return key, value.lower() == "true"
    if isinstance(default, str):
        return key, value
    try:  # numbers, and None for a number that is chosen by the builder
        return key, int(value)
    except ValueError:
        raise ValueError(f"{key} is a whole number, not {value!r}") from None


def listing() -> str:
    """Describe all models, one a paragraph."""
    lines = []
    for name in models.names():
        info = models.describe(name)
        inputs = ", ".join(f"{value}{list(shape)}" for value, shape in info.inputs)
        options = ", ".join(f"{key}={value}" for key, value in info.options.items())
        lines += [name, f"    {info.description}", f"    source: {info.source}", f"    inputs: {inputs}"]
        lines += [f"    options: {options}"] if options else []
    return "\n".join(lines)


def write(name: str, file: str, *, seed: int = 0, batch: int = 1, options: Sequence[str] = ()) -> onnx.ModelProto:
    """Build a model with ``key=value`` options and save it."""
    model = models.build(name, seed=seed, batch=batch, **dict(parse_option(name, text) for text in options))
    onnx.save(model, file)
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models", description="Seeded builders of well-known architectures.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="describe the models")
    build = commands.add_parser("build", help="build a model and save it")
    build.add_argument("name", metavar="NAME", help="one of the listed models")
    build.add_argument("-o", "--output", metavar="FILE", required=True, help="where to save the ONNX file")
    build.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    build.add_argument("--batch", type=int, default=1, help="batch size (default: 1)")
    build.add_argument("--option", metavar="KEY=VALUE", action="append", default=[], help="option of the model; repeatable")
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        print(listing())
        return 0
    try:
        model = write(arguments.name, arguments.output, seed=arguments.seed, batch=arguments.batch, options=arguments.option)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {len(model.graph.node)} nodes, {model.ByteSize() / 1e6:.1f} MB")
    return 0
