"""Prune layer by layer so that each makes up, on calibration inputs, for what it and the layers before it have lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import ModelError
from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import LayerWeights, filter_shape
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.importance import Chosen, Importance, Outputs, Repair, mask_by_importance
from sparsec.passes.pruning.calibrated.memory import Fitted, Memory
from sparsec.passes.pruning.calibrated.moments import Moments, RowSampler, input_rows, output_positions, output_rows
from sparsec.passes.pruning.calibrated.rectified import Rows, RowStore, fit_rectified
from sparsec.passes.pruning.calibrated.run import Probe
from sparsec.passes.pruning.calibrated.sensitivity import Sensitivity
from sparsec.passes.pruning.calibrated.sites import Site, SiteFinder, set_bias
from sparsec.passes.pruning.calibrated.softmax_fit import Logits, fit_softmax
from sparsec.passes.pruning.calibrated.solve import SupportSolver, on_support, regularised
from sparsec.passes.pruning.recipe import Recipe

Array = np.ndarray[Any, Any]
_FAINT = 1e-6  # of the largest scale of a layer's channels: fainter ones cannot be divided by
_WIDEST = 8192  # columns whose second moments are kept (0.5 GB)


@dataclass(frozen=True, slots=True)
class Settings:
    """How calibration data is used.

    `refit`: layers that stay dense are fitted, too; only with least squares. `outputs`: what counts of the results of a dense
    layer that gives logits [samples, classes]. `rows` bounds what a layer's moments are taken over, `ridge` is the share of the
    inputs' mean variance that pulls towards the old weights, `match_below` the density under which outputs get their variance
    back after least squares.
    """

    importance: Importance = Importance.obs
    repair: Repair = Repair.least_squares
    refit: bool = True
    outputs: Outputs = Outputs.softmax
    rows: int = 150_000
    ridge: float = 0.01
    match_below: float = 0.6
    seed: int = 0
    threads: int = 0

    @staticmethod
    def of(recipe: Recipe) -> Settings:
        """As a recipe says."""
        return Settings(recipe.importance, recipe.repair, recipe.refit, recipe.outputs, seed=recipe.seed)


@dataclass(frozen=True)
class Task:
    """A layer to work on: its goal (None: it keeps the zeros that it has), and the mask that magnitude gives.

    `scale` [OC] is how much a unit of each output means to the network: what its results are compared by.
    """

    layer: LayerWeights
    w: Array
    goal: Goal | None
    mask: Array
    sites: tuple[Site, ...]
    scale: Array


@dataclass
class Reconstruction:
    """What came out, by weight name: new filters, lists of tiles, and remarks on layers that other things were done to than to
    most.
    """

    filters: dict[str, Array] = field(default_factory=dict)
    lists: dict[str, Array] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


class Reconstructor:
    """Works through a model's layers in an order in which all that a layer reads is final."""

    def __init__(
        self,
        graph: Graph,
        editor: WeightEditor,
        samples: Samples,
        settings: Settings,
        order_seed: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`editor` holds the dense model, whose weights and biases are changed; `order_seed`: see `mask_by_importance`.

        `memory` is that of others with the same model, samples, settings, order seed, and criterion of masks, if any.
        """
        self.graph, self.editor, self.samples, self.settings, self._order_seed = graph, editor, samples, settings, order_seed
        self._memory = Memory(variants=0) if memory is None else memory
        self._finder, self._sensitivity = SiteFinder(editor.proto), Sensitivity(editor.proto)
        self._upstream: dict[str, set[str]] = {}
        self._dense = onnx.ModelProto()
        self._dense.CopyFrom(editor.proto)

    def run(
        self, layers: Sequence[LayerWeights], masks: Mapping[str, tuple[Goal, Array]], progress: Callable[[str], None]
    ) -> Reconstruction:
        """Prune the layers in `masks` (weight name -> goal and the mask by magnitude), refit others as the settings say."""
        done = Reconstruction()
        tasks = self._ordered([t for layer in layers if (t := self._task(layer, masks, done)) is not None])
        dense, current = (Probe(proto, self.settings.threads) for proto in (self._dense, self.editor.proto))
        changed: dict[str, int] = {}  # results that are no longer what they were, with the number of what they depend on
        for layer in layers:
            if layer.value in done.remarks:
                changed |= {n.output: self._memory.number((layer.value, masks[layer.value][0])) for n in layer.nodes}
        for i, task in enumerate(tasks):
            above = set().union(*(self._above(v) for s in task.sites for v in (s.source, s.other) if v)) & changed.keys()
            if task.goal is None and not (above and self.settings.refit and self.settings.repair is Repair.least_squares):
                continue
            progress(f"calibrate {task.sites[0].node.name}")
            facts = self._memory.number((task.layer.value, task.goal, frozenset(changed[v] for v in above)))
            fitted = self._memory.find(task.layer.value, facts)
            if fitted is None:
                fitted = self._fitted(task, dense, current, {s.result for t in tasks[i:] for s in t.sites})
                self._memory.keep(task.layer.value, facts, fitted)
            self._put(task, fitted, done)
            changed |= {s.result: facts for s in task.sites}
        return done

    def _task(self, layer: LayerWeights, masks: Mapping[str, tuple[Goal, Array]], done: Reconstruction) -> Task | None:
        """What to do with a layer; None, with a remark where it is pruned, when it cannot be calibrated."""
        array = self.graph.constants[layer.value]
        if layer.value not in masks and (layer.reason or self.editor.blocked(layer.value)):
            return None
        shape = filter_shape(layer.view, array.shape)
        found = self._finder.sites(layer, shape[0])
        if not isinstance(found, str) and shape[1] * shape[2] > _WIDEST:
            found = f"its outputs read {shape[1] * shape[2]:,} inputs, more than {_WIDEST:,}"
        w = layer.view.filters(array)
        if isinstance(found, str):
            if layer.value in masks:
                done.filters[layer.value] = np.where(masks[layer.value][1], w, 0).astype(w.dtype)
                done.remarks[layer.value] = f"pruned by magnitude, not calibrated: {found}"
                self.editor.replace(layer.value, layer.view.restore(done.filters[layer.value], array.shape))
            return None
        goal, mask = masks.get(layer.value, (None, w != 0))
        scale = np.abs(found[0].scale) * np.sqrt(self._sensitivity.of(found[0].end, shape[0]))
        return Task(layer, w, goal, mask, found, scale if scale.any() else np.ones_like(scale))

    def _above(self, value: str) -> set[str]:
        if value not in self._upstream:
            self._upstream[value] = self._finder.upstream(value)
        return self._upstream[value]

    def _ordered(self, tasks: Sequence[Task]) -> list[Task]:
        """By the number of layers before each, then by size, so that of the branches of a sum the largest comes last."""
        results = {s.result for t in tasks for s in t.sites}
        depth: dict[str, int] = {}
        for t in tasks:  # in the order of the graph
            before = set().union(*(self._above(s.source) & results for s in t.sites))
            for s in t.sites:
                depth[s.result] = 1 + max((depth.get(v, 0) for v in before), default=0)
        return sorted(tasks, key=lambda t: (max(depth[s.result] for s in t.sites), t.w.size))

    def _fitted(self, task: Task, dense: Probe, current: Probe, later: set[str]) -> Fitted:
        """Choose a layer's mask, and fit what it keeps."""
        stores = [self._store(task, site, later) for site in task.sites]
        found = [self._moments(task, *each, dense, current, later) for each in zip(task.sites, stores, strict=True)]
        fit, remark = _Fit(task, found, self.settings, self._order_seed), ""
        w, chosen = fit.solve()
        shifts = [fit.shift(w, site, m) for site, m in zip(task.sites, found, strict=True)]
        if (store := stores[0]) is not None:
            w, shifts[0] = fit.through_rectifier(w, chosen.mask, store.rows())
        if self._is_classifier(task, w):
            w, shifts[0], remark = self._fit_classifier(task, w, shifts[0], dense, current)
        repaired = self.settings.repair is not Repair.none
        pairs = zip(task.sites, shifts, strict=True)
        kept = tuple(shift if repaired and site.bias is not None else None for site, shift in pairs)
        return Fitted(w.astype(task.w.dtype), chosen.lists, kept, remark)

    def _put(self, task: Task, fitted: Fitted, done: Reconstruction) -> None:
        """Put a layer's filters and biases into the model."""
        value = task.layer.value
        done.filters[value] = fitted.filters
        if fitted.lists is not None:
            done.lists[value] = fitted.lists
        if fitted.remark:
            done.remarks[value] = fitted.remark
        self.editor.replace(value, task.layer.view.restore(fitted.filters, self.graph.constants[value].shape))
        for site, shift in zip(task.sites, fitted.shifts, strict=True):
            if site.bias is not None and shift is not None:
                set_bias(self.editor.proto, site.bias, shift)

    def _is_classifier(self, task: Task, w: Array) -> bool:
        """Whether a layer is dense and gives a class its logit, a row a sample."""
        site, settings = task.sites[0], self.settings
        fits = task.goal is None and settings.outputs is Outputs.softmax and settings.repair is Repair.least_squares
        alone = len(task.sites) == 1 and site.bias is not None and site.gives and bool(np.all(site.scale == 1))
        return fits and alone and w.shape[1] == 1 and len(w) > 1 and task.layer.groups == 1 and bool(np.all(task.w != 0))

    def _fit_classifier(self, task: Task, w: Array, shift: Array, dense: Probe, current: Probe) -> tuple[Array, Array, str]:
        """Filters and shift whose softmax is closest to the dense one, from those by least squares on, and a remark."""
        site = task.sites[0]
        both = zip(current.batches(self.samples, [site.source]), dense.batches(self.samples, [site.result]), strict=True)
        parts = [(now[0], wanted[0]) for now, wanted in both]
        if any(result.ndim != 2 for _, result in parts):  # dimensions between samples and classes: not known to be classes
            return w, shift, ""
        x, t = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True))
        start = np.concatenate([w[:, 0], (shift + site.own)[:, None]], axis=1)
        found = fit_softmax(Logits(x, t), start, self.settings.ridge)
        remark = "fitted to the dense softmax" if found is not start else ""
        return found[:, None, :-1], found[:, -1] - site.own, remark

    def _joint(self, site: Site, later: set[str]) -> bool:
        """Whether a site is the last part of its sum that is not final, and can make up for the others."""
        return bool(site.total) and not self._above(site.other) & later and _clear(site.scale)

    def _store(self, task: Task, site: Site, later: set[str]) -> RowStore | None:
        """For the rows of a layer that is fitted through the rectifier behind it; None for others.

        That is one with a single site whose shift is free, and in a sum the last part of it.
        """
        fits = self.settings.repair is Repair.least_squares and len(task.sites) == 1 and site.bias is not None
        if not (fits and site.rectified and _clear(site.scale)) or (site.total and not self._joint(site, later)):
            return None
        groups, columns = task.layer.groups, task.w.shape[1] * task.w.shape[2]
        return RowStore(groups, columns, site, len(self.samples), self.settings.rows, self.settings.seed)

    def _moments(self, task: Task, site: Site, store: RowStore | None, dense: Probe, current: Probe, later: set[str]) -> Moments:
        """Moments of what a site reads now and of what it should give.

        That is the dense result; for the last part of a sum that is not final, what the others lack to the dense sum. Some of
        the rows go into the store.
        """
        oc, taps, channels = task.w.shape
        moments = Moments(task.layer.groups, taps * channels, oc)
        sampler = RowSampler(self.settings.rows, len(self.samples), self.settings.seed)
        joint = self._joint(site, later)
        kernel = self.graph.constants[task.layer.value].shape[2:]
        ours, theirs = ([site.source, site.other], [site.result, site.total]) if joint else ([site.source], [site.result])
        final = [v for v in ours if not self._above(v) & later]
        both = zip(current.batches(self.samples, ours, final), dense.batches(self.samples, theirs, theirs), strict=True)
        for batch, (now, wanted) in enumerate(both):
            result = wanted[0]
            rows = sampler.rows(batch, output_positions(site.node, result.shape))
            target, other = output_rows(site.node, result, rows), None
            if joint and now[1].shape == wanted[1].shape == result.shape:
                other = output_rows(site.node, now[1], rows)
                missing = output_rows(site.node, wanted[1], rows) - other
                target = ((missing - site.shift) / site.scale).astype(np.float32)
            x = input_rows(site.node, now[0], kernel, result.shape[2:], rows)
            moments.add(x, target)
            if store is not None and (other is not None or not joint):
                store.add(x, target, other)
        if not moments.finite:
            raise ModelError(
                f"node {site.node.name!r} reads or gives NaN, infinity or numbers near them on the calibration samples: "
                f"repair the model, or scale the samples as it expects them",
                node=site.node.name,
                tensor=site.source,
            )
        return moments


def _clear(scale: Array) -> bool:
    """Whether results can be told from what follows them."""
    size = np.abs(scale)
    return bool((size > _FAINT * size.max(initial=0)).all())


@dataclass(frozen=True)
class _Fit:
    """One layer's normal equations over all its sites. Arrays are [groups, rows, K]."""

    task: Task
    moments: Sequence[Moments]
    settings: Settings
    order_seed: int | None = None

    def solve(self) -> tuple[Array, Chosen]:
        """New filters [OC, taps, IC] in float64, and what is kept of them."""
        old = self._grouped(self.task.w.astype(np.float64))
        covariance, cross = self._equations()
        systems = [regularised(h, c, w, self.settings.ridge) for h, c, w in zip(covariance, cross, old, strict=True)]
        a, b = np.stack([s[0] for s in systems]), np.stack([s[1] for s in systems])
        squares = self.settings.repair is Repair.least_squares
        full = np.stack([np.linalg.solve(p, q.T).T for p, q in zip(a, b, strict=True)]) if squares else old
        chosen = self._chosen(full, a)
        kept = self._grouped(chosen.mask)
        if squares:
            w = np.stack([on_support(*parts) for parts in zip(a, b, kept, full, strict=True)])
        else:
            w = np.where(kept, old, 0)
        density = kept.mean()
        if self.settings.repair is Repair.moments or (squares and self.task.goal and density < self.settings.match_below):
            w = self._with_variance(w, covariance)
        return w.reshape(self.task.w.shape), chosen

    def through_rectifier(self, w: Array, mask: Array, rows: Rows) -> tuple[Array, Array]:
        """Filters and the shift of the only site fitted to what passes the rectifier behind, from filters `w` on."""
        covariance, cross = self._equations()
        old = self._grouped(self.task.w.astype(np.float64))
        systems = [regularised(h, c, o, self.settings.ridge)[0] for h, c, o in zip(covariance, cross, old, strict=True)]
        solvers = [SupportSolver(a, kept) for a, kept in zip(systems, self._grouped(mask), strict=True)]
        ridge = np.array([a[0, 0] - h[0, 0] for a, h in zip(systems, covariance, strict=True)])
        found = fit_rectified(rows, solvers, self._grouped(w), old, ridge)
        return found.w.reshape(w.shape), found.constant - self.task.sites[0].own

    def shift(self, w: Array, site: Site, moments: Moments) -> Array:
        """What the bias of a site must change by so that results have their mean, [OC]."""
        means = (self._grouped(w) * moments.mean[:, None, :]).sum(axis=2).reshape(-1)
        return np.asarray(moments.target_mean - means - site.own)

    def _grouped(self, filters: Array) -> Array:
        return filters.reshape(self.task.layer.groups, -1, filters.shape[1] * filters.shape[2])

    def _equations(self) -> tuple[Array, Array]:
        """Second moments of inputs, and of targets with inputs: about their means where the bias can follow, else about zero."""
        total = sum(m.count for m in self.moments)
        covariance = cross = np.zeros(())
        for site, m in zip(self.task.sites, self.moments, strict=True):
            h, c = m.covariance, m.cross_covariance
            if site.bias is None:
                target = (m.target_mean - site.own).reshape(m.groups, -1)
                h = h + m.mean[:, :, None] * m.mean[:, None, :]
                c = c + target[:, :, None] * m.mean[:, None, :]
            covariance, cross = covariance + h * (m.count / total), cross + c * (m.count / total)
        return covariance, cross

    def _chosen(self, full: Array, a: Array) -> Chosen:
        task, importance = self.task, self.settings.importance
        if task.goal is None or importance is Importance.magnitude:
            return Chosen(task.mask)
        seen = full * task.scale.reshape(full.shape[0], -1, 1)
        weights = [m.count / sum(m.count for m in self.moments) for m in self.moments]
        energy = sum(
            s * (np.diagonal(m.covariance, axis1=1, axis2=2) + np.square(m.mean))
            for s, m in zip(weights, self.moments, strict=True)
        )
        shape = (task.w.shape[0], task.w.shape[1], task.w.shape[2])
        return mask_by_importance(importance, task.goal, seen, a, np.asarray(energy), shape, self.order_seed)

    def _with_variance(self, w: Array, covariance: Array) -> Array:
        """Rows scaled so that results vary as much as they should; rows that do not vary stay."""
        total = sum(m.count for m in self.moments)
        wanted = sum(m.target_variance * (m.count / total) for m in self.moments)
        have = ((w @ covariance) * w).sum(axis=2).reshape(-1)
        dead = have <= 1e-12 * max(float(have.max(initial=0)), 1e-30)
        factor = np.sqrt(np.divide(wanted, have, out=np.ones_like(have), where=~dead))
        return np.asarray(w * np.clip(factor, 0.2, 5.0).reshape(*w.shape[:2], 1))
