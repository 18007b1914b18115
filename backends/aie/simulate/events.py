"""Time: what happens when, and who waits for what."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.compiler.errors import StreamError

Action = Callable[[], None]


class Clock:
    """Actions at cycles, in the order in which they were planned where cycles are equal."""

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Action]] = []
        self._order = count()

    def at(self, cycle: int, action: Action) -> None:
        """Plan an action, not before now."""
        heappush(self._heap, (max(cycle, self.now), next(self._order), action))

    def run(self, limit: int) -> None:
        """Carry out actions until there are none. StreamError when `limit` cycles are not enough."""
        while self._heap:
            self.now, _, action = heappop(self._heap)
            if self.now > limit:
                raise StreamError(
                    f"cycle {self.now}: the array still works after {limit} cycles: raise the limit, or look for a loop"
                )
            action()


@dataclass(eq=False)
class _Waiter:
    who: str
    value: int
    at_least: bool
    action: Action


@dataclass
class Lock:
    """A semaphore of a tile. `maximum` is what its bits hold.

    `cause` and `tag` are of its last release: what one who waited for it lost time to, and which words came (see `Words`).
    """

    name: str
    maximum: int
    value: int = 0
    cause: Cause = Cause.IDLE
    tag: int = 0
    waiters: deque[_Waiter] = field(default_factory=deque)

    def acquire(self, who: str, value: int, at_least: bool, action: Action) -> None:
        """Call `action` when the lock holds at least (or exactly) `value`, after taking it off. Of those who wait, the first that
        can be served is."""
        self.waiters.append(_Waiter(who, value, at_least, action))
        self._serve()

    def release(self, value: int, cause: Cause, tag: int = 0) -> None:
        """Add `value`. StreamError when the lock cannot hold the sum."""
        self.set(self.value + value, cause, tag)

    def set(self, value: int, cause: Cause = Cause.IDLE, tag: int = 0) -> None:
        """Make it hold `value`; without a cause it is the control stream's. StreamError when it cannot."""
        self.cause, self.tag = cause, tag
        if not 0 <= value <= self.maximum:
            raise StreamError(f"{self.name} would hold {value}: it holds 0 to {self.maximum}")
        self.value = value
        self._serve()

    def _serve(self) -> None:
        while served := next((w for w in self.waiters if self._serves(w)), None):
            self.value -= served.value
            self.waiters.remove(served)
            served.action()

    def _serves(self, waiter: _Waiter) -> bool:
        return self.value >= waiter.value if waiter.at_least else self.value == waiter.value
