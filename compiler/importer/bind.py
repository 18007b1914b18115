"""Bind the dynamic dimensions of a model's inputs to numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from sparsec.compiler.errors import UsageError


def bind_dims(model: ir.Model, dims: Mapping[str, int], input_shapes: Mapping[str, Sequence[int]]) -> None:
    """Give every dimension named in `dims` its extent, and every input in `input_shapes` its shape (in place).

    A shape given for one input also binds the symbols in it for the other inputs. Raises UsageError for names that the model
    does not have, ranks or static extents that differ, and symbols that would get two extents.
    """
    values = {v.name or "": v for v in model.graph.inputs if v.name not in model.graph.initializers}
    bound: dict[str, tuple[int, str]] = {}

    def bind(symbol: str, extent: int, by: str) -> None:
        have, origin = bound.setdefault(symbol, (extent, by))
        if have != extent:
            raise UsageError(f"dimension {symbol!r} is bound to {have} by {origin} and to {extent} by {by}")

    symbols = {s for v in values.values() if v.shape is not None for d in v.shape if (s := _symbol(d))}
    for name, extent in dims.items():
        if name not in symbols:
            raise UsageError(f"no input has a dimension called {name!r} (there are: {_names(symbols)})")
        bind(name, _extent(extent, f"--dim {name}"), f"--dim {name}")
    for name, shape in input_shapes.items():
        if name not in values:
            raise UsageError(f"the model has no input called {name!r} (there are: {_names(values)})", tensor=name)
        wanted = [_extent(n, f"--input {name}") for n in shape]
        for symbol, extent in _match(name, values[name].shape, wanted):
            bind(symbol, extent, f"--input {name}")
        values[name].shape = ir.Shape(wanted)
    for value in values.values():
        if value.shape is not None:
            value.shape = ir.Shape([bound[s][0] if (s := _symbol(d)) in bound else d for d in value.shape])


def _match(name: str, shape: ir.Shape | None, wanted: Sequence[int]) -> list[tuple[str, int]]:
    """The symbols of `shape` with their extents in `wanted`, which must agree with what is static."""
    if shape is None:
        return []
    if len(shape) != len(wanted):
        raise UsageError(f"input {name!r} has rank {len(shape)}, --input gives {len(wanted)} extents", tensor=name)
    found: list[tuple[str, int]] = []
    for i, (have, want) in enumerate(zip(shape, wanted, strict=True)):
        if isinstance(have, int):
            if have >= 0 and have != want:  # a negative extent is how some exporters write "any"
                raise UsageError(f"dimension {i} of input {name!r} is {have} in the model, --input asks for {want}", tensor=name)
        elif symbol := _symbol(have):
            found.append((symbol, want))
    return found


def _symbol(dim: int | ir.SymbolicDim) -> str:
    """The name of a dynamic dimension; empty when it is static or anonymous."""
    return "" if isinstance(dim, int) else str(dim.value or "")


def _extent(n: object, by: str) -> int:
    extent = int(n) if isinstance(n, int | np.integer) and not isinstance(n, bool) else 0
    if not 0 < extent < 1 << 31:
        raise UsageError(f"{by} gives the extent {n!r}: expected a whole number from 1 to {(1 << 31) - 1}")
    return extent


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"
