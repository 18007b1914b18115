"""What the families declare about their models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, where it comes from and how it is called.

    ``inputs`` pairs each input's name with its shape at batch 1 and default options; ``options`` maps the keyword
    options that ``models.build`` takes for this model to their defaults.
    """

    name: str
    description: str
    source: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A model's description and its builder, called as ``build(seed=..., batch=..., **options)``."""

    info: ModelInfo
    build: Callable[..., onnx.ModelProto]
