"""Where a value has an atom, and whose index says which row of a nested order applies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.passes.permutation.coupling_terms import Occurrence, Terms

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Nest:
    """Outer atoms, each with its first row in the order of the inner one, and how many rows there are."""

    first: dict[int, int]
    rows: int


FLAT = Nest({}, 1)


@dataclass(frozen=True, eq=False, slots=True)
class Slot:
    """Where the constant `value` has a class, on `axis`.

    `index` [rows, extent, repeats]: the indices on `axis` that item i of row `rows[r]` of the order owns (all of them move
    together; one row where the order has no rows). Where the row is told by another axis, `outer_axis` is that one and `outer`
    [rows, n] are its indices that belong to each row; else -1 and None.
    """

    value: str
    axis: int
    rows: Array
    index: Array
    outer_axis: int = -1
    outer: Array | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Context:
    """What tells rows for an occurrence: outer occurrences on axis `axis`, which may be the occurrence's own."""

    axis: int
    outer: tuple[Occurrence, ...]


def context(terms: Terms, axes: Sequence[int], axis: int, inner: Occurrence, outer: Nest) -> Context | None:
    """What tells the row of every index of `inner` on `axis` of a value; None when nothing does, or more than one thing."""
    own = _outer(terms, axes[axis], outer)
    inside = _count(terms, axes[axis], own)[inner.where]
    if inside.any():
        return Context(axis, own) if (inside == 1).all() else None
    found = None
    for i, term in enumerate(axes):
        others = () if i == axis else _outer(terms, term, outer)
        if not others:
            continue
        if found is not None or not (_count(terms, term, others) == 1).all():
            return None
        found = Context(i, others)
    return found


def slots(terms: Terms, value: str, axes: Sequence[int], atom: int, outer: Nest = FLAT) -> list[Slot]:
    """The slots of a class in a constant, one for every way in which it is indexed by the atom."""
    found = []
    for axis, term in enumerate(axes):
        for inner in terms.occurrences(terms.find(term)):
            if inner.atom != atom:
                continue
            if outer.rows == 1:
                found.append(Slot(value, axis, np.zeros(1, int), _grouped(inner.coord, inner.where, terms.extent(atom))[None]))
                continue
            told = context(terms, axes, axis, inner, outer)
            assert told is not None  # the nest was checked on every value
            for by in told.outer:
                where = (value, axis, told.axis)
                found += _nested(where, inner, by, terms.extent(atom), outer.first[by.atom])
    return found


def _nested(where: tuple[str, int, int], inner: Occurrence, by: Occurrence, extent: int, first: int) -> list[Slot]:
    """The slot of `inner` for the rows from `first` that one outer occurrence tells; `where`: value, axis, outer axis."""
    value, axis, outer_axis = where
    rows = np.unique(by.coord)
    if outer_axis != axis:
        items = _grouped(inner.coord, inner.where, extent)
        index = np.broadcast_to(items, (len(rows), *items.shape))
        return [Slot(value, axis, first + rows, index, outer_axis, _grouped(by.coord, by.where, len(rows)))]
    row_at = np.full(max(inner.where.max(), by.where.max()) + 1, -1)
    row_at[by.where] = by.coord
    row = row_at[inner.where]
    if not (row >= 0).any():
        return []
    key, at = (row * extent + inner.coord)[row >= 0], inner.where[row >= 0]
    rows = np.unique(row[row >= 0])
    return [Slot(value, axis, first + rows, _grouped(key, at, len(rows) * extent).reshape(len(rows), extent, -1))]


def _grouped(key: Array, where: Array, groups: int) -> Array:
    """[groups, n]: the entries of `where` by their keys, of which all occur equally often."""
    return where[np.argsort(key, kind="stable")].reshape(groups, -1)


def _outer(terms: Terms, term: int, outer: Nest) -> tuple[Occurrence, ...]:
    return tuple(o for o in terms.occurrences(terms.find(term)) if o.atom in outer.first)


def _count(terms: Terms, term: int, occurrences: Sequence[Occurrence]) -> Array:
    count = np.zeros(terms.extent(term), int)
    for o in occurrences:
        count[o.where] += 1
    return count
