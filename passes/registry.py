"""Imports every pass file of this folder, which registers its pass."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

import sparsec.passes as package
from sparsec.compiler.passing.base import PASSES, Pass


@cache
def load_all() -> Mapping[str, type[Pass]]:
    """All passes by name, after importing all modules of `sparsec.passes` in name order (idempotent)."""
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    return PASSES
