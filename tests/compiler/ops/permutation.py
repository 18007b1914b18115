"""What an axis map promises, checked by doing it: permute an iteration dimension in all operands, and see it in the results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Iter, Merged, Offset, Window
from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.base import Op
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


def types_of(arrays: Sequence[Array | None]) -> list[TensorType | None]:
    """The row-major types of arrays."""
    return [None if a is None else TensorType(DType.from_numpy(a.dtype), tuple(a.shape)) for a in arrays]


def check_structure(op: Op, arrays: Sequence[Array | None], results: Sequence[Array]) -> AxisMap:
    """Results are of the inferred types; every operand dimension has an access, and its extent is what the access says."""
    types = types_of(arrays)
    assert types_of(results) == list(op.infer(types)), op
    axis_map = op.axes(types)
    extents = {d.name: d.extent for d in axis_map.dims}
    assert len(extents) == len(axis_map.dims), "two iteration dimensions share a name"
    assert len(axis_map.inputs) == len(arrays) and len(axis_map.outputs) == len(results)
    for array, accesses in zip([*arrays, *results], [*axis_map.inputs, *axis_map.outputs], strict=True):
        shape = () if array is None else array.shape
        assert len(accesses) == len(shape), (op, shape, accesses)
        for n, access in zip(shape, accesses, strict=True):
            if isinstance(access, Iter):
                assert n == extents[access.dim], (op, access)
            elif isinstance(access, Merged):
                assert n == prod(extents[d] for d in access.dims), (op, access)
            elif isinstance(access, Offset):
                assert 0 <= access.start and access.start + (n - 1) * access.step < extents[access.dim], (op, access)
    return axis_map


def _blocks(axis_map: AxisMap, name: str, arrays: Sequence[Array | None]) -> list[int] | None:
    """Boundaries of the parts of dimension `name` that may be permuted, None when it slides in a window or is strided."""
    cuts = {0, axis_map.dim(name).extent}
    for array, accesses in zip(arrays, [*axis_map.inputs, *axis_map.outputs], strict=True):
        for i, access in enumerate(accesses):
            if isinstance(access, Window) and name in (access.dim, access.kernel):
                return None
            if isinstance(access, Offset) and access.dim == name:
                if access.step != 1:
                    return None
                assert array is not None
                cuts |= {access.start, access.start + array.shape[i]}
    return sorted(cuts)


def _permuted(array: Array | None, accesses: Sequence[Access], axis_map: AxisMap, name: str, order: Array) -> Array | None:
    if array is None:
        return None
    for i, access in enumerate(accesses):
        if isinstance(access, Iter) and access.dim == name:
            array = np.take(array, order, axis=i)
        elif isinstance(access, Offset) and access.dim == name:
            part = order[access.start : access.start + array.shape[i]] - access.start
            array = np.take(array, part, axis=i)
        elif isinstance(access, Merged) and name in access.dims:
            extents = [axis_map.dim(d).extent for d in access.dims]
            split = array.reshape(*array.shape[:i], *extents, *array.shape[i + 1 :])
            array = np.take(split, order, axis=i + access.dims.index(name)).reshape(array.shape)
    return array


def check_permutations(op: Op, arrays: Sequence[Array | None], rng: np.random.Generator, tolerance: float = 1e-5) -> set[str]:
    """Check every dimension that can be permuted; returns their names.

    For any kind of dimension: permuting it in all operands that carry it permutes it in the results that carry it (none, when it
    is reduced). Parts that concatenation or padding tells apart are permuted within themselves.
    """
    results = op.evaluate(arrays)
    axis_map = check_structure(op, arrays, results)
    checked: set[str] = set()
    for dim in axis_map.dims:
        cuts = _blocks(axis_map, dim.name, [*arrays, *results])
        if cuts is None or len(cuts) < 2:
            continue
        order = np.concatenate([a + rng.permutation(b - a) for a, b in pairwise(cuts)]).astype(np.int64)
        moved = [_permuted(a, acc, axis_map, dim.name, order) for a, acc in zip(arrays, axis_map.inputs, strict=True)]
        for got, plain, accesses in zip(op.evaluate(moved), results, axis_map.outputs, strict=True):
            want = _permuted(plain, accesses, axis_map, dim.name, order)
            assert want is not None
            if want.dtype.kind in "iub":
                np.testing.assert_array_equal(got, want, err_msg=f"{op} along {dim}")
            else:
                got, want = got.astype(np.float64), want.astype(np.float64)
                atol = tolerance * float(np.abs(want[np.isfinite(want)]).max(initial=1e-6))
                np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=f"{op} along {dim}")
        checked.add(dim.name)
    return checked
