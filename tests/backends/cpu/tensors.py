"""Tensors in a layout, as flat buffers: what kernels read and write."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout, storage_elements
from sparsec.compiler.types import TensorType
from tests.backends.cpu.harness import aligned

Array = np.ndarray[Any, Any]


def f32(shape: Sequence[int], layout: Layout = ROW_MAJOR) -> TensorType:
    """A float32 type."""
    return TensorType(DType.F32, tuple(shape), layout)


def buffer(t: TensorType, fill: float | None = None) -> Array:
    """An aligned buffer for a value of type `t`, full of `fill`."""
    return aligned(storage_elements(t.shape, t.layout, t.dtype.itemsize), t.dtype.numpy, fill)


def planes(flat: Array, t: TensorType) -> Array:
    """A blocked buffer as its storage shape, without what lies between blocks; a view."""
    assert isinstance(t.layout, Blocked)
    shape, stride = t.layout.storage_shape(t.shape), t.layout.block_stride(t.shape, t.dtype.itemsize)
    steps = [flat.itemsize * prod(shape[i + 1 :]) for i in range(len(shape))]
    return np.lib.stride_tricks.as_strided(flat, shape, (flat.itemsize * stride, *steps[1:]))


def store(array: Array, t: TensorType, halo: float = 0.0) -> Array:
    """`array` in `t`'s layout: padded lanes zero, halo filled with `halo`."""
    flat = buffer(t, 0)
    if not isinstance(t.layout, Blocked):
        flat[...] = array.reshape(-1)
        return flat
    stored = planes(flat, t)
    stored[...] = halo
    moved = np.moveaxis(array, t.layout.axis, 0)
    block = t.layout.block
    lanes = np.zeros((-(-moved.shape[0] // block) * block, *moved.shape[1:]), array.dtype)
    lanes[: moved.shape[0]] = moved
    lanes = np.moveaxis(lanes.reshape(-1, block, *moved.shape[1:]), 1, -1)
    stored[(slice(None), *_interior(t, t.layout))] = lanes
    return flat


def fetch(flat: Array, t: TensorType) -> Array:
    """The logical array held by a buffer of type `t`; asserts that padded lanes are zero."""
    if not isinstance(t.layout, Blocked):
        return flat.reshape(t.shape).copy()
    stored = planes(flat, t)
    inner = np.moveaxis(stored[(slice(None), *_interior(t, t.layout))], -1, 1)
    inner = inner.reshape(-1, *inner.shape[2:])
    channels = t.shape[t.layout.axis]
    assert not inner[channels:].any(), f"padded lanes of {t} are not zero"
    return np.ascontiguousarray(np.moveaxis(inner[:channels], 0, t.layout.axis))


def halo_of(flat: Array, t: TensorType) -> Array:
    """The values in the halo."""
    assert isinstance(t.layout, Blocked)
    stored = planes(flat, t)
    outside = np.ones(stored.shape, bool)
    outside[(slice(None), *_interior(t, t.layout))] = False
    return stored[outside]


def _interior(t: TensorType, layout: Blocked) -> tuple[slice, ...]:
    others = [d for i, d in enumerate(t.shape) if i != layout.axis]
    return tuple(slice(lo, lo + d) for d, (lo, _) in zip(others, layout.halo_of(t.rank), strict=True))


def channel_vector(values: Array, lanes: int) -> Array:
    """One value a channel, padded with zeros to whole blocks."""
    flat = aligned(-(-values.size // lanes) * lanes, np.float32, 0)
    flat[: values.size] = values.reshape(-1)
    return flat
