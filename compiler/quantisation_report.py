"""What quantisation did, layer by layer and in total."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["int8", "float"]


class ValueReport(BaseModel):
    """One value that becomes bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    low: float = Field(description="smallest number on the calibration data")
    high: float = Field(description="largest")
    scale: float
    zero_point: int
    saturated: float = Field(description="share of the numbers on the calibration data outside what bytes cover")


class QuantisedLayer(BaseModel):
    """One layer that multiplies by constant weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field(description="ONNX node that multiplies by the weights")
    status: Status
    shape: tuple[int, ...] = Field(default=(), description="of the weights")
    x_scale: float | None = Field(default=None, description="scale of the data; none for a layer that stays float")
    x_zero_point: int | None = None
    w_scale_low: float | None = Field(default=None, description="smallest scale of the weights' output channels")
    w_scale_high: float | None = Field(default=None, description="largest")
    zeros: float | None = Field(default=None, description="share of zeros among the weights before")
    zeros_quantised: float | None = Field(default=None, description="the same of the integers")
    sqnr: float | None = Field(
        default=None,
        description="signal to quantisation noise of the result, dB, on the float model's inputs; none without noise",
    )
    bias_shift: float | None = Field(
        default=None, description="largest correction of a bias, as a share of the result's root mean square"
    )
    remarks: tuple[str, ...] = Field(default=(), description="why it stays float")


class QuantisationReport(BaseModel):
    """All layers with weights, in the order of the graph, and all values that are bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    samples: int = Field(description="samples of calibration data")
    layers: tuple[QuantisedLayer, ...]
    values: tuple[ValueReport, ...]
    sqnr: float | None = Field(
        default=None, description="signal to quantisation noise of the outputs on calibration data, dB; none without noise"
    )
    metric: str | None = Field(default=None, description="by which a largest loss was asked for")
    loss: float | None = Field(
        default=None, description="what the outputs lose by it on calibration data, against the float model"
    )

    @property
    def quantised(self) -> tuple[QuantisedLayer, ...]:
        """The layers that multiply integers."""
        return tuple(layer for layer in self.layers if layer.status == "int8")
