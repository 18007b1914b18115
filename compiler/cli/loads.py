"""Options of the memory beside a systolic array, which `compile`, `explain` and `simulate` share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.backends.systolic.traffic import Memory

MEMORY = "The memory beside a systolic array"


class LoadTiming(StrEnum):
    """Whether fetches overlap with the array's work."""

    double_buffered = "double-buffered"
    exposed = "exposed"


@dataclass(frozen=True)
class Loads:
    """What traffic is counted with, if it is."""

    loads: Annotated[
        LoadTiming | None,
        typer.Option(
            "--loads",
            metavar="double-buffered|exposed",
            help="Count bytes, waiting for them and energy, and choose dataflows by cycles with the waiting.",
            show_default=False,
            rich_help_panel=MEMORY,
        ),
    ] = None
    memory: Annotated[
        Path | None,
        typer.Option(
            "--memory",
            metavar="FILE.toml",
            help="Buffers, bandwidth and energies to count with (docs/systolic.md) instead of those that come with sparsec.",
            show_default=False,
            rich_help_panel=MEMORY,
        ),
    ] = None

    def parameters(self) -> Memory | None:
        """The memory that the options describe; None when traffic is not asked for. UsageError for a file without --loads."""
        from sparsec.backends.systolic.traffic import read_memory

        if self.loads is None:
            if self.memory is not None:
                raise UsageError("--memory says what traffic is counted with: give --loads double-buffered or exposed, too")
            return None
        return read_memory(self.memory, double=self.loads is LoadTiming.double_buffered)

    def refuse(self, where: str) -> None:
        """UsageError when an option is given; `where` says for what it is not there."""
        if self.loads is not None or self.memory is not None:
            raise UsageError(f"--loads and --memory are for systolic arrays: leave them out for {where}")
