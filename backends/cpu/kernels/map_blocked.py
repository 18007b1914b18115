"""map on blocked tensors: a scalar program over operands of any types that have vectors, whole vectors at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.blocked_epilogue import padding_to_mask
from sparsec.backends.cpu.kernels.elements import INTEGERS, VECTORS, element, ending
from sparsec.backends.cpu.walk import Walk, blocked_view
from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import Blocked
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType

OPERANDS = 12  # the result included
LOOPS = 3  # around a row of positions, inside the loop over channel blocks
_ROW = 512


@dataclass(frozen=True, slots=True)
class BlockedMapGeometry(Geometry):
    """Extents in positions; offsets and strides in elements, the result's last; strides [operand][block, loops, position]."""

    blocks: int
    inner: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    offset: tuple[int, ...] = field(metadata={"length": OPERANDS})
    stride: tuple[int, ...] = field(metadata={"length": OPERANDS * (LOOPS + 1)})


@dataclass(frozen=True, slots=True)
class BlockedMap(Kernel):
    """y = program(x0, x1, ...) on tensors blocked alike. The kind of each operand says how a row of positions reads it.

    row: a vector for every position; vector: one vector for the row (channel vectors, [N, C, 1, 1]); splat: one value for every
    position, the same for all channels ([N, 1, H, W]); scalar: one value. The result may overwrite a `row` operand.
    """

    program: Program
    kinds: tuple[str, ...]
    dtypes: tuple[DType, ...]  # of the operands, then of the result
    keep: int = 0  # channels to keep in the last block, 0 = all lanes
    family: ClassVar[str] = "map_blocked"
    template: ClassVar[str] = "map_blocked.c.j2"
    geometry: ClassVar[type[Geometry]] = BlockedMapGeometry

    def label(self) -> str:
        names = list(dict.fromkeys(s.fn for s in self.program.steps))
        return "_".join([self.dtypes[0].value, "map", *names[:4]])

    @property
    def integers(self) -> bool:
        return any(d in INTEGERS for d in self.dtypes)

    @property
    def bfloat16(self) -> bool:
        return DType.BF16 in self.dtypes or self.program.mentions(DType.BF16)

    def pointers(self) -> tuple[Pointer, ...]:
        operands = (Pointer(f"x{i}", d.c) for i, d in enumerate(self.dtypes[:-1]))
        return (*operands, Pointer("y", self.dtypes[-1].c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {
            "L": isa.lanes,
            "steps": LOOPS + 1,
            "result": len(self.kinds),
            "elements": [element(f"x{i}", d) for i, d in enumerate(self.dtypes)],
            "y": self.dtypes[-1].c,
            "ending": ending(self.program, [f"a{i}" for i in range(len(self.kinds))], self.dtypes[:-1], self.dtypes[-1]),
        }


@dataclass(frozen=True, slots=True)
class _Operand:
    offset: int
    block: int
    positions: tuple[int, ...]
    lanes: bool  # has a value for each channel


def blocked_map(
    program: Program, operands: Sequence[TensorType], y: TensorType, isa: Isa
) -> tuple[BlockedMap, BlockedMapGeometry]:
    """The kernel for `y = program(*operands)`, of types that have vectors, y blocked by `isa.lanes`.

    Operands broadcast to y as in numpy. Each is blocked as y is (own halo), or has one element, or is row-major with channels
    alone, [..., C, 1, 1], and then its buffer is padded to whole blocks. ValueError otherwise.
    """
    layout = y.layout
    if not isinstance(layout, Blocked) or layout.block != isa.lanes or len(operands) >= OPERANDS:
        raise ValueError(f"a blocked map writes blocks of {isa.lanes} channels from {OPERANDS - 1} operands at most, not {y}")
    if any(t.dtype not in VECTORS for t in (*operands, y)):
        raise ValueError(f"a blocked map computes what has vectors, unlike {', '.join(map(str, operands))} -> {y}")
    views = [_operand(t, y, layout) for t in operands]
    result = blocked_view(y)
    views.append(_Operand(result.offset, result.block_stride, result.strides, True))
    walk = Walk(result.extents, tuple(v.positions for v in views)).collapsed(_ROW)
    walk = walk.in_rows([isa.lanes] * len(views)).padded(LOOPS + 1)
    kinds = tuple(
        "scalar" if t.elements == 1 else "splat" if not v.lanes else "row" if s[-1] else "vector"
        for t, v, s in zip(operands, views, walk.strides, strict=False)
    )
    keep = padding_to_mask(program, [v.lanes for v in views[:-1]], y.shape[layout.axis], isa.lanes)
    spare = OPERANDS - len(views)
    strides = [s for v, steps in zip(views, walk.strides, strict=True) for s in (v.block, *steps[:-1])]
    geometry = BlockedMapGeometry(
        result.blocks,
        walk.extents[-1],
        walk.extents[:-1],
        (*(v.offset for v in views), *(0,) * spare),
        (*strides, *(0,) * (spare * (LOOPS + 1))),
    )
    return BlockedMap(program, kinds, tuple(t.dtype for t in (*operands, y)), keep), geometry


def _operand(t: TensorType, y: TensorType, layout: Blocked) -> _Operand:
    others = [i for i in range(y.rank) if i != layout.axis]
    if t.elements == 1:
        offset = blocked_view(t).offset if isinstance(t.layout, Blocked) else 0
        return _Operand(offset, 0, (0,) * len(others), False)
    lead = y.rank - t.rank
    if isinstance(t.layout, Blocked):
        if t.layout.block != layout.block or t.layout.axis + lead != layout.axis:
            raise ValueError(f"a blocked map needs operands blocked as {y}, unlike {t}")
        view = blocked_view(t)
        own = dict(zip((i + lead for i in range(t.rank) if i != t.layout.axis), view.strides, strict=True))
        positions = tuple(own.get(i, 0) if i >= lead and t.shape[i - lead] != 1 else 0 for i in others)
        channels = t.shape[t.layout.axis] == y.shape[layout.axis]
        return _Operand(view.offset, view.block_stride if channels else 0, positions, channels)
    at = layout.axis - lead
    if at < 0 or t.shape[at] != t.elements:
        raise ValueError(f"a blocked map takes {t} only as one value a channel of {y}, or blocked as it is")
    return _Operand(0, layout.block, (0,) * len(others), True)
