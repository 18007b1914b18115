"""What a core or a channel did and when: intervals with their cause, stored compactly, cut into windows of cycles."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Cause(Enum):
    """What a cycle went to. Of cores all but the last four, of channels BUSY, LOCK, PEER, START and IDLE."""

    COMPUTE = "compute"
    PIPELINE = "pipeline"
    BANK = "bank conflicts"
    JUMP = "jumps"
    LOCK = "lock"
    DATA = "wait for data"
    WEIGHTS = "wait for weights"
    RESULTS = "wait for results"
    CASCADE = "wait for cascade"
    IDLE = "idle"
    BUSY = "busy"
    PEER = "wait for peer"
    START = "descriptor"


CORE_CAUSES = (
    Cause.COMPUTE,
    Cause.PIPELINE,
    Cause.BANK,
    Cause.JUMP,
    Cause.LOCK,
    Cause.DATA,
    Cause.WEIGHTS,
    Cause.RESULTS,
    Cause.CASCADE,
    Cause.IDLE,
)
CHANNEL_CAUSES = (Cause.BUSY, Cause.LOCK, Cause.PEER, Cause.START, Cause.IDLE)
_CAUSES = tuple(Cause)
_NUMBERS = {cause: i for i, cause in enumerate(_CAUSES)}
BEGIN, END, CAUSE, TAG, NUMBER, WORK, PIPELINE, BANK, JUMP = range(9)
_WIDTH = 9


class Timeline:
    """Intervals in the order of time, which do not overlap; what lies between them is idle.

    A row is begin, end, cause, tag of the words concerned (0: unknown), number (of a descriptor), work (words that moved, vector
    instructions that multiplied), and cycles within it that a core lost to its pipeline, banks and jumps.
    """

    def __init__(self) -> None:
        self._rows = array("q")

    def __len__(self) -> int:
        return len(self._rows) // _WIDTH

    def add(
        self,
        begin: int,
        end: int,
        cause: Cause,
        tag: int = 0,
        number: int = 0,
        work: int = 0,
        lost: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        """Append an interval; one that goes on as the last did makes that longer."""
        if end <= begin:
            return
        rows, code = self._rows, _NUMBERS[cause]
        if rows and rows[-8] == begin and rows[-7] == code and rows[-6] == tag and rows[-5] == number:
            rows[-8] = end
            for i, more in enumerate((work, *lost), -4):
                rows[i] += more
            return
        rows.extend((begin, end, code, tag, number, work, *lost))

    def add_between(
        self, begin: int, end: int, waits: Sequence[tuple[int, int]], work: int, lost: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        """Append what a core did from `begin` to `end`: it computed, but for when it waited for the cascade (from, to). Its work
        and losses are spread evenly over the rest."""
        computed = end - begin - sum(b - a for a, b in waits)
        done, told = 0, [0] * 4
        for at, (a, b) in zip([begin, *(b for _, b in waits)], [*waits, (end, end)], strict=True):
            done += a - at
            until = [n * done // computed for n in (work, *lost)] if computed else [0] * 4
            own = [u - t for u, t in zip(until, told, strict=True)]
            if a > at:
                self.add(at, a, Cause.COMPUTE, 0, 0, own[0], (own[1], own[2], own[3]))
                told = until
            self.add(a, b, Cause.CASCADE)

    def rows(self) -> Array:
        """int64 [n, 9], a copy."""
        return np.array(self._rows, np.int64).reshape(-1, _WIDTH)

    def within(self, begin: int, end: int) -> Array:
        """The rows that lie in [begin, end), cut to it; work and losses in proportion, rounded down."""
        rows = self.rows()
        rows = rows[(rows[:, END] > begin) & (rows[:, BEGIN] < end)]
        whole = rows[:, END] - rows[:, BEGIN]
        rows[:, BEGIN] = np.maximum(rows[:, BEGIN], begin)
        rows[:, END] = np.minimum(rows[:, END], end)
        part = rows[:, END] - rows[:, BEGIN]
        rows[:, WORK:] = rows[:, WORK:] * part[:, None] // np.maximum(whole, 1)[:, None]
        return rows

    def cycles(self, begin: int, end: int) -> dict[Cause, int]:
        """How many cycles of [begin, end) went to each cause; they add up to the window."""
        rows = self.within(begin, end)
        spent = np.bincount(rows[:, CAUSE], rows[:, END] - rows[:, BEGIN], len(_CAUSES)).astype(np.int64)
        found = {cause: int(n) for cause, n in zip(_CAUSES, spent, strict=True)}
        for cause, column in ((Cause.PIPELINE, PIPELINE), (Cause.BANK, BANK), (Cause.JUMP, JUMP)):
            found[cause] += int(rows[:, column].sum())
            found[Cause.COMPUTE] -= int(rows[:, column].sum())
        found[Cause.IDLE] += end - begin - int(spent.sum())
        return found


def cause_of(code: int) -> Cause:
    """The cause that a row's number means."""
    return _CAUSES[code]
