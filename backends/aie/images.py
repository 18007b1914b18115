"""Activations between the host's row-major tensors and the images that the array reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.geometry import BFLOAT16, BLOCK, Image

Array = np.ndarray[Any, Any]


def pack(image: Image, value: Array, zero: int, buffer: Array) -> None:
    """Write a tensor into its image in `buffer` (uint8), surrounded by the zero point."""
    surround(image, zero, buffer)
    if image.heads > 1:
        value = _filled(image, value)
    padded = np.zeros((image.blocks * BLOCK, image.rows, image.columns), value.dtype)
    shape = (image.rows, image.columns, image.channels) if image.last else (image.channels, image.rows, image.columns)
    padded[: image.channels] = np.moveaxis(value.reshape(shape), -1 if image.last else 0, 0)
    inner = padded.reshape(image.blocks, BLOCK, image.rows, image.columns).transpose(0, 2, 3, 1)
    whole = np.ascontiguousarray(inner).view(np.uint8)
    _view(image, buffer)[:, image.top : image.top + image.rows, image.left : image.left + image.columns] = whole


def unpack(image: Image, buffer: Array, dtype: Any, shape: Sequence[int]) -> Array:
    """The tensor of a shape that an image in `buffer` holds."""
    inner = _view(image, buffer)[:, image.top : image.top + image.rows, image.left : image.left + image.columns]
    elements = np.ascontiguousarray(inner).view(dtype)
    whole = elements.transpose(0, 3, 1, 2).reshape(image.blocks * BLOCK, image.rows, image.columns)[: image.channels]
    if image.heads > 1:
        each = whole.reshape(image.heads, -1, image.rows * image.columns)[:, : shape[-1]]
        return np.ascontiguousarray(each.swapaxes(1, 2)).reshape(shape)
    found: Array = np.ascontiguousarray(np.moveaxis(whole, 0, -1) if image.last else whole).reshape(shape)
    return found


def _filled(image: Image, value: Array) -> Array:
    """[heads, positions, channels] as [positions, all channels], those of each head filled up to whole blocks."""
    heads, positions, channels = value.shape
    found = np.zeros((positions, heads, image.channels // heads), value.dtype)
    found[:, :, :channels] = value.swapaxes(0, 1)
    return found.reshape(positions, image.channels)


def surround(image: Image, zero: int, buffer: Array) -> None:
    """Fill an image, and so what is around the value that will be written into it, with the zero point (of bfloat16: bits)."""
    view = _view(image, buffer)
    (view.view(np.uint16) if image.size == BFLOAT16.bytes else view)[:] = zero % (
        1 << 16 if image.size == BFLOAT16.bytes else 256
    )


def _view(image: Image, buffer: Array) -> Array:
    flat = buffer[image.offset : image.offset + image.nbytes]
    view: Array = flat.reshape(image.blocks, image.height, image.width, BLOCK * image.size)
    return view
