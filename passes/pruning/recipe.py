"""What to prune and how, as options or a TOML file say it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import NM, Block, HiNM, Unstructured
from sparsec.compiler.sparsity.text import Goal, goal, parse_goal
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.pruning.calibrated.importance import Importance, Outputs, Repair
from sparsec.passes.pruning.scores import Criterion

Spared = Literal["first", "depthwise", "classifier"]
_EVERYTHING_SPARED: tuple[Spared, ...] = ("first", "depthwise", "classifier")
_NORMS = {"l1": "l1", "l2": "l2", "1": "l1", "2": "l2"}


def _goal(value: object) -> object:
    return parse_goal(value) if isinstance(value, str) else value


GoalText = Annotated[Goal, BeforeValidator(_goal)]


class _Asked(BaseModel):
    """Base of what asks for a pattern: also in the words of torch.ao's WeightNormSparsifier and of SparseML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _aliases(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        norm = data.pop("norm", None)
        if norm is not None:
            name = _NORMS.get(str(norm).lower())
            if name is None or "criterion" in data:
                raise UsageError(f"norm is {norm!r}: give L1 or L2 (or criterion instead)")
            data["criterion"] = name
        found = [_of_sparseml(data)] if "mask_structure" in data else []
        found += [_of_torch(data)] if "sparse_block_shape" in data or "sparsity_level" in data else []
        if len(found) + ("pattern" in data) > 1:
            raise UsageError("the pattern is given twice: choose one of pattern, mask_structure, and sparse_block_shape")
        return {**data, "pattern": found[0]} if found else data


def _amount(data: dict[str, Any], key: str) -> float | None:
    value = data.pop(key, None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise UsageError(f"{key} is {value!r}: expected a number from 0 to 1")
    return None if value is None else float(value)


def _of_sparseml(data: dict[str, Any]) -> Goal:
    """`mask_structure` ("2:4", "unstructured", "block4") with `sparsity`."""
    structure, sparsity = str(data.pop("mask_structure")), _amount(data, "sparsity")
    text = "unstructured" if structure == "0:0" else structure
    return parse_goal(text if sparsity is None else f"{text}@{100 * sparsity:.9g}%")


def _of_torch(data: dict[str, Any]) -> Goal:
    """`sparsity_level`, `sparse_block_shape` and `zeros_per_block`, as WeightNormSparsifier reads them."""
    level, shape = _amount(data, "sparsity_level"), data.pop("sparse_block_shape", (1, 4))
    if not isinstance(shape, list | tuple) or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
        raise UsageError(f"sparse_block_shape is {shape!r}: expected two positive numbers, as [8, 8]")
    rows, columns = shape
    zeros = data.pop("zeros_per_block", rows * columns)
    level = 0.5 if level is None else level  # torch.ao's default
    what = f"sparse_block_shape {list(shape)} with zeros_per_block {zeros} at sparsity_level {level:g}"
    if zeros == rows * columns:
        pattern = Unstructured() if rows * columns == 1 else Block(rows, columns)
        if not 0 < level < 1:
            raise UsageError(f"{what} drops all weights or none: give a level between 0 and 1")
        return goal(pattern, level, what)
    if rows == 1 and level == 1 and type(zeros) is int and 0 < zeros < columns:
        return goal(NM(columns - zeros, columns), None, what)
    raise UsageError(f"{what} has no pattern here: whole blocks at any level, or [1, m] blocks at level 1 (n:m)")


class LayerRule(_Asked):
    """A pattern for the layers whose ONNX node name `match` fits (*, ? and [] as in a shell)."""

    match: str
    pattern: GoalText


class Recipe(_Asked):
    """How a model is pruned."""

    pattern: GoalText | None = Field(default=None, description="of every layer that no rule matches; without it they stay")
    criterion: Criterion = Criterion.l1
    preserve_norm: bool = Field(default=False, description="scale the kept weights of every output to the norm that it had")
    steps: int = Field(default=1, ge=1, le=1000)
    permute: Method = Field(default=Method.none, description="how orders of channels are searched for that keep more")
    permute_seconds: float = Field(default=180.0, gt=0, description="after which searches stop with what they have")
    seed: int = Field(default=0, ge=0, description="of searches, and of which calibration rows are looked at")
    importance: Importance = Field(default=Importance.obs, description="how weights are compared, given calibration data")
    repair: Repair = Field(default=Repair.least_squares, description="what is done with the weights that stay, likewise")
    refit: bool = Field(default=True, description="fit dense layers behind pruned ones, too, the classifier among them, likewise")
    outputs: Outputs = Field(default=Outputs.softmax, description="what of the results the classifier is fitted to, likewise")
    spare: tuple[Spared, ...] = Field(default=_EVERYTHING_SPARED, description="what stays dense unless a rule matches it")
    layer: tuple[LayerRule, ...] = ()

    @model_validator(mode="after")
    def _asks(self) -> Recipe:
        if self.pattern is None and not self.layer:
            raise UsageError("nothing to prune: give a pattern, as --pattern 2:4, or rules for layers")
        if self.permute is not Method.none and self.criterion is Criterion.variance:
            raise UsageError("the criterion variance changes with the order of channels: permute with l1 or l2")
        patterns = [*([self.pattern] if self.pattern else []), *(r.pattern for r in self.layer)]
        for asked in patterns:
            if self.criterion is Criterion.variance and isinstance(asked.pattern, NM | HiNM | Unstructured):
                raise UsageError(f"the criterion variance compares blocks, and {asked} has none: use l1 or l2")
        return self

    def goals(self, layers: Iterable[Sequence[str]]) -> list[tuple[Goal | None, bool]]:
        """The goal of every layer, given the ONNX node names of each, and whether a rule for it says so.

        A rule that spells a name wins over rules with wildcards. UsageError for a rule that matches no layer, and for rules that
        disagree about one.
        """
        every = [tuple(names) for names in layers]
        for rule in self.layer:
            if not any(_matches(rule, names) for names in every):
                known = [n for names in every for n in names]
                close = get_close_matches(rule.match, known, 3, 0.3) or known[:3]
                raise UsageError(
                    f"the rule for {rule.match!r} matches no layer with weights (there are {', '.join(map(repr, close))})"
                )
        return [self._goal_of(names) for names in every]

    def _goal_of(self, names: Sequence[str]) -> tuple[Goal | None, bool]:
        rules = [r for r in self.layer if r.match in names] or [r for r in self.layer if _matches(r, names)]
        for rule in rules[1:]:
            if rule.pattern != rules[0].pattern:
                raise UsageError(
                    f"rules disagree about layer {names[0]!r}: {rules[0].match!r} asks for {rules[0].pattern}, "
                    f"{rule.match!r} for {rule.pattern}"
                )
        return (rules[0].pattern, True) if rules else (self.pattern, False)


def _matches(rule: LayerRule, names: Sequence[str]) -> bool:
    return any(rule.match == n or fnmatchcase(n, rule.match) for n in names)


def make_recipe(options: Mapping[str, Any], source: str = "") -> Recipe:
    """A recipe from plain data. UsageError, with `source` (a file) in front, for what cannot be right."""
    try:
        return Recipe.model_validate(dict(options))
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise UsageError(f"{source}{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    except UsageError as exc:
        raise UsageError(f"{source}{exc}") from None


def read_recipe(path: Path) -> Recipe:
    """A recipe from a TOML file."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read recipe {str(path)!r}: {getattr(exc, 'strerror', None) or exc}") from None
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"recipe {str(path)!r} is not TOML: {exc}") from None
    return make_recipe(data, f"recipe {str(path)!r}: ")
