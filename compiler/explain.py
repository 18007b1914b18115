"""Why a layer is computed as it is, in words for people: what became of the zeros of its weights."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.compiler.report import CandidateInfo
from sparsec.compiler.sparsity.detect import MIN_SPARSITY
from sparsec.compiler.sparsity.facts import WeightFacts

FEW_ZEROS = "its weights hold no zeros"


def why_dense(facts: WeightFacts, candidates: Sequence[CandidateInfo]) -> str:
    """Why a layer's zeros are not left out; "" when they are. `candidates` as in the report: the chosen one is the first."""
    if not facts.sparse:
        zeros = 1 - facts.density
        few = f"only {share(zeros)} of its weights are zero: sparse kernels are tried from {share(MIN_SPARSITY)} on"
        return few if zeros else FEW_ZEROS
    chosen = candidates[0]
    if chosen.sparse:
        return ""
    kept = f"{facts.pattern or 'no pattern'} keeps {share(facts.density)}"
    rivals = [c for c in candidates if c.sparse]
    if not rivals:
        return f"{kept}, but {facts.unused or chosen.note or 'no sparse kernel was considered (--kernels)'}"
    best = min(rivals, key=lambda c: c.us)
    limit = f"{best.note}: " if best.note else ""
    return f"{kept}, but {limit}{best.kernel} predicted {duration(best.us)}, {chosen.kernel} {duration(chosen.us)}"


def share(part: float) -> str:
    """0.253 -> 25 %; what is less than one per cent keeps a digit."""
    return f"{100 * part:.2g} %" if 0 < part < 0.01 else f"{100 * part:.0f} %"


def duration(us: float) -> str:
    """Microseconds in the unit that suits, three digits."""
    return f"{us / 1e3:.3g} ms" if us >= 1e3 else f"{us:.3g} us"
