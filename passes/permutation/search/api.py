"""Search for the best order of one class of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.passes.permutation.search import gyro, stripe, swap
from sparsec.passes.permutation.search.arrangement import Arrangement, Clock
from sparsec.passes.permutation.search.part import Part, check_parts, retained

Array = np.ndarray[Any, Any]
ESCAPES = 300


class Method(StrEnum):
    """How orders are searched for."""

    none = "none"
    gyro = "gyro"
    swap = "swap"
    stripe = "stripe"


_SEARCHES = {Method.gyro: gyro.improve, Method.swap: swap.improve, Method.stripe: stripe.improve}


@dataclass(frozen=True)
class Found:
    """`order` [items]: the item that comes to each place. `before` and `after`: the saliency that all parts keep."""

    order: Array
    before: float
    after: float
    seconds: float
    finished: bool

    @property
    def gain(self) -> float:
        """After / before - 1."""
        return self.after / self.before - 1 if self.before else 0.0


def _method(name: str) -> Method:
    if name not in list(Method):
        raise UsageError(f"search method {str(name)!r} is not known: expected one of {', '.join(Method)}")
    return Method(name)


def search(
    parts: Sequence[Part],
    method: Method | str = Method.gyro,
    *,
    seed: int = 0,
    time_limit_s: float | None = None,
    escapes: int = ESCAPES,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """The best order that the method finds; the same for the same seed unless the time is up first (`finished`).

    `escapes`: how often at most a local optimum is left for a better one, where nearly all of the time goes for small classes.
    Never keeps less than the order as it is. UsageError for parts that do not fit together, and for an unknown method.
    """
    items = check_parts(parts)
    clock = Clock(time_limit_s, progress or (lambda _: None), escapes)
    identity = np.arange(items)
    before = retained(parts, identity)
    improve = _SEARCHES.get(_method(method))
    if improve is None or items < 2:
        return Found(identity, before, before, clock.seconds, True)
    state = Arrangement(parts)
    if state.gains:
        improve(state, np.random.default_rng(seed), clock)
    finished = not clock.over()
    after = retained(parts, state.order)
    if after <= before:
        return Found(identity, before, before, clock.seconds, finished)
    return Found(state.order, before, after, clock.seconds, finished)
