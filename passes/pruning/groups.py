"""Scores in groups of m, and the n largest of each."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def in_groups(score: Array, m: int) -> Array:
    """[..., groups, m] of [..., entries]; padding is less important than anything."""
    missing = -score.shape[-1] % m
    full = np.pad(score, [(0, 0)] * (score.ndim - 1) + [(0, missing)], constant_values=-1) if missing else score
    return np.asarray(full).reshape(*score.shape[:-1], -1, m)


def largest_in(score: Array, count: int) -> Array:
    """Mask of the `count` largest on the last axis, the first of equals."""
    order = np.argsort(-score, axis=-1, kind="stable")[..., :count]
    mask = np.zeros(score.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask
