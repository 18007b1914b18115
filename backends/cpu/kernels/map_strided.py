"""map on row-major tensors: a scalar program over operands of any element types, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.elements import INTEGERS, VECTORS, Ending, element, ending
from sparsec.backends.cpu.scalar_c import emit_scalar, load_expression, store_expression, value_ctype
from sparsec.backends.cpu.walk import Walk
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.scalar import Program

OPERANDS = 12  # the result included
LOOPS = 8


@dataclass(frozen=True, slots=True)
class MapGeometry(Geometry):
    """`rows` rows of `inner` elements; offsets and strides in elements, the result's last; `step` along a row."""

    rows: int
    inner: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    offset: tuple[int, ...] = field(metadata={"length": OPERANDS})
    step: tuple[int, ...] = field(metadata={"length": OPERANDS})
    stride: tuple[int, ...] = field(metadata={"length": OPERANDS * LOOPS})


@dataclass(frozen=True, slots=True)
class StridedMap(Kernel):
    """y = program(x0, x1, ...), `loops` loops around a row that each operand reads by its kind.

    row: contiguous; scalar: one value for the whole row; strided. Without strided operands, what has vectors is computed in
    vectors. The result may overwrite an operand that is read exactly as it is written.
    """

    program: Program
    dtypes: tuple[DType, ...]
    kinds: tuple[str, ...]  # of the operands, then of the result
    loops: int
    family: ClassVar[str] = "map_strided"
    template: ClassVar[str] = "map_strided.c.j2"
    geometry: ClassVar[type[Geometry]] = MapGeometry

    def label(self) -> str:
        names = list(dict.fromkeys(s.fn for s in self.program.steps))
        return "_".join([self.dtypes[0].value if self.dtypes else "f32", "rows", *names[:4]])

    @property
    def result(self) -> DType:
        """Element type of the result."""
        return self.program.infer(self.dtypes)

    def pointers(self) -> tuple[Pointer, ...]:
        inputs = tuple(Pointer(f"x{i}", d.c) for i, d in enumerate(self.dtypes))
        return (*inputs, Pointer("y", self.result.c, const=False))

    @property
    def integers(self) -> bool:
        return self.in_vectors() is not None and any(d in INTEGERS for d in (*self.dtypes, self.result))

    @property
    def bfloat16(self) -> bool:
        known = DType.BF16 in (*self.dtypes, self.result) or self.program.mentions(DType.BF16)
        return self.in_vectors() is not None and known

    def in_vectors(self) -> Ending | None:
        """The program over vectors, when every row allows it."""
        if "strided" in self.kinds:
            return None
        try:
            return ending(self.program, self._arguments(), self.dtypes, self.result)
        except UnsupportedError:
            return None

    def context(self, isa: Isa) -> dict[str, Any]:
        return {
            "vectors": self.in_vectors(),
            "scalars": emit_scalar(self.program, self._arguments(), self.dtypes),
            "whole": all(d is DType.F32 for d in (*self.dtypes, self.result)),  # its vectors have parts
            "elements": [element(f"a{i}", d) if d in VECTORS else None for i, d in enumerate(self.dtypes)],
            "n": len(self.dtypes),
            "max_loops": LOOPS,
            "value_ctype": [value_ctype(d) for d in self.dtypes],
            "load": lambda i, stored: load_expression(self.dtypes[i], stored),
            "store": lambda value: store_expression(self.result, value),
        }

    def _arguments(self) -> list[str]:
        return [f"a{i}" for i in range(len(self.dtypes))]


def strided_map(
    program: Program,
    shape: Sequence[int],
    dtypes: Sequence[DType],
    strides: Sequence[Sequence[int]],
    offsets: Sequence[int] | None = None,
) -> tuple[StridedMap, MapGeometry]:
    """The kernel that computes `shape` results. `strides` (elements; 0 where an operand broadcasts) and `offsets` are those of
    the operands and then of the result.

    Raises ValueError for more than 11 operands or more than 8 loops that do not merge, UnsupportedError when the program has
    no C form for these types.
    """  # fmt: skip
    if len(strides) != len(dtypes) + 1 or len(strides) > OPERANDS:
        raise ValueError(f"a map takes {OPERANDS - 1} operands at most and strides for each and the result, not {len(strides)}")
    walk = Walk(tuple(shape), tuple(tuple(s) for s in strides)).collapsed()
    walk = walk if walk.rank else walk.padded(1)
    loops, spare = walk.rank - 1, OPERANDS - len(strides)
    if loops > LOOPS:
        raise ValueError(f"a map over {list(shape)} has {loops} loops that do not merge, {LOOPS} are supported")
    kinds = tuple("row" if s[-1] == 1 else "scalar" if s[-1] == 0 else "strided" for s in walk.strides[:-1])
    last = walk.strides[-1][-1]
    kinds += ("row" if last == 1 or walk.extents[-1] == 1 else "strided",)
    spec = StridedMap(program, tuple(dtypes), kinds, loops)
    emit_scalar(program, spec._arguments(), spec.dtypes)  # refuses what has no C form
    pad = (0,) * (LOOPS - loops)
    geometry = MapGeometry(
        prod(walk.extents[:-1]),
        walk.extents[-1],
        walk.extents[:-1] + pad,
        (*(offsets or (0,) * len(strides)), *(0,) * spare),
        (*(s[-1] for s in walk.strides), *(0,) * spare),
        (*(v for s in walk.strides for v in (*s[:-1], *pad)), *(0,) * (spare * LOOPS)),
    )
    return spec, geometry
