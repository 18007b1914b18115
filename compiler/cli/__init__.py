"""The command line. Importing it loads nothing: `main` does."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sparsec` with `argv` (default: the process's arguments); returns the exit status."""
    from sparsec.compiler.cli.entry import run

    return run(argv)
