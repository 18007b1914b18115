"""What operators with an `epilogue` share: typing, evaluating and mapping the program's extra operands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.compiler.axes import BROADCAST, Access, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.base import Array, broadcast_shapes
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType


def epilogue_type(program: Program, acc: TensorType, extras: Sequence[TensorType | None]) -> TensorType:
    """Type of `program(acc, *extras)`. Extras broadcast to the accumulator's shape, never beyond it."""
    types = [t for t in extras if t is not None]
    if len(types) != len(extras) or program.n_args > 1 + len(extras):
        raise ModelError(f"epilogue {program} reads {program.n_args - 1} operands, {len(types)} are given")
    for t in types:
        if broadcast_shapes(acc.shape, t.shape) != acc.shape:
            raise ModelError(f"epilogue operand {t} does not broadcast to {list(acc.shape)}")
    return TensorType(program.infer([acc.dtype, *(t.dtype for t in types)]), acc.shape)


def apply_epilogue(program: Program, acc: Array, extras: Sequence[Array | None]) -> Array:
    """Value of `program(acc, *extras)`."""
    if not program.steps:
        return acc
    out = program.evaluate([acc, *(e for e in extras if e is not None)])
    return out if out.shape == acc.shape else np.ascontiguousarray(np.broadcast_to(out, acc.shape))


def epilogue_access(
    output: Sequence[Access], out_shape: Sequence[int], extras: Sequence[TensorType | None]
) -> list[tuple[Access, ...]]:
    """Access of each extra operand: aligned with the output's trailing dimensions."""
    result: list[tuple[Access, ...]] = []
    for t in extras:
        shape = t.shape if t else ()
        lead = len(out_shape) - len(shape)
        result.append(
            tuple(
                output[i + lead]
                if n == out_shape[i + lead] and isinstance(output[i + lead], Iter) and n != 1
                else BROADCAST
                if n == 1
                else output[i + lead]
                for i, n in enumerate(shape)
            )
        )
    return result
