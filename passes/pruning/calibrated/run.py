"""Run a model on calibration samples and look at values inside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from sparsec.compiler.errors import LimitError, ModelError
from sparsec.compiler.exporter.nodes import reads, sort_nodes
from sparsec.passes.pruning.calibrated.data import Samples

Array = np.ndarray[Any, Any]
MEMORY = 1 << 29  # bytes of inner values that are kept


class Probe:
    """A model whose inner values can be asked for. Each question runs the part of the model that answers it, as it is then.

    Values that are asked to be kept are not computed again, and others are computed from them, for as long as they fit into
    `memory` bytes; the least recently used ones go first.
    """

    def __init__(self, proto: onnx.ModelProto, threads: int = 0, memory: int = MEMORY) -> None:
        """`threads` 0: as many as there are cores."""
        self._proto, self._threads, self._memory = proto, threads, memory
        self._inputs = {v.name for v in proto.graph.input} - {t.name for t in proto.graph.initializer}
        self._kept: dict[str, list[Array]] = {}

    def batches(self, samples: Samples, values: Sequence[str], keep: Collection[str] = ()) -> Iterator[list[Array]]:
        """The named values, batch by batch. `keep`: those that stay what they are, with the same samples.

        ModelError when onnxruntime cannot load the part of the model or a batch fails, LimitError for one too large.
        """
        wanted = [v for v in dict.fromkeys(values) if v not in self._inputs and v not in self._kept]
        session = self._session(wanted) if wanted else None
        needed = {v.name for v in session.get_inputs()} if session is not None else set()
        used = self._touched({*needed, *values})
        new: dict[str, list[Array]] = {v: [] for v in wanted if v in keep}
        for i, feeds in enumerate(samples):
            found = dict(feeds) | {name: arrays[i] for name, arrays in used.items()}
            if session is not None:
                try:
                    results = session.run(wanted, {k: v for k, v in found.items() if k in needed})
                except Exception as exc:
                    raise ModelError(f"onnxruntime cannot run the model on calibration batch {i}: {_first_line(exc)}") from exc
                found |= dict(zip(wanted, map(np.asarray, results), strict=True))
            for name, arrays in new.items():
                arrays.append(found[name])
            yield [found[v] for v in values]
            new = {} if sum(a.nbytes for arrays in new.values() for a in arrays) > self._memory else new
        self._kept |= new
        self._shrink()

    def _touched(self, names: Collection[str]) -> dict[str, list[Array]]:
        """Those of `names` that are kept, which become the most recently used ones."""
        found = {name: self._kept.pop(name) for name in list(self._kept) if name in names}
        self._kept |= found
        return found

    def _shrink(self) -> None:
        size = sum(a.nbytes for arrays in self._kept.values() for a in arrays)
        while size > self._memory:
            size -= sum(a.nbytes for a in self._kept.pop(next(iter(self._kept))))

    def _session(self, wanted: Sequence[str]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors arrive as exceptions
        try:
            source = part_for(self._proto, wanted, self._kept).SerializeToString()
        except (EncodeError, ValueError) as exc:
            raise LimitError(f"the model is too large to calibrate (2 GiB with its external data): {exc}") from None
        level, why = onnxruntime.GraphOptimizationLevel, ""
        # with all optimisations it adds into the result of a convolution, and may lose the one that is an output then
        for options.graph_optimization_level in (level.ORT_ENABLE_ALL, level.ORT_ENABLE_EXTENDED):
            try:
                return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
            except Exception as exc:  # its exceptions share no base class
                why = why or _first_line(exc)
        raise ModelError(f"onnxruntime cannot load the model for calibration: {why}")


def part_for(
    proto: onnx.ModelProto, values: Sequence[str], given: Mapping[str, Sequence[Array]] | None = None
) -> onnx.ModelProto:
    """The part of a model that computes `values`, which are its outputs; weights that only others read are left out.

    `given` values [batch][...] are inputs of the part where it reads them, with the element type and rank of their first batch.
    """
    given, needed, nodes = given or {}, set(values), []
    for node in reversed(sort_nodes(proto.graph.node)):
        if needed & set(node.output) - given.keys():
            nodes.append(node)
            needed.update(reads(node))
    graph = onnx.GraphProto(name=proto.graph.name)
    graph.node.extend(reversed(nodes))
    graph.input.extend(v for v in proto.graph.input if v.name in needed)
    graph.input.extend(_value(name, given[name][0]) for name in given if name in needed)
    graph.initializer.extend(t for t in proto.graph.initializer if t.name in needed)
    graph.sparse_initializer.extend(t for t in proto.graph.sparse_initializer if t.values.name in needed)
    graph.output.extend(onnx.ValueInfoProto(name=v) for v in values)
    part = onnx.ModelProto(ir_version=proto.ir_version, graph=graph)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    return part


def _value(name: str, array: Array) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
