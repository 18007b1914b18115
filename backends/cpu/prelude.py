"""The C text at the head of the kernels' file: scalar helpers, vector primitives of one instruction set, elementary functions."""

from __future__ import annotations

from functools import cache

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import environment


@cache
def prelude(isa: Isa) -> str:
    """What every kernel for `isa` may use: `vec`, `vmask`, `VL`, `v_*` on vectors, `m_*` on masks, `spc_*` on scalars.

    Self-contained C11 (GCC/Clang dialect), to be put once before the kernels; needs the ISA's cflags and -lm.
    """
    parts = ["isa/scalar.h.j2", f"isa/{isa.symbol}.h.j2"]
    if isa.lanes > 1:
        parts.append("isa/math.h.j2")
    parts.append("isa/functions.h.j2")
    return "\n".join(environment().get_template(part).render(isa=isa) for part in parts)
