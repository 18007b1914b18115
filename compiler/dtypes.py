"""Element types: one enum that maps to numpy, ONNX and C."""

from __future__ import annotations

import enum
from typing import Any

import ml_dtypes
import numpy as np


class DType(enum.Enum):
    """An element type; the value is its name in the IR's text form."""

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    BF16 = "bf16"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    U16 = "u16"
    I32 = "i32"
    U32 = "u32"
    I64 = "i64"
    U64 = "u64"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype with the same bits (bfloat16 by ml_dtypes)."""
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes an element takes."""
        return _NUMPY[self].itemsize

    @property
    def is_float(self) -> bool:
        """Whether values are floating point."""
        return self in (DType.F32, DType.F64, DType.F16, DType.BF16)

    @property
    def c(self) -> str:
        """The C11 type that stores one element (16-bit floats are stored as uint16_t)."""
        return _C[self]

    @property
    def onnx(self) -> int:
        """The value of onnx.TensorProto.DataType."""
        return _ONNX[self]

    @staticmethod
    def from_numpy(dtype: Any) -> DType:
        """The DType of a numpy dtype; KeyError when there is none."""
        return _FROM_NUMPY[np.dtype(dtype)]

    @staticmethod
    def from_onnx(code: int) -> DType:
        """The DType of an onnx.TensorProto.DataType value; KeyError when there is none."""
        return _FROM_ONNX[code]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
    DType.I16: np.dtype(np.int16),
    DType.U16: np.dtype(np.uint16),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.I64: np.dtype(np.int64),
    DType.U64: np.dtype(np.uint64),
    DType.BOOL: np.dtype(np.bool_),
}
_C = {
    DType.F32: "float",
    DType.F64: "double",
    DType.F16: "uint16_t",
    DType.BF16: "uint16_t",
    DType.I8: "int8_t",
    DType.U8: "uint8_t",
    DType.I16: "int16_t",
    DType.U16: "uint16_t",
    DType.I32: "int32_t",
    DType.U32: "uint32_t",
    DType.I64: "int64_t",
    DType.U64: "uint64_t",
    DType.BOOL: "uint8_t",
}
_ONNX = {
    DType.F32: 1,
    DType.U8: 2,
    DType.I8: 3,
    DType.U16: 4,
    DType.I16: 5,
    DType.I32: 6,
    DType.I64: 7,
    DType.BOOL: 9,
    DType.F16: 10,
    DType.F64: 11,
    DType.U32: 12,
    DType.U64: 13,
    DType.BF16: 16,
}
_FROM_NUMPY = {v: k for k, v in _NUMPY.items()}
_FROM_ONNX = {v: k for k, v in _ONNX.items()}
