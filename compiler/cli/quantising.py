"""Options of what layers multiply: of precision, and of quantisation, which `quantise` and `compile` share."""

from __future__ import annotations

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
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="mse|minmax|percentile|entropy",
        help="How the range that bytes cover is chosen from the data: least squared error (default), all of it, without the "
        "tails, or least divergence.",
        show_default=False,
        rich_help_panel=QUANTISING,
    ),
]
PercentileOption = Annotated[
    float | None,
    typer.Option(
        "--percentile",
        metavar="P",
        help="What --method percentile keeps, in per cent; 99.99 by default.",
        show_default=False,
        rich_help_panel=QUANTISING,
    ),
]
PerTensorOption = Annotated[
    bool,
    typer.Option("--per-tensor", help="One scale for all weights of a layer, not one a channel.", rich_help_panel=QUANTISING),
]
PowerOption = Annotated[
    bool,
    typer.Option("--power-of-two", help="Only scales that are powers of two, as accelerators need.", rich_help_panel=QUANTISING),
]
BiasOption = Annotated[
    bool | None,
    typer.Option(
        "--correct-bias/--no-correct-bias",
        help="Move the mean errors of layers into their biases; on by default.",
        show_default=False,
        rich_help_panel=QUANTISING,
    ),
]
KeepFloatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float",
        metavar="N|auto:DB|GLOB",
        help="Layers that stay float: the N that bytes hurt most, as many of them as it takes for outputs of DB decibels of "
        "signal to noise, or those whose ONNX node name fits. Repeatable.",
        show_default=False,
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


def parse_settings(
    precision: Precision,
    calib: Path | None,
    method: str | None,
    percentile: float | None,
    per_tensor: bool,
    power_of_two: bool,
    correct_bias: bool | None,
    keep_float: list[str] | None,
) -> Settings | None:
    """The settings that the options ask for, None for other precisions than int8. UsageError for what does not go together."""
    given = {
        "method": method,
        "percentile": percentile,
        "per-tensor": per_tensor or None,
        "power-of-two": power_of_two or None,
        "correct-bias": correct_bias,
        "keep-float": keep_float or None,
    }
    asked = [option for option, value in given.items() if value is not None]
    if precision is not Precision.int8:
        if asked:
            raise UsageError(f"--{asked[0]} says how to quantise: give --precision int8 and --calib DATA")
        return None
    if calib is None:
        raise UsageError("quantising needs inputs to see what ranges values have: give --calib DATA")
    from sparsec.passes.quantisation.ranges import Method
    from sparsec.passes.quantisation.settings import KeepFloat, Settings

    if percentile is not None and method != Method.percentile:
        raise UsageError("--percentile is for --method percentile")
    if method is not None and method not in list(Method):
        raise UsageError(f"--method {method!r} is not known: expected {', '.join(Method)}")
    default = Settings()
    return Settings(
        method=Method(method) if method else default.method,
        percentile=default.percentile if percentile is None else percentile,
        per_channel=not per_tensor,
        power_of_two=power_of_two,
        correct_bias=correct_bias is not False,
        keep_float=KeepFloat.parse(keep_float or []),
    )
