"""Imports every lowering of this folder, which registers it for its op."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import sparsec.backends.cpu.lower as package
from sparsec.compiler.ops import registry as ops


@cache
def load_all() -> None:
    """Import all modules of this package in name order (idempotent)."""
    ops.load_all()
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
