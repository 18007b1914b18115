"""Where everything is in the data memory of cores: in banks of its own where there is room, and beside what the layer before has.

A layer's words may come to a core while it still computes the last tile of the layer before, if they find a place there that
this one has done with. So of the orders in which things may lie (`core_orders`), that one is taken in which the first buffer of
data and the first page of weights meet nothing that is in use then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparsec.backends.aie.lower.core_orders import Orders, Span, Thing
from sparsec.backends.aie.lower.tiling import SUM_BYTES, Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

_ALIGN = 32
_EARLY = ("data", "more data", "weights", "residual")  # what may come early: buffers of data, the first page, the residual
_APART = (  # what is not to share a bank: both buffers of data; what is loaded, or stored, at a time
    ("data", "more data"),
    *((data, other) for data in ("data", "more data") for other in ("residual", "half", "other half", "results")),
    *((half, "results") for half in ("half", "other half")),
    ("residual", "results"),
    ("half", "other half"),
)


@dataclass(frozen=True, slots=True)
class CorePlaces:
    """Byte addresses in every core's data memory: of the first buffer of each kind, and the bytes to the next one, which may lie
    before it if there are two."""

    data: int
    data_step: int
    skipped: int
    residual: int
    weights: int
    results: int
    results_step: int
    partial: tuple[int, int]
    parameters: int


def in_core(machine: Machine, tiling: Tiling) -> CorePlaces:
    """Buffers in a core by themselves, data and weights in banks of their own where they fit, so that loads and DMA do not meet.
    FitError where they are too large."""
    return next(likely_places(machine, tiling, None))


def likely_places(machine: Machine, tiling: Tiling, used: Used | None) -> Iterator[CorePlaces]:
    """Places in a core, those first of which most comes early, beside what is `used`, and of these the usual ones; then all other
    orders of things of which as much does, and in which no more share banks. FitError where things are too large."""
    demand, size = tiling.core_demand, machine.core.data_bytes
    if sum(demand.values()) > size:
        told = ", ".join(f"{n:,} bytes of {what}" for what, n in demand.items() if n)
        raise FitError(
            f"layer {tiling.layer.node!r} in a core",
            demand=told,
            bound=f"{size:,} bytes of data memory",
            remedy="use an array with more cores",
            node=tiling.layer.node,
        )
    usual = _usual(machine, tiling)
    beside = (True,) * 3 if used is None else comes_beside(tiling, usual, used)
    fixed = bool(tiling.half_sums) or tiling.buffers > 2
    if fixed or all(beside):
        yield usual
    if fixed:
        return
    likely = [_EARLY, _EARLY[:-1], _EARLY[:-2]] if tiling.mode.own else [_EARLY[:-1], _EARLY[:-2]]
    orders = _orders(machine, tiling, usual)
    for wanted in likely[: likely.index(_EARLY[:-2]) + (not beside[0])] if used else [()]:
        found = False
        for starts in orders.all(used.by(tiling, wanted) if used else {}):
            found = True
            yield _from(machine, tiling, starts)
        if found:
            break
    if not all(beside):
        yield usual


def _orders(machine: Machine, tiling: Tiling, usual: CorePlaces) -> Orders:
    """Those in which no more things share banks than usually."""
    demand, several = tiling.core_demand, tiling.buffers > 1
    early, first = _early_bytes(tiling), tiling.paging.first_half
    tail = demand["data"] - tiling.buffers * tiling.unit_bytes  # behind the last buffer: what is passed over, or read too far
    weights = (("half", 0, first), ("other half", first, demand["weights"]))
    things = {
        "data": Thing(tiling.unit_bytes, early["data"], (("data", 0, tiling.unit_bytes),)),
        "more data": Thing(early["more data"], early["more data"], (("more data", 0, early["more data"]),)),
        "residual": Thing(demand["residual"], early["residual"], (("residual", 0, demand["residual"]),)),
        "weights": Thing(demand["weights"], early["weights"], weights, least=_ALIGN),  # a step before the first is read, too
        "results": Thing(demand["results"], 0, (("results", 0, demand["results"]),)),
    }
    behind = dict.fromkeys(("data", "more data") if several else ("data",), tail)
    bank = machine.core.data_bytes // machine.core.data_banks
    return Orders(things, _APART, bank, machine.core.data_bytes - demand["parameters"], behind).no_worse(_starts(tiling, usual))


def _from(machine: Machine, tiling: Tiling, starts: Mapping[str, int]) -> CorePlaces:
    """Places from where things begin in an order."""
    none = (SUM_BYTES // 2, SUM_BYTES // 2)  # there are no partial sums
    step = starts["more data"] - starts["data"] if tiling.buffers > 1 else tiling.unit_bytes
    of = starts["data"], step, starts["residual"], starts["weights"], starts["results"]
    return _places(tiling, *of, none, machine.core.data_bytes)


@dataclass(frozen=True, slots=True)
class Used:
    """What is in use in a core while it finishes a layer: when the `first` unit of the next one's data may come, which needs a
    buffer that is free, when a `second` one may, and when a page of `weights` or a residual may."""

    first: tuple[Span, ...] = ()
    second: tuple[Span, ...] = ()
    weights: tuple[Span, ...] = ()

    @staticmethod
    def of(tiling: Tiling, core: CorePlaces) -> Used:
        """When all data and weights of a layer have come. A buffer is free when the last unit but one is done, or when all are
        where there is one buffer; nothing but results is in use then."""
        demand, starts = tiling.core_demand, _starts(tiling, core)
        buffers = [core.data + i * core.data_step for i in range(tiling.buffers)]
        data = tuple((at, at + tiling.unit_bytes) for at in buffers)
        results = _spans([(starts["results"], demand["results"])])
        others = [(starts[name], demand[name]) for name in ("residual", "weights")]
        computing = results + _spans([*others, *((at - SUM_BYTES // 2, tiling.half_sums) for at in core.partial)])
        if tiling.buffers == 1:
            return Used(results, (), computing + data)
        return Used((*computing, data[(tiling.units - 1) % tiling.buffers]), results, computing + data)

    def by(self, tiling: Tiling, names: Sequence[str] = _EARLY) -> dict[str, tuple[Span, ...]]:
        """What things of the next layer are not to meet."""
        more = self.second if tiling.buffers > 1 else ()
        found = {"data": self.first, "more data": more, "weights": self.weights, "residual": self.weights}
        return {name: found[name] for name in names}


def comes_beside(tiling: Tiling, core: CorePlaces, used: Used) -> tuple[bool, bool, bool]:
    """Whether the units of data that fill the buffers of a layer, the first page of weights, and the residual, meet nothing that
    is used."""
    by = used.by(tiling)
    met = {name: _overlaps(span, by[name]) for name, span in _early(tiling, _starts(tiling, core)).items()}
    return not (met["data"] or met["more data"]), not met["weights"], not met["residual"]


def _early(tiling: Tiling, starts: Mapping[str, int]) -> dict[str, Span]:
    """Spans of what may come early."""
    return {name: (starts[name], starts[name] + n) for name, n in _early_bytes(tiling).items()}


def _early_bytes(tiling: Tiling) -> dict[str, int]:
    unit, page = tiling.unit_bytes, max(tiling.page_bytes)
    return {
        "data": unit,
        "more data": (tiling.buffers - 1) * unit,
        "weights": page,
        "residual": tiling.core_demand["residual"],
    }


def _overlaps(span: Span, used: Sequence[Span]) -> bool:
    return any(span[0] < end and first < span[1] for first, end in used)


def _spans(starts: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """From where things begin, and their bytes; without those that are empty."""
    return tuple((at, at + length) for at, length in starts if length)


def weights_gap(machine: Machine, tiling: Tiling) -> int | None:
    """Bytes in a core between data and weights, so that both are apart in banks; None where there is no room for that."""
    gap = tiling.gap_of(tiling.paging)
    return gap if gap <= machine.core.data_bytes - sum(tiling.core_demand.values()) else None


def _usual(machine: Machine, tiling: Tiling) -> CorePlaces:
    """One behind the other, from the first byte on."""
    demand = tiling.core_demand
    size, bank = machine.core.data_bytes, machine.core.data_bytes // machine.core.data_banks
    gaps = _gaps(machine, tiling)
    step = tiling.unit_bytes + gaps.data
    data = demand["data"] + (tiling.buffers - 1) * gaps.data
    residual = data + gaps.residual
    weights = residual + demand["residual"] + gaps.weights
    results = weights + demand["weights"] + gaps.results
    gap = -(results + demand["results"]) % bank
    at = results + demand["results"]
    at += gap if at + gap + demand["partial sums"] + demand["parameters"] <= size else 0
    partial = _partial(tiling, at, bank, size - at - demand["parameters"])
    return _places(tiling, 0, step, residual, weights, results, partial, size)


def _places(
    tiling: Tiling, data: int, step: int, residual: int, weights: int, results: int, partial: tuple[int, int], size: int
) -> CorePlaces:
    """From where things begin."""
    return CorePlaces(
        data,
        step,
        data + max(0, (tiling.buffers - 1) * step) + tiling.unit_bytes,
        residual + tiling.residual_lead * bool(tiling.layer.residual),
        weights,
        results + tiling.result_quad,  # the first store of a chunk lands before its results
        tiling.result_bytes + tiling.result_quad,
        partial,
        size - tiling.core_demand["parameters"],
    )


@dataclass(frozen=True, slots=True)
class _Gaps:
    """Bytes in a core behind each buffer of data but the last, before the residual, before weights, and before results."""

    data: int = 0
    residual: int = 0
    weights: int = 0
    results: int = 0


def _gaps(machine: Machine, tiling: Tiling) -> _Gaps:
    """What keeps things in banks of their own, as far as there is room: weights from data, so that both are loaded at once, then
    the buffer of data that cores read from the one that comes, then the residual from data, then results from weights."""
    bank = machine.core.data_bytes // machine.core.data_banks
    spare = machine.core.data_bytes - sum(tiling.core_demand.values())
    demand, behind = tiling.core_demand, tiling.buffers - 1
    for data in dict.fromkeys((-tiling.unit_bytes % bank if behind else 0, 0)):
        own = demand["data"] + behind * data
        for residual in dict.fromkeys((-own % bank if tiling.layer.residual else 0, 0)):
            weights = tiling.gap_of(tiling.paging, behind * data + residual)
            before = own + residual + demand["residual"] + weights + demand["weights"]
            for results in (-before % bank, 0):
                if behind * data + residual + weights + results <= spare:
                    return _Gaps(data, residual, weights, results)
    return _Gaps()


def _partial(tiling: Tiling, at: int, bank: int, room: int) -> tuple[int, int]:
    """Both halves of partial sums from `at` on, behind their gaps, a bank apart if there is room."""
    half = tiling.half_sums
    apart = max(half, bank) if max(half, bank) + half <= room else half
    return at + SUM_BYTES // 2, at + apart + SUM_BYTES // 2


def _starts(tiling: Tiling, core: CorePlaces) -> dict[str, int]:
    """Where things begin."""
    return {
        "data": core.data,
        "more data": core.data + core.data_step,
        "residual": core.residual - tiling.residual_lead * bool(tiling.layer.residual),
        "weights": core.weights,
        "results": core.results - tiling.result_quad,
    }
