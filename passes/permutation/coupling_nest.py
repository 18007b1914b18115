"""Nested orders: atoms that occur only under an outer one may have an order for each index of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate

from sparsec.compiler.axes import DimKind
from sparsec.passes.permutation.coupling_slots import FLAT, Nest, context
from sparsec.passes.permutation.coupling_ties import TiedNode, Ties, dims_of


def nests(ties: Ties, constants: Collection[str], atoms: Collection[int]) -> dict[int, Nest]:
    """The outer atoms of each of `atoms`, FLAT for an atom that has none.

    An atom d may have an order for each index of outer atoms if in every value with d, each entry lies at one index of them, and
    in every op that index comes from the same iteration dimension in all operands with d: then reordering d by that index
    maps the iteration space to itself, and lines that are normalised onto such lines. Of several choices the one with the most
    rows is taken; no atom has an order for each index of one that has an order for each index of it.
    """
    uses: dict[int, list[tuple[TiedNode, str]]] = {a: [] for a in atoms}
    for tied in ties.nodes:
        for name, term in tied.dims.items():
            for atom in set(ties.terms.atoms(term)) & uses.keys():
                uses[atom].append((tied, name))
    held: dict[int, list[str]] = {a: [] for a in atoms}
    for value in constants:
        for atom in {a for axis in ties.axes[value] for a in ties.terms.atoms(axis)} & uses.keys():
            held[atom].append(value)
    siblings = ties.terms.siblings()
    found: dict[int, Nest] = {}
    for atom in atoms:
        choice = _nest(ties, atom, uses[atom], held[atom], siblings.get(atom, set()))
        found[atom] = FLAT if atom in _around(found, choice) else choice
    return found


def _around(found: Mapping[int, Nest], choice: Nest) -> set[int]:
    """The outer atoms of a choice, and theirs."""
    seen: set[int] = set()
    left = list(choice.first)
    while left:
        atom = left.pop()
        if atom not in seen:
            seen.add(atom)
            left += found.get(atom, FLAT).first
    return seen


def _nest(ties: Ties, atom: int, uses: list[tuple[TiedNode, str]], held: list[str], siblings: set[int]) -> Nest:
    best = FLAT
    for choice in _choices(ties, atom, uses, siblings):
        told = choice.rows > best.rows and all(_told(ties, value, atom, choice) for value in held)
        if told and all(_agrees(ties, tied, dim, atom, choice) for tied, dim in uses):
            best = choice
    return best


def _choices(ties: Ties, atom: int, uses: list[tuple[TiedNode, str]], siblings: set[int]) -> Iterator[Nest]:
    """Every set of atoms that some dimension beside the atom's consists of."""
    terms = ties.terms
    beside = [*sorted(siblings), *(t for tied, dim in uses for name, t in tied.dims.items() if name != dim)]
    seen: set[frozenset[int]] = set()
    for term in dict.fromkeys(map(terms.find, beside)):
        found = dict.fromkeys(terms.atoms(term))
        if frozenset(found) in seen or atom in found:
            continue
        seen.add(frozenset(found))
        ends = list(accumulate(map(terms.extent, found), initial=0))
        yield Nest(dict(zip(found, ends, strict=False)), ends[-1])


def _told(ties: Ties, value: str, atom: int, choice: Nest) -> bool:
    """Whether every entry of a value with the atom lies at one index of the outer atoms."""
    axes = ties.axes[value]
    return all(
        context(ties.terms, axes, i, o, choice) is not None
        for i, term in enumerate(axes)
        for o in ties.terms.occurrences(ties.terms.find(term))
        if o.atom == atom
    )


def _agrees(ties: Ties, tied: TiedNode, dim: str, atom: int, choice: Nest) -> bool:
    """Whether all operands that the node indexes by `dim` take the outer index from one iteration dimension.

    Not from one that is normalised, unless `dim` is normalised with it: lines of `dim`'s indices would be mixed.
    """
    terms = ties.terms
    sources: set[tuple[str, ...]] = set()
    for value, accesses in tied.operands():
        axes = ties.axes[value]
        for i, access in enumerate(accesses):
            if dim not in dims_of(access):
                continue
            for o in terms.occurrences(terms.find(axes[i])):
                if o.atom == atom:
                    told = context(terms, axes, i, o, choice)
                    names = () if told is None else dims_of(accesses[told.axis])
                    sources.add(tuple(n for n in names if not choice.first.keys().isdisjoint(terms.atoms(tied.dims[n]))))
    if len(sources) != 1 or len(source := sources.pop()) != 1:
        return False
    kind, outer = (tied.axis_map.dim(name).kind for name in (dim, *source))
    return outer is not DimKind.NORMALISED or kind is DimKind.NORMALISED
