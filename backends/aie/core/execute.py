"""What the instructions of a core do to its registers and memory: one function a mnemonic.

Each function reads, and returns what it writes as a function to call, so that all slots of a bundle read before any writes. This
file defines the values; `timing` says when, `loops` does whole loops at once to the same effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.core.arithmetic import (
    BF16,
    BYTES,
    as_float,
    lanes_bf16,
    narrowed,
    products,
    products_bf16,
    rounded,
    saturated,
    scaled,
    shifted,
    sparse_products,
    sparse_products_bf16,
    transposed_bf16,
    widened,
)
from sparsec.backends.aie.core.cascade import Inbox
from sparsec.backends.aie.core.instructions import COUNTS, Bundle
from sparsec.backends.aie.core.sparse_b import MASK_BYTES
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError

Array = np.ndarray[Any, Any]
Commit = Callable[[], None]
Actions = Sequence[tuple[Callable[["State", tuple[int, ...]], Commit], tuple[int, ...]]]
VECTORS = COUNTS["w"] + COUNTS["y"]
"""Registers of 32 bytes: w, and behind them y, two masks each."""


@dataclass
class State:
    """Registers and data memory of a core. `memory` is uint8; `written` (uint8) is 0 for 32-bit words without a value yet.

    `w` has the masks y behind the registers w.
    """

    memory: Array
    written: Array
    r: list[int] = field(default_factory=lambda: [0] * COUNTS["r"])
    p: list[int] = field(default_factory=lambda: [0] * COUNTS["p"])
    m: list[int] = field(default_factory=lambda: [0] * COUNTS["m"])
    w: Array = field(default_factory=lambda: np.zeros((VECTORS, 32), np.uint8))
    c: Array = field(default_factory=lambda: np.zeros((COUNTS["c"], 128), np.uint8))
    inbox: Inbox = field(default_factory=Inbox)
    outbox: list[Array] = field(default_factory=list)  # uint8 [n, 64] each: what was put into the cascade

    @staticmethod
    def fresh(size: int) -> State:
        """A core with `size` bytes of memory in which nothing has been written."""
        return State(np.zeros(size, np.uint8), np.zeros(size // 4, np.uint8))

    def check(self, address: int, size: int, what: str, align: int) -> None:
        """ModelError unless `size` bytes at `address` are in memory and aligned."""
        if address % align:
            raise ModelError(f"{what} of {size} bytes at {address:#x} is not aligned to {align}")
        if not 0 <= address <= self.memory.size - size:
            raise ModelError(
                f"{what} of {size} bytes at {address:#x} is outside of the {self.memory.size:,} bytes of data memory"
            )

    def read(self, address: int, size: int, align: int) -> Array:
        """Bytes of memory (a copy). ModelError when they are outside, not aligned, or were never written."""
        self._check_load(address, size, align)
        return self.memory[address : address + size].copy()

    def read_number(self, address: int, size: int, *, signed: bool) -> int:
        """A number of `size` bytes, aligned to as many. ModelError as `read`."""
        self._check_load(address, size, size)
        return int.from_bytes(self.memory[address : address + size].tobytes(), "little", signed=signed)

    def _check_load(self, address: int, size: int, align: int) -> None:
        self.check(address, size, "a load", align)
        if 0 in self.written[address // 4 : (address + size + 3) // 4].tobytes():
            raise ModelError(f"a load of {size} bytes at {address:#x} reads words that nothing has written")

    def write(self, address: int, data: Array, align: int) -> None:
        """Store bytes. ModelError when they are outside or not aligned."""
        self.check(address, data.size, "a store", align)
        self.memory[address : address + data.size] = data
        self.written[address // 4 : (address + data.size + 3) // 4] = 1

    def sums(self, c: int) -> Array:
        """Accumulator `c` as int32 [4, 8] (a view)."""
        view: Array = self.c[c].view(np.int32).reshape(4, 8)
        return view

    def floats(self, c: int) -> Array:
        """Accumulator `c` as float32 [4, 8] (a view)."""
        view: Array = self.c[c].view(np.float32).reshape(4, 8)
        return view

    def half(self, c: int, which: int) -> Array:
        """The first (0) or last (1) 4 channels of accumulator `c` as float32 [4, 4] (a view)."""
        return self.floats(c)[:, 4 * which : 4 * which + 4]

    def pair(self, c: int, which: int) -> Array:
        """The first (0) or last (1) 2 positions of accumulator `c` as float32 [2, 8] (a view)."""
        return self.floats(c)[2 * which : 2 * which + 2]

    def ring(self, n: int) -> tuple[int, int]:
        """The end and the bytes of the ring that the pair lN describes."""
        return self.r[2 * n], self.r[2 * n + 1]

    def x(self, n: int) -> Array:
        """Register xN as 64 bytes (a copy)."""
        return self.w[2 * n : 2 * n + 2].reshape(64).copy()

    def q(self, n: int) -> Array:
        """Mask qN as 16 bytes (a copy)."""
        mask: Array = self.w[COUNTS["w"] + n // 2].reshape(2, MASK_BYTES)[n % 2].copy()
        return mask


def actions_of(bundle: Bundle) -> Actions:
    """What the slots of a bundle do that do not steer the program."""
    return [(ACTIONS[i.form.name], i.operands) for i in bundle.values() if i.form.name in ACTIONS]


def run_actions(state: State, actions: Actions) -> None:
    """Carry out a bundle: all slots read, then all write."""
    for commit in [act(state, operands) for act, operands in actions]:
        commit()


def _set_list(values: list[int], i: int, value: int) -> Commit:
    def commit() -> None:
        values[i] = value

    return commit


def _wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def around(address: Any, end: Any, size: Any) -> Any:
    """An address, or an array of them, in a ring of so many bytes: one ring before where it is at its end or beyond."""
    return address - size * (address >= end)


def _load(s: State, o: tuple[int, ...], step: int, ring: int | None = None) -> Commit:
    address = s.p[o[1]]
    data = s.read(address if ring is None else around(address, *s.ring(ring)), 32, 32)

    def commit() -> None:
        s.w[o[0]] = data
        s.p[o[1]] = address + step

    return commit


def _load_quarter(s: State, o: tuple[int, ...]) -> Commit:
    address = s.p[o[2]]
    data = s.read(address, 32, 32)

    def commit() -> None:
        s.c[o[0], 32 * o[1] : 32 * o[1] + 32] = data
        s.p[o[2]] = address + o[3]

    return commit


def _load_scalar(s: State, o: tuple[int, ...], size: int, signed: bool) -> Commit:
    address = s.p[o[1]]
    value = s.read_number(address, size, signed=signed)

    def commit() -> None:
        s.r[o[0]] = value
        s.p[o[1]] = address + o[2]

    return commit


def _load_pointer(s: State, o: tuple[int, ...]) -> Commit:
    address = s.p[o[1]]
    value = s.read_number(address, 2, signed=False)

    def commit() -> None:
        s.p[o[1]] = address + o[2]
        s.p[o[0]] = value

    return commit


def _load_sums(s: State, o: tuple[int, ...]) -> Commit:
    address = s.p[o[1]]
    sums = shifted(s.read(address, 32, 32), s.r[o[2]], o[3])

    def commit() -> None:
        s.sums(o[0])[:] = sums
        s.p[o[1]] = address + o[4]

    return commit


def _load_floats(s: State, o: tuple[int, ...]) -> Commit:
    address = s.p[o[2]]
    values = widened(s.read(address, 32, 32)).reshape(2, 8)

    def commit() -> None:
        s.floats(o[0])[2 * o[1] : 2 * o[1] + 2] = values
        s.p[o[2]] = address + o[3]

    return commit


def _load_step(s: State, o: tuple[int, ...]) -> Commit:
    address = s.p[o[1]]
    value = 32 * s.read_number(address, 2, signed=True)

    def commit() -> None:
        s.m[o[0]] = value
        s.p[o[1]] = address + o[2]

    return commit


def _store(s: State, p: int, data: Array, step: int) -> Commit:
    address = s.p[p]

    def commit() -> None:
        s.write(address, data, min(data.size, 32))
        s.p[p] = address + step

    return commit


def _accumulate(target: Array, value: Array, keep: bool) -> Commit:
    with np.errstate(all="ignore"):
        total = target + value if keep else value

    def commit() -> None:
        target[:] = total

    return commit


def _plus(s: State, o: tuple[int, ...], sources: int, of: Callable[[State, int], Array], product: Array) -> Commit:
    """A target set to the sum of the first `sources` accumulators behind it, and products."""
    total = product
    with np.errstate(all="ignore"):
        for c in o[1 : 1 + sources]:
            total = total + of(s, c)

    def commit() -> None:
        of(s, o[0])[:] = total

    return commit


def _sums_of(s: State, o: tuple[int, ...], sources: int, made: Callable[[State, tuple[int, ...]], Array]) -> Commit:
    return _plus(s, o, sources, State.sums, made(s, (o[0], *o[1 + sources :])))


def _floats_of(s: State, o: tuple[int, ...], sources: int, made: Callable[[State, tuple[int, ...]], Array]) -> Commit:
    product = made(s, (o[0], *o[1 + sources :]))
    return _plus(s, o, sources, lambda state, c: state.half(c, o[-1]), product)


def _pairs_of(s: State, o: tuple[int, ...], sources: int) -> Commit:
    product = lanes_bf16(s.w[o[1 + sources]], s.w[o[2 + sources]])
    return _plus(s, o, sources, lambda state, c: state.pair(c, o[-1]), product)


def _matrix(s: State, o: tuple[int, ...]) -> Array:
    return products(s.w[o[1]], s.x(o[2]), o[3])


def _turned_bf16(s: State, o: tuple[int, ...]) -> Array:
    return products_bf16(s.x(o[1]), transposed_bf16(s.x(o[2])))


def _matrix_bf16(s: State, o: tuple[int, ...]) -> Array:
    return products_bf16(s.x(o[1]), s.x(o[2]))


def _sparse(s: State, o: tuple[int, ...]) -> Array:
    return sparse_products(s.x(o[1]), s.x(o[2]), s.q(o[3]), o[4])


def _sparse_bf16(s: State, o: tuple[int, ...]) -> Array:
    return sparse_products_bf16(s.w[4 * o[1] : 4 * o[1] + 4].reshape(128).copy(), s.x(o[2]), s.q(o[3]))


def _lanes(s: State, o: tuple[int, ...]) -> Array:
    a = s.w[o[1]].view(BYTES[o[3]]).astype(np.int32)
    sums: Array = (a * s.w[o[2]].view(np.int8).astype(np.int32)).reshape(4, 8)
    return sums


def _lanewise(s: State, o: tuple[int, ...], of: Callable[[Array, Array], Array], kind: Any) -> Commit:
    result = of(s.w[o[1]].view(kind), s.w[o[2]].view(kind)).view(np.uint8)

    def commit() -> None:
        s.w[o[0]] = result

    return commit


def _narrowed(s: State, o: tuple[int, ...]) -> Commit:
    data = narrowed(s.sums(o[1]), s.r[o[2]], DType.I16).view(np.uint8).reshape(2, 32)

    def commit() -> None:
        s.w[2 * o[0] : 2 * o[0] + 2] = data

    return commit


def _put(s: State, o: tuple[int, ...]) -> Commit:
    word = s.c[o[0], 64 * o[1] : 64 * o[1] + 64].copy()[None]

    def commit() -> None:
        s.outbox.append(word)

    return commit


def _get(s: State, o: tuple[int, ...]) -> Commit:
    word = s.inbox.peek(1)[0]

    def commit() -> None:
        s.inbox.drop(1)
        s.c[o[0], 64 * o[1] : 64 * o[1] + 64] = word

    return commit


def _quarter(s: State, o: tuple[int, ...]) -> Commit:
    data = s.w[o[2]].copy()

    def commit() -> None:
        s.c[o[0], 32 * o[1] : 32 * o[1] + 32] = data

    return commit


ACTIONS: Mapping[str, Callable[[State, tuple[int, ...]], Commit]] = {
    "ldw": lambda s, o: _load(s, o, o[2]),
    "ldwm": lambda s, o: _load(s, o, s.m[o[2]]),
    "ld": lambda s, o: _load_scalar(s, o, 4, True),
    "ldh": lambda s, o: _load_scalar(s, o, 2, False),
    "ldm": _load_step,
    "ldc": _load_quarter,
    "ldp": _load_pointer,
    "ldu": _load_sums,
    "ldbf": _load_floats,
    "ldq": lambda s, o: _load(s, (COUNTS["w"] + o[0], o[1]), o[2]),
    "ldwr": lambda s, o: _load(s, o, o[3], o[2]),
    "ldqr": lambda s, o: _load(s, (COUNTS["w"] + o[0], o[1]), o[3], o[2]),
    "srs": lambda s, o: _store(s, o[1], saturated(s.sums(o[0]), s.r[o[2]], o[3]).reshape(32), o[4]),
    "srsm": lambda s, o: _store(s, o[1], saturated(s.sums(o[0]), s.r[o[2]], o[3]).reshape(32), s.m[o[4]]),
    "stw": lambda s, o: _store(s, o[1], s.w[o[0]].copy(), o[2]),
    "stc": lambda s, o: _store(s, o[2], s.c[o[0], 32 * o[1] : 32 * o[1] + 32].copy(), o[3]),
    "st": lambda s, o: _store(s, o[1], np.array([s.r[o[0]]], np.int32).view(np.uint8), o[2]),
    "stbf": lambda s, o: _store(s, o[2], rounded(s.floats(o[0])[2 * o[1] : 2 * o[1] + 2].reshape(16)), o[3]),
    "mac": lambda s, o: _accumulate(s.sums(o[0]), _matrix(s, o), True),
    "mul": lambda s, o: _accumulate(s.sums(o[0]), _matrix(s, o), False),
    "mace": lambda s, o: _accumulate(s.sums(o[0]), _lanes(s, o), True),
    "mule": lambda s, o: _accumulate(s.sums(o[0]), _lanes(s, o), False),
    "row": lambda s, o: _accumulate(s.sums(o[0]), np.tile(s.w[o[1]].view(np.int32), (4, 1)), False),
    "setc": _quarter,
    "ups": lambda s, o: _accumulate(s.sums(o[0]), shifted(s.w[o[1]], s.r[o[2]], o[3]), True),
    "max": lambda s, o: _lanewise(s, o, np.maximum, BYTES[o[3]]),
    "min": lambda s, o: _lanewise(s, o, np.minimum, BYTES[o[3]]),
    "maxbf": lambda s, o: _lanewise(s, o, np.maximum, BF16),
    "clr": lambda s, o: _accumulate(s.sums(o[0]), np.zeros((4, 8), np.int32), False),
    "macbf": lambda s, o: _accumulate(s.half(o[0], o[3]), _matrix_bf16(s, o), True),
    "addbf": lambda s, o: _accumulate(s.floats(o[0]), widened(s.x(o[1])).reshape(4, 8), True),
    "macebf": lambda s, o: _accumulate(s.pair(o[0], o[3]), lanes_bf16(s.w[o[1]], s.w[o[2]]), True),
    "macebfc": lambda s, o: _pairs_of(s, o, 1),
    "addmacebf": lambda s, o: _pairs_of(s, o, 2),
    "srsh": _narrowed,
    "mach": lambda s, o: _plus(s, o, 1, State.sums, scaled(s.x(o[2]), s.r[o[3]])),
    "maxf": lambda s, o: _accumulate(s.floats(o[0]), np.maximum(s.floats(o[0]), as_float(s.r[o[1]])), False),
    "minf": lambda s, o: _accumulate(s.floats(o[0]), np.minimum(s.floats(o[0]), as_float(s.r[o[1]])), False),
    "macc": lambda s, o: _sums_of(s, o, 1, _matrix),
    "macec": lambda s, o: _sums_of(s, o, 1, _lanes),
    "macbfc": lambda s, o: _floats_of(s, o, 1, _matrix_bf16),
    "addmac": lambda s, o: _sums_of(s, o, 2, _matrix),
    "addmace": lambda s, o: _sums_of(s, o, 2, _lanes),
    "addmacbf": lambda s, o: _floats_of(s, o, 2, _matrix_bf16),
    "macbft": lambda s, o: _accumulate(s.half(o[0], o[3]), _turned_bf16(s, o), True),
    "macbftc": lambda s, o: _floats_of(s, o, 1, _turned_bf16),
    "addmacbft": lambda s, o: _floats_of(s, o, 2, _turned_bf16),
    "macsp": lambda s, o: _accumulate(s.sums(o[0]), _sparse(s, o), True),
    "mulsp": lambda s, o: _accumulate(s.sums(o[0]), _sparse(s, o), False),
    "macspc": lambda s, o: _sums_of(s, o, 1, _sparse),
    "addmacsp": lambda s, o: _sums_of(s, o, 2, _sparse),
    "macbfsp": lambda s, o: _accumulate(s.half(o[0], o[4]), _sparse_bf16(s, o), True),
    "macbfspc": lambda s, o: _floats_of(s, o, 1, _sparse_bf16),
    "movi": lambda s, o: _set_list(s.r, o[0], o[1]),
    "movh": lambda s, o: _set_list(s.r, o[0], _wrap((s.r[o[0]] & 0xFFFF) | o[1] << 16)),
    "addi": lambda s, o: _set_list(s.r, o[0], _wrap(s.r[o[1]] + o[2])),
    "add": lambda s, o: _set_list(s.r, o[0], _wrap(s.r[o[1]] + s.r[o[2]])),
    "addl": lambda s, o: _set_list(s.r, o[0], around(_wrap(s.r[o[1]] + s.r[o[2]]), *s.ring(o[3]))),
    "sub": lambda s, o: _set_list(s.r, o[0], _wrap(s.r[o[1]] - s.r[o[2]])),
    "mov": lambda s, o: _set_list(s.r, o[0], s.r[o[1]]),
    "movp": lambda s, o: _set_list(s.p, o[0], s.r[o[1]]),
    "movr": lambda s, o: _set_list(s.r, o[0], s.p[o[1]]),
    "padd": lambda s, o: _set_list(s.p, o[0], s.p[o[0]] + o[1]),
    "paddr": lambda s, o: _set_list(s.p, o[0], s.p[o[1]] + s.r[o[2]]),
    "pmov": lambda s, o: _set_list(s.p, o[0], s.p[o[1]]),
    "movm": lambda s, o: _set_list(s.m, o[0], s.r[o[1]]),
    "movz": lambda s, o: _set_list(s.r, o[0], s.r[o[1]] if s.r[o[2]] == 0 else s.r[o[0]]),
    "putc": _put,
    "getc": _get,
    "jzd": lambda s, o: _set_list(s.r, o[0], _wrap(s.r[o[0]] - 1)),
}
STEERING = frozenset(f for f in ("loop", "jz", "jnz", "jzd", "jmp", "jmpr", "acq", "rel", "acqr", "relr", "done"))
