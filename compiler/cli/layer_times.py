"""Seconds of every layer, measured: by builds with a clock after every kernel call, in turns when there are several libraries."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

from sparsec.compiler.cli.session import profile_build

if TYPE_CHECKING:
    import numpy as np

    from sparsec.compiler.runtime import CompiledModel

    Feeds = dict[str, np.ndarray[Any, Any]]

_RUNS = 3  # timed runs of a turn; one before them brings the library's own data into the caches


def layer_seconds(libraries: Mapping[str, CompiledModel], feeds: Feeds, rounds: int) -> dict[str, list[float]]:
    """For each library the median seconds of its layers, in the order of its report, over `rounds` turns.

    The order turns round by round, so that what else the machine does hits all alike.
    """
    with ExitStack() as stack:
        runners = {name: stack.enter_context(profile_build(c)).runner(feeds) for name, c in libraries.items()}
        samples: dict[str, list[list[float]]] = {name: [] for name in runners}
        names = list(runners)
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                before = [float(s) for s in runners[name]()]
                for _ in range(_RUNS):
                    after = [float(s) for s in runners[name]()]
                    samples[name].append([b - a for a, b in zip(before, after, strict=True)])
                    before = after
    return {name: _by_layer(libraries[name], samples[name]) for name in libraries}


def _by_layer(compiled: CompiledModel, samples: list[list[float]]) -> list[float]:
    steps = [median(column) for column in zip(*samples, strict=True)]
    return [sum(steps[i] for i in layer.steps) for layer in compiled.report.layers]
