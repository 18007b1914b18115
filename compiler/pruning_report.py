"""What pruning did, layer by layer and in total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["pruned", "kept", "spared", "dense"]


class Retained(BaseModel):
    """Sums over weights before pruning; ratios are properties."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elements: int = Field(description="weights")
    kept: int = Field(description="weights that are not zero after pruning")
    l1: float = Field(description="sum of |w| of all weights before pruning")
    l2: float = Field(description="sum of w^2 of all weights before pruning")
    kept_l1: float = Field(description="the part of l1 that pruning kept")
    kept_l2: float = Field(description="the part of l2 that pruning kept")
    free_l1: float = Field(description="the part of l1 that dropping the smallest weights one by one would have kept")
    free_l2: float = Field(description="the same of l2")

    @property
    def density(self) -> float:
        """Nonzero share of the weights."""
        return self.kept / self.elements if self.elements else 1.0

    def ratios(self) -> tuple[float, float, float, float]:
        """Retained |w|, w^2, and what unstructured pruning at this density would have retained of both."""
        a, b = self.l1 or 1.0, self.l2 or 1.0
        return self.kept_l1 / a, self.kept_l2 / b, self.free_l1 / a, self.free_l2 / b


class LayerReport(Retained):
    """One weight tensor."""

    node: str = Field(description="ONNX node that multiplies by the weights (the first, when several do)")
    weights: str = Field(description="their name")
    shape: tuple[int, ...]
    status: Status = Field(
        description="pruned; kept: sparse enough already; spared: by rule; dense: not asked for or not possible"
    )
    asked: str = Field(default="", description="the pattern asked for")
    remarks: tuple[str, ...] = Field(default=(), description="why it was left, or what differs from what was asked for")


class ClassReport(BaseModel):
    """A class of channels that share an order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the ONNX node that makes the channels first")
    channels: int
    orders: int = Field(description="orders of its channels: one, or one for each head or group")
    weights: int = Field(description="entries of constants that the order moves")
    fixed: str = Field(default="", description="why the order cannot be changed; empty when it can")
    before: float | None = Field(default=None, description="importance that the patterns kept in the order as it was")
    after: float | None = Field(
        default=None, description="the same and what the orders found gained; none where no pattern depends on it"
    )
    seconds: float = Field(default=0.0, description="what the search took")
    finished: bool = Field(default=True, description="false when the time limit stopped the search")


class PermutationReport(BaseModel):
    """What reordering channels did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    seed: int
    seconds: float
    classes: tuple[ClassReport, ...]
    loss_in_place: float | None = Field(
        default=None, description="with calibration data: what the model loses in its old order, in a trial with some of the data"
    )
    loss: float | None = Field(default=None, description="the same in the order that was found")
    used: bool = Field(default=True, description="false where that loses more: channels stay in their old order then")

    @property
    def gained(self) -> bool:
        """Whether some class was put into another order."""
        return any(c.before is not None and c.after is not None and c.after > c.before for c in self.classes)


class CheckReport(BaseModel):
    """The loss of the final model on samples that neither it was pruned with nor the search has measured by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: tuple[int, ...] = Field(description="which: their places in the calibration data, from 0")
    dense: float | None = Field(description="the metric of the dense model on them; none of a metric that is a loss")
    loss: float
    error: float | None = Field(default=None, description="standard error of the loss, where the metric has one")
    refused: int = Field(default=0, description="sparser models that lost more than allowed on them")


class BudgetReport(BaseModel):
    """What sharing a budget out between layers did; the shares are what the layers' reports say was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    counted: str = Field(
        description="what shares are of: macs or weights of the layers that share the budget, or the network's predicted time"
    )
    target: float = Field(description="share that was allowed")
    density: float = Field(description="share that is left; of time: as predicted for the final model")
    metric: str = Field(description="its name, or that of the function")
    dense: float | None = Field(default=None, description="the metric of the dense model; none of a metric that is a loss")
    max_drop: float | None = Field(default=None, description="the loss that was allowed; none where a density was given")
    uniform: float = Field(
        description="loss by the metric, or its drop, on samples that trials are not pruned with, with the target in every layer"
    )
    loss: float = Field(description="the same with what was chosen")
    evaluations: int = Field(description="prunings that were tried")
    layers: int = Field(description="how many share the budget")
    us: float | None = Field(default=None, description="predicted microseconds of the final network, where time is counted")
    dense_us: float | None = Field(default=None, description="the same of the dense network")
    check: CheckReport | None = Field(default=None, description="none where a density was given")


class PruneReport(BaseModel):
    """All layers with weights, in the order of the graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[LayerReport, ...]
    permutation: PermutationReport | None = Field(default=None, description="none when channels stayed in their order")
    budget: BudgetReport | None = Field(default=None, description="none when the recipe said how much every layer keeps")

    @property
    def changed(self) -> tuple[LayerReport, ...]:
        """The layers that were pruned."""
        return tuple(layer for layer in self.layers if layer.status == "pruned")

    @property
    def total(self) -> Retained:
        """Sums over all layers."""
        return total(self.layers)


def total(layers: Sequence[Retained]) -> Retained:
    """Sums over layers."""
    return Retained(
        elements=sum(x.elements for x in layers),
        kept=sum(x.kept for x in layers),
        **{f: sum(getattr(x, f) for x in layers) for f in ("l1", "l2", "kept_l1", "kept_l2", "free_l1", "free_l2")},
    )
