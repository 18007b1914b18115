"""ONNX's own backend node tests as small models with inputs and expected outputs, for tests of every room."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model

Array = np.ndarray[Any, Any]


@cache
def cases() -> dict[str, list[Any]]:
    """Operator -> its cases; those in which functions are expanded are under "expanded"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found: dict[str, list[Any]] = {}
        for case in collect_testcases(None):
            arrays = [a for part in case.data_sets[0] for a in part]
            if all(isinstance(a, np.ndarray | np.generic | onnx.TensorProto) for a in arrays):
                key = "expanded" if "expanded" in case.name else case.model.graph.node[0].op_type
                found.setdefault(key, []).append(case)
    return found


def _array(a: Any) -> Array:
    return numpy_helper.to_array(a) if isinstance(a, onnx.TensorProto) else np.asarray(a)


def feeds_of(case: Any) -> dict[str, Array]:
    """Input name -> array."""
    return {v.name: _array(a) for v, a in zip(case.model.graph.input, case.data_sets[0][0], strict=True)}


def outputs_of(case: Any) -> list[Array]:
    """The expected outputs, in order."""
    return [_array(a) for a in case.data_sets[0][1]]


def import_case(case: Any, constants: Collection[str] = ()) -> Graph:
    """Import, with the inputs `constants` known at compile time, and those that must be."""
    feeds, constants = feeds_of(case), set(constants)
    while True:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        model.graph.initializer.extend(numpy_helper.from_array(feeds[name], name) for name in sorted(constants))
        dynamic = {v.name for v in model.graph.input if any(not d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)}
        try:
            return import_model(model, input_shapes={name: feeds[name].shape for name in sorted(dynamic - constants)})
        except UnsupportedError as exc:
            named = {exc.tensor} & set(feeds)
            shapes = {name for name, a in feeds.items() if a.ndim <= 1 and a.dtype.kind == "i"}  # where a computed value is named
            if "constant" not in str(exc) or not (named or shapes) - constants:
                raise
            constants |= named or shapes
