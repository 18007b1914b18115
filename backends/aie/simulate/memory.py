"""The memories: of cores, memory tiles and DDR, as 32-bit words, with a note of which have a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.errors import StreamError

Array = np.ndarray[Any, Any]

ARGUMENT_SPACE = 1 << 40  # bytes of DDR that each argument of the program has for itself


@dataclass
class Words:
    """A memory of `bytes` (uint8), a multiple of four; `written` bool a word."""

    name: str
    bytes: Array
    written: Array

    @staticmethod
    def empty(name: str, size: int) -> Words:
        """`size` bytes that nothing has written."""
        return Words(name, np.zeros(size, np.uint8), np.zeros(size // 4, np.bool_))

    def read(self, words: Array) -> Array:
        """uint32 [n] at word addresses. StreamError where nothing has written, or outside."""
        self._check(words)
        known = self.written[words]
        if not known.all():
            raise StreamError(f"{self.name}: the word at {4 * int(words[~known][0]):#x} is read, and nothing has written it")
        return self.bytes.view(np.uint32)[words]

    def write(self, words: Array, values: Array) -> None:
        """Store uint32 [n] at word addresses. StreamError outside."""
        self._check(words)
        self.bytes.view(np.uint32)[words] = values
        self.written[words] = True

    def _check(self, words: Array) -> None:
        size = self.written.size
        if words.size and not 0 <= int(words.min()) <= int(words.max()) < size:
            bad = int(words[(words < 0) | (words >= size)][0])
            raise StreamError(f"{self.name}: the word at {4 * bad:#x} is outside of its {4 * size:,} bytes")


class Ddr:
    """The buffers that a program is given, each in a space of its own."""

    def __init__(self, arguments: list[Words]) -> None:
        self.arguments = arguments

    def address(self, argument: int, offset: int) -> int:
        """Where a byte of an argument is. StreamError for an argument that there is not."""
        if not 0 <= argument < len(self.arguments):
            raise StreamError(f"the control stream asks for argument {argument}: there are {len(self.arguments)}")
        return argument * ARGUMENT_SPACE + offset

    def place(self, words: Array) -> tuple[Words, Array]:
        """The buffer that word addresses lie in, and their places in it. StreamError where they lie in several, or none."""
        spaces = words // (ARGUMENT_SPACE // 4)
        number = int(spaces[0])
        if not (spaces == number).all() or not 0 <= number < len(self.arguments):
            raise StreamError(f"DDR at {4 * int(words[0]):#x}: no argument of the program is there")
        return self.arguments[number], words - number * (ARGUMENT_SPACE // 4)
