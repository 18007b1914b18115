"""Seeded builders of well-known architectures as ONNX models, for tests and benchmarks.

>>> import models
>>> model = models.build("resnet50", seed=0)
>>> feeds = models.inputs(model, seed=0)

The same name, seed and options give byte-identical models. Families are imported only when one of their models is
asked for. ``models.packaged`` finds trained models that other Python packages ship.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from models._inputs import inputs
from models._packaged import packaged, packaged_names
from models._registry import Entry, ModelInfo

if TYPE_CHECKING:
    import onnx

__all__ = ["ModelInfo", "build", "describe", "inputs", "names", "packaged", "packaged_names"]

# Model name -> module of this package that declares it.
_FAMILIES = {
    "alexnet": "alexnet",
    "bert_base": "bert",
    "densenet121": "densenet",
    "inception_v1": "inception",
    "inception_v2": "inception",
    "inception_v3": "inception",
    "mobilenet_v2": "mobilenet",
    "resnet50": "resnet",
    "shufflenet": "shufflenet",
    "squeezenet": "squeezenet",
    "tiny_cnn": "tiny",
    "tiny_nhwc": "tiny",
    "tiny_transformer": "tiny",
    "vgg16": "vgg",
    "vgg19": "vgg",
    "vit_b16": "vit",
    "zfnet512": "zfnet",
}


def names() -> tuple[str, ...]:
    """Names of all models that ``build`` knows, sorted."""
    return tuple(sorted(_FAMILIES))


def describe(name: str) -> ModelInfo:
    """Describe a model without building it."""
    return _entry(name).info


def build(name: str, *, seed: int = 0, batch: int = 1, **options: object) -> onnx.ModelProto:
    """Build a model with seeded weights; ``describe(name).options`` lists the options and their defaults."""
    entry = _entry(name)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    unknown = sorted(set(options) - set(entry.info.options))
    if unknown:
        known = ", ".join(sorted(entry.info.options)) or "none"
        raise TypeError(f"{name} has no option {', '.join(unknown)} (its options: {known})")
    return entry.build(seed=seed, batch=batch, **options)


def _entry(name: str) -> Entry:
    if name not in _FAMILIES:
        raise ValueError(f"unknown model {name!r} (known: {', '.join(names())})")
    module = importlib.import_module(f"models.{_FAMILIES[name]}")
    entry: Entry = module.MODELS[name]
    return entry
