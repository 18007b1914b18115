"""What a kernel is to the rest of the backend: a C function written from compile-time parameters, called with a geometry.

A kernel family is a frozen dataclass (the compile-time parameters, equal parameters = one shared C function), a frozen dataclass
of integers (the run-time geometry, one C struct a family), an ordered list of pointers, and a template. The C function is

    static void SYMBOL(const struct spc_FAMILY *g, <pointers>, void *scratch, int tid, int nt)

It does the part of the work that belongs to thread `tid` of `nt`, touches nothing but its pointers, and keeps no large locals.
`scratch` is private to the thread.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar

import jinja2

from sparsec.backends.cpu.isa import Isa


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer parameter of a kernel: C element type, and whether the kernel only reads it."""

    name: str
    ctype: str = "float"
    const: bool = True

    @property
    def declaration(self) -> str:
        """The parameter as C text."""
        return f"{'const ' if self.const else ''}{self.ctype} *{self.name}"


class Geometry:
    """Base of run-time geometries: frozen, slotted dataclasses whose fields are ints or tuples of ints of a fixed length."""

    __slots__ = ()


def struct_declaration(family: str, geometry: type[Geometry]) -> str:
    """The C struct of a family's geometry; tuple fields become arrays, whose length is the field's metadata `length`."""
    lines = [f"struct spc_{family} {{"]
    for f in fields(geometry):  # type: ignore[arg-type]
        length = f.metadata.get("length")
        lines.append(f"    int64_t {f.name}{f'[{length}]' if length else ''};")
    return "\n".join([*lines, "};"])


def struct_initializer(geometry: Geometry) -> str:
    """The designated initializer of one geometry."""
    parts = []
    for f in fields(geometry):  # type: ignore[arg-type]
        v = getattr(geometry, f.name)
        parts.append(f".{f.name} = {{{', '.join(map(str, v))}}}" if isinstance(v, tuple) else f".{f.name} = {v}")
    return "{" + ", ".join(parts) + "}"


@cache
def environment() -> jinja2.Environment:
    """The jinja2 environment of the CPU templates: undefined names are errors, block tags leave no blank lines."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("sparsec.templates", "cpu"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        line_statement_prefix=None,
    )


class Kernel(ABC):
    """Base of kernel families. Subclasses are frozen, slotted dataclasses of compile-time parameters."""

    __slots__ = ()
    family: ClassVar[str]
    template: ClassVar[str]
    geometry: ClassVar[type[Geometry]]

    @abstractmethod
    def label(self) -> str:
        """The readable part of the symbol: dtype, operation, tile, as in `f32_conv_14x2_relu`. [a-z0-9_] only."""

    @abstractmethod
    def pointers(self) -> tuple[Pointer, ...]:
        """The pointer parameters in calling order."""

    @abstractmethod
    def context(self, isa: Isa) -> dict[str, Any]:
        """What the template reads besides `symbol`, `k` (this kernel), `isa` and `signature`."""

    @property
    def integers(self) -> bool:
        """Whether the function needs the prelude's primitives for integers."""
        return False

    @property
    def bfloat16(self) -> bool:
        """Whether the function needs the prelude's primitives for bfloat16."""
        return False

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        """Bytes of scratch that each thread needs for this geometry (at a 64-byte boundary)."""
        return 0

    def symbol(self, isa: Isa) -> str:
        """The C name: readable, and unique by a short hash of every compile-time parameter."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:6]
        return f"spc_{self.label()}_{digest}__{isa.symbol}"

    def source(self, isa: Isa) -> str:
        """The C text of the function."""
        symbol = self.symbol(isa)
        parameters = [
            f"const struct spc_{self.family} *g",
            *(p.declaration for p in self.pointers()),
            "void *scratch",
            "int tid",
            "int nt",
        ]
        signature = f"static void {symbol}({', '.join(parameters)})"
        return (
            environment()
            .get_template(self.template)
            .render(symbol=symbol, signature=signature, k=self, isa=isa, **self.context(isa))
        )
