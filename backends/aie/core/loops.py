"""Whole loops at once: what n iterations of a loop's body do to a core, with numpy instead of bundle by bundle.

Works for bodies that load, move pointers by constants or by steps from a table, and add products to accumulators: what the
inner loops of products are. The result equals n times `execute.run_actions`; other bodies are left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.aie.core.arithmetic import BF16, rows_of, transposed_bf16, widened
from sparsec.backends.aie.core.execute import State, around
from sparsec.backends.aie.core.instructions import COUNTS, Bundle, Instruction, Slot
from sparsec.backends.aie.core.sparse_b import MASK_BYTES, expand
from sparsec.compiler.errors import ModelError

Array = np.ndarray[Any, Any]

RINGED = ("ldwr", "ldqr")
"""Loads in rings, whose third operand is the ring."""
_LOADS = ("ldw", "ldwm", "ldm", "ldq", *RINGED)
_PRODUCTS = ("mac", "mace", "macbf", "macbft", "macebf", "macsp", "macbfsp")


@dataclass(frozen=True, slots=True)
class _Write:
    """What a bundle does to a register: sets it to `values`, or adds them to it; one row an iteration."""

    bundle: int
    values: Array
    adds: bool


class Stream:
    """The values that a register has in every iteration of a loop, one row an iteration."""

    def __init__(self, before: Any, times: int, writes: Sequence[_Write]) -> None:
        """`before` is its value before the loop; `writes` are in the order of bundles."""
        self._writes = writes
        if any(not w.adds for w in writes):
            self.after = self._through(np.zeros(times, np.int64), writes)
            self._carried = np.concatenate((np.asarray(before)[None], self.after[:-1]))
        elif writes:
            self.after = before + np.cumsum(sum(w.values for w in writes), axis=0)
            self._carried = np.concatenate(([before], self.after[:-1]))
        else:
            self.after = self._carried = np.broadcast_to(before, (times, *np.shape(before)))

    def at(self, bundle: int) -> Array:
        """The values that `bundle` reads: those that the bundles before it left."""
        return self._through(self._carried, [w for w in self._writes if w.bundle < bundle])

    @staticmethod
    def setting(before: Any, times: int, writes: Sequence[tuple[int, Array]]) -> Stream:
        """A register that bundles set to values."""
        return Stream(before, times, [_Write(bundle, values, False) for bundle, values in writes])

    @staticmethod
    def _through(value: Array, writes: Sequence[_Write]) -> Array:
        for w in writes:
            value = value + w.values if w.adds else w.values
        return value


def is_plain(body: Sequence[Bundle]) -> bool:
    """Whether `run` does a loop's body: loads and sums of products only, tables read through pointers that constants move."""
    instructions = [i for b in body for i in b.values()]
    if not all(i.form.name in _LOADS or i.form.name in _PRODUCTS for i in instructions):
        return False
    tables = {i.operands[1] for i in instructions if i.form.name == "ldm"}
    return not any(i.form.name == "ldwm" and i.operands[1] in tables for i in instructions)


def run(state: State, body: Sequence[Bundle], times: int, bank_bytes: int) -> tuple[Array, list[int]]:
    """Carry out `times` > 0 iterations of a plain body.

    Returns which bundles' loads met in one bank of memory, bool [times, bundles], and the loads by bank.
    """
    loads = [(j, s, b[s]) for j, b in enumerate(body) for s in (Slot.A, Slot.B) if s in b]
    addresses = load_addresses(state, body, times)
    loaded: dict[int, list[_Write]] = {}
    for j, s, i in loads:
        if i.form.name != "ldm":
            loaded.setdefault(vector_of(i), []).append(_Write(j, _gather(state, addresses[j, s]), False))
    vectors = {w: Stream(state.w[w].copy(), times, writes) for w, writes in loaded.items()}
    for j, bundle in enumerate(body):
        if Slot.VECTOR in bundle:
            _accumulate(state, bundle[Slot.VECTOR], vectors, j, times)
    for w, stream in vectors.items():
        state.w[w] = stream.after[-1]
    met = np.zeros((times, len(body)), np.bool_)
    for j, b in enumerate(body):
        if Slot.A in b and Slot.B in b:
            met[:, j] = addresses[j, Slot.A] // bank_bytes == addresses[j, Slot.B] // bank_bytes
    banks = np.concatenate([a // bank_bytes for a in addresses.values()]) if addresses else np.zeros(0, np.int64)
    return met, np.bincount(banks, minlength=state.memory.size // bank_bytes).tolist()


def vector_of(load: Instruction) -> int:
    """Which of a state's registers of 32 bytes a load sets."""
    return load.operands[0] + (COUNTS["w"] if load.form.fields[0].kind == "y" else 0)


def load_addresses(state: State, body: Sequence[Bundle], times: int) -> dict[tuple[int, Slot], Array]:
    """The address of every load of a plain body (bundle, slot) in every iteration; pointers and steps are then as after it."""
    loads = [(j, s, b[s]) for j, b in enumerate(body) for s in (Slot.A, Slot.B) if s in b]
    moves: dict[int, list[_Write]] = {}
    steps: dict[int, list[_Write]] = {}
    found: dict[tuple[int, Slot], Array] = {}
    for j, _, i in loads:
        if i.form.name != "ldwm":
            moves.setdefault(i.operands[1], []).append(_Write(j, np.full(times, i.operands[-1]), True))
    for j, s, i in loads:
        if i.form.name == "ldm":
            found[j, s] = Stream(state.p[i.operands[1]], times, moves[i.operands[1]]).at(j)
            table = _gather(state, found[j, s], 2).view(np.int16)[:, 0].astype(np.int64)
            steps.setdefault(i.operands[0], []).append(_Write(j, 32 * table, False))
    step_streams = {m: Stream(state.m[m], times, steps.get(m, ())) for m in range(len(state.m))}
    for j, _, i in loads:
        if i.form.name == "ldwm":
            moves.setdefault(i.operands[1], []).append(_Write(j, step_streams[i.operands[2]].at(j), True))
    streams = {p: Stream(state.p[p], times, sorted(w, key=lambda x: x.bundle)) for p, w in moves.items()}
    for j, s, i in loads:
        found[j, s] = streams[i.operands[1]].at(j)
        if i.form.name in RINGED:
            found[j, s] = around(found[j, s], *state.ring(i.operands[2]))
    for p, stream in streams.items():
        state.p[p] = int(stream.after[-1])
    for m in steps:
        state.m[m] = int(step_streams[m].after[-1])
    return found


def _gather(state: State, addresses: Array, size: int = 32) -> Array:
    """uint8 [times, size] of memory. ModelError as `State.read` raises it."""
    low, high = int(addresses.min()), int(addresses.max())
    for address in (low, high):
        state.check(address, size, "a load", size)
    if np.any(addresses % size):
        raise ModelError(f"a load of {size} bytes at {int(addresses[addresses % size > 0][0]):#x} is not aligned to {size}")
    words = state.written[addresses[:, None] // 4 + np.arange((size + 3) // 4)]
    if not words.all():
        at = int(addresses[np.flatnonzero(~words.all(axis=1))[0]])
        raise ModelError(f"a load of {size} bytes at {at:#x} reads words that nothing has written")
    found: Array = state.memory.reshape(-1, size)[addresses // size]
    return found


def _accumulate(state: State, i: Instruction, vectors: dict[int, Stream], bundle: int, times: int) -> None:
    """Add the products of all iterations to an accumulator."""

    def register(w: int) -> Array:
        if w in vectors:
            return vectors[w].at(bundle)
        return np.broadcast_to(state.w[w], (times, 32))

    def wide(x: int) -> Array:
        return np.concatenate((register(2 * x), register(2 * x + 1)), axis=1)

    if i.form.name in ("macsp", "macbfsp"):
        _accumulate_sparse(state, i, register)
        return
    if i.form.name in ("macbf", "macbft"):
        c, a, b, half = i.operands
        right = transposed_bf16(wide(b)) if i.form.name == "macbft" else wide(b)
        left = widened(wide(a)).reshape(times, 4, 8).transpose(1, 0, 2).reshape(4, -1)
        with np.errstate(all="ignore"):
            state.half(c, half)[:] += left @ widened(right).reshape(-1, 4)
        return
    if i.form.name == "macebf":
        c, a, b, half = i.operands
        with np.errstate(all="ignore"):
            state.pair(c, half)[:] += (widened(register(a)) * widened(register(b))).sum(axis=0).reshape(2, 8)
        return
    c, a, b, signed = i.operands
    kind = np.int8 if signed else np.uint8
    if i.form.name == "mace":
        sums = np.einsum("ni,ni->i", register(a).view(kind), register(b).view(np.int8), dtype=np.int64).reshape(4, 8)
    else:
        # float64 holds the sums of bytes exactly, and numpy multiplies it by a library
        left = register(a).view(kind).reshape(times, 4, 8).transpose(1, 0, 2).reshape(4, -1).astype(np.float64)
        sums = (left @ wide(b).view(np.int8).reshape(-1, 8).astype(np.float64)).astype(np.int64)
    state.sums(c)[:] = (state.sums(c) + sums).astype(np.int32)


def _accumulate_sparse(state: State, i: Instruction, register: Callable[[int], Array]) -> None:
    """Add the products of all iterations by sparse operands; `register` gives vectors as uint8 [iterations, 32]."""
    c, a, b, q, which = i.operands
    of_bytes = i.form.name == "macsp"
    count = 2 if of_bytes else 4
    masks = register(COUNTS["w"] + q // 2).reshape(-1, 2, MASK_BYTES)[:, q % 2]
    data = np.concatenate([register(count * a + n) for n in range(count)], axis=1)
    values = np.concatenate([register(2 * b + n) for n in range(2)], axis=1)
    if of_bytes:
        left, right = rows_of(data, np.int8 if which else np.uint8), expand(masks, values, np.int8)
        rows = left.transpose(1, 0, 2).reshape(4, -1).astype(np.float64)
        sums = rows @ right.reshape(-1, right.shape[-1]).astype(np.float64)
        state.sums(c)[:] = (state.sums(c) + sums.astype(np.int64)).astype(np.int32)
        return
    with np.errstate(all="ignore"):
        left, right = (v.astype(np.float32) for v in (rows_of(data, BF16), expand(masks, values, BF16)))
        state.half(c, which)[:] += left.transpose(1, 0, 2).reshape(4, -1) @ right.reshape(-1, right.shape[-1])
