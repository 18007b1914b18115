"""Pipelines as text: `fold,fuse_map{max_args=4},...` to passes with typed options, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from sparsec.compiler.errors import UsageError
from sparsec.compiler.passing.base import Pass

_ITEM = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_pipeline(
    text: str, known: Mapping[str, type[Pass]], pipelines: Mapping[str, tuple[Pass, ...]] | None = None
) -> tuple[Pass, ...]:
    """The passes that `text` lists: `name` or `name{option=value,...}`, separated by commas; a pipeline's name stands for its
    passes. UsageError for an unknown pass (naming those known), an unknown option or a bad value.
    """
    found: list[Pass] = []
    at = 0
    while text[at:].strip():
        item = _ITEM.match(text, at)
        if item is None:
            raise UsageError(
                f"cannot read the pipeline at {text[at : at + 30]!r}: write name or name{{option=value,...}}, with commas"
            )
        name, options, at = item[1], item[2], item.end()
        if pipelines and name in pipelines and options is None:
            found += pipelines[name]
        elif name in known:
            found.append(_with_options(known[name], options or ""))
        else:
            more = f"; pipelines: {', '.join(pipelines)}" if pipelines else ""
            raise UsageError(f"there is no pass {name!r}; passes: {', '.join(sorted(known))}{more}")
    return tuple(found)


def print_pipeline(passes: tuple[Pass, ...]) -> str:
    """The text of a pipeline; options at their defaults are left out."""
    return ",".join(f"{p.name}{_options_text(p)}" for p in passes)


def option_types(cls: type[Pass]) -> dict[str, type]:
    """Option name -> bool, int, float or str."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _options_text(p: Pass) -> str:
    shown = [f"{f.name}={_value_text(v)}" for f in fields(p) if (v := getattr(p, f.name)) != f.default]
    return f"{{{','.join(shown)}}}" if shown else ""


def _value_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_options(cls: type[Pass], text: str) -> Pass:
    types = option_types(cls)
    values: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (s.strip() for s in part.partition("="))
        if not equals:
            raise UsageError(f"option {part!r} of pass {cls.name} has no value: write {part}=VALUE")
        if key not in types:
            raise UsageError(f"pass {cls.name} has no option {key!r}; it has: {', '.join(types) or 'none'}")
        values[key] = _typed(cls.name, key, value, types[key])
    return cls(**values)


def _typed(pass_name: str, key: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise UsageError(f"option {key} of pass {pass_name} takes {kind.__name__}, not {text!r}") from None
