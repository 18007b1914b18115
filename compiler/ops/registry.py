"""Imports every op file of this folder, which registers its op and its import rules."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import sparsec.compiler.ops as package


@cache
def load_all() -> None:
    """Import all modules of `sparsec.compiler.ops` in name order (idempotent)."""
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
