"""Exchanges of density between layers within a budget, and searches over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.metric import Loss
from sparsec.passes.pruning.strengths import Adjustable

State = tuple[int, ...]  # of every layer, which of its strengths
_ATTEMPTS = 300  # at two exchanges that lead to something new
_FAVOUR = 3.0  # by how much a pair's logarithm of odds may differ for the sizes of its layers
_BISECTIONS = 6  # to 1.6 % of the range of densities


class Shares:
    """What states of the layers leave of their sizes, and exchanges between them that keep within a budget."""

    def __init__(self, layers: Sequence[Adjustable], target: float | None, rest: float = 0.0) -> None:
        """`target` None: what the recipe leaves. `rest`, in the unit of sizes, is what else counts and never gets less.

        UsageError when the sparsest state is above the target.
        """
        self.layers = layers
        total = (sum(layer.size for layer in layers) + rest) or 1
        self._rest = rest / total
        self._cost = [[layer.size * s.density / total for s in layer.strengths] for layer in layers]
        left = self._rest + sum(layer.size * layer.left / total for layer in layers)
        self.target = left if target is None else target
        inner = (self.target - self._rest) / max(1 - self._rest, 1e-12)
        self._wanted = [layer.left if target is None else inner for layer in layers]
        self._limit = self.target + 1e-6
        if (least := self.least) > self._limit:
            also = " and the rest of the network" if rest else ""
            raise UsageError(
                f"a target density of {self.target:g} cannot be reached: the strongest patterns leave {least:.4f} of "
                f"what the {len(layers)} layers that share it{also} take, give that or more"
            )

    @property
    def least(self) -> float:
        """The share that the sparsest state leaves."""
        return self._rest + sum(c[-1] for c in self._cost)

    def density(self, state: State) -> float:
        """The share that is left."""
        return self._rest + sum(c[i] for c, i in zip(self._cost, state, strict=True))

    def uniform(self) -> State:
        """The target in every layer, as nearly as its strengths allow."""
        levels = [
            next((i for i, s in enumerate(layer.strengths) if s.density <= wanted + 1e-6), len(layer.strengths) - 1)
            for layer, wanted in zip(self.layers, self._wanted, strict=True)
        ]
        return self.near(levels)

    def near(self, state: Sequence[int]) -> State:
        """A state of another budget brought to this one: the densest layers give, the sparsest take what is left over."""
        levels = list(state)
        while self.density(tuple(levels)) > self._limit:
            lower = [k for k, layer in enumerate(self.layers) if levels[k] + 1 < len(layer.strengths)]
            levels[max(lower, key=lambda k: (self.layers[k].strengths[levels[k]].density, self.layers[k].size))] += 1
        order = sorted(range(len(levels)), key=lambda k: self.layers[k].strengths[levels[k]].density)
        return self._raised(levels, order)

    def exchange(self, state: State, giver: int, taker: int, steps: int, others: Sequence[int]) -> State | None:
        """`giver` gets sparser, by `steps` or more, until `taker` can get denser, which takes all it can; None if it never can.

        What the taker leaves goes to `others`, in their order.
        """
        levels = list(state)
        for _ in range(len(self._cost[giver])):
            levels[giver] += steps
            if levels[giver] >= len(self._cost[giver]):
                return None
            raised = self._raised(levels, [taker])
            if raised[taker] < state[taker]:
                return self._raised(list(raised), [k for k in others if k not in (giver, taker)])
            steps = 1
        return None

    def _raised(self, levels: Sequence[int], order: Sequence[int]) -> State:
        """Denser in the order given, as far as the budget allows."""
        found = list(levels)
        room = self._limit - self.density(tuple(found))
        for k in order:
            while found[k] and (more := self._cost[k][found[k] - 1] - self._cost[k][found[k]]) <= room:
                found[k] -= 1
                room -= more
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Found:
    """The best state of a search, its loss, that of the first state, and how many were tried."""

    state: State
    loss: Loss
    first: Loss
    evaluations: int


def search(
    share: Shares,
    start: State,
    loss: Callable[[State], Loss],
    evaluations: int,
    seed: int,
    say: Callable[[str], None],
    enough: float = -inf,
) -> Found:
    """Hill climbing: exchanges between two layers, kept when the loss falls.

    What helps is done again; the opposite of what hurts comes next; otherwise pairs come at random, large layers rather giving
    to small ones, which that makes much denser, in larger steps for the first half. It ends when nothing new can be tried, or the
    loss is `enough`.
    """
    rng = np.random.default_rng(seed)
    say(f"budget: 1 of up to {evaluations}")
    best = first = loss(start)
    state, tried, count = start, {start}, 1
    urgent: list[tuple[int, int]] = []
    while count < evaluations and best.value > enough:
        steps = 2 if count < evaluations // 2 else 1
        move = _next(share, state, urgent, tried, steps, rng)
        if move is None:
            break
        pair, candidate = move
        tried.add(candidate)
        count += 1
        say(f"budget: {count} of up to {evaluations}, loss {best.value:.4g}")
        value = loss(candidate)
        if value < best:
            best, state, urgent = value, candidate, [pair]
        else:
            urgent = [(pair[1], pair[0])]
    return Found(state, best, first, count)


def sparsest(
    layers: Sequence[Adjustable],
    rest: float,
    loss: Callable[[State], Loss],
    allowed: float,
    evaluations: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[list[tuple[Shares, Found]], int]:
    """Ever smaller budgets whose loss a search brings down to `allowed`, by bisection, what it found there, and how many states
    were tried.

    Every density gets an equal part of the evaluations that are left, and begins with what the last one found. UsageError where
    the loss is above it at all of them.
    """
    low, high = Shares(layers, 1.0, rest).least, 1.0
    within: list[tuple[Shares, Found]] = []
    lowest, count = inf, 0
    last: State | None = None
    for left in range(_BISECTIONS, 0, -1):
        share = Shares(layers, (low + high) / 2, rest)
        say(f"budget: target density {share.target:.3f}")
        start = share.uniform() if last is None else share.near(last)
        found = search(share, start, loss, max(1, (evaluations - count) // left), seed, say, allowed)
        last = found.state
        count, lowest = count + found.evaluations, min(lowest, found.loss.value)
        if found.loss.value <= allowed:
            within.append((share, found))
            high = share.target
        else:
            low = share.target
    if not within:
        raise UsageError(
            f"no density that was tried keeps the loss within {allowed:g}, the lowest is {lowest:.4g} with {low:.3f} of what the "
            f"{len(layers)} layers take: allow more, or prune fewer layers"
        )
    return within, count


def _next(
    share: Shares, state: State, urgent: Sequence[tuple[int, int]], tried: set[State], steps: int, rng: np.random.Generator
) -> tuple[tuple[int, int], State] | None:
    """The next pair and the state that it leads to, not tried before; None when there is none."""
    n = len(state)
    pairs: list[tuple[int, int]] = [(a, b) for a in range(n) for b in range(n) if a != b]
    size = np.log([layer.size for layer in share.layers])
    favour = [float(np.clip(size[a] - size[b], -_FAVOUR, _FAVOUR)) for a, b in pairs] + rng.gumbel(size=len(pairs))
    order = [*urgent, *(pairs[i] for i in np.argsort(-favour))]
    others = [int(i) for i in rng.permutation(n)]
    for step in sorted({steps, 1}, reverse=True):
        for giver, taker in order:
            found = share.exchange(state, giver, taker, step, others)
            if found is not None and found not in tried:
                return (giver, taker), found
    return _two_givers(share, state, pairs, tried, rng)


def _two_givers(
    share: Shares, state: State, pairs: Sequence[tuple[int, int]], tried: set[State], rng: np.random.Generator
) -> tuple[tuple[int, int], State] | None:
    """Two exchanges at once, where none alone is new."""
    for _ in range(_ATTEMPTS if pairs else 0):
        (giver, taker), second = (pairs[i] for i in rng.integers(len(pairs), size=2))
        between = share.exchange(state, giver, taker, 1, ())
        others = [int(i) for i in rng.permutation(len(state))]
        found = between and share.exchange(between, second[0], second[1], 1, others)
        if found and found not in tried:
            return second, found
    return None
