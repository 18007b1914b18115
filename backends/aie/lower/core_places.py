"""Where everything is in the data memory of cores: in banks of its own where there is room, and beside what the layer before has.

A layer's words may come to a core while it still computes the last tile of the layer before, if they find a place there that
this one has done with. So of the orders in which things may lie, that one is taken in which the first buffer of data and the
first page of weights meet nothing that is in use then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from sparsec.backends.aie.descriptor_forms import CORE_STEP_BYTES
from sparsec.backends.aie.lower.tiling import SUM_BYTES, Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

Span = tuple[int, int]  # the first byte, and that behind the last

_ALIGN = 32
_EARLY = ("data", "more data", "weights", "residual")  # what may come early: buffers of data, the first page, the residual
_ORDER = ("data", "more data", "residual", "weights", "results")
_APART = (  # what is not to share a bank: both buffers of data; what is loaded, or stored, at a time
    ("data", "more data"),
    *((data, other) for data in ("data", "more data") for other in ("residual", "half", "other half", "results")),
    *((half, "results") for half in ("half", "other half")),
    ("residual", "results"),
    ("half", "other half"),
)


@dataclass(frozen=True, slots=True)
class CorePlaces:
    """Byte addresses in every core's data memory: of the first buffer of each kind, and the bytes to the next one."""

    data: int
    data_step: int
    skipped: int
    residual: int
    weights: int
    results: int
    results_step: int
    partial: tuple[int, int]
    parameters: int


def in_core(machine: Machine, tiling: Tiling, used: Used | None = None) -> CorePlaces:
    """Buffers in a core, data and weights in banks of their own where they fit, so that loads and DMA do not meet; what comes
    first beside what is `used`, if there is an order for that in which no more things share banks. FitError where they are too
    large."""
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
    if used is None or all(beside := comes_beside(tiling, usual, used)) or tiling.half_sums or tiling.buffers > 2:
        return usual
    likely = [_EARLY, _EARLY[:-1], _EARLY[:-2]] if tiling.mode.own else [_EARLY[:-1], _EARLY[:-2]]
    bank, by = size // machine.core.data_banks, used.by(tiling)
    there = _pieces(tiling, _starts(tiling, usual))
    apart = [pair for pair in _APART if not _share_bank(there, pair, bank)]
    for wanted in likely[: likely.index(_EARLY[:-2]) + (not beside[0])]:
        for order in permutations(_ORDER):
            made = _arranged(tiling, order, {name: by[name] for name in wanted}, apart, bank, size - demand["parameters"])
            if made is not None:
                return made
    return usual


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

    def by(self, tiling: Tiling) -> dict[str, tuple[Span, ...]]:
        """What things of the next layer are not to meet."""
        more = self.second if tiling.buffers > 1 else ()
        return {"data": self.first, "more data": more, "weights": self.weights, "residual": self.weights}


def comes_beside(tiling: Tiling, core: CorePlaces, used: Used) -> tuple[bool, bool, bool]:
    """Whether the units of data that fill the buffers of a layer, the first page of weights, and the residual, meet nothing that
    is used."""
    by = used.by(tiling)
    met = {name: _overlaps(span, by[name]) for name, span in _early(tiling, _starts(tiling, core)).items()}
    return not (met["data"] or met["more data"]), not met["weights"], not met["residual"]


def _early(tiling: Tiling, starts: Mapping[str, int]) -> dict[str, Span]:
    """Spans of what may come early."""
    unit, page = tiling.unit_bytes, max(tiling.page_bytes)
    length = {"data": unit, "more data": (tiling.buffers - 1) * unit, "weights": page}
    length["residual"] = tiling.core_demand["residual"]
    return {name: (starts[name], starts[name] + length[name]) for name in _EARLY if name in starts}


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
        data + (tiling.buffers - 1) * step + tiling.unit_bytes,
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


def _pieces(tiling: Tiling, starts: Mapping[str, int]) -> dict[str, Span]:
    """Spans of what is there: of weights in a ring both halves, of which one comes while the other is read."""
    demand, first = tiling.core_demand, tiling.paging.first_half
    found = {name: (at, at + demand[name]) for name, at in starts.items() if name in ("residual", "results")}
    found |= {name: (at, at + tiling.unit_bytes) for name, at in starts.items() if name == "data"}
    if tiling.buffers > 1 and "more data" in starts:
        found["more data"] = starts["more data"], starts["more data"] + (tiling.buffers - 1) * tiling.unit_bytes
    if "weights" in starts:
        at = starts["weights"]
        found |= {"half": (at, at + first), "other half": (at + first, at + demand["weights"])}
    return {name: span for name, span in found.items() if span[1] > span[0]}


def _share_bank(pieces: Mapping[str, Span], pair: tuple[str, str], bank: int) -> bool:
    """Whether two things have bytes in one bank."""
    if not all(name in pieces for name in pair):
        return False
    (a, b), (c, d) = (pieces[name] for name in pair)
    return a // bank <= (d - 1) // bank and c // bank <= (b - 1) // bank


def _arranged(
    tiling: Tiling,
    order: Sequence[str],
    beside: Mapping[str, Sequence[Span]],
    apart: Sequence[tuple[str, str]],
    bank: int,
    end: int,
) -> CorePlaces | None:
    """Things in an order, each as soon as pairs that are to be `apart` are, and what comes first of it is `beside` what is used;
    None where that is no order for them, or leads beyond the `end`."""
    demand, several = tiling.core_demand, tiling.buffers > 1
    tail = demand["data"] - tiling.buffers * tiling.unit_bytes  # behind the last buffer: what is passed over, or read too far
    length = {
        "data": tiling.unit_bytes + (0 if several else tail),
        "more data": (tiling.buffers - 1) * tiling.unit_bytes + tail if several else 0,
        "residual": demand["residual"],
        "weights": demand["weights"],
        "results": demand["results"],
    }
    if order.index("data") > order.index("more data"):
        return None
    there: dict[str, int] = {}
    at = 0
    for name in order:
        used = beside.get(name, ())
        at = max(at, _ALIGN) if name == "weights" else at  # a step before those of the first chunk is read, too
        for start in _likely(at, tiling.paging.first_half if name == "weights" else 0, bank, used):
            more = there | {name: start}
            if not any(_share_bank(_pieces(tiling, more), pair, bank) for pair in apart):
                if not used or not _overlaps(_early(tiling, more)[name], used):
                    break
        else:
            return None
        if start + length[name] > end:
            return None
        there[name] = start
        at = start + length[name] if length[name] else at
    step = there["more data"] - there["data"] if several else tiling.unit_bytes
    if step > CORE_STEP_BYTES:
        return None
    none = (SUM_BYTES // 2, SUM_BYTES // 2)  # there are no partial sums
    return _places(
        tiling, there["data"], step, there["residual"], there["weights"], there["results"], none, end + demand["parameters"]
    )


def _likely(at: int, first: int, bank: int, used: Sequence[Span]) -> Iterator[int]:
    """Where a thing may begin from `at` on: there, behind what is used, and where it, or what is behind its first bytes, begins a
    bank."""
    at = -(-at // _ALIGN) * _ALIGN
    banks = {at + -(at + first) % bank + n * bank for n in range(8)} | {at + -at % bank + n * bank for n in range(8)}
    yield from sorted({at, *banks, *(-(-span[1] // _ALIGN) * _ALIGN for span in used if span[1] > at)})
