"""Arguments and options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.runtime import CompiledModel
    from sparsec.passes.pruning.recipe import Recipe

COMPILING, TUNING, PRUNING = "What to compile for", "How to compile", "What to prune"

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)]
SubjectArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL|DIR", help="An .onnx file, or a folder that `sparsec compile` wrote.", show_default=False),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target", metavar="TARGET", help="Machine to compile for (`sparsec targets` lists them).", rich_help_panel=COMPILING
    ),
]
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads", "-j", min=1, metavar="N", help="Threads that the library uses (OpenMP).", rich_help_panel=COMPILING
    ),
]
DimOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        metavar="NAME=N",
        help="Extent of a dynamic dimension, as batch=1. Repeatable.",
        show_default=False,
        rich_help_panel=COMPILING,
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=N,N,...", help="Shape of an input, as x=1,3,224,224. Repeatable.", show_default=False,
        rich_help_panel=COMPILING,
    ),
]  # fmt: skip
PassesOption = Annotated[
    str | None,
    typer.Option(
        "--passes",
        metavar="TEXT",
        help="Pipeline to run instead of the default one: names from `sparsec passes` with commas, options in braces.",
        show_default=False,
        rich_help_panel=TUNING,
    ),
]
KernelsOption = Annotated[
    str | None,
    typer.Option(
        "--kernels",
        metavar="FAMILY,...",
        help="Use only these families of kernels where one of them applies, as sparse-panels,winograd; a wrong name lists all.",
        show_default=False,
        rich_help_panel=TUNING,
    ),
]
CcOption = Annotated[
    str | None,
    typer.Option(
        "--cc", metavar="COMPILER", help="C compiler to call, as clang-16. Default: $CC, cc, gcc, clang.", show_default=False,
        rich_help_panel=TUNING,
    ),
]  # fmt: skip
PatternOption = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="PATTERN",
        help="Prune to this pattern: 2:4, 2:4/rows=32, block:8x8@50%, block:8x8@50%/taps=each, block:8x8/2:4, nmg:1:4:16, "
        "hinm:32:2:4@75%, unstructured@90%, flexisaga:16x16:sWS@75% (@ gives the share of weights to drop).",
        show_default=False,
        rich_help_panel=PRUNING,
    ),
]
LayerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="GLOB=PATTERN",
        help="Another pattern (or dense) for the layers whose ONNX node name fits, as '/layer4/*=2:4'. Repeatable.",
        show_default=False,
        rich_help_panel=PRUNING,
    ),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Prune as a TOML file says (docs/pruning.md), instead of by the other options.",
        show_default=False,
        rich_help_panel=PRUNING,
    ),
]
PermuteOption = Annotated[
    str | None,
    typer.Option(
        "--permute",
        metavar="gyro|swap|stripe|none",
        help="Put channels into an order first in which the patterns keep more; the compiled model is as fast as without.",
        show_default=False,
        rich_help_panel=PRUNING,
    ),
]
CalibOption = Annotated[
    Path | None,
    typer.Option(
        "--calib",
        metavar="DATA",
        help="Inputs to prune or quantise for, without labels: FILE.npz (arrays by input name), FILE.npy, or a folder of them.",
        show_default=False,
        rich_help_panel=PRUNING,
    ),
]
LimitsOption = Annotated[
    str | None,
    typer.Option(
        "--limits",
        metavar="KEY=N,...",
        help="Bounds on what a model may ask for, as tensor-bytes=8G,nodes=1000 (docs/guide.md lists them).",
        show_default=False,
        rich_help_panel=TUNING,
    ),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        min=0.0,
        metavar="X",
        help="Largest accepted max|difference| / max|reference| of an output: 1e-4, or 0.25 where layers sum integers or "
        "multiply bfloat16.",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of random inputs.")]
FeedOption = Annotated[
    list[str] | None,
    typer.Option(
        "--feed",
        "-i",
        metavar="FILE",
        help="Inputs: FILE.npz (arrays by input name), NAME=FILE.npy, or FILE.npy. Repeatable; random inputs without it.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)


def parse_size(text: str, option: str) -> int:
    """`8M`, `512KiB`, `4096` -> bytes (or a count), with binary prefixes."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{option} takes a number such as 4096, 512K or 8M, not {text!r}")
    return int(found[1]) << (10 * " KMGT".index(found[2].upper() or " "))


def parse_dims(entries: Sequence[str] | None) -> dict[str, int]:
    """`batch=1` entries -> symbol to extent."""
    found: dict[str, int] = {}
    for entry in entries or ():
        name, _, value = entry.rpartition("=")
        if not name or not value.strip().isdecimal():
            raise UsageError(f"--dim takes NAME=N, as batch=1, not {entry!r}")
        found[name] = int(value)
    return found


def parse_shapes(entries: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`x=1,3,224,224` entries -> input name to shape (`x=` is a scalar)."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in entries or ():
        name, equals, value = entry.rpartition("=")
        parts = [p.strip() for p in value.split(",")] if value.strip() else []
        if not equals or not name or not all(p.isdecimal() for p in parts):
            raise UsageError(f"--input takes NAME=N,N,..., as x=1,3,224,224, not {entry!r}")
        found[name] = tuple(map(int, parts))
    return found


def parse_kernels(text: str | None) -> tuple[str, ...]:
    """`panels,winograd` -> the names; the target knows which there are."""
    if text is None:
        return ()
    names = tuple(n.strip() for n in text.split(","))
    if not all(names):
        raise UsageError(f"--kernels takes families with commas, as panels,winograd, not {text!r}")
    return names


def parse_recipe(
    pattern: str | None, layer: Sequence[str] | None, file: Path | None, more: Mapping[str, object] | None = None
) -> Recipe | None:
    """The recipe that --pattern, --layer, --recipe and what else is not None in `more` ask for; None when they are not given."""
    from sparsec.passes.pruning.recipe import make_recipe, read_recipe

    given = {k: v for k, v in (more or {}).items() if v is not None}
    if file is not None:
        if pattern or layer or given:
            raise UsageError(f"--recipe {file} says all: leave --pattern, --layer and the other pruning options out")
        return read_recipe(file)
    if not pattern and not layer:
        return None
    rules = [dict(zip(("match", "pattern"), _split_rule(entry), strict=True)) for entry in layer or ()]
    return make_recipe({**({"pattern": pattern} if pattern else {}), "layer": rules, **given})


def _split_rule(entry: str) -> tuple[str, str]:
    """GLOB=PATTERN apart; both may hold an =, so that the first one with a pattern behind it counts (or the first one)."""
    from sparsec.compiler.sparsity.text import parse_goal

    splits = [(entry[:i], entry[i + 1 :]) for i, c in enumerate(entry) if c == "=" and i]
    if not splits:
        raise UsageError(f"--layer takes GLOB=PATTERN, as '/layer4/*=2:4', not {entry!r}")
    for split in splits:
        try:
            parse_goal(split[1])
        except UsageError:
            continue
        return split
    return splits[0]


@dataclass(frozen=True)
class CompileOptions:
    """The options of a compilation as the user wrote them; `arguments` are the driver's."""

    target: str = "host"
    threads: int = 1
    dim: Sequence[str] | None = None
    shape: Sequence[str] | None = None
    passes: str | None = None
    cc: str | None = None
    limits: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `driver.compile`. UsageError for text that cannot be read."""
        from sparsec.compiler.limits import Limits

        return {
            "target": self.target,
            "threads": self.threads,
            "dims": parse_dims(self.dim),
            "input_shapes": parse_shapes(self.shape),
            "passes": self.passes,
            "cc": self.cc,
            "limits": Limits.parse(self.limits or ""),
            **self.more,
        }

    def array_arguments(self, *refused: str, bfloat16: bool = False) -> dict[str, Any]:
        """Keyword arguments of the drivers for arrays. UsageError for options that say something about C libraries only, and
        for those named in `refused`; `bfloat16` says whether they multiply that."""
        arguments = self.arguments()
        given = {"weights": arguments.pop("weights", "incbin") != "incbin", "threads": arguments.pop("threads") != 1}
        given |= {name: bool(arguments.pop(name, None)) for name in ("dump_ir", "kernels", "max_arena", *refused)}
        for name, is_given in given.items():
            if is_given:
                raise UsageError(f"--{name.replace('_', '-')} is for C libraries: leave it out for {self.target}")
        if not bfloat16 and arguments.pop("bfloat16", False):
            raise UsageError(
                f"--precision bf16 is for C libraries and AI-Engine arrays: {self.target} does not multiply bfloat16"
            )
        return arguments

    def compile(self, model: object, folder: Path | None, progress: Callable[[str], None]) -> CompiledModel:
        """Compile a path or ModelProto into `folder` (None: build/NAME)."""
        from sparsec.compiler import driver

        return driver.compile(model, folder, progress=progress, **self.arguments())  # type: ignore[arg-type]
