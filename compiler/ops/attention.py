"""Attention: scaled dot products of queries and keys, softmax, and the weighted sum of values, as one operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import BROADCAST, Access, AxisMap, Dim, DimKind, Iter, Merged
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, broadcasts_to, need, register, value
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class AttentionSizes:
    """Extents of one Attention: batch, query heads, key/value heads, query length, key length, head widths of q/k and v."""

    b: int
    h: int
    kv: int
    s: int
    l: int  # noqa: E741
    d: int
    dv: int


@register
@dataclass(frozen=True, slots=True)
class Attention(Op):
    """y[b, h, s, :] = sum over l of softmax over l of (q[b, h, s, :] . k[b, g, l, :] * scale + mask[b, h, s, l]) * v[b, g, l, :].

    Inputs q, k, v and an optional additive mask that broadcasts to [B, heads, S, L]. Two storage forms:
    rank 3 is what linear layers give, q [B, S, heads * D], k [B, L, kv_heads * D], v [B, L, kv_heads * Dv], y [B, S, heads * Dv];
    rank 4 has heads outside, q [B, heads, S, D], k [B, kv_heads, L, D], v [B, kv_heads, L, Dv], y [B, heads, S, Dv].
    `heads` is a multiple of `kv_heads`; query head h reads key/value head g = h // (heads / kv_heads). Floating point; 16-bit
    floats are computed in float32. A line of the mask that is -inf throughout gives NaN, as softmax does.
    """

    heads: int
    kv_heads: int
    scale: float
    name = "Attention"
    summary = "softmax(q k^T * scale + mask) v, heads inside or outside, grouped queries, optional additive mask"

    def sizes(self, inputs: InTypes) -> AttentionSizes:
        """Extents, or a ModelError when the operands do not fit each other."""
        q, k, v = need(inputs, 0, "queries"), need(inputs, 1, "keys"), need(inputs, 2, "values")
        h, g = self.heads, self.kv_heads
        if not q.rank == k.rank == v.rank or q.rank not in (3, 4) or not q.dtype == k.dtype == v.dtype or not q.dtype.is_float:
            raise ModelError(
                f"attention needs queries, keys and values of rank 3 or 4 and one floating-point type: {q}, {k}, {v}"
            )
        if h < 1 or g < 1 or h % g:
            raise ModelError(f"attention with {h} query heads cannot share {g} key/value heads")
        if q.rank == 4:
            b, s, length, widths = q.shape[0], q.shape[2], k.shape[2], (q.shape[3], k.shape[3], v.shape[3])
            fits = (q.shape[1], k.shape[1], v.shape[1]) == (h, g, g) and v.shape[2] == length
        else:
            b, s, length, widths = q.shape[0], q.shape[1], k.shape[1], (q.shape[2] // h, k.shape[2] // g, v.shape[2] // g)
            fits = q.shape[2] % h == 0 and k.shape[2] % g == 0 and v.shape[2] % g == 0 and v.shape[1] == length
        if not fits or not q.shape[0] == k.shape[0] == v.shape[0] or widths[0] != widths[1]:
            raise ModelError(f"attention of {h} query and {g} key/value heads does not fit queries {q}, keys {k}, values {v}")
        return AttentionSizes(b, h, g, s, length, widths[0], widths[2])

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        q, z = need(inputs, 0, "queries"), self.sizes(inputs)
        mask = inputs[3] if len(inputs) > 3 else None
        if mask is not None:
            scores = (z.b, z.h, z.s, z.l)
            if not broadcasts_to(mask.shape, scores) or mask.dtype != q.dtype:
                raise ModelError(f"attention mask {mask} does not broadcast to {q.dtype.value}{list(scores)}")
        return (TensorType(q.dtype, (z.b, z.h, z.s, z.dv) if q.rank == 4 else (z.b, z.s, z.h * z.dv)),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        q, k, v = (value(inputs, i) for i in range(3))
        dtype = q.dtype
        if dtype.itemsize < 4:
            q, k, v = (x.astype(np.float32) for x in (q, k, v))
        if q.ndim == 3:
            q, k, v = split_heads(q, self.heads), split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)
        if self.heads != self.kv_heads:
            k, v = (np.repeat(x, self.heads // self.kv_heads, axis=1) for x in (k, v))
        with np.errstate(all="ignore"):
            scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(self.scale)
            if len(inputs) > 3 and inputs[3] is not None:
                scores = scores + value(inputs, 3).astype(scores.dtype, copy=False)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
            weights /= weights.sum(axis=-1, keepdims=True)
            y = np.matmul(weights, v)
        if value(inputs, 0).ndim == 3:
            y = np.ascontiguousarray(y.transpose(0, 2, 1, 3)).reshape(y.shape[0], y.shape[2], y.shape[1] * y.shape[3])
        return (y.astype(dtype, copy=False),)

    def axes(self, inputs: InTypes) -> AxisMap:
        z, rank = self.sizes(inputs), need(inputs, 0, "queries").rank
        grouped = z.h != z.kv
        dims = [Dim("B", z.b), Dim("G", z.kv), Dim("S", z.s), Dim("L", z.l, DimKind.REDUCED)]
        dims += [Dim("D", z.d, DimKind.REDUCED), Dim("DV", z.dv)]
        if grouped:
            dims.append(Dim("R", z.h // z.kv))
        heads = ("G", "R") if grouped else ("G",)

        def operand(head: tuple[str, ...], line: str, width: str) -> tuple[Access, ...]:
            if rank == 3:
                return (Iter("B"), Iter(line), Merged((*head, width)))
            return (Iter("B"), Merged(head) if len(head) > 1 else Iter(head[0]), Iter(line), Iter(width))

        maps = [operand(heads, "S", "D"), operand(("G",), "L", "D"), operand(("G",), "L", "DV")]
        if len(inputs) > 3:
            mask = inputs[3]
            shape = mask.shape if mask is not None else ()
            full: tuple[Access, ...] = (Iter("B"), Merged(heads) if grouped else Iter("G"), Iter("S"), Iter("L"))
            extents = (z.b, z.h, z.s, z.l)
            lead = 4 - len(shape)
            maps.append(tuple(full[i + lead] if n == extents[i + lead] else BROADCAST for i, n in enumerate(shape)))
        return AxisMap(tuple(dims), tuple(maps), (operand(heads, "S", "DV"),))

    def macs(self, inputs: InTypes) -> int:
        z = self.sizes(inputs)
        return z.b * z.h * z.s * z.l * (z.d + z.dv)


def split_heads(x: Array, heads: int) -> Array:
    """[B, S, heads * D] -> [B, heads, S, D]."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)
