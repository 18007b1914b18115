"""Calibration inputs: from .npy and .npz files, folders of them, or any iterable, checked against what the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UsageError

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Source = str | Path | Feeds | Iterable[Feeds | Array]
_SUFFIXES = (".npy", ".npz")
_BATCH = 100  # samples that run at a time where the model leaves that open


@dataclass(frozen=True)
class Input:
    """A model input: element type and extents, None where the model leaves one open."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | None, ...]

    @property
    def text(self) -> str:
        """As messages write it: float32[?, 1, 28, 28]."""
        return f"{self.dtype}[{', '.join('?' if d is None else str(d) for d in self.dims)}]"


@dataclass(frozen=True)
class Samples:
    """Batches of inputs, every one a complete set of feeds, all finite."""

    batches: tuple[dict[str, Array], ...]

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def count(self) -> int:
        """Samples along the first dimension of the first input that has one; as many as batches for others."""
        return sum(next((len(a) for a in feeds.values() if a.ndim), 1) for feeds in self.batches)

    def spread(self, samples: int) -> Samples:
        """About so many samples, in whole batches from all over."""
        step = max(1, self.count // max(samples, 1))
        return Samples(self.batches[::step])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input name -> shape in the first batch."""
        return {name: array.shape for name, array in self.batches[0].items()}

    def sizes(self) -> tuple[int, ...]:
        """The samples of every batch: the first extent of its first array that has one."""
        return tuple(next((len(a) for a in batch.values() if a.ndim), 1) for batch in self.batches)


def model_inputs(proto: onnx.ModelProto) -> tuple[Input, ...]:
    """The inputs that have no default. UsageError for one that is not a tensor."""
    weights = {t.name for t in proto.graph.initializer}
    return tuple(_input(value) for value in proto.graph.input if value.name not in weights)


def read_samples(source: Source, inputs: tuple[Input, ...], batch: int = _BATCH) -> Samples:
    """All samples of `source`, in batches along the first dimension of every input.

    `source` is the path of a .npz file (arrays by input name), of a .npy file (one input), or of a folder of either, read in the
    order of their names; or a mapping from input names to arrays; or an iterable of mappings (of arrays, for one input). An array
    may hold many samples: it is split into pieces as large as the model's first extent, or into `batch` where that is open.
    An array that lacks the first dimension is one sample where that extent is open or 1.
    UsageError, naming source and input, for what the model cannot take, NaN and infinity included.
    """
    batches: list[dict[str, Array]] = []
    for where, feeds in _pieces(source, inputs):
        batches += _split({t.name: _checked(feeds, t, where) for t in inputs}, inputs, batch, where)
    if not batches:
        raise UsageError("there are no calibration samples: give a .npz file, a folder of .npz or .npy files, or feeds")
    return Samples(tuple(batches))


def _input(value: onnx.ValueInfoProto) -> Input:
    if not value.type.HasField("tensor_type"):
        raise UsageError(f"input {value.name!r} is not a tensor: calibration feeds tensors only", tensor=value.name)
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    return Input(value.name, DType.from_onnx(tensor.elem_type).numpy, dims)


def _pieces(source: Source, inputs: tuple[Input, ...]) -> Iterator[tuple[str, dict[str, Array]]]:
    """What the source holds, piece by piece, with where it comes from."""
    if isinstance(source, str | Path):
        for path in data_files(Path(source)):
            yield repr(str(path)), _load(path, inputs)
    elif isinstance(source, Mapping):
        yield "the calibration feeds", {k: np.asarray(v) for k, v in source.items()}
    else:
        for i, piece in enumerate(source):
            where = f"calibration sample {i}"
            named = piece if isinstance(piece, Mapping) else {_only(inputs, where): piece}
            yield where, {k: np.asarray(v) for k, v in named.items()}


def data_files(path: Path) -> list[Path]:
    """A file, or the .npy and .npz files of a folder, by name."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if not found:
        raise UsageError(f"folder {str(path)!r} holds no .npz or .npy files to calibrate with")
    return found


def _load(path: Path, inputs: tuple[Input, ...]) -> dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise UsageError(f"cannot read {str(path)!r} as .npy or .npz: {exc}") from None
    if isinstance(loaded, np.ndarray):
        return {_only(inputs, repr(str(path))): loaded}
    with loaded:
        return {key: loaded[key] for key in loaded.files}


def _only(inputs: tuple[Input, ...], where: str) -> str:
    if len(inputs) != 1:
        names = ", ".join(repr(t.name) for t in inputs)
        raise UsageError(f"{where} is one array and the model has {len(inputs)} inputs: give arrays by name ({names})")
    return inputs[0].name


def _checked(feeds: Feeds, t: Input, where: str) -> Array:
    if t.name not in feeds:
        names = ", ".join(map(repr, feeds)) or "nothing"
        raise UsageError(f"{where} has no array for input {t.name!r} ({t.text}), it has {names}", tensor=t.name)
    array = np.asarray(feeds[t.name])
    if array.ndim == len(t.dims) - 1 and t.dims[0] in (None, 1):
        array = array[None]
    fits = array.ndim == len(t.dims) and all(d in (None, n) for d, n in zip(t.dims[1:], array.shape[1:], strict=True))
    if not fits:
        raise UsageError(f"{where}: input {t.name!r} is {list(array.shape)}, the model takes {t.text}", tensor=t.name)
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f") != (t.dtype.kind not in "iub"):
        raise UsageError(f"{where}: input {t.name!r} is {array.dtype}, the model takes {t.text}", tensor=t.name)
    with np.errstate(over="ignore"):  # too large is infinite
        converted = np.ascontiguousarray(array.astype(t.dtype))
    if t.dtype.kind == "f" and not np.isfinite(converted).all():
        raise UsageError(f"{where}: input {t.name!r} holds NaN or infinity: give finite samples", tensor=t.name)
    if t.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise UsageError(f"{where}: input {t.name!r} is {array.dtype} and loses values as {t.dtype}", tensor=t.name)
    return converted


def _split(feeds: dict[str, Array], inputs: tuple[Input, ...], batch: int, where: str) -> Iterator[dict[str, Array]]:
    """Batches along the first dimension of all inputs; feeds as they are when they have none."""
    stacked = [t for t in inputs if t.dims]
    if not stacked:
        yield feeds
        return
    counts = {t.name: len(feeds[t.name]) // (t.dims[0] or 1) for t in stacked}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name!r} {n}" for name, n in counts.items())
        raise UsageError(f"{where}: its arrays hold different numbers of samples ({found}): give as many of each")
    for t in stacked:
        have, takes = len(feeds[t.name]), t.dims[0] or 1
        if have % takes or not have:
            raise UsageError(f"{where}: input {t.name!r} has {have} samples, the model takes {takes} at a time", tensor=t.name)
    fixed = any(t.dims[0] is not None for t in stacked)
    step, total = (1 if fixed else batch), counts[stacked[0].name]
    for begin in range(0, total, step):
        cut = {t.name: (t.dims[0] or 1) for t in stacked}
        yield {
            name: a[begin * cut[name] : min(begin + step, total) * cut[name]] if name in cut else a for name, a in feeds.items()
        }
