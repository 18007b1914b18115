"""Operations in MLIR's generic form, as text: names in quotes, properties in <{ }>, regions in ({ }), types at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

INDEX, I32 = "index", "i32"
_HALF = 1 << 31


@dataclass(frozen=True, slots=True)
class Value:
    """What an operation makes or uses: a name without its %, and a type."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class Region:
    """One block: its arguments and the lines of its operations."""

    lines: Sequence[str]
    arguments: Sequence[Value] = ()


def operation(
    name: str,
    operands: Sequence[Value] = (),
    properties: Mapping[str, str] | None = None,
    result: Value | None = None,
    region: Region | None = None,
) -> Iterator[str]:
    """The lines of one operation.

    Properties are attributes as text, the empty one for a unit; they are written in the order of their names, as MLIR does.
    """
    head = f"{result} = " if result else ""
    given = ", ".join(f"{key} = {value}" if value else key for key, value in sorted((properties or {}).items()))
    head += f'"{name}"({", ".join(map(str, operands))})' + (f" <{{{given}}}>" if given else "")
    types = f" : ({', '.join(o.type for o in operands)}) -> {result.type if result else '()'}"
    if region is None:
        yield head + types
        return
    yield f"{head} ({{"
    if region.arguments:
        yield f"^bb0({', '.join(f'{a}: {a.type}' for a in region.arguments)}):"
    yield from (f"  {line}" for line in region.lines)
    yield f"}}){types}"


def signed(value: int) -> int:
    """A word of 32 bits as MLIR prints an i32: negative from 2^31 on."""
    return value - 2 * _HALF if value >= _HALF else value


def i32(value: int) -> str:
    """An attribute of type i32."""
    return f"{signed(value)} : i32"


def ui32(value: int) -> str:
    """An attribute of type ui32."""
    return f"{value} : ui32"


def boolean(value: bool) -> str:
    """An attribute that is true or false."""
    return "true" if value else "false"


def quoted(text: str) -> str:
    """A string attribute, with what is not plain ASCII as bytes in hexadecimal."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:02X}" for b in text.encode()) + '"'


def memref(words: int) -> str:
    """The type of a buffer of 32-bit words."""
    return f"memref<{words}xi32>"


def dense(values: Iterable[int]) -> str:
    """A constant of 32-bit words; equal ones are said once, as MLIR does."""
    numbers = [signed(v) for v in values]
    said = str(numbers[0]) if len(set(numbers)) == 1 else f"[{', '.join(map(str, numbers))}]"
    return f"dense<{said}> : tensor<{len(numbers)}xi32>"
