"""Which weights of a layer matter to calibration inputs, and what is done with those that stay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from sparsec.compiler.sparsity import NM, Block, HiNM
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.permutation.search.tiles import choose_with_lists
from sparsec.passes.pruning.calibrated import obs
from sparsec.passes.pruning.calibrated.block_obs import Blocks, Exchange, elimination_order
from sparsec.passes.pruning.calibrated.obs import LARGEST
from sparsec.passes.pruning.masks import choose, vector_count

Array = np.ndarray[Any, Any]


class Importance(StrEnum):
    """How weights are compared.

    magnitude: as the recipe's criterion says. activation: w^2 times the mean square of the input (Sun et al., arXiv 2306.11695,
    squared so that sums are energies). second_order: w^2 over the diagonal of the inverse second moments. obs: the same by
    elimination, one after the other, for patterns that have an order (see `obs.py`).
    """

    magnitude = "magnitude"
    activation = "activation"
    second_order = "second-order"
    obs = "obs"


class Repair(StrEnum):
    """What is done with the weights that stay.

    moments: each output gets back the mean and variance that it had (re-estimated batch normalisation, folded or not).
    least_squares: the closest fit to the dense layer's results.
    """

    none = "none"
    moments = "moments"
    least_squares = "least-squares"


class Outputs(StrEnum):
    """What counts of the results of a dense last layer [samples, classes] when it is fitted.

    softmax: the divergence from the dense softmax; they are logits. values: squared differences.
    """

    softmax = "softmax"
    values = "values"


@dataclass(frozen=True, slots=True)
class Chosen:
    """`mask` [OC, taps, IC]: what is kept. `lists` [tiles, taps, count]: channels in order, of hierarchical n:m where known."""

    mask: Array
    lists: Array | None = None


def mask_by_importance(
    importance: Importance,
    goal: Goal,
    w: Array,
    a: Array,
    energy: Array,
    shape: tuple[int, int, int],
    order_seed: int | None = None,
) -> Chosen:
    """What `goal` keeps; with `order_seed`, tiles of hierarchical n:m take their input channels in orders of their own.

    w [groups, rows, K] are the weights in the scale in which outputs compare, a [groups, K, K] their inputs' regularised second
    moments, `energy` [groups, K] their inputs' mean squares; `shape` is (OC, taps, IC).
    """
    if importance is Importance.obs:
        found = _by_elimination(goal, w, a, shape, order_seed)
        if found is not None:
            return found
    if importance is Importance.activation or isinstance(goal.pattern, Block):
        score = np.square(w) * energy[:, None, :]
    else:
        score = np.stack([np.square(one) / np.diagonal(obs.inverse(part)) for one, part in zip(w, a, strict=True)])
    choice, lists = choose_with_lists(goal, score.reshape(shape), order_seed)
    return Chosen(choice.mask, lists)


def _by_elimination(goal: Goal, w: Array, a: Array, shape: tuple[int, int, int], order_seed: int | None) -> Chosen | None:
    """The choice by elimination; None for patterns that are compared as a whole.

    Blocks with all taps are such: dropping one changes too much for the rest to make up for, and energy keeps more accuracy.
    """
    channels, pattern = shape[2], goal.pattern
    if isinstance(pattern, NM):
        parts = [obs.n_of_m(one, part, channels, pattern) for one, part in zip(w, a, strict=True)]
        return Chosen(np.concatenate(parts).reshape(shape))
    if isinstance(pattern, HiNM):
        count = vector_count(pattern, goal.sparsity, channels)
        found = [obs.hierarchical(one, part, channels, pattern, count, order_seed) for one, part in zip(w, a, strict=True)]
        masks, lists = (np.concatenate(each) for each in zip(*found, strict=True))
        return Chosen(masks.reshape(shape), lists)
    if isinstance(pattern, Block) and pattern.taps == "each" and len(w) == 1:
        return Chosen(_blocks(goal, pattern, w[0], a[0], shape))
    return None


def _blocks(goal: Goal, pattern: Block, w: Array, a: Array, shape: tuple[int, int, int]) -> Array:
    """Blocks by elimination, then by exchange where that is not too much work."""
    blocks = Blocks.of(w, a, shape[1], pattern)
    number = np.arange(len(blocks.columns)).reshape(shape[1], -1)
    column_of = number % number.shape[1]
    group_of = (number - column_of % pattern.m_group).reshape(-1) if pattern.m_group else None  # by the first of each
    ranks = elimination_order(blocks, group_of, pattern.n_keep).reshape(len(blocks.w), shape[1], -1)
    share = pattern.split(np.ones(shape)).sum(axis=(1, 4))  # a block's weights that are not padding
    mask = choose(goal, pattern.spread((ranks + 1) / share, shape)).mask
    if blocks.a.shape[0] > LARGEST:
        return mask
    kept = pattern.kept(mask)
    found = Exchange(blocks, kept.reshape(len(kept), -1), column_of.reshape(-1), group_of).run(2 * kept.size)
    return pattern.spread(found.reshape(kept.shape), shape)
