"""Types and data of ONNX tensors and attributes as the IR has them, or the error that names what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.limits import Limits
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


NARROW = {ir.DataType.INT4: DType.I8, ir.DataType.UINT4: DType.U8}  # stored two to a byte; computed with as bytes


def element_type(dtype: ir.DataType, what: str, name: str | None = None) -> DType:
    """The DType of an ONNX element type, or an UnsupportedError about `what`."""
    try:
        return DType.from_onnx(int(dtype))
    except KeyError:
        raise UnsupportedError(f"{what} has element type {dtype.name}, which is not supported", tensor=name) from None


def tensor_type(tensor: ir.TensorProtocol, limits: Limits, what: str, name: str | None = None) -> TensorType:
    """The type of a tensor, within `limits`; integers of 4 bits become bytes."""
    dtype = NARROW.get(tensor.dtype) or element_type(tensor.dtype, what, name)
    t = TensorType(dtype, tuple(d for d in tensor.shape if isinstance(d, int)))
    limits.check(t, tensor=name or what)
    return t


def tensor_array(tensor: ir.TensorProtocol, shape: tuple[int, ...], what: str) -> Array:
    """The data of a tensor in row-major order, or a ModelError when there is not as much as its shape asks for."""
    try:
        array: Array = tensor.numpy()
    except (ValueError, TypeError, AssertionError, OSError) as exc:
        raise ModelError(f"the data of {what} does not fit its type and shape {list(shape)}: {exc}") from exc
    if array.shape != shape:
        raise ModelError(f"{what} is declared as {list(shape)}, its data as {list(array.shape)}")
    if tensor.dtype in NARROW:
        array = array.astype(NARROW[tensor.dtype].numpy)
    if array.dtype == np.bool_:
        array = np.asarray(array.view(np.uint8) != 0)  # bytes other than 0 and 1 are true
    return np.ascontiguousarray(array).reshape(shape)  # a view: freezing it leaves the caller's array alone


def attribute_value(attr: ir.Attr, limits: Limits) -> Any:
    """A Python value for an ONNX attribute: tensors become numpy arrays, subgraphs stay onnx-ir graphs."""
    if attr.type == ir.AttributeType.TENSOR:
        what = f"attribute {attr.name!r}"
        return tensor_array(attr.value, tensor_type(attr.value, limits, what).shape, what)
    if attr.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS) and np.isnan(attr.value).any():
        raise ModelError(f"attribute {attr.name!r} is not a number (NaN)")
    if attr.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(attr.value)
    return attr.value


def static_type(value: ir.Value) -> TensorType:
    """The TensorType of a graph input, or a ModelError that says which dimension is unbound."""
    name = value.name or ""
    if value.dtype is None or value.shape is None:
        raise ModelError(f"input {name!r} has no type or no rank: give its shape with --input {_typed(name)}=...", tensor=name)
    dtype = element_type(value.dtype, f"input {name!r}", name)
    dims: list[int] = []
    for i, d in enumerate(value.shape):
        if not isinstance(d, int):
            label = _typed(str(getattr(d, "value", None) or ""))
            how = f"--dim {label}=N or --input {_typed(name)}=..." if label else f"--input {_typed(name)}=..."
            raise ModelError(f"dimension {i} of input {name!r} is dynamic ({label or '?'}): bind it with {how}", tensor=name)
        if d < 0:
            raise ModelError(f"dimension {i} of input {name!r} is {d}: extents cannot be negative", tensor=name)
        dims.append(d)
    return TensorType(dtype, tuple(dims))


def _typed(name: str) -> str:
    """A name as the user may type it; what a terminal would not print as it is comes quoted and escaped."""
    return name if name.isprintable() else repr(name)
