"""Run a model on calibration samples and look at values inside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from sparsec.compiler.errors import LimitError, ModelError
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.sites import reads

Array = np.ndarray[Any, Any]


class Probe:
    """A model whose inner values can be asked for. Each question runs the part of the model that answers it, as it is then."""

    def __init__(self, proto: onnx.ModelProto, threads: int = 0) -> None:
        """`threads` 0: as many as there are cores."""
        self._proto, self._threads = proto, threads
        self._inputs = {v.name for v in proto.graph.input} - {t.name for t in proto.graph.initializer}

    def batches(self, samples: Samples, values: Sequence[str]) -> Iterator[list[Array]]:
        """The named values, batch by batch.

        ModelError when onnxruntime cannot load the part of the model or a batch fails, LimitError for one too large.
        """
        wanted = [v for v in dict.fromkeys(values) if v not in self._inputs]
        session = self._session(wanted) if wanted else None
        needed = {v.name for v in session.get_inputs()} if session is not None else set()
        for i, feeds in enumerate(samples):
            found = dict(feeds)
            if session is not None:
                try:
                    results = session.run(wanted, {k: v for k, v in feeds.items() if k in needed})
                except Exception as exc:
                    raise ModelError(f"onnxruntime cannot run the model on calibration batch {i}: {_first_line(exc)}") from exc
                found |= dict(zip(wanted, map(np.asarray, results), strict=True))
            yield [found[v] for v in values]

    def _session(self, wanted: Sequence[str]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors arrive as exceptions
        try:
            source = part_for(self._proto, wanted).SerializeToString()
        except (EncodeError, ValueError) as exc:
            raise LimitError(f"the model is too large to calibrate (2 GiB with its external data): {exc}") from None
        try:
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # its exceptions share no base class
            raise ModelError(f"onnxruntime cannot load the model for calibration: {_first_line(exc)}") from exc


def part_for(proto: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """The part of a model that computes `values`, which are its outputs; weights that only others read are left out."""
    needed, nodes = set(values), []
    for node in reversed(sorted_nodes(proto.graph)):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(reads(node))
    graph = onnx.GraphProto(name=proto.graph.name)
    graph.node.extend(reversed(nodes))
    graph.input.extend(v for v in proto.graph.input if v.name in needed)
    graph.initializer.extend(t for t in proto.graph.initializer if t.name in needed)
    graph.sparse_initializer.extend(t for t in proto.graph.sparse_initializer if t.values.name in needed)
    graph.output.extend(onnx.ValueInfoProto(name=v) for v in values)
    part = onnx.ModelProto(ir_version=proto.ir_version, graph=graph)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    return part


def sorted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes with every producer before its readers, as ONNX wants them; those of models that do not are put in order."""
    producers = {o: node for node in graph.node for o in node.output if o}
    done: set[int] = set()
    order: list[onnx.NodeProto] = []
    for root in graph.node:
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [
                p for name in reads(node) if (p := producers.get(name)) is not None and id(p) not in done and p is not node
            ]
            if id(node) in done or not missing:
                stack.pop()
                order += [] if id(node) in done else [node]
                done.add(id(node))
            else:
                stack += missing
    return order


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
