"""Recognise the patterns that weights have, without being told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, Sparsity, Unstructured
from sparsec.compiler.sparsity.base import Array, any_of_rows, padded
from sparsec.compiler.sparsity.nmg import row_patterns

MIN_SPARSITY = 0.1  # fewer zeros than this are chance, and no kernel gains from them
_GROUPS = (2, 4, 8, 16)
_BLOCK_ROWS, _BLOCK_COLUMNS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32)
_TILES = (128, 64, 32, 16)
_HIERARCHICAL = ((2, 4), (1, 4), (1, 2))
_GROUPED = ((1, 4), (2, 4), (2, 8), (1, 8), (1, 10))
_G = (1, 2, 4, 8, 16, 32)
_VALUE = 4  # bytes; what a pattern saves is judged on float32

Found = tuple[float, Sparsity]  # bytes when packed, pattern


def detect(w: Array, claim: Sparsity = DENSE) -> tuple[Sparsity, ...]:
    """The patterns that the filters w [OC, taps, IC] have and that store less than all weights, tightest first.

    Tightest is what takes the fewest bytes when packed; of equals, the one that binds most: n:m, blocks, n:m:g, hierarchical
    n:m, anything. Where the weights have the pattern `claim` and it stores at most a quarter more than their nonzero elements,
    it is the only answer: what a pruner recorded need not be searched for.
    Empty for weights with fewer than 10 % zeros.
    """
    nnz = int(np.count_nonzero(w))
    if nnz > (1 - MIN_SPARSITY) * w.size:
        return ()
    mask = w != 0
    if claim != DENSE and _stores_little(claim, w, nnz):
        return (claim.of(w),)
    found: list[Found] = []
    for family in (_nm, _blocks, _grouped, _hierarchical, _unstructured):
        found += family(mask, nnz)
    kept = sorted((f for f in found if f[0] < _VALUE * w.size), key=lambda f: f[0])
    return tuple(dict.fromkeys(p.of(w) for _, p in kept))


def _stores_little(pattern: Sparsity, w: Array, nnz: int) -> bool:
    try:
        return pattern.pack(w).values.size <= 1.25 * nnz
    except ValueError:
        return False


def _index_bytes(below: int) -> int:
    return 1 if below <= 1 << 8 else 2 if below <= 1 << 16 else 4


def _nm(mask: Array, nnz: int) -> Iterator[Found]:
    """n:m with the smallest n, for every number of rows that share it."""
    oc, taps, ic = mask.shape
    counts = {1: mask.astype(np.uint8)}
    rows = 1
    while True:
        level, width = counts[1], 1
        for m in _GROUPS:
            if m > ic:
                break
            level = _pairs(level, 2, np.add)
            width *= 2
            n = int(level.max(initial=0))
            if 0 < n < m:
                stored, tiles = oc * taps * level.shape[2] * n, -(-oc // rows)
                bits = tiles * taps * level.shape[2] * n * (m - 1).bit_length()
                yield _VALUE * stored + bits / 8, NM(n, m, rows)
        if rows * 2 > min(oc, 64):
            return
        counts = {1: _pairs(counts[1], 0, np.maximum)}
        rows *= 2


def _pairs(a: Array, axis: int, combine: np.ufunc) -> Array:
    """Neighbours on `axis` combined, the last one with zero when their number is odd."""
    full = np.moveaxis(padded(a, axis, 2), axis, 0)
    return np.asarray(np.moveaxis(combine(full[::2], full[1::2]), 0, axis))


def _blocks(mask: Array, nnz: int) -> Iterator[Found]:
    """Blocks of all common sizes, larger ones first; those that store many zeros lose by their bytes."""
    oc, taps, ic = mask.shape
    found: list[Found] = []
    for shared in (True, False) if taps > 1 else (True,):
        by_rows = np.asarray(mask.any(axis=1, keepdims=True)) if shared else mask
        for br in _BLOCK_ROWS:
            by_rows = by_rows if br == 1 else _pairs(by_rows, 0, np.logical_or)
            kept = by_rows
            for bc in _BLOCK_COLUMNS:
                kept = kept if bc == 1 else _pairs(kept, 2, np.logical_or)
                if br * bc > 1 and br <= oc and bc <= ic:
                    blocks = int(np.count_nonzero(kept))
                    index = _index_bytes(kept.shape[1] * kept.shape[2])
                    size = blocks * (_VALUE * br * bc * (taps if shared else 1) + index) + (kept.shape[0] + 1) * 2
                    found.append((size, Block(br, bc, "shared" if shared else "each")))
    yield from reversed(found)


def _grouped(mask: Array, nnz: int) -> Iterator[Found]:
    """n:m:g with the smallest g."""
    oc, columns = mask.shape[0], mask.shape[1] * mask.shape[2]
    flat = mask.reshape(oc, columns)
    for n, m in _GROUPED:
        if m > oc or nnz < 0.8 * n / m * mask.size:
            continue
        full = padded(flat, 0, m)
        if full.reshape(-1, m, columns).sum(axis=1, dtype=np.uint8 if m < 256 else np.uint16).max() > n:
            continue
        for g in _G:
            pattern = NMG(n, m, g)
            if pattern.chunk <= columns and pattern.holds(mask[: 4 * m]) and pattern.holds(mask):
                slots = full.shape[0] // m * -(-columns // pattern.chunk) * len(row_patterns(n, m)) * g
                yield slots * (_VALUE * n + _index_bytes(pattern.chunk)), pattern


def _hierarchical(mask: Array, nnz: int) -> Iterator[Found]:
    """Hierarchical n:m, where tiles of outputs drop whole channels and some of what is left."""
    oc, taps, ic = mask.shape
    for v in _TILES:
        used = int(np.count_nonzero(any_of_rows(mask, v)))
        tiles = -(-oc // v)
        if v > oc or used > (1 - MIN_SPARSITY) * tiles * taps * ic or nnz > 0.8 * used * min(v, oc):
            continue
        for n, m in _HIERARCHICAL:
            pattern = HiNM(v, n, m)
            if m > ic or pattern.regular(mask[: 4 * v]) < 0.9:  # cheap, and next to 1 where it applies
                continue
            length = pattern.lists(mask).shape[2]
            if length <= ic:
                stored = oc * taps * length * n // m
                lists = tiles * taps * length * _index_bytes(ic)
                yield stored * (_VALUE + (m - 1).bit_length() / 8) + lists, pattern


def _unstructured(mask: Array, nnz: int) -> Iterator[Found]:
    yield nnz * (_VALUE + _index_bytes(mask.shape[1] * mask.shape[2])) + (mask.shape[0] + 1) * 4, Unstructured()
