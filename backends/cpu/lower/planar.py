"""Weights with zeros, positions in the lanes: when that is predicted to be faster, and its kernel calls.

Any pattern runs without fill-in, so this is what blocks of fewer outputs than a vector has lanes, N:M over single rows and
unstructured zeros are computed by. Activations are planar on either side where the layout pass finds that cheaper, and
blocked elsewhere, transposed tile by tile on the way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.kernels.panel_epilogue import EXTRAS, Types, heavy, operations
from sparsec.backends.cpu.kernels.panel_pack import joined
from sparsec.backends.cpu.kernels.planar import PlanarGeometry, PlanarKernel
from sparsec.backends.cpu.kernels.planar_dot import PlanarDotKernel, packs
from sparsec.backends.cpu.kernels.planar_pack import pack, row_order
from sparsec.backends.cpu.kernels.planar_plan import Lists, PlanarChoice, PlanarProblem, choose, listings
from sparsec.backends.cpu.lower.base import LowerContext
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Node
from sparsec.compiler.scalar import Program
from sparsec.compiler.schedule import Cost, LayerSchedule, Level, Loop, LoopKind

Array = np.ndarray[Any, Any]
WORTH_A_LOOK = 0.9  # share of non-zero weights above which leaving them out cannot pay
_REMEMBERED = 256
_PREFETCH = 2048  # bytes: weights come from memory in the first tile, and the hardware stops at every page
_MANY = 4  # outputs of a panel from which an entry has weights enough to be worth an instruction more


@dataclass(frozen=True, slots=True)
class Side:
    """How a tensor is stored: strides in elements. Planar ones have `block` between channels, and positions side by side."""

    blocked: bool
    batch: int
    block: int
    row: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class PlanarLayer:
    """n images of `positions` outputs in rows of `ow`; filters [oc, taps, ic]."""

    n: int
    positions: int
    ow: int
    oc: int
    taps: int
    ic: int
    x: Side
    y: Side
    extras: tuple[Side | None, ...]
    kinds: tuple[str, ...]
    epilogue: Program
    tail_lanes: int = 0
    types: Types = field(default_factory=Types)

    def rows(self, isa: Isa) -> int:
        """Rows that an output has: inputs, or as many together as a weight row has channels."""
        per_row = row_channels(self.types.data, isa)
        block = isa.lanes // per_row
        inputs = -(-self.ic // per_row)
        return -(-inputs // block) * block * self.taps if self.x.blocked else inputs


@dataclass(frozen=True, slots=True)
class PlanarPlan:
    """A layer and how it is tiled."""

    layer: PlanarLayer
    choice: PlanarChoice
    density: float

    @property
    def cycles(self) -> float:
        """Predicted cycles of one thread."""
        return self.choice.cycles


class _Listings:
    """What `listings` finds for the last weights that were asked about: layers are planned several times."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int], tuple[Array, list[Lists]]] = OrderedDict()

    def of(self, constant: Array, filters: Array, block: int) -> list[Lists]:
        """`constant` is the graph's array, by whose identity the answer is remembered."""
        key = (id(constant), block)
        if key not in self._known:
            self._known[key] = (constant, listings(row_order(filters, block)))  # holding it keeps its identity its own
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key][1]


_LISTINGS = _Listings()


def has_zeros(constant: Array) -> bool:
    """Whether enough weights are zero for sparse kernels to be considered."""
    return bool(np.count_nonzero(constant) <= WORTH_A_LOOK * constant.size)


def plan_planar(layer: PlanarLayer, constant: Array, filters: Array, isa: Isa) -> PlanarPlan:
    """The fastest predicted plan. `filters` [OC, taps, IC] are a view of the graph's array `constant`."""
    data = layer.types.data
    per_row = row_channels(data, isa)
    filters = joined(filters, per_row) if data is not DType.F32 else filters
    ways = _LISTINGS.of(constant, filters, isa.lanes // per_row)
    rows = layer.rows(isa)
    problem = PlanarProblem(
        layer.n,
        layer.positions,
        layer.oc,
        rows,
        -(-layer.ic // per_row),
        layer.x.blocked,
        layer.y.blocked,
        heavy(layer.epilogue),
        operations(layer.epilogue),
        sum(kind == "full" for kind in layer.kinds),
        data,
        data is DType.U8 and packs(4, layer.epilogue, layer.kinds, layer.types),
        layer.types.reduced,
        layer.types.result.itemsize,
        layer.taps > 1 or layer.x.step > isa.lanes,
    )
    density = np.count_nonzero(constant) / max(constant.size, 1)
    return PlanarPlan(layer, choose(problem, isa, ways), density)


def schedule_planar(node: Node, plan: PlanarPlan, macs: int, traffic: int, isa: Isa) -> LayerSchedule:
    """The plan's loops in the schedule's terms."""
    c, layer = plan.choice, plan.layer
    rows = layer.rows(isa)
    levels = (
        Level("L3", (Loop("positions", layer.n * (c.full + c.tails)),), ("w",)),
        Level("L2", (Loop("rows", -(-rows // c.chunk_rows)), Loop("OC", c.lists.panels)), ("w", "y")),
        Level("L1", (Loop("rows", min(rows, c.chunk_rows)),), ("x",)),
        Level(
            "registers",
            (
                *((Loop("OC", c.lists.r, LoopKind.UNROLLED),) if c.lists.r > 1 else ()),
                *((Loop("positions", c.s, LoopKind.UNROLLED),) if c.s > 1 else ()),
                Loop("positions", isa.lanes, LoopKind.VECTOR),
            ),
            ("y",),
        ),
    )
    shared = "one list of inputs" if len(c.lists.masks) == 1 else f"{len(c.lists.masks)} lists of inputs, one a subset of outputs"
    reason = f"{c.lists.r} output{'s' if c.lists.r > 1 else ''} x {c.s} vectors of positions in registers; {shared}"
    reason += layer.types.reason(isa)
    cost = Cost(plan.cycles, macs, {"L2": traffic}, "compute")
    return LayerSchedule(node.name, "planar", levels, cost, plan, reason)


def lower_planar(
    ctx: LowerContext,
    node: Node,
    plan: PlanarPlan,
    x: Ref,
    y: Ref,
    extras: Sequence[Ref],
    filters: Array,
    taps: Array,
    start: Array | None = None,
) -> None:
    """Append the plan's call. `x` and `y` are the addresses of the first interior elements, `taps` the offsets of the taps;
    `start`, for integers, is what the sums of each output begin with.
    """
    layer, c, lanes = plan.layer, plan.choice, ctx.isa.lanes
    narrow = layer.types.data is not DType.F32
    if narrow:
        per_row = row_channels(layer.types.data, ctx.isa)
        w = row_order(joined(filters, per_row), lanes // per_row)
    else:
        w = row_order(filters, lanes if layer.x.blocked else 1)
    each = _group_panels(plan, ctx)
    packed = pack(w, c.lists.r, c.lists.masks, c.lists.k_run, c.chunk_rows, each)
    rows = w.shape[1]
    kernel: PlanarKernel | PlanarDotKernel
    shared: dict[str, Any] = {
        "r": c.lists.r,
        "s": c.s,
        "s_tail": c.s_tail,
        "masks": c.lists.masks,
        "k_run": c.lists.k_run,
        "narrow": packed.entries.dtype == np.uint8,
        "chunked": rows > c.chunk_rows,
        "epilogue": layer.epilogue,
        "extras": layer.kinds,
        "tail_lanes": layer.tail_lanes if layer.y.blocked else 0,
        "prefetch": _PREFETCH if c.lists.r >= _MANY and len(c.lists.masks) == 1 else 0,
    }
    if narrow:
        kernel = PlanarDotKernel(**shared, types=layer.types)
    else:
        kernel = PlanarKernel(**shared, x_blocked=layer.x.blocked, y_blocked=layer.y.blocked)
    sides = [e for e in layer.extras if e is not None]
    spare = (0,) * (EXTRAS - len(sides))
    geometry = PlanarGeometry(
        n=layer.n,
        positions=layer.positions,
        ow=layer.ow,
        full=c.full,
        tails=c.tails,
        oc=layer.oc,
        panels=c.lists.panels,
        group_panels=each,
        rows=rows,
        chunks=-(-rows // c.chunk_rows),
        chunk_rows=min(c.chunk_rows, rows),
        taps=layer.taps,
        x_batch=layer.x.batch,
        x_block=layer.x.block,
        x_row=layer.x.row,
        x_step=layer.x.step,
        y_batch=layer.y.batch,
        y_block=layer.y.block,
        y_row=layer.y.row,
        e_batch=(*(e.batch for e in sides), *spare),
        e_block=(*(e.block for e in sides), *spare),
        e_row=(*(e.row for e in sides), *spare),
    )
    lists = [ctx.pack(a) for a in (packed.w, packed.entries, packed.counts, packed.begin)]
    offsets = [ctx.pack(taps.astype(np.int32))] if layer.x.blocked else []
    sums = [] if start is None else [ctx.pack(np.pad(start, (0, c.lists.r)))]  # the last panel reads whole panels
    ctx.call(node, kernel, geometry, [x, *lists, *offsets, *sums, *extras, y])


def _group_panels(plan: PlanarPlan, ctx: LowerContext) -> int:
    """Panels that are dealt out together: all, unless that would leave threads without work. Whole blocks of outputs."""
    c = plan.choice
    items = plan.layer.n * (c.full + c.tails)
    if ctx.threads == 1 or items >= 2 * ctx.threads:
        return c.lists.panels
    step = max(1, ctx.isa.lanes // c.lists.r)
    wanted = -(-2 * ctx.threads // items)
    return min(c.lists.panels, -(-c.lists.panels // wanted // step) * step or step)
