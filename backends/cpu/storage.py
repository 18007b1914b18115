"""Which values share a buffer, and where in it each begins: views without copies.

A node may declare that a result is its operand under another shape, or that an operand is a part of its result
(concatenation). Declarations are united in order; one that contradicts an earlier one is dropped, and the node copies instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.layout import Blocked
from sparsec.compiler.target import Ties
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class Alias:
    """The storage of `part` lies inside that of `whole`: at channel block `block` (0 when it begins where `whole` does).

    `same_order`: both have the same dimensions but for the channels, so a halo can be shared. `fills`: the part is what is
    computed, right where the whole has it (concatenation); else the part is only a view of the whole.
    """

    part: str
    whole: str
    block: int = 0
    same_order: bool = False
    fills: bool = False


@dataclass(frozen=True, slots=True)
class _Claim:
    """Blocks [start, end) of a group's storage that `owner` writes."""

    owner: str
    start: int
    end: int

    def moved(self, blocks: int) -> _Claim:
        return _Claim(self.owner, self.start + blocks, self.end + blocks)

    def without(self, start: int, end: int) -> list[_Claim]:
        pieces = [_Claim(self.owner, self.start, min(self.end, start)), _Claim(self.owner, max(self.start, end), self.end)]
        return [p for p in pieces if p.start < p.end]


def _collide(a: Sequence[_Claim], b: Sequence[_Claim]) -> bool:
    return any(x.start < y.end and y.start < x.end for x in a for y in b)


class StorageGroups:
    """Union-find over values with relative positions in channel blocks, `blocks[value]` of them long.

    `pinned` values live where the caller put them: they can be viewed, but not made part of a larger buffer. No two values that
    are computed apart ever share a block.
    """

    def __init__(self, blocks: Mapping[str, int], pinned: Iterable[str] = ()) -> None:
        self._blocks = blocks
        self._claims = {v: [_Claim(v, 0, n)] for v, n in blocks.items()}
        self._parent: dict[str, tuple[str, int]] = {}
        self._bare: set[str] = set()
        self._pinned = set(pinned)
        self._composed: set[str] = set()

    def find(self, value: str) -> tuple[str, int]:
        """The root of `value` and the block of the root's storage at which it begins (negative: before it)."""
        offset = 0
        while value in self._parent:
            value, step = self._parent[value]
            offset += step
        return value, offset

    def unite(self, alias: Alias, *, in_turn: bool = False) -> bool:
        """Accept the alias, or return False when it contradicts what is known.

        `in_turn`: the caller knows that nothing of the part's group is read once the whole is computed.
        """
        part, at_part = self.find(alias.part)
        whole, at_whole = self.find(alias.whole)
        if part == whole:
            return at_part == at_whole + alias.block
        composed = alias.same_order or part in self._composed or whole in self._composed
        pinned = part in self._pinned or whole in self._pinned
        if composed and pinned:
            return False
        at = at_whole + alias.block - at_part  # of the part's group in the whole's
        viewed, behind = (alias.whole, at_whole + alias.block) if alias.fills else (alias.part, at_whole + alias.block)
        end = behind + self._blocks[alias.part]
        theirs = [c.moved(at) for c in self._claims[part]]
        merged = [self._without(claims, viewed, behind, end) for claims in (self._claims[whole], theirs)]
        if not in_turn and _collide(*merged):
            return False
        for flag, holds in (
            (self._bare, not alias.same_order or part in self._bare),
            (self._composed, composed),
            (self._pinned, pinned),
        ):
            if holds:
                flag.add(whole)
        self._claims[whole] = merged[0] + merged[1]
        self._parent[part] = (whole, at)
        return True

    @staticmethod
    def _without(claims: Sequence[_Claim], owner: str, start: int, end: int) -> list[_Claim]:
        return [piece for c in claims for piece in (c.without(start, end) if c.owner == owner else [c])]

    def is_bare(self, root: str) -> bool:
        """Whether a group has members of different dimension order, which rules a halo out."""
        return root in self._bare


def storage_groups(graph: Graph, aliases: Iterable[Alias]) -> StorageGroups:
    """The groups that result from uniting `aliases` in order."""
    blocks = {v: t.layout.storage_shape(t.shape)[0] if isinstance(t.layout, Blocked) else 1 for v, t in graph.types.items()}
    groups = StorageGroups(blocks, pinned=(*graph.inputs, *graph.constants))
    for alias in aliases:
        groups.unite(alias)
    return groups


def ties_of(graph: Graph, groups: StorageGroups) -> Ties:
    """The groups in the form that layout assignment reads."""
    leader = {v: groups.find(v)[0] for v in graph.types}
    bare = {root for v, root in leader.items() if groups.is_bare(root) or not isinstance(graph.types[v].layout, Blocked)}
    bare |= {leader[v] for v in graph.inputs}
    return Ties(leader, frozenset(bare))


@dataclass(frozen=True, slots=True)
class Strides:
    """Strides of a stored value in elements. For blocked storage `dims` has 0 at the channel dimension."""

    block: int
    dims: tuple[int, ...]
    origin: int  # of the first interior element
    total: int


def strides_of(t: TensorType) -> Strides:
    """Strides of a value stored as its type says (row-major: block 0, origin 0)."""
    storage = t.layout.storage_shape(t.shape)
    steps = [1] * (len(storage) + 1)
    for i in range(len(storage) - 1, -1, -1):
        steps[i] = steps[i + 1] * storage[i]
    if not isinstance(t.layout, Blocked):
        return Strides(0, tuple(steps[1:]), 0, steps[0])
    others = steps[2:-1]
    origin = sum(lo * s for (lo, _), s in zip(t.layout.halo_of(t.rank), others, strict=True))
    dims = [*others]
    dims.insert(t.layout.axis, 0)
    block = t.layout.block_stride(t.shape, t.dtype.itemsize)
    return Strides(block, tuple(dims), origin, storage[0] * block)


def group_extents(types: Mapping[str, TensorType], groups: StorageGroups) -> dict[str, tuple[int, int]]:
    """For every root: the lowest block at which a member begins, and the bytes from there to the last member's end."""
    low: dict[str, int] = {}
    spans: list[tuple[str, int, TensorType]] = []
    for value, t in types.items():
        root, block = groups.find(value)
        low[root] = min(low.get(root, 0), block)
        spans.append((root, block, t))
    size: dict[str, int] = {}
    for root, block, t in spans:
        s = strides_of(t)
        end = ((block - low[root]) * s.block + s.total) * t.dtype.itemsize
        size[root] = max(size.get(root, 0), end)
    return {root: (low[root], size[root]) for root in size}


def unite_in_place(graph: Graph, groups: StorageGroups, overwrites: Callable[[Node], Sequence[str]]) -> None:
    """Let nodes write over an operand that nobody reads afterwards. `overwrites` says which operands a node's kernel may.

    1. The operand has exactly the result's type, and none of the node's other operands shares its buffer.
    2. The operand's buffer holds nothing else, and no view of it is read later or leaves the graph.
    """
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    ends = {v: max((position[n.name] for n in users), default=-1) for v, users in graph.users.items()}
    members: dict[str, list[str]] = {}
    for v in graph.types:
        members.setdefault(groups.find(v)[0], []).append(v)
    kept = {groups.find(v)[0] for v in (*graph.inputs, *graph.constants, *graph.output_values)}
    for i, node in enumerate(graph.nodes):
        for value in dict.fromkeys(overwrites(node)):
            root, whole = groups.find(value)[0], groups.find(node.output)[0]
            if graph.types[value] != graph.types[node.output] or root in kept or root == whole:
                continue
            if any(v not in (value, ABSENT) and groups.find(v)[0] == root for v in node.inputs):
                continue
            alike = all(graph.types[m].nbytes == graph.types[value].nbytes for m in members[root])
            dead = alike and all(ends[m] <= i for m in members[root])
            if dead and groups.unite(Alias(value, node.output, 0, same_order=True), in_turn=True):
                members[whole] += members.pop(root)
                break
