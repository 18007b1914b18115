"""Where text goes: results on stdout, progress on stderr. Colour, bars and boxes in a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from sparsec.compiler.cli.failure import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def say(text: str) -> None:
    """A line of the result."""
    print(printable(text))


def emit_json(data: object) -> None:
    """The result for a program: indented JSON."""
    print(json.dumps(data, indent=1, ensure_ascii=True))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under headings; a heading that starts with `>` makes its column right-aligned."""
    cells = [[printable(c).replace("\n", "\\n") for c in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, cells)
    else:
        print(plain_table(columns, cells))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as aligned text, two spaces between columns, nothing cut off."""
    titles = [c.removeprefix(">") for c in columns]
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        parts = (c.rjust(w) if t.startswith(">") else c.ljust(w) for c, w, t in zip(row, widths, columns, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join(map(line, [titles, *rows]))


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for c in columns:
        shown.add_column(c.removeprefix(">"), justify="right" if c.startswith(">") else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    Console().print(shown)


class Steps:
    """Progress of long work on stderr: call it with the name of each step as it begins.

    In a terminal one line with a spinner (a bar when `total` is known), which vanishes at the end; elsewhere a line a step with
    the seconds that it took; nothing when `quiet`.
    """

    def __init__(self, title: str, *, total: int | None = None, quiet: bool = False) -> None:
        self.title, self.total, self.quiet = title, total, quiet
        self.live = sys.stderr.isatty() and sys.stdout.isatty()
        self._step, self._start = "", 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Steps:
        if self.live and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.title, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._finish_line()

    def __call__(self, step: str) -> None:
        """A step begins, and the one before it has ended."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self.title}: {printable(step)}", advance=1 if self._step else 0)
        else:
            self._finish_line()
        self._step, self._start = step, time.perf_counter()

    def _finish_line(self) -> None:
        if self._step and not self.quiet:
            print(f"{self.title}: {printable(self._step)} {time.perf_counter() - self._start:.2f} s", file=sys.stderr, flush=True)
        self._step = ""


def count(n: float) -> str:
    """A count with a decimal prefix: 4.09 G."""
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(n) >= factor:
            return f"{n / factor:.3g}{prefix}" if abs(n) < 999.5 * factor else f"{n / factor:.0f}{prefix}"
    return f"{n:.3g}"


def size(n: int) -> str:
    """Bytes with a binary prefix: 97.5 MiB."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if n >= factor:
            return f"{n / factor:.1f} {unit}"
    return f"{n} B"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits: 1.23 ms."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}" if seconds < 999.5 * factor else f"{seconds / factor:.0f} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
