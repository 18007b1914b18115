"""Activations between the host's row-major tensors and the images that the array reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.backends.aie.lower.geometry import BLOCK, Image

Array = np.ndarray[Any, Any]


def pack(image: Image, value: Array, zero: int, buffer: Array) -> None:
    """Write a tensor of bytes [1, C, H, W] into its image in `buffer` (uint8), surrounded by the zero point."""
    view = _view(image, buffer)
    view[:] = np.array(zero, value.dtype).view(np.uint8)
    padded = np.zeros((image.blocks * BLOCK, image.rows, image.columns), np.uint8)
    padded[: image.channels] = value.reshape(image.channels, image.rows, image.columns).view(np.uint8)
    inner = padded.reshape(image.blocks, BLOCK, image.rows, image.columns).transpose(0, 2, 3, 1)
    view[:, image.top : image.top + image.rows, image.left : image.left + image.columns] = inner


def unpack(image: Image, buffer: Array, dtype: Any) -> Array:
    """The tensor [1, C, H, W] of bytes that an image in `buffer` holds."""
    inner = _view(image, buffer)[:, image.top : image.top + image.rows, image.left : image.left + image.columns]
    whole = inner.transpose(0, 3, 1, 2).reshape(image.blocks * BLOCK, image.rows, image.columns)
    found: Array = np.ascontiguousarray(whole[: image.channels]).view(dtype)[None]
    return found


def surround(image: Image, zero: int, buffer: Array) -> None:
    """Fill an image, and so what is around the value that will be written into it, with the zero point."""
    _view(image, buffer)[:] = zero % 256


def _view(image: Image, buffer: Array) -> Array:
    flat = buffer[image.offset : image.offset + image.nbytes]
    view: Array = flat.reshape(image.blocks, image.height, image.width, BLOCK)
    return view
