"""Random products and how to run them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sparsec.backends.systolic import Dataflow, Gemm, Level, Lowered, Machine, Mapping, Run, lower, product, simulate
from sparsec.backends.systolic.isa import Format

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A product W X on an array, and the n:m that W has where it has one."""

    machine: Machine
    w: Array
    x: Array
    zero: int
    keep: int
    group: int

    @property
    def gemm(self) -> Gemm:
        return product(self.w, self.x, zero=self.zero)

    @property
    def expected(self) -> Array:
        wide = self.w.astype(np.int64) @ (self.x.astype(np.int64) - self.zero)
        return wide.astype(np.float32 if self.w.dtype == np.float32 else np.int32)

    def mapping(self, dataflow: Dataflow, form: Format | None = None) -> Mapping:
        return Mapping(dataflow, form, self.keep, self.group) if dataflow.grouped else Mapping(dataflow, form)

    def lowered(self, mapping: Mapping) -> Lowered:
        return lower(self.machine, [(self.gemm, mapping)])

    def run(self, mapping: Mapping, level: Level) -> Run:
        made = self.lowered(mapping)
        return simulate(made.stream, made.weights, self.x, self.w.shape[0] * self.x.shape[1], level)


def zeroed(rng: np.random.Generator, shape: tuple[int, int], density: float, vector: tuple[int, int]) -> Array:
    """Small whole numbers, so that float32 sums are exact, with vectors of zeros."""
    tall, wide = (-(-s // v) for s, v in zip(shape, vector, strict=True))
    kept = np.repeat(np.repeat(rng.random((tall, wide)) < density, vector[0], 0), vector[1], 1)
    return np.where(kept[: shape[0], : shape[1]], rng.integers(-9, 10, shape), 0)


def grouped(w: Array, keep: int, group: int) -> Array:
    """`w` with all but the first `keep` nonzero elements of every group of columns set to 0."""
    out = w.copy()
    for first in range(0, w.shape[1], group):
        part = out[:, first : first + group]
        part[np.cumsum(part != 0, axis=1) > keep] = 0
    return out


@st.composite
def cases(draw: st.DrawFn, *, n_m: bool = False) -> Case:
    """Arrays of up to 5x5 PEs, products with tails, all densities, float32 and 8-bit."""
    rows, cols, lanes = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    shape, n = (draw(st.integers(1, 13)), draw(st.integers(1, 13))), draw(st.integers(1, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vector = draw(st.sampled_from([(1, 1), (rows, 1), (1, rows), (cols, 1)]))
    w = zeroed(rng, shape, draw(st.sampled_from([0.0, 0.15, 0.5, 1.0])), vector)
    keep, group = draw(st.sampled_from([(1, 2), (2, 4), (1, 4), (2, 8), (3, 5), (2, 16)]))
    if n_m:
        w = grouped(w, keep, group)
        lanes = 16
    machine = Machine("flexisaga", rows, cols, lanes)
    kind = draw(st.sampled_from(["f32", "i8", "u8"]))
    if kind == "f32":
        return Case(machine, w.astype(np.float32), _data(rng, shape[1], n, np.float32), 0, keep, group)
    dtype = np.int8 if kind == "i8" else np.uint8
    zero = draw(st.integers(-3, 3) if kind == "i8" else st.integers(0, 200))
    return Case(machine, w.astype(np.int8), _data(rng, shape[1], n, dtype), zero, keep, group)


def _data(rng: np.random.Generator, k: int, n: int, dtype: Any) -> Array:
    low, high = (0, 256) if dtype is np.uint8 else (-100, 101)
    return rng.integers(low, high, (k, n)).astype(dtype)
