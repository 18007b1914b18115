"""Planar kernels alone: every way to list a layer's weights, measured beside the prediction, in one process.

    python benchmarks/planar.py [--isa host] [--cc gcc] [--only REGEX] [--rounds 9] [--all]

Cycles of CPU time of one thread over those that the products of the nonzero weights take at two FMAs a cycle, at the clock that
`--ghz` gives; the best of the rounds, the tilings taking turns. Input and output are planar, bias and relu are computed. For
each listing the fastest tiling is shown, and the one that the plan takes; `--all` shows every tiling.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kernels import EPILOGUE, EXTRAS, Compiled, aligned
from sparsec.backends.cpu.describe import ASSUMED_HZ
from sparsec.backends.cpu.isa import Isa, isa_named
from sparsec.backends.cpu.kernels.planar import PlanarGeometry, PlanarKernel
from sparsec.backends.cpu.kernels.planar_pack import pack
from sparsec.backends.cpu.kernels.planar_plan import Lists, PlanarProblem, cycles, listings, tilings
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.pruning.masks import choose

Array = np.ndarray[Any, Any]
LAYERS = [  # outputs, inputs, positions, pattern
    (768, 768, 128, "2:4"),
    (768, 768, 128, "1:4"),
    (3072, 768, 128, "unstructured@90%"),
    (768, 768, 128, "block:8x8@75%"),
    (768, 768, 128, "2:4/rows=4"),
    (128, 512, 784, "1:4"),
    (128, 512, 784, "unstructured@90%"),
    (1024, 256, 196, "1:4"),
    (1024, 256, 196, "block:8x8@75%"),
    (2048, 512, 49, "1:4"),
]


@dataclass
class Way:
    """One listing with one tiling: seconds a call, best so far, and the prediction in cycles."""

    lists: Lists
    s: int
    chunk: int
    predicted: float
    call: Callable[[], None]
    best: float = float("inf")


def weights(oc: int, ic: int, pattern: str) -> Array:
    """Random weights [oc, ic], pruned by magnitude."""
    w = np.random.default_rng(0).standard_normal((oc, 1, ic)).astype(np.float32)
    return (w * choose(parse_goal(pattern), np.abs(w)).mask).reshape(oc, ic)


def ways(w: Array, positions: int, isa: Isa, cc: str) -> list[Way]:
    """Every legal way, compiled."""
    (oc, ic), made = w.shape, []
    problem = PlanarProblem(1, positions, oc, ic, ic, False, False, epilogue_ops=2)
    for lists in listings(w):
        for s, full, s_tail, tails, chunk in tilings(problem, isa, lists):
            packed = pack(w, lists.r, lists.masks, lists.k_run, chunk, lists.panels)
            narrow = packed.entries.dtype == np.uint8
            kernel = PlanarKernel(
                lists.r, s, s_tail, lists.masks, lists.k_run, narrow=narrow, chunked=ic > chunk, epilogue=EPILOGUE, extras=EXTRAS
            )
            geometry = PlanarGeometry(
                1, positions, positions, full, tails, oc, lists.panels, lists.panels, ic, -(-ic // chunk), min(chunk, ic), 1,
                0, positions, 0, 0, 0, positions, 0,
            )  # fmt: skip
            predicted = full * cycles(problem, isa, lists, s, chunk)
            predicted += tails * cycles(problem, isa, lists, s_tail, chunk) if tails else 0.0
            made.append((Way(lists, s, chunk, predicted, lambda: None), kernel, geometry, packed))
    compiled = Compiled(isa, cc, [kernel for _, kernel, *_ in made])
    x, y, bias = aligned(ic * positions), aligned(oc * positions), aligned(oc)
    x[:] = np.random.default_rng(1).standard_normal(x.size)
    for way, kernel, geometry, packed in made:
        arrays = [x, packed.w, packed.entries, packed.counts, packed.begin, bias, y]
        bound = compiled.bind(kernel, geometry, [a.ctypes.data for a in arrays])
        way.call = lambda bound=bound, keep=arrays: bound()  # type: ignore[misc]
    return [way for way, *_ in made]


def measure(found: list[Way], rounds: int) -> None:
    """The best of the rounds of every way, in turns."""
    for _ in range(rounds):
        for way in found:
            way.call()
            start = time.thread_time_ns()
            way.call()
            way.call()
            way.best = min(way.best, (time.thread_time_ns() - start) / 2e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", default="host")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--only", default="", help="layers whose line matches")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ghz", type=float, default=ASSUMED_HZ / 1e9)
    parser.add_argument("--all", action="store_true", help="every tiling")
    options = parser.parse_args()
    isa = isa_named(options.isa)
    for oc, ic, positions, pattern in LAYERS:
        title = f"{ic} > {oc}, {positions} positions, {pattern}"
        if not re.search(options.only, title):
            continue
        w = weights(oc, ic, pattern)
        found = ways(w, positions, isa, options.cc)
        measure(found, options.rounds)
        ideal = np.count_nonzero(w) * -(-positions // isa.lanes) / isa.fma_per_cycle
        rows = []
        for lists in dict.fromkeys(way.lists for way in found):
            mine = [way for way in found if way.lists == lists]
            shown = {id(way): way for way in (min(mine, key=lambda a: a.best), min(mine, key=lambda a: a.predicted))}
            for way in sorted(mine, key=lambda a: a.best) if options.all else shown.values():
                ratios = (way.best * options.ghz * 1e9 / ideal, way.predicted / ideal)
                rows.append(
                    [
                        f"{lists.r}",
                        f"{len(lists.masks)}",
                        f"{lists.k_run}",
                        f"{way.s}",
                        f"{way.chunk}",
                        *(f"{r:.2f}" for r in ratios),
                    ]
                )
        print(f"{title}: {ideal / options.ghz / 1e3:.0f} us at peak", flush=True)
        print(
            plain_table([">outputs", ">lists", ">rows an entry", ">vectors", ">chunk", ">measured", ">predicted"], rows),
            flush=True,
        )


if __name__ == "__main__":
    main()
