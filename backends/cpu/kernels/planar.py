"""planar: convolutions and products with sparse constant weights, positions in the lanes.

The panel kernel keeps output channels in the lanes, so the outputs of a vector have to share the inputs that they read. Here a
vector holds output positions (pixels, tokens) of one channel, so a weight is a scalar that is broadcast, and any pattern of zeros
can be left out: what the `r` outputs of a panel share only decides how often a loaded input vector is used.

A tile of `s` vectors of positions is copied to scratch as [row][s][lanes], a row being one input channel at one kernel tap
(im2col of a tile that stays in the cache), and all panels of outputs go over it. A panel's weights are lists of rows, one list
for every subset of its outputs in `masks` (bit i: output i): rows of the list are multiplied for the outputs of the subset
alone. One full mask is a shared pattern (blocks, N:M over several rows); all 2^r - 1 masks take any pattern without fill-in.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.panel_epilogue import EXTRAS, epilogue_context, extra_pointers, heavy
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program


@dataclass(frozen=True, slots=True)
class PlanarGeometry(Geometry):
    """Extents, and strides in elements.

    Each of n images has `positions` output positions in rows of `ow`, cut into `full` tiles of s vectors and then `tails` of
    s_tail. Panels are dealt out in groups of `group_panels`. The `rows` rows of the packed tile come in `chunks` of
    `chunk_rows`. `taps` are the kernel taps of a blocked input. A planar tensor has `block` between channels, and its positions
    side by side.
    """

    n: int
    positions: int
    ow: int
    full: int
    tails: int
    oc: int
    panels: int
    group_panels: int
    rows: int
    chunks: int
    chunk_rows: int
    taps: int
    x_batch: int
    x_block: int
    x_row: int
    x_step: int
    y_batch: int
    y_block: int
    y_row: int
    e_batch: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})
    e_block: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})
    e_row: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})


@dataclass(frozen=True, slots=True)
class PlanarLists(Kernel):
    """What planar kernels of all element types have: panels that list rows.

    `r` outputs a panel, `s` vectors of positions; `masks` the subsets that have lists, `k_run` consecutive rows an entry.
    `narrow`: entries are u8, else u16. `chunked`: panels add to partial sums in scratch. `epilogue`, `extras`, `tail_lanes` and
    `prefetch` are those of PanelKernel.
    """

    r: int
    s: int
    s_tail: int = 0
    masks: tuple[int, ...] = (1,)
    k_run: int = 1
    narrow: bool = False
    chunked: bool = False
    epilogue: Program = field(default_factory=Program)
    extras: tuple[str, ...] = ()
    tail_lanes: int = 0
    prefetch: int = 0
    family: ClassVar[str] = "planar"
    geometry: ClassVar[type[Geometry]] = PlanarGeometry

    @property
    @abstractmethod
    def data(self) -> DType:
        """The type of the inputs."""

    def label(self) -> str:
        last = f"_{self.epilogue.steps[-1].fn}" if self.epilogue.steps else ""
        lists = f"_l{len(self.masks)}" if len(self.masks) > 1 else ""
        return f"{self.data.value}_planar_{self.r}x{self.s}_k{self.k_run}{lists}{last}"

    @property
    def entry_type(self) -> str:
        """C type of a list's entries."""
        return "uint8_t" if self.narrow else "uint16_t"

    def list_pointers(self) -> tuple[Pointer, ...]:
        """The lists, in calling order."""
        return Pointer("entries", self.entry_type), Pointer("counts", "uint16_t"), Pointer("begin", "int32_t")

    def list_context(self) -> dict[str, Any]:
        """What templates read of the lists: the outputs of each, and the tiles' vectors."""
        outputs = [[i for i in range(self.r) if mask >> i & 1] for mask in self.masks]
        return {"lists": outputs, "sizes": [s for s in (self.s, self.s_tail) if s]}


@dataclass(frozen=True, slots=True)
class PlanarKernel(PlanarLists):
    """One micro-kernel with its loops.

    `x_blocked`, `y_blocked`: the input, the output (and the epilogue's `full` operands) are blocked by the vector's lanes, and
    transposed on the way; else they are planar, and the input is read as it is (1x1, stride 1).
    """

    x_blocked: bool = False
    y_blocked: bool = False
    template: ClassVar[str] = "planar.c.j2"

    @property
    def data(self) -> DType:
        return DType.F32

    def pointers(self) -> tuple[Pointer, ...]:
        taps = (Pointer("taps", "int32_t"),) if self.x_blocked else ()
        extras = extra_pointers([DType.F32] * len(self.extras))
        return (Pointer("x"), Pointer("w"), *self.list_pointers(), *taps, *extras, Pointer("y", const=False))

    @property
    def finishes(self) -> bool:
        """Whether sums go through scratch to a pass of their own that applies the epilogue."""
        return self.y_blocked or heavy(self.epilogue)

    def scratch_bytes(self, geometry: PlanarGeometry, isa: Isa) -> int:
        outputs = -(-max(geometry.oc, geometry.panels * self.r) // isa.lanes) * isa.lanes
        sums = outputs if self.chunked or self.finishes else 0
        return (geometry.chunk_rows + sums) * self.s * isa.vector_bytes

    def context(self, isa: Isa) -> dict[str, Any]:
        return {
            **self.list_context(),
            "finishes": self.finishes,
            "tables": self.tables,
            **epilogue_context(self.epilogue, self.extras, self.tail_lanes, isa),
        }

    @property
    def tables(self) -> tuple[str, ...]:
        """Tensors whose positions are found through a table of offsets: the blocked ones."""
        full = [i for i, kind in enumerate(e for e in self.extras if e == "full")]
        return (("x",) if self.x_blocked else ()) + (("y", *(f"e{i}" for i in full)) if self.y_blocked else ())


def legal(r: int, s: int, lists: int, isa: Isa) -> bool:
    """Whether the accumulators, the inputs of a row where outputs share them, and a weight fit in the vector registers."""
    inputs = s if r > 1 else 1
    return r * s + inputs + 1 <= isa.registers and (lists == 1 or r > 1)
