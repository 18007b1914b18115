"""The arrays: FlexiSAGA (arXiv 2506.01566) and SAT (arXiv 2309.13015), with the parameters that our model of them has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparsec.compiler.errors import UsageError

MAX_SIDE = 256  # rows and columns: what an index byte of the compressed-column format reaches


@dataclass(frozen=True, slots=True)
class Machine:
    """An array of `rows` x `cols` PEs of a `family`, "flexisaga" or "sat".

    `lanes` is how many data values a link carries a cycle for a PE to choose from by the index that comes with a weight. It
    bounds how many columns csOS merges and which n:m a SAT PE takes (m <= lanes). The papers do not give it: the defaults are
    assumed (4 merged columns; groups of 16, the widest that the SAT paper trains with).
    """

    family: str
    rows: int
    cols: int
    lanes: int

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MAX_SIDE and 1 <= self.cols <= MAX_SIDE and 1 <= self.lanes <= 64):
            raise UsageError(f"target {self.name!r} is too large or empty: rows and columns are 1 to {MAX_SIDE}, lanes 1 to 64")

    @property
    def name(self) -> str:
        """As users write it: `flexisaga:16x16`, `sat:32x32/lanes=8`."""
        return f"{self.family}:{self.rows}x{self.cols}" + ("" if self.lanes == LANES[self.family] else f"/lanes={self.lanes}")

    @property
    def pes(self) -> int:
        """Multiply-accumulates a cycle at most."""
        return self.rows * self.cols


LANES = {"flexisaga": 4, "sat": 16}


def parse_machine(text: str) -> Machine:
    """`flexisaga:RxC` or `sat:RxC`, each with `/lanes=L` if wanted; UsageError with the known forms."""
    found = re.fullmatch(r"(flexisaga|sat):(\d{1,4})x(\d{1,4})(?:/lanes=(\d{1,3}))?", text.strip())
    if found is None:
        raise UsageError(f"target {text!r} is not a systolic array: expected flexisaga:RxC or sat:RxC, as flexisaga:16x16")
    family = found[1]
    return Machine(family, int(found[2]), int(found[3]), int(found[4] or LANES[family]))
