"""Named pipelines: ordered tuples of passes, with the reason for the order beside each."""

from __future__ import annotations

from sparsec.compiler.passing.base import Pass
from sparsec.passes.dce import DeadCode

DEFAULT: tuple[Pass, ...] = (
    DeadCode(),  # last: sweeps what the others left unread
)

PIPELINES: dict[str, tuple[Pass, ...]] = {"default": DEFAULT, "none": ()}
