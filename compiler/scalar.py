"""Scalar programs: the elementwise part of an operator, as a short straight line of scalar functions.

`Map` nodes are a program over their inputs; `Conv`, `MatMul` and others carry one as their `epilogue`, where argument 0 is
the accumulator. One table says, for every function, its arity, its result type and its numpy meaning; backends add how they
emit it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Arg:
    """Operand: the program's argument `index`."""

    index: int

    def __str__(self) -> str:
        return f"a{self.index}"


@dataclass(frozen=True, slots=True)
class Tmp:
    """Operand: the result of step `index`."""

    index: int

    def __str__(self) -> str:
        return f"t{self.index}"


@dataclass(frozen=True, slots=True)
class Imm:
    """Operand: a number. In a float32 program it is rounded to float32."""

    value: float

    def __str__(self) -> str:
        return repr(int(self.value)) if isinstance(self.value, int) else repr(float(self.value))


Operand = Arg | Tmp | Imm


@dataclass(frozen=True, slots=True)
class Step:
    """One function applied to operands; `dtype` only for `cast`: the type that it casts to."""

    fn: str
    args: tuple[Operand, ...]
    dtype: DType | None = None

    def __post_init__(self) -> None:
        if self.fn not in FUNCTIONS:
            raise KeyError(f"no scalar function is called {self.fn!r}")
        if len(self.args) != FUNCTIONS[self.fn].arity:
            raise ValueError(f"{self.fn} takes {FUNCTIONS[self.fn].arity} operands, not {len(self.args)}")
        if (self.fn == "cast") != (self.dtype is not None):
            raise ValueError("a cast, and only a cast, names a dtype")

    def __str__(self) -> str:
        name = f"cast.{self.dtype.value}" if self.dtype else self.fn
        return f"{name}({','.join(map(str, self.args))})"


@dataclass(frozen=True, slots=True)
class Program:
    """A straight line of steps; the result is the last step's, or argument 0 when there is none."""

    steps: tuple[Step, ...] = ()

    @property
    def result(self) -> Operand:
        """The operand that holds the program's value."""
        return Tmp(len(self.steps) - 1) if self.steps else Arg(0)

    @property
    def n_args(self) -> int:
        """Arguments that the program reads, counted as highest index + 1 (at least 1)."""
        return 1 + max((a.index for s in self.steps for a in s.args if isinstance(a, Arg)), default=0)

    def then(self, fn: str, *args: Operand, dtype: DType | None = None) -> Program:
        """The program with one more step; `Tmp(-1)` among `args` means the result so far."""
        here = self.result
        return Program((*self.steps, Step(fn, tuple(here if a == Tmp(-1) else a for a in args), dtype)))

    def compose(self, other: Program, binding: Sequence[Operand]) -> Program:
        """Append `other`, whose argument i becomes `binding[i]` (an operand of self; Tmp(-1) = the result so far)."""
        here, base = self.result, len(self.steps)

        def move(a: Operand) -> Operand:
            if isinstance(a, Tmp):
                return Tmp(a.index + base)
            if isinstance(a, Arg):
                bound = binding[a.index]
                return here if bound == Tmp(-1) else bound
            return a

        if not other.steps:
            out = binding[0]
            return self if out in (Tmp(-1), here) else self.then("identity", out)
        moved = tuple(Step(s.fn, tuple(move(a) for a in s.args), s.dtype) for s in other.steps)
        return Program((*self.steps, *moved))

    def substitute(self, mapping: dict[int, Operand]) -> Program:
        """Replace argument i by `mapping[i]` (an Arg or an Imm) wherever it is read."""

        def sub(a: Operand) -> Operand:
            return mapping.get(a.index, a) if isinstance(a, Arg) else a

        return Program(tuple(Step(s.fn, tuple(sub(a) for a in s.args), s.dtype) for s in self.steps))

    def canonical(self) -> Program:
        """The program with the operands of commutative functions in one order: results, then arguments, then numbers."""

        def rank(a: Operand) -> tuple[int, int]:
            return (2, 0) if isinstance(a, Imm) else (0, a.index) if isinstance(a, Tmp) else (1, a.index)

        def order(s: Step) -> Step:
            return Step(s.fn, tuple(sorted(s.args, key=rank)), s.dtype) if s.fn in COMMUTATIVE else s

        return Program(tuple(order(s) for s in self.steps))

    def infer(self, dtypes: Sequence[DType]) -> DType:
        """The element type of the result for arguments of the given types."""
        types: list[DType] = []
        for step in self.steps:
            types.append(step_dtype(step, dtypes, types))
        return types[-1] if types else dtypes[0]

    def mentions(self, dtype: DType) -> bool:
        """Whether a step casts to `dtype`."""
        return any(s.dtype is dtype for s in self.steps)

    def check(self, dtypes: Sequence[DType]) -> None:
        """Raise ModelError when a function is not defined on the types that reach it."""
        types: list[DType] = []
        for step in self.steps:
            _check_types(step, _types_of(step, dtypes, types))
            types.append(step_dtype(step, dtypes, types))

    def evaluate(self, args: Sequence[Array]) -> Array:
        """Run on numpy arrays, with numpy broadcasting; shapes and dtypes of `args` as given, result in `infer`'s dtype."""
        dtypes = [DType.from_numpy(a.dtype) for a in args]
        values: list[Array] = []
        types: list[DType] = []
        for step in self.steps:
            operands: list[Array] = []
            like = operand_dtype(step, dtypes, types)
            for a in step.args:
                if isinstance(a, Imm):
                    operands.append(np.asarray(a.value, dtype=like.numpy))
                else:
                    operands.append(args[a.index] if isinstance(a, Arg) else values[a.index])
            out = step_dtype(step, dtypes, types)
            with np.errstate(all="ignore"):
                values.append(np.asarray(FUNCTIONS[step.fn].evaluate(*operands)).astype(out.numpy, copy=False))
            types.append(out)
        return values[-1] if values else args[0]

    def __str__(self) -> str:
        return ";".join(map(str, self.steps))

    @staticmethod
    def parse(text: str) -> Program:
        """Inverse of str()."""
        if not text:
            return Program()
        return Program(tuple(_parse_step(part) for part in text.split(";")))


def _parse_step(text: str) -> Step:
    name, _, rest = text.partition("(")
    if not rest.endswith(")"):
        raise ValueError(f"a step is written fn(operand,...), not {text!r}")
    fn, _, dtype = name.partition(".")
    args = tuple(_parse_operand(a) for a in rest[:-1].split(",")) if rest != ")" else ()
    return Step(fn, args, DType(dtype) if dtype else None)


def _parse_operand(text: str) -> Operand:
    if text[0] in "at" and text[1:].isdigit():
        return Arg(int(text[1:])) if text[0] == "a" else Tmp(int(text[1:]))
    return Imm(int(text) if text.lstrip("-").isdigit() else float(text))


@dataclass(frozen=True, slots=True)
class Function:
    """A scalar function: operand count, numpy meaning, and how its result type follows from its operands'."""

    arity: int
    evaluate: Callable[..., Any]
    result: str = field(default="same")  # same: the operands' common type; bool; cast: the step's own; second: operand 1's type


def _erf_gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1.0 + special.erf(x / np.sqrt(2.0).astype(x.dtype))))


def _int_div(x: Array, y: Array) -> Array:
    if np.asarray(x).dtype.kind not in "iub":  # bfloat16 is of a kind of its own
        return np.divide(x, y)
    safe = np.where(y == 0, 1, y)
    quotient = x // safe + ((x % safe != 0) & ((x < 0) != (safe < 0)))
    return np.asarray(np.where(y == 0, 0, quotient)).astype(x.dtype, copy=False)  # C truncates toward zero


def _round_half_even(x: Array) -> Array:
    return np.rint(x)


def _cast(x: Array) -> Array:
    return x  # `evaluate` converts to the step's dtype


FUNCTIONS: dict[str, Function] = {
    "identity": Function(1, lambda x: x),
    "cast": Function(1, _cast, "cast"),
    # arithmetic
    "add": Function(2, np.add),
    "sub": Function(2, np.subtract),
    "mul": Function(2, np.multiply),
    "div": Function(2, _int_div),
    "min": Function(2, np.minimum),
    "max": Function(2, np.maximum),
    "pow": Function(2, np.power),
    "mod": Function(2, np.mod),
    "fmod": Function(2, np.fmod),
    "neg": Function(1, np.negative),
    "abs": Function(1, np.abs),
    "sign": Function(1, np.sign),
    "sqrt": Function(1, np.sqrt),
    "rsqrt": Function(1, lambda x: 1.0 / np.sqrt(x)),
    "reciprocal": Function(1, lambda x: 1.0 / x),
    "exp": Function(1, np.exp),
    "log": Function(1, np.log),
    "floor": Function(1, np.floor),
    "ceil": Function(1, np.ceil),
    "round": Function(1, _round_half_even),
    "sin": Function(1, np.sin),
    "cos": Function(1, np.cos),
    "tan": Function(1, np.tan),
    "asin": Function(1, np.arcsin),
    "acos": Function(1, np.arccos),
    "atan": Function(1, np.arctan),
    "sinh": Function(1, np.sinh),
    "cosh": Function(1, np.cosh),
    "asinh": Function(1, np.arcsinh),
    "acosh": Function(1, np.arccosh),
    "atanh": Function(1, np.arctanh),
    # activations
    "relu": Function(1, lambda x: np.maximum(x, x.dtype.type(0))),
    "sigmoid": Function(1, lambda x: special.expit(x)),
    "tanh": Function(1, np.tanh),
    "erf": Function(1, special.erf),
    "gelu": Function(1, _erf_gelu),
    "silu": Function(1, lambda x: x * special.expit(x)),
    "hard_sigmoid": Function(3, lambda x, a, b: np.clip(a * x + b, 0, 1)),
    "hard_swish": Function(1, lambda x: x * np.clip(x / x.dtype.type(6) + x.dtype.type(0.5), 0, 1)),
    "leaky_relu": Function(2, lambda x, slope: np.where(x < 0, slope * x, x)),
    "elu": Function(2, lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)),
    "softplus": Function(1, lambda x: np.logaddexp(x, 0)),
    "softsign": Function(1, lambda x: x / (1 + np.abs(x))),
    # comparison and logic
    "eq": Function(2, np.equal, "bool"),
    "lt": Function(2, np.less, "bool"),
    "le": Function(2, np.less_equal, "bool"),
    "gt": Function(2, np.greater, "bool"),
    "ge": Function(2, np.greater_equal, "bool"),
    "and": Function(2, np.logical_and, "bool"),
    "or": Function(2, np.logical_or, "bool"),
    "xor": Function(2, np.logical_xor, "bool"),
    "not": Function(1, np.logical_not, "bool"),
    "isnan": Function(1, np.isnan, "bool"),
    "isinf": Function(1, np.isinf, "bool"),
    "bitand": Function(2, np.bitwise_and),
    "bitor": Function(2, np.bitwise_or),
    "bitxor": Function(2, np.bitwise_xor),
    "bitnot": Function(1, np.bitwise_not),
    "shl": Function(2, np.left_shift),
    "shr": Function(2, np.right_shift),
    "where": Function(3, np.where, "second"),
}

COMMUTATIVE = frozenset({"add", "mul", "min", "max", "eq", "and", "or", "xor", "bitand", "bitor", "bitxor"})


_ON_INTEGERS = frozenset({"bitand", "bitor", "bitxor", "bitnot", "shl", "shr"})
_ON_FLOATS = frozenset({
    "sqrt", "rsqrt", "reciprocal", "exp", "log", "floor", "ceil", "round", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "asinh", "acosh", "atanh", "sigmoid", "tanh", "erf", "gelu", "silu", "hard_sigmoid", "hard_swish",
    "elu", "softplus", "softsign", "isnan", "isinf",
})  # fmt: skip
_ON_NUMBERS = frozenset({"add", "sub", "mul", "div", "pow", "mod", "fmod", "neg", "abs", "sign", "relu", "leaky_relu"})


def _check_types(step: Step, known: Sequence[DType]) -> None:
    """ModelError when the function is not defined on operands of these types."""
    for t in known:
        if step.fn in _ON_INTEGERS and t.is_float:
            raise ModelError(f"{step.fn} is defined on integers, not on {t.value}")
        if step.fn in _ON_FLOATS and not t.is_float:
            raise ModelError(f"{step.fn} is defined on floating-point numbers, not on {t.value}")
        if step.fn in _ON_NUMBERS and t is DType.BOOL:
            raise ModelError(f"{step.fn} is not defined on booleans")


def _types_of(step: Step, args: Sequence[DType], steps: Sequence[DType]) -> list[DType]:
    return [args[a.index] if isinstance(a, Arg) else steps[a.index] for a in step.args if not isinstance(a, Imm)]


def operand_dtype(step: Step, args: Sequence[DType], steps: Sequence[DType]) -> DType:
    """The type in which a step's immediates are read: that of its other operands (for `where`, of its branches)."""
    known = _types_of(step, args, steps)
    if step.fn == "where":
        return known[1] if len(known) > 1 else DType.F32
    return known[0] if known else DType.F32


def step_dtype(step: Step, args: Sequence[DType], steps: Sequence[DType]) -> DType:
    """Result type of one step, given the types of the program's arguments and of the steps before it."""
    rule = FUNCTIONS[step.fn].result
    if rule == "cast":
        assert step.dtype is not None
        return step.dtype
    if rule == "bool":
        return DType.BOOL
    known = _types_of(step, args, steps)
    if rule == "second" and len(known) > 1:
        return known[1]
    if rule == "second":
        return DType.F32
    return known[0] if known else DType.F32
