"""Element types in vector kernels: how a vector of each is loaded and stored.

In registers, integers are vectors of int32, and bfloat16 is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.backends.cpu.kernels.saturation import split_saturation
from sparsec.backends.cpu.scalar_c import Emitted, emit_vec
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.scalar import Arg, Program, Tmp

_LOADS = {
    DType.F32: "v_load",
    DType.BF16: "v_load_bf16",
    DType.I32: "vi_load",
    DType.U8: "vi_load_u8",
    DType.I8: "vi_load_i8",
}
VECTORS = tuple(_LOADS)  # the types that have vectors
INTEGERS = (DType.I32, DType.U8, DType.I8)


@dataclass(frozen=True, slots=True)
class Element:
    """A pointer parameter `name` as templates use it: C types of an element and of a vector, and the functions that load them."""

    name: str
    ctype: str
    vector: str
    load: str
    set1: str

    def __str__(self) -> str:
        return self.name


def element(name: str, dtype: DType) -> Element:
    """The parameter `name` with elements of one of the types `VECTORS`."""
    if dtype is DType.BF16:
        return Element(name, dtype.c, "vec", _LOADS[dtype], "v_set1_bf16")
    real = dtype is DType.F32
    return Element(name, dtype.c, "vec" if real else "vint", _LOADS[dtype], "v_set1" if real else "vi_set1")


@dataclass(frozen=True, slots=True)
class Ending:
    """A program over vectors and how its result is stored as `dtype`.

    `saturated` is the zero point of a result that is rounded to bytes, before which the program ends; None for others.
    """

    emitted: Emitted
    dtype: DType
    saturated: int | None

    def text(self, indent: int) -> str:
        """The program's statements as lines of C."""
        return self.emitted.text(indent)

    def store(self, to: str, lanes: str = "") -> str:
        """The C statement that stores the result at `to`; `lanes` is a mask of the lanes to keep, and the others become zero.

        For float32 the mask is a `vmask`, for others the number of lanes.
        """
        result = self.emitted.result
        if self.dtype is DType.F32:
            return f"v_store({to}, {f'v_select({lanes}, {result}, v_zero())' if lanes else result});"
        if self.dtype is DType.BF16:
            return f"v_store_bf16({to}, {f'v_keep({result}, {lanes})' if lanes else result});"
        if self.saturated is not None and not lanes:
            return f"v_quantise({to}, {result}, {self.saturated});"
        value = f"v_saturated({result}, {self.saturated})" if self.saturated is not None else result
        kept = f"vi_keep({value}, {lanes})" if lanes else value
        return f"vi_store({to}, {kept});" if self.dtype is DType.I32 else f"vi_store_u8((uint8_t *)({to}), {kept});"


def ending(program: Program, names: Sequence[str], dtypes: Sequence[DType], result: DType) -> Ending:
    """The program whose arguments are the C variables `names`. UnsupportedError when it has no form over vectors."""
    saturation = split_saturation(program) if result is DType.U8 else None
    body, zero = saturation or (program, None)
    if result is DType.BF16:
        body = _without_rounding(program)
    emitted = emit_vec(body, names, dtypes)
    if saturation is not None and emitted.dtype is not DType.F32:
        raise UnsupportedError(f"an epilogue rounds {emitted.dtype.value}: cast it to f32 first")
    if any(t not in VECTORS for t in (*dtypes, result)):
        raise UnsupportedError(f"{', '.join(t.value for t in (*dtypes, result))} have no vectors")
    return Ending(emitted, result, zero)


def _without_rounding(program: Program) -> Program:
    """The program without the cast to bfloat16 at its end: storing rounds."""
    *steps, last = program.steps or (None,)
    if last is None or last.fn != "cast" or last.args[0] != (Tmp(len(steps) - 1) if steps else Arg(0)):
        return program
    return Program(tuple(s for s in steps if s is not None))
