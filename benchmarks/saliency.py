"""What orders of channels are worth: the share of the weights' magnitude that a pattern keeps, by search method.

    python benchmarks/saliency.py [--json FILE] [--only hinm|stripes|grouped|blocks] [--slow]

hinm     Hierarchical n:m, 256 x 512, V = 32, 75 %: none, outputs ordered, inputs of each tile ordered, both. The weights are
         g[i, j], independent standard normal, times exp(0.5 (r[i] + c[j])) with normal r and c (lognormal scales), or times
         exp(0.82 s[k(i), j]) with normal s and 8 groups k of 32 rows in random order (latent groups).
stripes  2:4 on the 128 x 64 uniform weights of NVIDIA apex's permutation_test.py (seed 1), whose README gives the efficacies to
         compare with (Pool and Yu, Channel Permutations for N:M Sparsity, NeurIPS 2021): what is gained over the order as it
         is, as a share of what the best half of every row would gain.
grouped  n:m:g shared out greedily and by linear assignment, normal weights.
blocks   Blocks, and n:m with one choice for 4 or 32 rows, on the latent groups: one search over the outputs, then one over the
         inputs, by each method.
--slow   Instead: seconds for the shapes of ResNet-50 (hierarchical n:m, all but the first convolution) and of BERT base (2:4),
         with random weights and the classes of channels that residuals and heads make.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.sparsity import NMG, Unstructured
from sparsec.compiler.sparsity.text import Goal, parse_goal
from sparsec.passes.permutation.search.api import Method, search
from sparsec.passes.permutation.search.part import INPUTS, OUTPUTS, Part
from sparsec.passes.permutation.search.tiles import search_tiles
from sparsec.passes.pruning.masks import choose, nmg_mask

Array = np.ndarray[Any, Any]
Row = dict[str, Any]
HINM = parse_goal("hinm:32:2:4@75%")
SEARCHES = (Method.gyro, Method.swap, Method.stripe)
# unstructured, none, outputs, inputs, both: measured with another implementation of the paper's search (arXiv 2407.20496)
HINM_REFERENCE = {
    "iid normal": (0.516, 0.407, 0.413, 0.425, 0.432),
    "lognormal scales": (0.636, 0.519, 0.522, 0.542, 0.544),
    "latent groups": (0.668, 0.539, 0.596, 0.563, 0.622),
}
APEX = {"swap": 0.321, "stripe": 0.366, "gyro": None, "1000 random": 0.111}  # its README, for the same weights


def distributions(rows: int = 256, columns: int = 512, seed: int = 0) -> dict[str, Array]:
    """The magnitudes of the three kinds of weights, float32 [rows, 1, columns]."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((rows, columns))
    scales = np.exp(0.5 * (rng.standard_normal((rows, 1)) + rng.standard_normal((1, columns))))
    group = rng.permutation(np.arange(rows) % 8)
    latent = np.exp(0.82 * rng.standard_normal((8, columns)))[group]
    found = {"iid normal": normal, "lognormal scales": normal * scales, "latent groups": normal * latent}
    return {name: np.abs(w).astype(np.float32)[:, None] for name, w in found.items()}


def whole(saliency: Array, goal: Goal, axis: str, *, own_lists: bool = False) -> Part:
    """A part whose class owns all of the axis."""
    return Part(saliency, goal, axis, np.arange(saliency.shape[0 if axis == OUTPUTS else 2])[:, None], own_lists)


def kept(goal: Goal, saliency: Array) -> float:
    """The share of the saliency that a pattern keeps."""
    return float(saliency[choose(goal, saliency).mask].sum(dtype=np.float64) / saliency.sum(dtype=np.float64))


def hinm_table() -> list[Row]:
    """The shares that hierarchical n:m keeps, beside the reference."""
    rows = []
    for name, w in distributions().items():
        total, start = float(w.sum(dtype=np.float64)), perf_counter()
        ordered = search([whole(w, HINM, OUTPUTS)])
        lists = search_tiles(w, HINM)
        vectors = whole(w, HINM, OUTPUTS, own_lists=True)
        both = search_tiles(vectors.ordered(search([vectors]).order).saliency, HINM)
        found = (
            kept(Goal(Unstructured(), HINM.sparsity), w),
            kept(HINM, w),
            ordered.after / total,
            lists.after / total,
            both.after / total,
        )
        names = ("unstructured", "none", "outputs", "inputs", "both")
        rows.append(
            {"weights": name, "seconds": perf_counter() - start}
            | dict(zip(names, found, strict=True))
            | {f"{n} reference": r for n, r in zip(names, HINM_REFERENCE[name], strict=True)}
        )
    return rows


def stripes_table(seed: int = 0) -> list[Row]:
    """Efficacy of each method on 2:4."""
    w = np.random.RandomState(1).rand(128, 64).astype(np.float32)[:, None]
    goal = parse_goal("2:4")
    bound = float(np.sort(w[:, 0], axis=1)[:, 32:].sum(dtype=np.float64))
    part = whole(w, goal, INPUTS)
    default = part.retained()
    rng, start = np.random.default_rng(seed), perf_counter()
    drawn = max(part.ordered(rng.permutation(64)).retained() for _ in range(1000))
    results = {"1000 random": (max(drawn, default), perf_counter() - start)}
    for method in SEARCHES:
        found = search([part], method, seed=seed, time_limit_s=60)
        results[method.value] = (found.after, found.seconds)
    return [
        {"method": name, "efficacy": (value - default) / (bound - default), "published": APEX[name], "seconds": seconds}
        for name, (value, seconds) in results.items()
    ]


def grouped_table() -> list[Row]:
    """Energies of n:m:g by both ways to share out."""
    w = np.abs(np.random.default_rng(0).standard_normal((128, 1, 480))).astype(np.float32)
    rows = []
    for n, m in ((2, 4), (1, 4), (2, 8)):
        for g in (1, 4, 16):
            pattern = NMG(n, m, g)
            if pattern.chunk > w.shape[2]:
                continue
            some = w[:, :, : w.shape[2] // pattern.chunk * pattern.chunk]
            greedy, best = (float(some[nmg_mask(pattern, some, exact)].sum() / some.sum()) for exact in (False, True))
            rows.append({"pattern": pattern.spec, "greedy": greedy, "assigned": best})
    return rows


def blocks_table(limit_s: float = 10.0) -> list[Row]:
    """Shares that blocks and shared rows keep after a search over the outputs and one over the inputs."""
    w = distributions(128, 256)["latent groups"]
    rows = []
    for text in (
        "block:8x8@50%", "block:8x8@75%", "block:16x4@50%", "block:16x4@75%",
        "2:4/rows=4", "1:4/rows=4", "2:4/rows=32", "1:4/rows=32", "nmg:1:4:4",
    ):  # fmt: skip
        goal = parse_goal(text)
        row: Row = {"pattern": text, "none": kept(goal, w)}
        for method in SEARCHES:
            start, ordered = perf_counter(), w
            for axis in (OUTPUTS, INPUTS):
                part = whole(ordered, goal, axis)
                ordered = part.ordered(search([part], method, time_limit_s=limit_s).order).saliency
            row |= {method.value: kept(goal, ordered), f"{method} s": perf_counter() - start}
        rows.append(row)
    return rows


@dataclass
class Classes:
    """Classes of channels of a network, each with how to make its parts (weights are made when they are needed)."""

    found: list[tuple[str, Callable[[], list[Part]]]]
    layers: list[tuple[int, int, int]]  # with an order of inputs for each tile


def random_layer(shape: tuple[int, int, int], seed: int) -> Array:
    """Magnitudes of normal weights whose rows and columns differ in scale."""
    rng = np.random.default_rng(seed)
    scale = np.exp(0.3 * rng.standard_normal((shape[0], 1, 1))) * np.exp(0.3 * rng.standard_normal((1, 1, shape[2])))
    return np.abs(rng.standard_normal(shape, dtype=np.float32) * scale.astype(np.float32))


def resnet50_classes() -> Classes:
    """ResNet-50: the two inner sides of every bottleneck, and one class a stage. Inputs are each tile's own affair."""
    found: list[tuple[str, Callable[[], list[Part]]]] = []
    layers: list[tuple[int, int, int]] = []

    def outputs(shapes: Sequence[tuple[int, int, int]]) -> Callable[[], list[Part]]:
        first = len(layers)
        layers.extend(shapes)
        return lambda: [whole(random_layer(s, first + i), HINM, OUTPUTS, own_lists=True) for i, s in enumerate(shapes)]

    before = 64
    for stage, (inner, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        outer = 4 * inner
        for block in range(blocks):
            source = before if block == 0 else outer
            found.append((f"stage {stage} block {block} first", outputs([(inner, 1, source)])))
            found.append((f"stage {stage} block {block} second", outputs([(inner, 9, inner)])))
        found.append((f"stage {stage}", outputs([(outer, 1, before), *[(outer, 1, inner)] * blocks])))
        before = outer
    return Classes(found, layers)


def bert_classes() -> Classes:
    """BERT base: hidden channels, which residuals tie through all layers; the inner ones of each layer; those of each head."""
    goal, hidden, inner = parse_goal("2:4"), 768, 3072

    def readers() -> list[Part]:
        shapes = [(hidden, 1, hidden)] * 3 + [(inner, 1, hidden)]
        return [whole(random_layer(s, 10 * layer + i), goal, INPUTS) for layer in range(12) for i, s in enumerate(shapes)]

    def inside(layer: int) -> Callable[[], list[Part]]:
        return lambda: [whole(random_layer((hidden, 1, inner), 10 * layer + 5), goal, INPUTS)]

    def head(layer: int, number: int) -> Callable[[], list[Part]]:
        index = np.arange(64 * number, 64 * number + 64)[:, None]
        return lambda: [Part(random_layer((hidden, 1, hidden), 10 * layer + 6), goal, INPUTS, index)]

    found: list[tuple[str, Callable[[], list[Part]]]] = [("hidden", readers)]
    found += [(f"layer {layer} inner", inside(layer)) for layer in range(12)]
    found += [(f"layer {layer} head {number}", head(layer, number)) for layer in range(12) for number in range(12)]
    return Classes(found, [])


def slow_table() -> list[Row]:
    """Seconds and gains for whole networks, one thread."""
    rows = []
    for name, classes in (("ResNet-50 hinm:32:2:4@75%", resnet50_classes()), ("BERT base 2:4", bert_classes())):
        wall, cpu, before, after, outputs_s = perf_counter(), process_time(), 0.0, 0.0, 0.0
        for _, parts in classes.found:
            found = search(parts())
            before, after, outputs_s = before + found.before, after + found.after, outputs_s + found.seconds
        lists = [search_tiles(random_layer(shape, i), HINM) for i, shape in enumerate(classes.layers)]
        rows.append(
            {
                "network": name,
                "channels s": outputs_s,
                "channels gain": after / before - 1,
                "lists s": sum(t.seconds for t in lists),
                "lists gain": sum(t.after for t in lists) / sum(t.before for t in lists) - 1 if lists else 0.0,
                "wall s": perf_counter() - wall,
                "CPU s": process_time() - cpu,
                "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
            }
        )
    return rows


TABLES: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "hinm": ("Hierarchical n:m, 256 x 512, V = 32, 75 %: retained share of |w|", hinm_table),
    "stripes": ("2:4 on 128 x 64 uniform weights: efficacy", stripes_table),
    "grouped": ("n:m:g: retained share of |w|", grouped_table),
    "blocks": ("Outputs, then inputs ordered, 128 x 256 latent groups: retained share of |w|", blocks_table),
}
SLOW: dict[str, tuple[str, Callable[[], list[Row]]]] = {"slow": ("Searches over whole networks, one thread", slow_table)}


def text_of(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    names = list(rows[0])
    cells = [[_cell(n, row[n]) for n in names] for row in rows]
    return plain_table([n if isinstance(rows[0][n], str) else f">{n}" for n in names], cells)


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    return (f"{value:.1f}" if name.endswith((" s", "seconds")) else f"{value:.3f}") if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=sorted(TABLES))
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    results = {}
    for name, (title, make) in (SLOW if options.slow else TABLES).items():
        if options.only in (None, name) or options.slow:
            results[name] = make()
            print(f"{title}\n{text_of(results[name])}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
