"""The memories: of cores, memory tiles and DDR, as 32-bit words, with a note of which have a value and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.errors import StreamError

Array = np.ndarray[Any, Any]

ARGUMENT_SPACE = 1 << 40  # bytes of DDR that each argument of the program has for itself
MADE = 1  # the tag of words that the array computed or that the control stream wrote
_FIRST_TAG, _LAST_TAG = 2, 255


@dataclass(frozen=True, slots=True)
class Region:
    """A part of DDR with a name: bytes [begin, end) of an argument, and whether they are weights."""

    argument: int
    begin: int
    end: int
    name: str
    weights: bool = False


@dataclass
class Words:
    """A memory of `bytes` (uint8), a multiple of four.

    `written` (uint8 a word) is 0 where nothing has been written, else the tag of the region that the word came from, or MADE. A
    memory with `tags` keeps its own.
    """

    name: str
    bytes: Array
    written: Array
    tags: Array | None = None

    @staticmethod
    def empty(name: str, size: int) -> Words:
        """`size` bytes that nothing has written."""
        return Words(name, np.zeros(size, np.uint8), np.zeros(size // 4, np.uint8))

    @staticmethod
    def full(name: str, data: Array) -> Words:
        """A memory that shares the bytes of `data` (uint8 [n]). StreamError when they are not whole words."""
        if data.size % 4:
            raise StreamError(f"{name} has {data.size:,} bytes: expected whole words of 4, the file may be cut off")
        return Words(name, data, np.ones(data.size // 4, np.uint8))

    def read(self, words: Array) -> Array:
        """uint32 [n] at word addresses. StreamError where nothing has written, or outside."""
        self._check(words)
        known = self.written[words] != 0
        if not known.all():
            raise StreamError(f"{self.name}: the word at {4 * int(words[~known][0]):#x} is read, and nothing has written it")
        return self.bytes.view(np.uint32)[words]

    def write(self, words: Array, values: Array, tag: int = MADE) -> None:
        """Store uint32 [n] at word addresses. StreamError outside."""
        self._check(words)
        self.bytes.view(np.uint32)[words] = values
        self.written[words] = tag

    def tag(self, word: int) -> int:
        """Where the word is from."""
        return int((self.written if self.tags is None else self.tags)[word])

    def _check(self, words: Array) -> None:
        size = self.written.size
        if words.size and not 0 <= int(words.min()) <= int(words.max()) < size:
            bad = int(words[(words < 0) | (words >= size)][0])
            raise StreamError(f"{self.name}: the word at {4 * bad:#x} is outside of its {4 * size:,} bytes")


class Ddr:
    """The buffers that a program is given, each in a space of its own, and the names of their parts."""

    def __init__(self, arguments: Sequence[Words], regions: Sequence[Region] = ()) -> None:
        """`regions` name parts of arguments; what has none bears the name of its argument."""
        self.arguments = [Words(a.name, a.bytes, a.written, np.zeros(a.written.size, np.uint8)) for a in arguments]
        whole = [Region(i, 0, a.bytes.size, a.name, a.name == "weights") for i, a in enumerate(arguments)]
        named = [r for r in regions if r.argument < len(arguments)][: _LAST_TAG + 1 - _FIRST_TAG - len(whole)]
        self.regions = dict(enumerate((*whole, *named), _FIRST_TAG))
        for tag, r in self.regions.items():
            tags = self.arguments[r.argument].tags
            assert tags is not None
            tags[r.begin // 4 : -(-r.end // 4)] = tag

    def name(self, tag: int) -> str:
        """What words with a tag are, in a word or two."""
        return self.regions[tag].name if tag in self.regions else "results" if tag == MADE else ""

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
