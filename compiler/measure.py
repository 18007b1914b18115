"""Timing that is fair on a busy machine: contestants take turns, CPU time, medians."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every timed run: CPU time of the whole process (all threads), and wall time."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    @property
    def cpu_median(self) -> float:
        """Median CPU seconds a run."""
        return median(self.cpu)

    @property
    def wall_median(self) -> float:
        """Median wall seconds a run."""
        return median(self.wall)


Turn = Callable[[float], Timing]  # runs for about so many seconds


def take_turns(
    runs: Mapping[str, Run],
    *,
    elsewhere: Mapping[str, Turn] | None = None,
    rounds: int = 10,
    seconds: float = 0.1,
    pause: float = 0.0,
    tick: Callable[[], None] | None = None,
) -> dict[str, Timing]:
    """Time several functions in turns of about `seconds`, `rounds` turns each, after one turn to warm up.

    A turn begins with an untimed run, so that each finds its own data in the caches, and the order turns round by round, so
    that what else the machine does hits all alike. `pause` seconds before a turn let threads that the last engine left
    spinning go to sleep. `tick` is called after every round. `elsewhere`: contestants in other processes, whose clocks only
    they can read, so they take a whole turn of the given seconds and tell of its runs.
    """
    turns: dict[str, Turn] = {name: _local_turn(run, _repeats(run, seconds)) for name, run in runs.items()}
    turns |= elsewhere or {}
    found: dict[str, list[Timing]] = {name: [] for name in turns}
    names = list(turns)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            time.sleep(pause)
            found[name].append(turns[name](seconds))
        if tick is not None:
            tick()
    return {name: _joined(each) for name, each in found.items()}


def _joined(turns: Sequence[Timing]) -> Timing:
    return Timing(tuple(s for t in turns for s in t.cpu), tuple(s for t in turns for s in t.wall))


def _local_turn(run: Run, repeats: int) -> Turn:
    """Turns of so many runs in this process, whatever the seconds: equal work in all rounds."""

    def turn(_: float) -> Timing:
        run()
        cpu, wall = [], []
        for _ in range(repeats):
            w, c = time.perf_counter(), time.process_time()
            run()
            cpu.append(time.process_time() - c)
            wall.append(time.perf_counter() - w)
        return Timing(tuple(cpu), tuple(wall))

    return turn


def _repeats(run: Run, seconds: float) -> int:
    """Runs that fit into `seconds`, at least 2 and at most 1000."""
    run()
    start = time.perf_counter()
    run()
    return max(2, min(1000, int(seconds / max(time.perf_counter() - start, 1e-6))))


def machine_line() -> str:
    """The machine in words: CPU, usable cores, kernel."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu or platform.machine()}, {cores} core(s) usable, {platform.system()} {platform.release()}"
