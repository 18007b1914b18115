from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.copy import copy
from tests.backends.cpu.harness import HERE, by_name, compile_kernels

Array = np.ndarray[Any, Any]
VIEWS: list[tuple[tuple[int, ...], Callable[[Array], Array]]] = [
    ((2, 3, 4, 5), lambda a: a),
    ((2, 35, 4, 21), lambda a: a.transpose(0, 2, 1, 3)),
    ((2, 37, 41), lambda a: a.transpose(0, 2, 1)),
    ((3, 5, 6, 7), lambda a: a.transpose(3, 1, 0, 2)),
    ((70, 33), lambda a: a.T),
    ((2, 9, 11), lambda a: a[:, ::-2, 1:10:3]),
    ((2, 9, 11), lambda a: a[:, 2:5]),
    ((3, 1, 5), lambda a: np.broadcast_to(a, (3, 4, 5))),
    ((3, 4, 1), lambda a: np.broadcast_to(a, (2, 3, 4, 6))),
    ((2, 3, 2, 3, 2, 3), lambda a: a.transpose(0, 3, 1, 5, 2, 4)),
    ((1, 8, 6, 6), lambda a: a.reshape(2, 2, 2, 6, 6).transpose(2, 3, 0, 4, 1)),
    ((2, 37, 3), lambda a: a.transpose(0, 2, 1)),
    ((2, 3, 37), lambda a: a.transpose(0, 2, 1)),
    ((5, 9, 4), lambda a: a.transpose(2, 0, 1)),
    ((2, 5, 9), lambda a: a.transpose(1, 2, 0)),
    ((), lambda a: a),
    ((4, 0, 3), lambda a: a.transpose(2, 1, 0)),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_copies_any_strided_view(isa: Isa) -> None:
    prepared = []
    for i, (shape, view) in enumerate(VIEWS):
        for dtype in (np.float32, (np.uint8, np.uint16, np.float64)[i % 3]):
            x = np.random.default_rng(i).integers(0, 99, shape).astype(dtype)
            v = view(x)
            y = np.zeros(v.shape, dtype)
            steps = [tuple(s // x.itemsize for s in a.strides) for a in (v, y)]
            offset = (v.ctypes.data - x.ctypes.data) // x.itemsize if v.size else 0
            prepared.append((*copy(v.shape, *steps, x.itemsize, offset), x, v, y))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, x, v, y) in enumerate(prepared):
        lib.run(spec, geometry, [x, y], threads=1 + i % 3)
        np.testing.assert_array_equal(y, v, err_msg=str(spec))


def test_too_many_loops_are_refused() -> None:
    shape = (2,) * 12
    strides = [2 * 3**i for i in range(12)]
    with pytest.raises(ValueError, match="loops"):
        copy(shape, strides, strides, 4)
