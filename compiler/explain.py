"""Why layers are computed as they are, in words for people: what became of the zeros of their weights, and what it gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparsec.compiler.pruning_report import LayerReport
from sparsec.compiler.report import CandidateInfo, Layer
from sparsec.compiler.sparsity.detect import MIN_SPARSITY
from sparsec.compiler.sparsity.facts import WeightFacts

_NO_ZEROS = "its weights hold no zeros"
_SLOWER, _NO_GAIN = 0.97, 0.005  # ratios nearer to 1 are noise (measured), and not worth a number
_FILL_IN = (
    "Fill in: a weight row is what the outputs of a panel multiply one input by, and is left out only where all of it is zero. "
    "Patterns that choose for as many outputs at once lose nothing: 2:4/rows=16 or block:16x4 in panels of 16 outputs. Planar "
    "kernels leave out every zero, but load an input for every few products, so they want more zeros to be faster."
)
_WINOGRAD = (
    "Winograd computes a 3x3 convolution with 2.25 to 4 times fewer multiplications, so panels have to leave out more than that "
    "to be faster. Sparse winograd leaves out input channels that are zero in all nine taps for all outputs of a panel: blocks."
)


def why_dense(facts: WeightFacts, candidates: Sequence[CandidateInfo]) -> str:
    """Why a layer's zeros are not left out; "" when they are. `candidates` as in the report: the chosen one is the first."""
    if not facts.sparse:
        zeros = 1 - facts.density
        few = f"only {share(zeros)} of its weights are zero: sparse kernels are tried from {share(MIN_SPARSITY)} on"
        return few if zeros else _NO_ZEROS
    chosen = candidates[0]
    if chosen.sparse:
        return ""
    kept = f"{facts.pattern or 'no pattern'} keeps {share(facts.density)}"
    rivals = [c for c in candidates if c.sparse]
    if not rivals:
        return f"{kept}, but {facts.unused or chosen.note or 'no sparse kernel was considered (--kernels)'}"
    best = min(rivals, key=lambda c: c.us)
    limit = f"{best.note}: " if best.note else ""
    but = "but " if best.us > chosen.us else ""
    return f"{kept}; {limit}{best.kernel} predicted {duration(best.us)}, {but}{chosen.kernel} {duration(chosen.us)}"


def share(part: float) -> str:
    """0.253 -> 25 %; what is less than one per cent keeps a digit."""
    return f"{100 * part:.2g} %" if 0 < part < 0.01 else f"{100 * part:.0f} %"


def duration(us: float) -> str:
    """Microseconds in the unit that suits, three digits."""
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} us"


@dataclass(frozen=True, slots=True)
class Row:
    """A layer with what was measured, in microseconds (None: nothing was), and why pruning left it alone ("" where not)."""

    layer: Layer
    us: float | None = None
    dense_us: float | None = None
    pruning: str = ""

    @property
    def kernel(self) -> str:
        """The chosen kernel in words; "" for a view."""
        return self.layer.candidates[0].kernel if self.layer.candidates else ""

    @property
    def remark(self) -> str:
        """What the kernel does with the layer."""
        return self.layer.candidates[0].note if self.layer.candidates and self.layer.density is not None else ""

    @property
    def wasted(self) -> bool:
        """Whether there are zeros that are not used."""
        return bool(self.layer.why) and self.layer.density is not None and self.layer.density <= 1 - MIN_SPARSITY

    @property
    def why(self) -> str:
        """The layer's reason, and pruning's."""
        return f"{self.layer.why}; not pruned: {self.pruning}" if self.pruning and self.layer.why else self.layer.why

    @property
    def predicted_gain(self) -> float | None:
        """Predicted time of the best dense kernel over that of the layer; None where no dense kernel was considered."""
        return None if self.layer.dense_us is None else _ratio(self.layer.dense_us, self.layer.predicted_us)

    @property
    def measured_gain(self) -> float | None:
        """The same as measured."""
        return None if self.us is None or self.dense_us is None else _ratio(self.dense_us, self.us)


def _ratio(a: float, b: float) -> float:
    return a / b if b else 1.0


def rows_of(
    layers: Iterable[Layer],
    pruning: Sequence[LayerReport] = (),
    measured: Sequence[float] | None = None,
    dense: Mapping[str, float] | None = None,
) -> list[Row]:
    """A row a layer that runs something. `measured`: microseconds of every layer; `dense`: of the dense form's, by name."""
    left = {r.node: "; ".join(r.remarks) for r in pruning if r.status != "pruned" and r.remarks}
    rows = []
    for i, layer in enumerate(layers):
        if layer.calls:
            remark = next((left[name] for name in (*layer.origin, layer.node) if name in left), "")
            rows.append(Row(layer, measured[i] if measured else None, (dense or {}).get(layer.node), remark))
    return rows


@dataclass(frozen=True, slots=True)
class Sums:
    """Microseconds of all layers: of the model, of its dense form, and the part of the model's that sparse layers take."""

    us: float
    dense_us: float
    sparse_us: float

    @property
    def gain(self) -> float:
        """How many times faster than its dense form."""
        return _ratio(self.dense_us, self.us)

    @property
    def sparse_share(self) -> float:
        """Share of the time that is spent in sparse layers."""
        return self.sparse_us / self.us if self.us else 0.0

    @property
    def rest_us(self) -> float:
        """What all else takes."""
        return self.us - self.sparse_us


def predicted_sums(rows: Sequence[Row]) -> Sums:
    """As the cost model has it."""
    us = sum(r.layer.predicted_us for r in rows)
    dense = sum(r.layer.predicted_us if r.layer.dense_us is None else r.layer.dense_us for r in rows)
    return Sums(us, dense, sum(r.layer.predicted_us for r in rows if r.layer.sparse))


def measured_sums(rows: Sequence[Row], dense_us: float) -> Sums:
    """As measured; `dense_us` is what all layers of the dense form took."""
    return Sums(sum(r.us or 0.0 for r in rows), dense_us, sum(r.us or 0.0 for r in rows if r.layer.sparse))


def sentence(sums: Sums, how: str) -> str:
    """The sums in words; `how` is predicted or measured."""
    if not sums.sparse_us:
        return f"{how}: {duration(sums.us)}, none of it in sparse layers"
    gain = f"{sums.gain:.2f} times faster" if sums.gain >= 1 else f"{1 / sums.gain:.2f} times slower"
    gain = "no gain" if abs(sums.gain - 1) < _NO_GAIN else gain
    return (
        f"{how}: {duration(sums.us)}, in dense form {duration(sums.dense_us)}: {gain}. Sparse layers take "
        f"{share(sums.sparse_share)} of the time; more zeros in them cannot shorten the other {duration(sums.rest_us)}"
    )


def unused(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Layers whose zeros are not used, by reason."""
    return _grouped((r.why, r.layer.node) for r in rows if r.wasted)


def without_zeros(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Layers without zeros to speak of, by reason."""
    return _grouped((r.why, r.layer.node) for r in rows if r.layer.why and not r.wasted)


def slower(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Sparse layers that were measured to be slower than their dense form, against the prediction."""
    found = []
    for r in rows:
        predicted, gain = r.predicted_gain, r.measured_gain
        if r.layer.sparse and predicted is not None and gain is not None and gain < _SLOWER:
            found.append((f"{r.kernel} predicted {predicted:.2f} times as fast as dense, measured {gain:.2f}", r.layer.node))
    return _grouped(found)


def hints(reasons: Iterable[str]) -> list[str]:
    """What the words in these reasons mean, and what would help."""
    text = " ".join(reasons)
    return [hint for word, hint in (("fill in", _FILL_IN), ("but winograd", _WINOGRAD)) if word in text]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for reason, node in pairs:
        found.setdefault(reason, []).append(node)
    return found
