"""What indexes a dimension: terms of atoms, unified until dimensions that must share an order have one term.

A term is an atom, a concatenation of terms, or a row-major product of terms. Ops make terms equal; equal terms are refined to
common parts (first-order unification with a union-find, as in Baader and Snyder, "Unification Theory", 2001; here terms may also
be cut, since concatenation is associative). What remains atoms is as fine as the network asks for: each may have an order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from sparsec.compiler.errors import InternalError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Concatenation:
    """The parts one after another."""

    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """The factors, outermost first. Factors of extent 1 say at which index of a cut factor this part lies."""

    factors: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Occurrence:
    """One place of an atom in a term: at the term's index `where[k]` the atom has index `coord[k]`."""

    atom: int
    where: Array
    coord: Array


class Terms:
    """A growing set of terms, named by numbers."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._extent: list[int] = []
        self._form: dict[int, Concatenation | Product] = {}
        self._fixed: dict[int, str] = {}
        self.occurrences = cache(self._occurrences)  # valid once no term changes any more

    def atom(self, extent: int) -> int:
        """A new term of which nothing is known."""
        self._parent.append(len(self._parent))
        self._extent.append(extent)
        return self._parent[-1]

    def find(self, term: int) -> int:
        """The number that all terms equal to this one share."""
        root = term
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[term] != root:
            self._parent[term], term = root, self._parent[term]
        return root

    def extent(self, term: int) -> int:
        """How many indices it has."""
        return self._extent[term]

    def product(self, factors: Sequence[int]) -> int:
        """The row-major product."""
        return factors[0] if len(factors) == 1 else self._formed(Product(tuple(factors)), prod(map(self.extent, factors)))

    def part(self, term: int, start: int, extent: int) -> int:
        """The term of the indices from `start` (extent > 0); `term` is cut there."""
        self.cut(term, start)
        self.cut(term, start + extent)
        edge, found = 0, []
        for piece in self.pieces(term):
            if start <= edge < start + extent:
                found.append(piece)
            edge += self.extent(piece)
        return found[0] if len(found) == 1 else self._formed(Concatenation(tuple(found)), extent)

    def fix(self, term: int, why: str) -> None:
        """No atom of the term may be reordered; the first reason is kept."""
        self._fixed.setdefault(self.find(term), why)

    def unify(self, x: int, y: int) -> None:
        """Make two terms of one extent equal. Where no common refinement exists, both are fixed."""
        x, y = self.find(x), self.find(y)
        if x == y:
            return
        if self._extent[x] != self._extent[y]:
            raise InternalError(f"an axis map makes dimensions of {self._extent[x]} and {self._extent[y]} equal")
        form_x, form_y = self._form.get(x), self._form.get(y)
        if y in self._cores(x) or (form_x is None and x not in self._cores(y)):
            self._link(x, y)
        elif x in self._cores(y) or form_y is None or self._extent[x] == 1:
            self._link(y, x)
        elif isinstance(form_x, Product) and isinstance(form_y, Product):
            self._link(y, x)
            self._align(form_x.factors, form_y.factors)
        else:
            while (edges := self._edges(x)) != (other := self._edges(y)):
                for at in other:
                    self.cut(x, at)
                for at in edges:
                    self.cut(y, at)
            pairs = list(zip(self.pieces(x), self.pieces(y), strict=True))
            self._link(y, x)
            for a, b in pairs:
                self.unify(a, b)

    def cut(self, term: int, at: int) -> None:
        """Make the term a concatenation with an edge at `at`."""
        term = self.find(term)
        if not 0 < at < self._extent[term]:
            return
        match self._form.get(term):
            case None:
                self._form[term] = Concatenation((self.atom(at), self.atom(self._extent[term] - at)))
            case Concatenation(parts):
                for i, part in enumerate(parts):
                    if at < self._extent[part]:
                        if at > 0:
                            self.cut(part, at)
                            self._form[term] = Concatenation((*parts[:i], *self.pieces(part), *parts[i + 1 :]))
                        return
                    at -= self._extent[part]
            case Product(factors):
                self._cut_product(term, factors[0], self.product(factors[1:]), at)

    def pieces(self, term: int) -> tuple[int, ...]:
        """The parts of a concatenation, or the term alone."""
        form = self._form.get(self.find(term))
        return form.parts if isinstance(form, Concatenation) else (term,)

    def atoms(self, term: int) -> Iterator[int]:
        """The atoms of a term, in order, as often as they occur."""
        term = self.find(term)
        match self._form.get(term):
            case None:
                yield term
            case Concatenation(parts) | Product(parts):
                for part in parts:
                    yield from self.atoms(part)

    def fixed(self) -> dict[int, str]:
        """Why atoms are fixed: they, or a term that they are in."""
        found: dict[int, str] = {}
        for term, why in self._fixed.items():
            for atom in dict.fromkeys(self.atoms(term)):
                found.setdefault(atom, why)
        return found

    def siblings(self) -> dict[int, set[int]]:
        """Atom -> the terms that it is in a product with."""
        found: dict[int, set[int]] = {}
        for form in self._form.values():
            if isinstance(form, Product):
                factors = [self.find(f) for f in form.factors]
                for factor in factors:
                    for atom in self.atoms(factor):
                        found.setdefault(atom, set()).update(f for f in factors if f != factor)
        return found

    def _occurrences(self, term: int) -> tuple[Occurrence, ...]:
        term = self.find(term)
        match self._form.get(term):
            case None:
                line = np.arange(self._extent[term])
                return (Occurrence(term, line, line),)
            case Concatenation(parts):
                starts = np.cumsum([0, *map(self.extent, parts)])
                return tuple(
                    Occurrence(o.atom, o.where + start, o.coord)
                    for part, start in zip(parts, starts[:-1], strict=True)
                    for o in self.occurrences(self.find(part))
                )
            case Product(factors):
                return tuple(self._in_product(factors))

    def _in_product(self, factors: Sequence[int]) -> Iterator[Occurrence]:
        for i, factor in enumerate(factors):
            outer, inner = (prod(map(self.extent, f)) for f in (factors[:i], factors[i + 1 :]))
            n = self._extent[factor]
            base = (np.arange(outer)[:, None, None] * n, np.arange(inner))
            for o in self.occurrences(self.find(factor)):
                where = ((base[0] + o.where[:, None]) * inner + base[1]).reshape(-1)
                coord = np.broadcast_to(o.coord[:, None], (outer, len(o.coord), inner)).reshape(-1)
                yield Occurrence(o.atom, where, coord)

    def _formed(self, form: Concatenation | Product, extent: int) -> int:
        term = self.atom(extent)
        self._form[term] = form
        return term

    def _link(self, term: int, root: int) -> None:
        self._parent[term] = root
        self._form.pop(term, None)
        if term in self._fixed:
            self._fixed.setdefault(root, self._fixed.pop(term))

    def _cores(self, term: int) -> list[int]:
        """Terms that this one equals but for factors of extent 1; a term that contains itself is prevented by looking here."""
        found = [term]
        while isinstance(form := self._form.get(found[-1]), Product):
            wide = [f for f in form.factors if self._extent[f] > 1]
            if len(wide) != 1:
                break
            found.append(self.find(wide[0]))
        return found

    def _edges(self, term: int) -> list[int]:
        return list(accumulate(self.extent(p) for p in self.pieces(term)))

    def _cut_product(self, term: int, outer: int, inner: int, at: int) -> None:
        index, rest = divmod(at, self._extent[inner])
        if self._extent[outer] == 1:
            self.cut(inner, rest)
            made = [self.product((outer, piece)) for piece in self.pieces(inner)]
        else:
            self.cut(outer, index)
            if rest:
                self.cut(outer, index + 1)
            made = [self.product((piece, inner)) for piece in self.pieces(outer)]
        self._form[term] = Concatenation(tuple(made))
        self.cut(term, at)  # nothing is left to do unless the edge lies within one index of `outer`

    def _align(self, xs: Sequence[int], ys: Sequence[int]) -> None:
        """Unify two lists of factors of one product."""
        left, right = ([f for f in fs if self._extent[f] > 1] for fs in (xs, ys))
        while left and right:
            if self._extent[left[0]] < self._extent[right[0]]:
                left, right = right, left
            x, y = left.pop(0), right.pop(0)
            factor, rest = divmod(self._extent[x], self._extent[y])
            if rest:
                for f in (x, y, *left, *right):
                    self.fix(f, "a reshape mixes it with another dimension")
                return
            if factor > 1:
                left.insert(0, self.atom(factor))
                self.unify(x, self.product((y, left[0])))
            else:
                self.unify(x, y)
