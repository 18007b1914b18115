"""planar_dot: convolutions and products of bytes or bfloat16 with sparse constant weights, positions in the lanes.

The same plan as `planar` over data blocked by the vector's lanes: a row of the tile is four bytes, or two bfloat16, of
consecutive input channels at one kernel tap in each lane, and a weight is as many that are broadcast. A result that is rounded
to uint8 is put together in the lanes, four outputs to a lane, and spread to its positions; any other goes through sums in scratch
that are transposed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Pointer
from sparsec.backends.cpu.kernels.dot import dot_of, registers, row_channels
from sparsec.backends.cpu.kernels.panel_epilogue import Types, epilogue_context, extra_pointers, heavy
from sparsec.backends.cpu.kernels.planar import PlanarGeometry, PlanarLists
from sparsec.backends.cpu.kernels.saturation import split_saturation
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program

FOUR = 4  # bytes of a lane


@dataclass(frozen=True, slots=True)
class PlanarDotKernel(PlanarLists):
    """One micro-kernel with its loops; `types` are those of PanelKernel.

    Pointers: x, w, the lists, the offsets of taps, for bytes `start` (what the sums of each output begin with), extras, y.
    """

    types: Types = field(default_factory=Types)
    template: ClassVar[str] = "planar_dot.c.j2"

    @property
    def data(self) -> DType:
        return self.types.data

    @property
    def integers(self) -> bool:
        return self.types.integers

    @property
    def bfloat16(self) -> bool:
        return self.types.bfloat16 or self.epilogue.mentions(DType.BF16)

    def pointers(self) -> tuple[Pointer, ...]:
        extras = extra_pointers(self.types.of_extras(len(self.extras)))
        y = Pointer("y", self.types.result.c, const=False)
        start = (Pointer("start", "int32_t"),) if self.types.of_bytes else ()
        x, w = Pointer("x", self.types.data.c), Pointer("w", self.types.weights.c)
        return (x, w, *self.list_pointers(), Pointer("taps", "int32_t"), *start, *extras, y)

    @property
    def packs(self) -> bool:
        """Whether results are put together in the lanes."""
        return packs(self.r, self.epilogue, self.extras, self.types)

    def scratch_bytes(self, geometry: PlanarGeometry, isa: Isa) -> int:
        outputs = -(-max(geometry.oc, geometry.panels * self.r) // isa.lanes) * isa.lanes
        sums = outputs if self.chunked or not self.packs else 0
        return (geometry.chunk_rows + sums) * self.s * isa.vector_bytes

    def context(self, isa: Isa) -> dict[str, Any]:
        full = [f"e{i}" for i, kind in enumerate(self.extras) if kind == "full"]
        return {
            **self.list_context(),
            "block_rows": isa.lanes // row_channels(self.types.data, isa),
            "dot": dot_of(self.types.data, isa, reduced=self.types.reduced),
            "of_bytes": self.types.of_bytes,
            "x_t": self.types.data.c,
            "w_t": self.types.weights.c,
            "full_names": full,
            **epilogue_context(self.epilogue, self.extras, self.tail_lanes, isa, self.types),
        }


def packs(r: int, epilogue: Program, extras: tuple[str, ...], types: Types) -> bool:
    """Whether panels of r outputs can put results together: uint8 that are rounded, from bytes, by a short program."""
    full = [t for t, kind in zip(types.of_extras(len(extras)), extras, strict=True) if kind == "full"]
    rounded = types.result is DType.U8 and split_saturation(epilogue) is not None
    return rounded and r % FOUR == 0 and not heavy(epilogue) and all(t is DType.U8 for t in full)


def legal(r: int, s: int, lists: int, isa: Isa, data: DType = DType.U8, *, reduced: bool = False) -> bool:
    """Whether the accumulators, the inputs of a row and a weight fit in the vector registers."""
    operands = registers(data, isa, (s if r > 1 else 1) + 1, reduced=reduced)
    return r * s + operands <= isa.registers and (lists == 1 or r > 1)
