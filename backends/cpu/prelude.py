"""The C text at the head of the kernels' file: scalar helpers, vector primitives of one instruction set, elementary functions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import environment


@cache
def prelude(isa: Isa, *, integers: bool = False, bfloat16: bool = False) -> str:
    """What every kernel for `isa` may use: `vec`, `vmask`, `VL`, `v_*` on vectors, `m_*` on masks, `spc_*` on scalars.

    `integers`: also `vi_*` on vectors of int32, loads and stores of bytes, and sums of byte products. `bfloat16`: also
    vectors of float32 that are stored as bfloat16, and where the target has kernels for these, sums of their products.

    Self-contained C11 (GCC/Clang dialect), to be put once before the kernels; needs the ISA's cflags and -lm.
    """
    parts = ["isa/scalar.h.j2", f"isa/{isa.header}.h.j2"]
    if isa.lanes > 1:
        parts += ["isa/math.h.j2", "isa/transpose.h.j2"]
    parts.append("isa/functions.h.j2")
    if integers:
        parts.append(f"isa/integers_{isa.header}.h.j2")
    if bfloat16:
        parts.append("isa/bfloat16.h.j2")
    return "\n".join(environment().get_template(part).render(isa=isa, rounds=_transpose_rounds(isa.lanes)) for part in parts)


@dataclass(frozen=True, slots=True)
class _Round:
    """One round of a transposition: row pairs, and the lanes (0..VL-1 of the first, then the second) that each row gets."""

    pairs: tuple[tuple[int, int], ...]
    low: str
    high: str


def _transpose_rounds(lanes: int) -> tuple[_Round, ...]:
    rounds = []
    step = lanes // 2
    while step:
        pairs = tuple((i, i + step) for i in range(lanes) if not i & step)
        low = ", ".join(str(lanes + j - step if j & step else j) for j in range(lanes))
        high = ", ".join(str(lanes + j if j & step else j + step) for j in range(lanes))
        rounds.append(_Round(pairs, low, high))
        step //= 2
    return tuple(rounds)
