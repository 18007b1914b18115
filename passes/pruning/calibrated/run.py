"""Run a model on calibration samples and look at values inside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from sparsec.compiler.errors import LimitError, ModelError
from sparsec.passes.pruning.calibrated.data import Samples

Array = np.ndarray[Any, Any]


class Probe:
    """A model whose inner values can be asked for, at the weights that it has when it is made."""

    def __init__(self, proto: onnx.ModelProto, values: Sequence[str], threads: int = 0) -> None:
        """`values` are those that `batches` may ask for; `threads` 0: as many as there are cores.

        ModelError when onnxruntime cannot load the model, LimitError for one too large to be changed in memory.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors arrive as exceptions
        try:
            source = _with_outputs(proto, values).SerializeToString()
        except (EncodeError, ValueError) as exc:
            raise LimitError(f"the model is too large to calibrate in memory (2 GiB with its external data): {exc}") from None
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # its exceptions share no base class
            raise ModelError(f"onnxruntime cannot load the model for calibration: {_first_line(exc)}") from exc
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("only_execute_path_to_fetches", "1")

    def batches(self, samples: Samples, values: Sequence[str]) -> Iterator[list[Array]]:
        """The named values, batch by batch; nothing that they do not need is computed. ModelError when a batch fails."""
        inputs = [i.name for i in self._session.get_inputs()]
        for i, feeds in enumerate(samples):
            wanted = [v for v in values if v not in inputs]
            try:
                found = self._session.run(wanted, feeds, self._options) if wanted else []
            except Exception as exc:
                raise ModelError(f"onnxruntime cannot run the model on calibration batch {i}: {_first_line(exc)}") from exc
            by_name = dict(feeds) | dict(zip(wanted, map(np.asarray, found), strict=True))
            yield [by_name[v] for v in values]


def _with_outputs(proto: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """A copy with more outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {o.name for o in copy.graph.output} | {i.name for i in copy.graph.input}
    copy.graph.output.extend(onnx.ValueInfoProto(name=v) for v in dict.fromkeys(values) if v not in known)
    return copy


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
