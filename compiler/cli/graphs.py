"""Graphs from what a user names: a model or a dump."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsec.compiler.cli.options import parse_dims, parse_shapes
from sparsec.compiler.errors import ModelError, UsageError

if TYPE_CHECKING:
    from sparsec.compiler.graph import Graph


def read_graph(
    path: Path, dim: Sequence[str] | None = None, shape: Sequence[str] | None = None, limits: str | None = None
) -> Graph:
    """The graph of an .onnx file as imported, or of a text dump, whose constants are in the folder `constants` beside it."""
    if path.suffix == ".txt":
        return _read_dump(path)
    from sparsec.compiler.importer.api import import_model
    from sparsec.compiler.limits import Limits

    return import_model(path, dims=parse_dims(dim), input_shapes=parse_shapes(shape), limits=Limits.parse(limits or ""))


def _read_dump(path: Path) -> Graph:
    from sparsec.compiler.text.parser import parse_graph
    from sparsec.compiler.text.store import ConstantStore

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {str(path)!r}: {exc}") from None
    try:
        return parse_graph(text, ConstantStore(path.parent / "constants"))
    except ModelError as exc:
        raise ModelError(f"{path}: {exc}", node=exc.node, tensor=exc.tensor) from None
