"""Read an ONNX model from a file, bytes, a ModelProto or an onnx-ir model, trusting nothing that it says.

Weights stay where they are: initializers are views of the parsed message, external data is mapped when it is first read.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir import external_data, serde

from sparsec.compiler.errors import LimitError, ModelError, UnsupportedError, UsageError
from sparsec.compiler.importer.check import check_opset, check_proto
from sparsec.compiler.limits import Limits

Source = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model
_PROTOBUF_MAX = (1 << 31) - 1


def load_model(source: Source, limits: Limits) -> ir.Model:
    """The model as an onnx-ir Model of our own (the caller's objects are not changed).

    Raises UsageError for a path that is no file, ModelError for bytes that are no ONNX model or external data that is missing,
    too short or outside the model's folder, LimitError for files larger than `limits.max_file_bytes`.
    """
    if isinstance(source, ir.Model):
        check_opset(source.opset_imports.get("", 0))
        return source.clone()
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source, None, limits, 0)
    if isinstance(source, bytes):
        return _from_proto(_parse(source, "the given data"), None, limits, len(source))
    path = Path(source)
    return _from_proto(_parse(_read(path, limits), repr(str(path))), path.absolute().parent, limits, path.stat().st_size)


def _read(path: Path, limits: Limits) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            kind = "a directory" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            raise UsageError(f"{str(path)!r} is {kind}: give the path of an .onnx file")
        if info.st_size > limits.max_file_bytes:
            raise LimitError(
                f"{str(path)!r} has {info.st_size:,} bytes, more than the limit of {limits.max_file_bytes:,} "
                f"(raise it with --limits file-bytes=N)"
            )
        if info.st_size > _PROTOBUF_MAX:
            raise ModelError(
                f"{str(path)!r} has {info.st_size:,} bytes, and a protobuf message cannot have more than 2 GiB: "
                f"save the model with external data"
            )
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(f"cannot read {str(path)!r}: {exc.strerror or exc}") from None
    except ValueError:  # a NUL in the path
        raise UsageError(f"{str(path)!r} is not a path") from None


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{what} is empty: expected an ONNX model")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{what} is not an ONNX model: it is truncated, damaged or another kind of file") from None
    if not proto.HasField("graph"):
        raise ModelError(f"{what} is not an ONNX model: it holds no graph")
    return proto


def _from_proto(proto: onnx.ModelProto, folder: Path | None, limits: Limits, size: int) -> ir.Model:
    check_proto(proto, limits)
    log = logging.getLogger("onnx_ir")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns of what is an error here, or does not matter
    try:
        model = serde.deserialize_model(proto)
    except (serde.SerdeError, ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as exc:
        raise ModelError(f"the model is malformed: {_root_cause(exc)}") from exc
    finally:
        log.setLevel(level)
    for info, value in zip(proto.graph.input, model.graph.inputs, strict=True):
        serde.deserialize_value_info_proto(info, value)  # an output of the same name has overwritten its shape
    if "ai.onnx" in model.opset_imports:
        model.opset_imports.setdefault("", model.opset_imports["ai.onnx"])
    if folder is not None:
        external_data.set_base_dir(model.graph, str(folder))
    _check_external(model, folder, limits, size)
    return model


def _root_cause(exc: BaseException) -> str:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return " ".join(str(exc).split())[:300]


def _external_tensors(model: ir.Model) -> Iterator[tuple[str, ir.ExternalTensor]]:
    graphs = [model.graph, *model.graph.subgraphs()]
    for graph in graphs:
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield name, value.const_value
    bodies = [*graphs, *(f.graph for f in model.functions.values())]
    for body in bodies:
        for node in body:
            for attr in node.attributes.values():
                tensors = [attr.value] if attr.type == ir.AttributeType.TENSOR else []
                tensors = list(attr.value) if attr.type == ir.AttributeType.TENSORS and attr.value else tensors
                yield from ((f"{node.name}.{attr.name}", t) for t in tensors if isinstance(t, ir.ExternalTensor))


def _check_external(model: ir.Model, folder: Path | None, limits: Limits, size: int) -> None:
    """Every external tensor lies inside a regular file inside `folder`, links resolved."""
    sizes: dict[Path, int] = {}
    for name, tensor in _external_tensors(model):
        location = os.fspath(tensor.location)
        if folder is None:
            raise ModelError(
                f"tensor {name!r} has its data in {location!r}, but the model was given in memory: give the path of its file",
                tensor=name,
            )
        path = _contained(name, location, folder)
        if path not in sizes:
            sizes[path] = path.stat().st_size
            if size + sum(sizes.values()) > limits.max_file_bytes:
                raise LimitError(
                    f"the model and its external data have more than {limits.max_file_bytes:,} bytes "
                    f"(raise the limit with --limits file-bytes=N)",
                    tensor=name,
                )
        _check_extent(name, tensor, location, sizes[path])


def _contained(name: str, location: str, folder: Path) -> Path:
    """The real path of an external file, which must be inside the model's folder."""
    if not location or "\0" in location or os.path.isabs(location):
        raise ModelError(f"tensor {name!r} has its data in {location!r}: the path must be relative to the model", tensor=name)
    real = Path(os.path.realpath(folder / location))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise ModelError(
            f"tensor {name!r} has its data in {location!r}, which leads out of the model's folder: put it next to the model",
            tensor=name,
        )
    if not real.is_file():
        raise ModelError(f"tensor {name!r} has its data in {location!r}, which is missing or not a regular file", tensor=name)
    return real


def _check_extent(name: str, tensor: ir.ExternalTensor, location: str, file_size: int) -> None:
    if tensor.dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        raise UnsupportedError(f"tensor {name!r} has element type {tensor.dtype.name}, which is not supported", tensor=name)
    offset, needed = tensor.offset or 0, tensor.nbytes
    if tensor.length is not None and tensor.length != needed:
        raise ModelError(f"tensor {name!r} needs {needed} bytes, its external data has {tensor.length}", tensor=name)
    if offset < 0 or offset + needed > file_size:
        raise ModelError(
            f"tensor {name!r} needs {needed} bytes at offset {offset} of {location!r}, which has only {file_size}", tensor=name
        )
