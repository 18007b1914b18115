"""Options of what layers multiply: of precision, and of quantisation, which `quantise` and `compile` share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.passes.quantisation.settings import Settings

QUANTISING = "How to quantise"


class Precision(StrEnum):
    """What layers multiply."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="fp32|bf16|int8",
        help="What layers multiply; bf16 takes a target that has it, int8 takes --calib.",
        rich_help_panel=QUANTISING,
    ),
]


def with_precision(passes: str | None, precision: Precision, target: str) -> str | None:
    """The pipeline of a command that compiles a model as it is. UsageError for int8, and for a target without bfloat16."""
    if precision is Precision.int8:
        raise UsageError("int8 models are made from data: give the file that `sparsec quantise` writes, without --precision")
    if precision is Precision.fp32:
        return passes
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.compiler.driver import with_bfloat16

    CpuTarget.named(target).require_bfloat16()
    return with_bfloat16(passes)


@dataclass(frozen=True)
class Quantising:
    """How to quantise."""

    method: Annotated[
        str | None,
        typer.Option(
            metavar="mse|minmax|percentile|entropy",
            help="How the range that bytes cover is chosen from the data: least squared error (default), all of it, "
            "without the tails, or least divergence.",
            show_default=False,
            rich_help_panel=QUANTISING,
        ),
    ] = None
    percentile: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="What --method percentile keeps, in per cent; 99.99 by default.",
            show_default=False,
            rich_help_panel=QUANTISING,
        ),
    ] = None
    per_tensor: Annotated[
        bool,
        typer.Option("--per-tensor", help="One scale for all weights of a layer, not one a channel.", rich_help_panel=QUANTISING),
    ] = False
    power_of_two: Annotated[
        bool,
        typer.Option(
            "--power-of-two", help="Only scales that are powers of two, as accelerators need.", rich_help_panel=QUANTISING
        ),
    ] = False
    reduce_range: Annotated[
        bool,
        typer.Option(
            "--reduce-range",
            help="Weights from -64 to 64, which x86 CPUs without VNNI multiply faster.",
            rich_help_panel=QUANTISING,
        ),
    ] = False
    correct_bias: Annotated[
        bool | None,
        typer.Option(
            "--correct-bias/--no-correct-bias",
            help="Move the mean errors of layers into their biases; on by default.",
            show_default=False,
            rich_help_panel=QUANTISING,
        ),
    ] = None
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|auto:DB|auto:METRIC:X|GLOB",
            help="Layers that stay float: the N that bytes hurt most, as many of them as it takes for outputs of DB decibels "
            "of signal to noise, or for a loss of at most X of accuracy (with --labels), kl, mse or cosine, or those whose ONNX "
            "node name fits. Repeatable.",
            show_default=False,
            rich_help_panel=QUANTISING,
        ),
    ] = None

    @property
    def labelled(self) -> bool:
        """Whether --labels are wanted."""
        return any(entry.startswith("auto:accuracy:") for entry in self.keep_float or ())

    def settings(self, precision: Precision, calib: Path | None, labels: str | None) -> Settings | None:
        """The settings that the options and --labels ask for, None for other precisions. UsageError for what cannot be."""
        asked = [f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) not in (f.default, [])]
        if precision is not Precision.int8:
            if asked:
                raise UsageError(f"--{asked[0]} says how to quantise: give --precision int8 and --calib DATA")
            return None
        if calib is None:
            raise UsageError("quantising needs inputs to see what ranges values have: give --calib DATA")
        from sparsec.passes.quantisation.ranges import Method
        from sparsec.passes.quantisation.settings import KeepFloat, Settings

        if self.percentile is not None and self.method != Method.percentile:
            raise UsageError("--percentile is for --method percentile")
        if self.method is not None and self.method not in list(Method):
            raise UsageError(f"--method {self.method!r} is not known: expected {', '.join(Method)}")
        default = Settings()
        return Settings(
            method=Method(self.method) if self.method else default.method,
            percentile=default.percentile if self.percentile is None else self.percentile,
            per_channel=not self.per_tensor,
            power_of_two=self.power_of_two,
            reduce_range=self.reduce_range,
            correct_bias=self.correct_bias is not False,
            keep_float=KeepFloat.parse(self.keep_float or [], labels if self.labelled else None),
        )
