"""Labels of calibration samples: from a file, an array of the calibration data, or memory."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.data import Source, data_files

Array = np.ndarray[Any, Any]
Labels = str | Path | Array | Sequence[int]
DEFAULT = "labels"  # the array of calibration data, or the column of a table, that is taken where nothing is named
_ARRAYS, _TEXT = (".npy", ".npz"), (".csv", ".txt")


def read_labels(source: Labels | None, data: Source, samples: int) -> Array:
    """An entry for each of the `samples` of `data`, in their order, along the first dimension.

    `source` is an array; a file: .npy, .npz (its array `labels`, or its only one), .txt or .csv (numbers, one a line; of a
    table, the column `label` or `labels`); or the name of an array that the .npz files of `data` hold beside the inputs; None:
    `labels`. UsageError for what cannot be read, or a different number of entries.
    """
    name = DEFAULT if source is None else str(source)
    if source is not None and not isinstance(source, str | Path):
        found, where = np.asarray(source), "the labels"
    elif source is not None and Path(source).is_file():
        found, where = _of_file(Path(source)), f"labels {str(source)!r}"
    else:
        found, where = _of_data(name, data, given=source is not None), f"array {name!r} of the calibration data"
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 0 or len(found) != samples:
        count = f"{len(found):,} entries" if found.ndim else "a single number"
        raise UsageError(f"{where}: {count} for {samples:,} calibration samples, give one for each, in their order")
    return found


def _of_file(path: Path) -> Array:
    if path.suffix in _TEXT:
        return _of_text(path)
    if path.suffix not in _ARRAYS:
        raise UsageError(f"labels {str(path)!r} are in no form that is read: give a file {', '.join((*_ARRAYS, *_TEXT))}")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise UsageError(f"cannot read labels {str(path)!r}: {exc}") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = list(loaded.files)
        if DEFAULT not in names and len(names) != 1:
            raise UsageError(
                f"labels {str(path)!r} holds {', '.join(map(repr, names)) or 'no array'}: name one of them {DEFAULT!r}"
            )
        return np.asarray(loaded[DEFAULT if DEFAULT in names else names[0]])


def _of_text(path: Path) -> Array:
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(c.strip() for c in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise UsageError(f"cannot read labels {str(path)!r}: {exc}") from None
    header = [cell.strip().lower() for cell in rows[0]] if rows and not _number(rows[0][-1]) else []
    known = [i for i, cell in enumerate(header) if cell in ("label", DEFAULT)]
    if len(rows[0] if rows else ()) > 1 and len(known) != 1:
        raise UsageError(f"labels {str(path)!r} is a table of {len(rows[0])} columns: head that of the class numbers 'label'")
    column, values = known[0] if known else 0, []
    for number, row in enumerate(rows[bool(header) :], start=1):
        cell = row[column].strip() if column < len(row) else ""
        if not _number(cell):
            raise UsageError(f"labels {str(path)!r}: entry {number} is {cell!r}, expected a number")
        values.append(float(cell))
    found = np.array(values)
    return found.astype(np.int64) if np.array_equal(found, np.trunc(found)) else found


def _number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _of_data(name: str, data: Source, *, given: bool) -> Array:
    """An array that the calibration data holds beside the inputs. `given`: the user named it."""
    parts: list[Mapping[str, Any]] = [data] if isinstance(data, Mapping) else []
    known: set[str] = {str(n) for n in parts[0]} if parts else set()
    found = [np.asarray(part[name]) for part in parts if name in part]
    for path in data_files(Path(data)) if isinstance(data, str | Path) else ():
        if path.suffix == ".npz" and path.is_file():
            with np.load(path, allow_pickle=False) as loaded:
                known |= set(loaded.files)
                found += [np.atleast_1d(loaded[name])] if name in loaded.files else []
    if found:
        return np.concatenate(found)
    there = f"it holds {', '.join(map(repr, sorted(known)))}" if known else "it names no arrays"
    if given:
        raise UsageError(f"labels {name!r} are neither a file nor an array of the calibration data ({there})")
    raise UsageError(f"the metric accuracy takes labels: give a file, or an array {name!r} in the calibration data ({there})")
