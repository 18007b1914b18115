"""Scalar programs as C statements: over `vec` float32 values, and over single values of any element type.

Both forms take the names of variables that hold the arguments (an argument may be read several times, so it must be free of
side effects) and use what `prelude` declares. One table a form says how each function is written; a pair of function and
element type that no table holds is an UnsupportedError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.backends.cpu.scalar_forms import SCALAR, VEC, Form
from sparsec.backends.cpu.scalar_text import float_literal, load_expression, scalar_literal, store_expression, value_ctype
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Step, Tmp, operand_dtype, step_dtype

__all__ = [
    "Emitted",
    "emit_scalar",
    "emit_vec",
    "float_literal",
    "load_expression",
    "scalar_literal",
    "store_expression",
    "value_ctype",
]


@dataclass(frozen=True, slots=True)
class Emitted:
    """C statements, one a line and without indentation, and the expression and element type of the result after them."""

    statements: tuple[str, ...]
    result: str
    dtype: DType

    def text(self, indent: int) -> str:
        """The statements as lines of C, indented by `indent` spaces."""
        return "".join(f"{' ' * indent}{s}\n" for s in self.statements)


def emit_vec(program: Program, args: Sequence[str], dtypes: Sequence[DType] | None = None, prefix: str = "t") -> Emitted:
    """The program over vectors: float32 arguments are `vec` variables, bool ones `vmask`; so is the result.

    `dtypes` are the arguments' element types (all F32 when not given), `prefix` begins the names of temporaries.
    """
    return _emit(program, args, dtypes or [DType.F32] * len(args), prefix, VEC)


def emit_scalar(program: Program, args: Sequence[str], dtypes: Sequence[DType], prefix: str = "t") -> Emitted:
    """The program over single values, whose variables have the type `value_ctype(dtype)`."""
    return _emit(program, args, dtypes, prefix, SCALAR)


def _emit(program: Program, args: Sequence[str], dtypes: Sequence[DType], prefix: str, form: Form) -> Emitted:
    types: list[DType] = []
    for step in program.steps:
        types.append(step_dtype(step, dtypes, types))
    statements = []
    for i in _live(program):
        step = program.steps[i]
        like = operand_dtype(step, dtypes, types)
        template = _template(step, like, form)
        operands = []
        for k, a in enumerate(step.args):
            of = DType.BOOL if step.fn == "where" and k == 0 else like
            operands.append(form.literal(a.value, of) if isinstance(a, Imm) else _name(a, args, prefix))
        statements.append(f"const {form.ctype(types[i])} {prefix}{i} = {template.format(*operands)};")
    result = program.result
    dtype = types[-1] if types else dtypes[0]
    return Emitted(tuple(statements), _name(result, args, prefix), dtype)


def _name(operand: Operand, args: Sequence[str], prefix: str) -> str:
    if isinstance(operand, Tmp):
        return f"{prefix}{operand.index}"
    assert isinstance(operand, Arg)
    return args[operand.index]


def _live(program: Program) -> list[int]:
    """The steps that the result needs, in order: an unused variable would be a warning."""
    needed: set[int] = set()
    pending = [len(program.steps) - 1] if program.steps else []
    while pending:
        i = pending.pop()
        if i not in needed:
            needed.add(i)
            pending += [a.index for a in program.steps[i].args if isinstance(a, Tmp)]
    return sorted(needed)


def _template(step: Step, like: DType, form: Form) -> str:
    if step.fn == "cast":
        assert step.dtype is not None
        text = form.casts(like, step.dtype)
    else:
        text = form.immediate(step, like) or form.tables.get(like, {}).get(step.fn)
    if text is None:
        target = f" to {step.dtype.value}" if step.dtype else ""
        raise UnsupportedError(
            f"the function {step.fn}{target} on {like.value} has no C form over {form.what}: cast its operand to f32 first"
        )
    return text
