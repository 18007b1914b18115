"""Sane random inputs for a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[Any]

# Extents of dynamic dimensions whose symbol contains the key.
_EXTENTS = {"seq": 16, "width": 64, "height": 64}


def inputs(name_or_model: str | onnx.ModelProto, seed: int = 0, *, dims: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Draw a value for every input of a model that has no default.

    Dynamic dimensions take their extents from ``dims`` by symbol, else 16 for sequences, 64 for widths and heights, 1.

    Images ([N, C, H, W] or [N, H, W, C] float32) are low-pass noise with some white noise on top, about zero mean and
    unit variance, since white noise alone averages out in pooling. Integers that are looked up in a table by ``Gather``
    are drawn below the table's size, masks are ones with a padded tail, bytes are below 256, other integers are 0 or 1.
    """
    if isinstance(name_or_model, str):
        from models import build

        model = build(name_or_model)
    else:
        model = name_or_model
    rng = np.random.default_rng(seed)
    given = {tensor.name for tensor in model.graph.initializer}
    limits = _table_sizes(model.graph)
    result: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name in given:
            continue
        tensor = value.type.tensor_type
        shape = tuple(_extent(dim, dims or {}) for dim in tensor.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        result[value.name] = _draw(rng, value.name, shape, np.dtype(dtype), limits.get(value.name))
    return result


def _extent(dim: onnx.TensorShapeProto.Dimension, dims: Mapping[str, int]) -> int:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    if dim.dim_param in dims:
        return dims[dim.dim_param]
    return next((extent for part, extent in _EXTENTS.items() if part in dim.dim_param), 1)


def _table_sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Map each input that indexes a constant table directly to the table's number of rows."""
    rows = {tensor.name: int(tensor.dims[0]) for tensor in graph.initializer if tensor.dims}
    return {n.input[1]: rows[n.input[0]] for n in graph.node if n.op_type == "Gather" and n.input[0] in rows}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], limit: int | None) -> Array:
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        if "mask" in name:
            return _mask(rng, shape).astype(dtype)
        default = 256 if "bytes" in name else 2
        return rng.integers(0, limit or default, shape).astype(dtype)
    if len(shape) == 4:
        return _image(rng, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _mask(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Ones, with up to a quarter of the last axis zeroed at its end, as padded batches have it."""
    length = shape[-1] if shape else 1
    padding = rng.integers(0, length // 4 + 1, (*shape[:-1], 1))
    return np.arange(length) < length - padding


def _image(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Low-pass noise from an 8x8 grid plus white noise, in NCHW or NHWC (told by the channel count of at most 4)."""
    if shape[3] <= 4 < shape[1]:
        batch, height, width, channels = shape
        return np.moveaxis(_image(rng, (batch, channels, height, width)), 1, -1)
    batch, channels, height, width = shape
    coarse = rng.standard_normal((batch, channels, 8, 8))
    smooth = _hat(height) @ coarse @ _hat(width).T
    return smooth + 0.3 * rng.standard_normal(shape)


def _hat(size: int) -> Array:
    """Linear interpolation matrix from 8 knots to ``size`` samples: [size, 8]."""
    position = np.linspace(0.0, 7.0, size)[:, None]
    return np.maximum(0.0, 1.0 - np.abs(position - np.arange(8)))
