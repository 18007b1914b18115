"""The plans of a layer: their families, which `--kernels` chooses from, and each as the `Candidate` that reports show.

A new kind of plan registers what it is called in `FAMILIES` and what is said of it with `describe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Protocol, TypeVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.linear import LinearPlan
from sparsec.backends.cpu.lower.planar import PlanarPlan
from sparsec.backends.cpu.lower.winograd import WinogradPlan
from sparsec.compiler.schedule import Candidate

FAMILIES = {
    "panels": "tiles of positions times panels of outputs, all weights",
    "sparse-panels": "the same, without the weight rows that are zero throughout a panel",
    "planar": "positions in the lanes, without any weight that is zero",
    "winograd": "3x3 convolutions with fewer multiplications, all weights",
    "sparse-winograd": "the same, without the input channels that are zero throughout a panel",
}
_FILLED = 1.1  # a panel that reads so much more than its nonzero weights' share is worth a remark


class Plan(Protocol):
    """A way to compute a layer."""

    @property
    def cycles(self) -> float:
        """Predicted cycles of one thread."""


P = TypeVar("P", bound=Plan)


@dataclass(frozen=True, slots=True)
class Facts:
    """What plans are measured against: `rows` weight rows that an output has, and the share of weights that are not zero."""

    rows: int
    density: float
    isa: Isa

    def reads(self, share: float, vectors: int, what: str) -> str:
        """What panels of so many vectors of outputs read of the layer's rows (or channels: `what`), in words."""
        outputs = vectors * self.isa.lanes
        verb = "fill in to" if share > _FILLED * self.density else "read"
        return f"panels of {outputs} output{'s' if outputs > 1 else ''} {verb} {100 * share:.0f} % of the {what}"


@singledispatch
def describe(plan: object, facts: Facts) -> tuple[str, str, bool, str]:
    """(family, kernel in words, whether it leaves zeros out, what it does with the layer in words) of a plan."""
    raise TypeError(f"no description of {type(plan).__name__}")


@describe.register
def _(plan: LinearPlan, facts: Facts) -> tuple[str, str, bool, str]:
    if not plan.problem.sparse:
        return "panels", f"dense panels{plan.problem.types.kernel}", False, ""
    note = facts.reads(plan.problem.rows / facts.rows, plan.parts[0].kernel.r, "weight rows")
    return "sparse-panels", f"sparse panels{plan.problem.types.kernel}", True, note


@describe.register
def _(plan: WinogradPlan, facts: Facts) -> tuple[str, str, bool, str]:
    tiling = plan.parts[0][0].tiling
    m = tiling.m
    if not plan.listed:
        return "winograd", f"winograd F({m}x{m})", False, f"multiplies {9 * m**2 / (m + 2) ** 2:.3g} times less than panels"
    note = facts.reads(plan.kept / plan.in_channels, tiling.r, "input channels")
    return "sparse-winograd", f"sparse winograd F({m}x{m})", True, note


@describe.register
def _(plan: PlanarPlan, facts: Facts) -> tuple[str, str, bool, str]:
    lists = plan.choice.lists
    outputs, kernel = f"{lists.r} output{'s' if lists.r > 1 else ''}", f"planar{plan.layer.types.kernel}"
    if len(lists.masks) > 1:
        return "planar", kernel, True, f"panels of {outputs} list the inputs of every subset of them: no zero is multiplied"
    stored = lists.weights / max(plan.layer.oc * facts.rows, 1)
    verb = "fill in to" if stored > _FILLED * facts.density else "read"
    return "planar", kernel, True, f"panels of {outputs} {verb} {100 * stored:.0f} % of the weight rows"


def wanted(plans: Sequence[P], facts: Facts, kernels: frozenset[str] | None) -> list[P]:
    """The plans of the families `kernels`; none where these are not restricted (None)."""
    return [p for p in plans if describe(p, facts)[0] in (kernels or ())]


def considered(plans: Sequence[P], facts: Facts, kernels: frozenset[str] | None) -> list[P]:
    """The plans of the families `kernels`, or all (None, and where none of them applies)."""
    return wanted(plans, facts, kernels) or list(plans)


def candidates(plans: Sequence[P], best: P, facts: Facts) -> tuple[Candidate, ...]:
    """What was considered: the chosen plan, then the others by their predicted cycles."""
    ordered = [best, *sorted((p for p in plans if p is not best), key=lambda p: p.cycles)]
    return tuple(_candidate(p, facts) for p in ordered)


def elsewhere(found: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Candidates of which all but the chosen one read or write other storage orders than the graph was given."""
    first, *others = found
    why = "want the operands in channel blocks, and converting these would cost more than it saves"
    return (first, *(replace(c, note=f"{c.kernel} {why}") for c in others))


def _candidate(plan: Plan, facts: Facts) -> Candidate:
    _, kernel, sparse, note = describe(plan, facts)
    return Candidate(kernel, plan.cycles, sparse, note)
