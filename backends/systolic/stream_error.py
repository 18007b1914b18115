"""What is wrong with a stream or a memory image, and where."""

from __future__ import annotations

from sparsec.compiler.errors import UsageError


class StreamError(UsageError):
    """A stream that no array could run; `offset` is that of the micro-op, or byte, that shows it."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"the micro-op stream is not valid at byte {offset} (0x{offset:x}): {reason}")
        self.offset = offset
        self.reason = reason
