"""A stream as text, one micro-op a line, and back."""

from __future__ import annotations

import re
from dataclasses import fields

from sparsec.backends.systolic.isa import BY_NAME, ENUMS, End, MicroOp, Repeat
from sparsec.backends.systolic.stream import Stream, encode
from sparsec.compiler.errors import UsageError

_FIRST = re.compile(r"systolic (\d{1,3})x(\d{1,3})")


def disassemble(stream: Stream) -> str:
    """The text of a decoded stream; what follows # is the offset, and not read back."""
    out, depth = [f"systolic {stream.rows}x{stream.cols}"], 0
    for line in stream.lines:
        depth -= isinstance(line.op, End)
        text = "  " * depth + " ".join([line.op.name, *_operands(line.op)])
        out.append(f"{text:<76} # 0x{line.offset:04x}")
        depth += isinstance(line.op, Repeat)
    return "\n".join(out) + "\n"


def _operands(op: MicroOp) -> list[str]:
    values = ((f.name, getattr(op, f.name)) for f in fields(op))
    return [f"{name}={value.name.lower() if name in ENUMS else value}" for name, value in values]


def assemble(text: str) -> bytes:
    """The bytes of a text; UsageError that names the line, or StreamError for what no array could run."""
    lines = [(i, bare) for i, line in enumerate(text.splitlines(), 1) if (bare := line.partition("#")[0].strip())]
    head = _FIRST.fullmatch(lines[0][1]) if lines else None
    if head is None:
        raise UsageError("the text does not begin with the array, as systolic 16x16")
    return encode(int(head[1]), int(head[2]), [_parse(number, bare) for number, bare in lines[1:]])


def _parse(number: int, text: str) -> MicroOp:
    name, *words = text.split()
    kind = BY_NAME.get(name)
    if kind is None:
        raise UsageError(f"line {number}: no micro-op is called {name!r}; there are {', '.join(BY_NAME)}")
    names = [f.name for f in fields(kind)]
    given = [w.partition("=")[0] for w in words]
    if given != names:
        raise UsageError(f"line {number}: {name} takes {' '.join(names) or 'nothing'}, in this order, not {' '.join(given)!r}")
    return kind(*(_value(number, *w.partition("=")[::2]) for w in words))


def _value(number: int, name: str, text: str) -> int:
    if name in ENUMS:
        known = {e.name.lower(): e for e in ENUMS[name]}
        if text not in known:
            raise UsageError(f"line {number}: {name} is one of {', '.join(known)}, not {text!r}")
        return known[text]
    if not re.fullmatch(r"-?\d{1,10}", text):
        raise UsageError(f"line {number}: {name} is a number, not {text!r}")
    return int(text)
