"""onnxruntime as the reference: what a model is verified against and timed beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import ModelError

Array = np.ndarray[Any, Any]
Model = str | Path | onnx.ModelProto


class OnnxRuntime:
    """An onnxruntime session on the CPU, with all graph optimisations and exactly `threads` threads."""

    def __init__(self, model: Model, *, threads: int = 1) -> None:
        """ModelError, with onnxruntime's own words, when it cannot load the model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors arrive as exceptions
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
        try:
            self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # its exceptions share no base class
            raise ModelError(f"onnxruntime cannot load the model: {_first_line(exc)}") from exc
        self.outputs: tuple[str, ...] = tuple(o.name for o in self.session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Output name -> value, of all outputs or those named."""
        names = list(outputs if outputs is not None else self.outputs)
        try:
            values = self.session.run(names, dict(feeds))
        except Exception as exc:
            raise ModelError(f"onnxruntime cannot run the model on these inputs: {_first_line(exc)}") from exc
        return dict(zip(names, map(np.asarray, values), strict=True))

    def runner(self, feeds: Mapping[str, Array]) -> Callable[[], object]:
        """A function without arguments that runs once on `feeds`, for timing loops."""
        session, names, fixed = self.session, list(self.outputs), dict(feeds)
        return lambda: session.run(names, fixed)


def version() -> str:
    """The version of onnxruntime in use."""
    import onnxruntime

    return str(onnxruntime.__version__)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
