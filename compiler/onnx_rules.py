"""Import rules: how one ONNX operator becomes IR nodes. Each op's file registers its own.

Rules read the newest opset's form: `importer.upgrade` has brought older nodes there (attributes that became inputs are inputs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.limits import Limits
from sparsec.compiler.ops.base import Op
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


class ImportContext(Protocol):
    """What a rule may ask and do. Values are IR value names."""

    limits: Limits

    def type(self, value: str) -> TensorType:
        """Static type of a value."""

    def const(self, value: str) -> Array | None:
        """The array of a value that is known at compile time, else None."""

    def constant(self, array: Array) -> str:
        """A new constant. Check `limits.check_constant` before making a large one."""

    def emit(self, op: Op, *inputs: str) -> str:
        """Add a node (or fold it when its inputs are small constants) and return its first output."""

    def keep(self, op: Op, *inputs: str) -> str:
        """Like `emit`, for a node that passes want to see even where its inputs are constants."""

    def emit_all(self, op: Op, inputs: Sequence[str]) -> tuple[str, ...]:
        """Like `emit`, for ops with several outputs."""

    def sequence(self, parts: Sequence[str]) -> str:
        """A sequence of these values, under a name that only `parts` understands."""

    def parts(self, sequence: str) -> tuple[str, ...]:
        """The values of a sequence."""

    def inline(self, graph: Any) -> tuple[str, ...]:
        """Translate a subgraph (the value of a graph attribute) in place; the IR values of its outputs."""


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """An ONNX node as a rule sees it.

    `inputs` are IR values (ABSENT where omitted), `outputs` the ONNX output names (ABSENT where nothing reads them).
    """

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def has(self, i: int) -> bool:
        """Whether optional input `i` is given."""
        return i < len(self.inputs) and self.inputs[i] != ABSENT

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value (int, float, str, list of those, numpy array for tensors), or the default."""
        return self.attributes.get(name, default)

    def need_const(self, ctx: ImportContext, i: int, what: str) -> Array:
        """The value of input `i`, which must be known at compile time."""
        array = ctx.const(self.inputs[i])
        if array is None:
            raise UnsupportedError(
                f"input {i} ({what}) is computed at run time, and must be constant: bind dynamic dimensions, or fold it first",
                tensor=self.inputs[i],
            )
        return array

    def refuse(self, why: str) -> UnsupportedError:
        """The error for a form of this operator that is not supported; raise it."""
        return UnsupportedError(why, node=self.name)


Rule = Callable[[ImportContext, OnnxNode], "str | tuple[str, ...]"]


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """A rule with what `sparsec ops` says of it."""

    op_type: str
    domain: str
    rule: Rule
    becomes: str
    constraints: str


RULES: dict[tuple[str, str], RuleInfo] = {}
R = TypeVar("R", bound=Rule)


def onnx_rule(*op_types: str, becomes: str, constraints: str = "", domain: str = "") -> Callable[[R], R]:
    """Decorator: import these ONNX operators with the function. `becomes` names the IR ops, `constraints` what is refused."""

    def deco(fn: R) -> R:
        for op_type in op_types:
            key = (domain, op_type)
            if key in RULES:
                raise ValueError(f"two import rules for {key}")
            RULES[key] = RuleInfo(op_type, domain, fn, becomes, constraints)
        return fn

    return deco
