"""Put other weights into an ONNX model and save it: everything else stays as it was, external data stays external."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper

from sparsec.compiler.errors import ModelError, UsageError

Array = np.ndarray[Any, Any]
_ALIGN = 64  # bytes; so that external data can be mapped
_LAYERS = ("Conv", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul")
_DATA_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "raw_data", "external_data")


@dataclass(frozen=True, slots=True)
class Holder:
    """Where a value's data is: a tensor, and the permutation that makes the value of it (None: as it is)."""

    tensor: onnx.TensorProto
    perm: tuple[int, ...] | None = None


class WeightEditor:
    """A model whose weights can be replaced by the names that they have in the imported graph."""

    def __init__(self, proto: onnx.ModelProto, folder: Path | None) -> None:
        """`proto` is changed; external data is looked for in `folder`."""
        self.proto, self.folder = proto, folder
        self._initializers = {t.name: t for t in proto.graph.initializer}
        self._producers = {o: n for n in proto.graph.node for o in n.output if o}
        self._readers: dict[str, list[onnx.NodeProto | None]] = {}
        for name, node in _reads(proto.graph):
            self._readers.setdefault(name, []).append(node)
        self._replaced: dict[int, bytes] = {}  # number of an external tensor -> its new data

    def holder(self, value: str) -> Holder | None:
        """The tensor behind a value: an initializer or a Constant node, seen through Identity and Transpose nodes.

        None when the value is computed in another way, or when others read what a Transpose reads.
        """
        name, perm = value, None
        while name not in self._initializers:
            node = self._producers.get(name)
            if node is None:
                return None
            if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
                return Holder(node.attribute[0].t, perm)
            if node.op_type not in ("Identity", "Transpose") or len(self._readers[node.input[0]]) != 1:
                return None
            if node.op_type == "Transpose":
                if perm is not None:
                    return None
                perm = tuple(next((a.ints for a in node.attribute if a.name == "perm"), (1, 0)))
            name = node.input[0]
        return Holder(self._initializers[name], perm)

    def blocked(self, value: str) -> str:
        """Why a value cannot get other data without changing more than the layers that it is the weights of; "" when it can."""
        if self.holder(value) is None:
            return "its weights are computed by other nodes: fold constants first"
        readers = self._readers.get(value, [])
        other = next((n for n in readers if not self._multiplies(n)), None) if len(readers) > 1 else None
        return "" if other is None else f"{other.op_type} node {other.name!r} reads the same weights"

    def unwritable(self, value: str, readers: Collection[str], present: Collection[str]) -> str:
        """Why a constant of a graph imported as stored cannot get other data; "" when it can.

        `readers` are the ONNX nodes, by name or first output, whose reading of it is allowed for, `present` all that the graph
        shows. A node that it does not show passes its operand on (Identity, an Expand to the same shape) or is not needed.
        """
        holder = self.holder(value)
        if holder is None or holder.perm is not None:
            return "the model does not store it"
        names = {value: None}
        for name in (queue := [value]):
            for node in self._readers.get(name, []):
                if node is None:
                    return "it is an output of the model"
                label = node.name or next(filter(None, node.output), "")
                if label not in present:
                    queue += [o for o in node.output if o not in names]
                    names.update(dict.fromkeys(node.output))
                elif label not in readers:
                    return f"{node.op_type} node {label!r} reads it in a way that is not followed"
        return ""

    def _multiplies(self, node: onnx.NodeProto | None) -> bool:
        """Whether a reader is a layer, or hands its operand to layers only."""
        if node is None or node.op_type in _LAYERS:
            return True
        return node.op_type == "Identity" and all(map(self._multiplies, self._readers.get(node.output[0], [])))

    def replace(self, value: str, array: Array) -> None:
        """Give a value that has a holder other data of the same type."""
        holder = self.holder(value)
        if holder is None:
            raise ModelError(f"weights {value!r} are not stored in the model as they are used", tensor=value)
        tensor = holder.tensor
        stored = array if holder.perm is None else np.transpose(array, np.argsort(holder.perm))
        if tuple(stored.shape) != tuple(tensor.dims):
            raise ModelError(f"weights {value!r} have shape {list(tensor.dims)}, not {list(stored.shape)}", tensor=value)
        data = np.ascontiguousarray(stored).tobytes()
        if external_data_helper.uses_external_data(tensor):
            self._replaced[next(i for i, t in enumerate(_tensors(self.proto.graph)) if t is tensor or t == tensor)] = data
            return
        for field in _DATA_FIELDS:
            tensor.ClearField(field)
        tensor.raw_data = data

    def set_metadata(self, key: str, text: str) -> None:
        """Add or replace an entry of the model's metadata; an empty text removes it."""
        kept = [p for p in self.proto.metadata_props if p.key != key]
        entries = [(p.key, p.value) for p in kept] + ([(key, text)] if text else [])
        del self.proto.metadata_props[:]
        for name, value in entries:
            self.proto.metadata_props.add(key=name, value=value)

    def save(self, path: Path) -> None:
        """Write the model; external data goes to PATH.data beside it. Both appear whole or not at all."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as stage:
                data = Path(stage) / "data"
                proto = self._moved(data, f"{path.name}.data")
                model = Path(stage) / "model"
                model.write_bytes(proto.SerializeToString(deterministic=True))
                if data.exists():
                    os.replace(data, path.parent / f"{path.name}.data")
                os.replace(model, path)
        except OSError as exc:
            raise UsageError(f"cannot write {str(path)!r}: {exc.strerror or exc}") from exc

    def embedded(self) -> onnx.ModelProto:
        """The model with all data inside: itself when no data is external, else a copy."""
        if not any(map(external_data_helper.uses_external_data, _tensors(self.proto.graph))):
            return self.proto
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for i, tensor in enumerate(_tensors(proto.graph)):
            if external_data_helper.uses_external_data(tensor):
                external_data_helper.load_external_data_for_tensor(tensor, str(self.folder))
                tensor.raw_data = self._replaced.get(i, tensor.raw_data)
                tensor.ClearField("external_data")
                tensor.data_location = onnx.TensorProto.DEFAULT
        return proto

    def _moved(self, data: Path, location: str) -> onnx.ModelProto:
        """A copy of the model whose external tensors are in `data`, to be found as `location`; itself when it has none."""
        if not any(map(external_data_helper.uses_external_data, _tensors(self.proto.graph))):
            return self.proto
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        with data.open("wb") as file:
            for i, tensor in enumerate(_tensors(proto.graph)):
                if external_data_helper.uses_external_data(tensor):
                    if i not in self._replaced:
                        external_data_helper.load_external_data_for_tensor(tensor, str(self.folder))
                    content = self._replaced.get(i, tensor.raw_data)
                    file.write(bytes(-file.tell() % _ALIGN))
                    offset = file.tell()
                    file.write(content)
                    tensor.raw_data = b""  # `set_external_data` wants the field
                    external_data_helper.set_external_data(tensor, location, offset, len(content))
                    tensor.ClearField("raw_data")
        return proto


def _reads(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto | None]]:
    """Every read of a value by a node, in subgraphs too, or by an output (None)."""
    yield from ((o.name, None) for o in graph.output)
    for node in graph.node:
        yield from ((name, node) for name in node.input)
        for inner in _subgraphs(node):
            yield from _reads(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for a in node.attribute:
        yield from ([a.g] if a.HasField("g") else [])
        yield from a.graphs


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph, those of attributes and subgraphs included, always in the same order."""
    yield from graph.initializer
    for node in graph.node:
        for a in node.attribute:
            yield from ([a.t] if a.HasField("t") else [])
            yield from a.tensors
        for inner in _subgraphs(node):
            yield from _tensors(inner)
