"""The one way from names in a model to identifiers and text in C. Nothing else may print a model's name into C."""

from __future__ import annotations

import re

_RESERVED = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while alignas alignof bool
    complex imaginary noreturn true false nullptr thread_local static_assert typeof asm fortran main errno class new delete
    this template typename namespace using operator private public protected virtual try catch throw explicit friend mutable
    and or not xor bitand bitor compl not_eq and_eq or_eq xor_eq linux unix i386 in out near far
"""
_KEYWORDS = frozenset(_RESERVED.split())
_MAX = 63  # identifiers that differ only later may be one to a C compiler (C11 5.2.4.1)


def identifier(name: str) -> str:
    """`name` as a C identifier of [A-Za-z0-9_], never a keyword, never reserved, never empty."""
    cleaned = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", name)).strip("_")[:_MAX]
    if not cleaned or cleaned[0].isdigit():
        cleaned = f"n{'_' if cleaned else ''}{cleaned}"[:_MAX]
    return f"{cleaned}_" if cleaned.lower() in _KEYWORDS else cleaned


def identifiers(names: list[str]) -> list[str]:
    """An identifier for every name, in order, all different (also when letter case is ignored)."""
    taken: set[str] = set()
    result: list[str] = []
    for name in names:
        base, i = identifier(name), 1
        unique = base
        while unique.lower() in taken:
            i += 1
            unique = f"{base[: _MAX - 1 - len(str(i))]}_{i}"
        taken.add(unique.lower())
        result.append(unique)
    return result


def comment(text: str, limit: int = 100) -> str:
    """Free text made safe inside a C comment: printable ASCII, no `*/`, no `/*`, no trigraph, no line splice."""
    safe = "".join(c if " " <= c <= "~" and c not in "\\?*" else "." for c in text)
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def string_literal(text: str) -> str:
    """A C string literal with exactly the UTF-8 bytes of `text`; everything but plain ASCII is an octal escape."""
    out = []
    for byte in text.encode("utf-8", "surrogatepass"):
        c = chr(byte)
        out.append(c if c.isascii() and (c.isalnum() or c in " _-./:,;=+()[]<>@#!$&'^`{|}~") else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'
