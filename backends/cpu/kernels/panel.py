"""panel: convolutions and matrix products with constant weights, dense or sparse, over channel-blocked activations.

A panel is `r` vectors of output channels. Its weights are a list of runs: an input offset, relative to the input that belongs
to an output position, and `k_run` consecutive weight rows of r * lanes floats that multiply the k_run consecutive inputs there.
Over bytes, an input is four consecutive channels, a weight row has four weights a lane, and sums are int32; over bfloat16 these
are two where the target has dot products of them, and sums are float32.
Dense convolutions list every offset; a sparse pattern leaves runs out; grouped ones list their own input channels. The
micro-kernel keeps th x tw positions x r vectors of accumulators in registers: a weight vector is loaded once for all
positions, an input is broadcast once for r vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.dot import dot_of, registers, row_channels
from sparsec.backends.cpu.kernels.panel_epilogue import EXTRAS, Types, epilogue_context, extra_pointers, heavy
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program


@dataclass(frozen=True, slots=True)
class PanelGeometry(Geometry):
    """Extents in tiles and strides in elements.

    A row of output positions is `x_full` tiles of tw and then `x_tail` tiles of tw_tail; an image is `y_full` tile rows of th and
    then `y_tail` of th_tail. `x_row` is what the input advances for the next output row. `e_*` are the strides of the epilogue's
    `full` operands, in order.
    """

    n: int
    panels: int
    n_runs: int  # runs of each panel; 0 when panels have lists of their own
    x_full: int
    x_tail: int
    y_full: int
    y_tail: int
    x_batch: int
    x_row: int
    y_batch: int
    y_block: int
    y_row: int
    e_batch: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})
    e_block: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})
    e_row: tuple[int, ...] = field(default=(0,) * EXTRAS, metadata={"length": EXTRAS})


@dataclass(frozen=True, slots=True)
class PanelKernel(Kernel):
    """One micro-kernel with its loops.

    `x_step` is what the input advances, in elements, for the next output position of a row; `y_step` is what the output and the
    `full` operands advance for it, in positions (more than 1 for a phase of a transposed convolution). `extras` says how the
    epilogue's arguments 1, 2, ... are read: `channel` (a vector per output channel), `full` (a blocked tensor as the output) or
    `scalar`.

    `shared_runs`: all panels read one list of offsets. `oc_outer`: panels are the outer loop, so that a panel's weights stay in
    cache over all positions; otherwise positions are. `tail_lanes` > 0: the last vector of every panel has only so many channels,
    and its other lanes are stored as zero. `prefetch`: bytes ahead at which weights are prefetched, 0 for none.

    `chunk`: runs that are summed on their own before they are added to the rest, 0 for one sum. The rounding error of a sum
    grows with its length, that of a sum of sums with the lengths of both (Higham, Accuracy and Stability of Numerical Algorithms,
    section 4.2).

    `types` are the element types: data and weights are both F32 or both BF16, or data are U8: then weights are int8, the
    epilogue's argument 0 is int32, and sums begin with what `start` holds for each output.
    """

    r: int
    k_run: int
    x_step: int
    tw: int
    tw_tail: int = 0
    th: int = 1
    th_tail: int = 0
    shared_runs: bool = True
    oc_outer: bool = True
    epilogue: Program = field(default_factory=Program)
    extras: tuple[str, ...] = ()
    tail_lanes: int = 0
    prefetch: int = 0
    chunk: int = 0
    y_step: int = 1
    types: Types = field(default_factory=Types)
    family: ClassVar[str] = "panel"
    template: ClassVar[str] = "panel.c.j2"
    geometry: ClassVar[type[Geometry]] = PanelGeometry

    def label(self) -> str:
        tile = f"{self.th}x{self.tw}x{self.r}" if self.th > 1 else f"{self.tw}x{self.r}"
        last = f"_{self.epilogue.steps[-1].fn}" if self.epilogue.steps else ""
        return f"{self.types.data.value}_panel_{tile}_k{self.k_run}{last}"

    @property
    def integers(self) -> bool:
        return self.types.integers

    @property
    def bfloat16(self) -> bool:
        return self.types.bfloat16 or self.epilogue.mentions(DType.BF16)

    def pointers(self) -> tuple[Pointer, ...]:
        lists = [Pointer("runs", "int32_t")] + ([] if self.shared_runs else [Pointer("run_begin", "int32_t")])
        extras = extra_pointers(self.types.of_extras(len(self.extras)))
        x, w = Pointer("x", self.types.data.c), Pointer("w", self.types.weights.c)
        start = [Pointer("start", "int32_t")] if self.types.of_bytes else []
        return (x, w, *lists, *start, *extras, Pointer("y", self.types.result.c, const=False))

    @property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """The tile shapes (th, tw) that the kernel has code for."""
        return tuple((th, tw) for th in (self.th, self.th_tail) if th for tw in (self.tw, self.tw_tail) if tw)

    def context(self, isa: Isa) -> dict[str, Any]:
        conditions = {
            (True, True): "ty < g->y_full && tx < g->x_full",
            (True, False): "ty < g->y_full",
            (False, True): "tx < g->x_full",
        }
        rows, cols = len(self.tiles) > 1 and self.th_tail > 0, self.tw_tail > 0
        return {
            "tiles": self.tiles,
            "dispatch": [conditions.get((rows and th == self.th, cols and tw == self.tw), "1") for th, tw in self.tiles],
            "col": _start("tx", "g->x_full", self.tw, self.tw_tail),
            "row": _start("ty", "g->y_full", self.th, self.th_tail),
            "y_step": "VL" if self.y_step == 1 else f"{self.y_step} * VL",
            "unroll": min(self.k_run, 4) if isa.lanes > 1 else 1,
            "heavy": heavy(self.epilogue) or self.tail_lanes > 0,
            "x_t": self.types.data.c,
            "w_t": self.types.weights.c,
            "dot": dot_of(self.types.data, isa, reduced=self.types.reduced),
            "row_elements": row_channels(self.types.data, isa) * self.r,
            "start": self.types.of_bytes,
            **epilogue_context(self.epilogue, self.extras, self.tail_lanes, isa, self.types),
        }


def legal(kernel: PanelKernel, isa: Isa) -> bool:
    """Whether the accumulators, the weights of one row and a broadcast input fit in the vector registers."""
    operands = registers(kernel.types.data, isa, kernel.r + 1, reduced=kernel.types.reduced)
    return kernel.th * kernel.tw * kernel.r + operands <= isa.registers


def _start(index: str, full: str, size: int, tail: int) -> str:
    """The first position of a tile, in C."""
    if not tail:
        return f"{index} * {size}"
    return f"{index} < {full} ? {index} * {size} : {full} * {size} + ({index} - {full}) * {tail}"
