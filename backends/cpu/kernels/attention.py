"""attention: softmax(q k^T * scale + mask) v for every head, float32, scores kept in scratch for a block of queries only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.blocked_epilogue import balanced_tile
from sparsec.backends.cpu.scalar_c import float_literal
from sparsec.backends.cpu.walk import blocked_view, broadcast_strides, row_major_strides
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.attention import Attention as AttentionOp
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class AttentionGeometry(Geometry):
    """Extents, and strides in elements. `*_block` is between channel blocks, `*_row` between queries or keys."""

    batch: int
    heads: int
    shared: int  # query heads that read one key/value head
    queries: int
    q_batch: int
    q_head: int
    q_block: int
    q_row: int
    k_batch: int
    k_head: int
    k_block: int
    k_row: int
    v_batch: int
    v_head: int
    v_block: int
    v_row: int
    y_batch: int
    y_head: int
    y_block: int
    y_row: int
    mask_batch: int
    mask_head: int
    mask_row: int


@dataclass(frozen=True, slots=True)
class Attention(Kernel):
    """One unit of work is a block of `rows` queries (the last of a head: `rest`) of one head.

    Pointers: q, k, v, the mask if `masked` (additive, contiguous along keys), y. `blocked`: operands are blocked by the vector's
    lanes, which divide `depth` and `value_depth`; else the channels of a head are contiguous. Scratch holds the transposed keys
    of a head and the scores of a block of queries.
    """

    depth: int
    value_depth: int
    keys: int
    rows: int
    rest: int
    scale: float
    masked: bool
    blocked: bool
    family: ClassVar[str] = "attention"
    template: ClassVar[str] = "attention.c.j2"
    geometry: ClassVar[type[Geometry]] = AttentionGeometry

    def label(self) -> str:
        form = "blocked" if self.blocked else "rows"
        return f"f32_attention_{form}_d{self.depth}_t{self.keys}_w{self.rows}{'_masked' if self.masked else ''}"

    def pointers(self) -> tuple[Pointer, ...]:
        mask = (Pointer("mask"),) if self.masked else ()
        return (Pointer("q"), Pointer("k"), Pointer("v"), *mask, Pointer("y", const=False))

    def padded_keys(self, isa: Isa) -> int:
        """Keys, rounded up to whole vectors."""
        return -(-self.keys // isa.lanes) * isa.lanes

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        keys, staged = self.padded_keys(isa), 0 if self.blocked else self.rows * self.depth
        return 4 * (self.depth * keys + self.rows * (keys + isa.lanes) + -(-self.rows // 16) * 16 + staged)

    def context(self, isa: Isa) -> dict[str, Any]:
        if self.blocked and (self.depth % isa.lanes or self.value_depth % isa.lanes):
            raise ValueError(f"heads of {self.depth} and {self.value_depth} channels are not whole blocks of {isa.lanes}")
        return {"L": isa.lanes, "TP": self.padded_keys(isa), "scale": float_literal(self.scale)}


def attention(
    op: AttentionOp,
    q: TensorType,
    k: TensorType,
    v: TensorType,
    mask: TensorType | None,
    y: TensorType,
    isa: Isa,
) -> tuple[Attention, AttentionGeometry]:
    """The kernel for an Attention op on float32 operands: all blocked along the channels (rank 3), or all row-major.

    Raises ValueError for other layouts, for heads that are not whole blocks, and for a mask that broadcasts along the keys.
    """
    sizes = op.sizes([q, k, v, mask])
    blocked = isinstance(q.layout, Blocked)
    if blocked and (sizes.d % isa.lanes or sizes.dv % isa.lanes):
        raise ValueError(f"heads of {sizes.d} and {sizes.dv} channels are not whole blocks of {isa.lanes}")
    rows, rest = balanced_tile(sizes.s, (isa.registers - 4) // 2)
    widths = ((q, sizes.d), (k, sizes.d), (v, sizes.dv), (y, sizes.dv))
    of_q, of_k, of_v, of_y = (_blocked_strides(t, n, isa) if blocked else _plain_strides(t, n) for t, n in widths)
    mask_strides = (0, 0, 0)
    if mask is not None:
        if not mask.rank or mask.shape[-1] != sizes.l or isinstance(mask.layout, Blocked):
            raise ValueError(f"attention needs a row-major mask with all {sizes.l} keys, not {mask}")
        full = (sizes.b, sizes.h, sizes.s, sizes.l)
        steps = broadcast_strides(mask.shape, full)
        mask_strides = (steps[0], steps[1], steps[2])
    spec = Attention(sizes.d, sizes.dv, sizes.l, rows, rest, op.scale, mask is not None, blocked)
    return spec, AttentionGeometry(
        sizes.b, op.heads, op.heads // op.kv_heads, sizes.s, *of_q, *of_k, *of_v, *of_y, *mask_strides
    )  # fmt: skip


def _blocked_strides(t: TensorType, width: int, isa: Isa) -> tuple[int, int, int, int]:
    """Strides of (batch, head, channel block, position) of blocked [B, S, heads * width]."""
    layout = t.layout
    if not isinstance(layout, Blocked) or layout.axis != 2 or layout.block != isa.lanes or t.rank != 3 or layout.halo:
        raise ValueError(f"attention reads [B, S, C] blocked by {isa.lanes} channels without halo, not {t}")
    view = blocked_view(t)
    return view.strides[0], width // isa.lanes * view.block_stride, view.block_stride, view.strides[1]


def _plain_strides(t: TensorType, width: int) -> tuple[int, int, int, int]:
    """The same of row-major [B, S, heads * width] or [B, heads, S, width]; blocks do not exist."""
    if isinstance(t.layout, Blocked):
        raise ValueError(f"attention needs all of its operands in one layout, unlike {t}")
    s = row_major_strides(t.shape)
    return (s[0], width, 0, s[1]) if t.rank == 3 else (s[0], s[1], 0, s[2])
