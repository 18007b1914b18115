"""Sparse products one at a time and in loops: bytes and bfloat16 against numpy; masks that are none; ports, cycles and text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sparsec.backends.aie.core.assembly import assemble, disassemble
from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.execute import State
from sparsec.backends.aie.core.program import Kind, core_program, core_text, entries
from sparsec.backends.aie.core.sparse_b import compress, packed
from sparsec.backends.aie.core.timing import Latencies
from sparsec.compiler.errors import ModelError, UsageError

Array = np.ndarray[Any, Any]
BF16 = np.dtype(ml_dtypes.bfloat16)
DATA, WEIGHTS, COUNT = 0x0, 0x2000, 12


def _operands(rng: np.random.Generator, count: int, columns: int) -> Array:
    """Whole numbers [count, 2, 16, columns], two of every four along k not zero, which float32 sums exactly."""
    groups = rng.integers(1, 12, (count, 2, columns, 4, 4))
    groups[np.argsort(rng.random(groups.shape), axis=-1) >= 2] = 0
    signs = rng.choice([-1, 1], groups.shape)
    return np.moveaxis((signs * groups).reshape(count, 2, columns, 16), -1, -2)


def _core(text: str, operands: Array, data: Array, fast: bool = True) -> Core:
    core = Core(assemble(text), Latencies(4, 4, 4), 16384, 2048, fast)
    s = core.state
    s.write(DATA, data.view(np.uint8).reshape(-1), 32)
    s.write(WEIGHTS, np.frombuffer(packed(operands), np.uint8), 32)
    for c in range(9):
        s.sums(c)[:] = np.random.default_rng(c).integers(-9999, 9999, (4, 8))
    s.p[1], s.p[4] = DATA, WEIGHTS
    return core


def _set(core: Core, operands: Array, data: Array) -> State:
    """Data in w0-w3, both operands of the first pair in x4 x5 and q2 q3."""
    s = core.state
    masks, values = compress(operands[0])
    s.w[:4] = data.view(np.uint8).reshape(-1)[:128].reshape(4, 32)
    s.w[8:12] = values.reshape(4, 32)
    s.w[25] = masks.reshape(32)
    return s


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(
    ("text", "target", "sources"),
    [
        ("macsp c3, x1, x5, q3", 3, [3]),
        ("mulsp c3, x1, x5, q3", 3, []),
        ("macspc c0, c8, x1, x5, q3", 0, [8]),
        ("addmacsp c4, c4, c8, x1, x5, q3", 4, [4, 8]),
    ],
)
def test_products_of_bytes(text: str, target: int, sources: list[int], signed: int) -> None:
    """The halves of x are 4 positions of 8 channels each, which follow one another along k."""
    rng = np.random.default_rng(1)
    operands = _operands(rng, 1, 8).astype(np.int8)
    data = rng.integers(0, 256, 128).astype(np.uint8)
    core = _core(f"{text}, {signed}\ndone", operands, data)
    s = _set(core, operands, data)
    before = [s.sums(c).copy() for c in range(9)]
    halves = data[64:].view(np.int8 if signed else np.uint8).reshape(2, 4, 8).astype(np.int64)
    expected = np.concatenate(halves, axis=1) @ operands[0, 1].astype(np.int64) + sum(before[c] for c in sources)
    core.resume()
    assert np.array_equal(s.sums(target), expected)
    assert all(np.array_equal(s.sums(c), before[c]) for c in {*range(9)} - {target})


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(("text", "target", "source"), [("macbfsp c3, z0, x4, q2", 3, 3), ("macbfspc c0, c8, z0, x4, q2", 0, 8)])
def test_products_of_bfloat16(text: str, target: int, source: int, half: int) -> None:
    rng = np.random.default_rng(2)
    operands = _operands(rng, 1, 4).astype(BF16)
    data = rng.integers(-99, 99, 64).astype(BF16)
    core = _core(f"{text}, {half}\ndone", operands, data)
    s = _set(core, operands, data)
    for c in range(9):
        s.floats(c)[:] = rng.integers(-99, 99, (4, 8))
    expected = s.floats(target).copy()
    left = np.concatenate(data.astype(np.float64).reshape(2, 4, 8), axis=1)
    mine = slice(4 * half, 4 * half + 4)
    expected[:, mine] = s.floats(source)[:, mine] + left @ operands[0, 0].astype(np.float64)
    core.resume()
    assert np.array_equal(s.floats(target), expected)


def _loop(product: str, vectors: int) -> str:
    """A loop over pairs of operands, of which it multiplies both."""
    loads = "\n".join(f"a.ldw w{i}, p1, 32" for i in range(vectors))
    values = "\n".join(f"b.ldw w{8 + i}, p4, 32" for i in range(4))
    product = product.format(0, 0) + "\n" + product.format(1, 1)
    return f"movi r1, {COUNT}\nloop r1, end\nb.ldq y0, p4, 32\n{values}\n{loads}\n{product}\nend:\ndone"


@pytest.mark.parametrize("fast", [False, True])
def test_loops_over_bytes(fast: bool) -> None:
    rng = np.random.default_rng(3)
    operands, data = _operands(rng, COUNT, 8).astype(np.int8), rng.integers(0, 256, (COUNT, 2, 4, 8)).astype(np.uint8)
    text = _loop("macsp c{0}, x0, x4, q0, 0", 2).replace("c1, x0, x4, q0", "c1, x0, x5, q1")
    core = _core(text, operands, data, fast)
    before = [core.state.sums(c).astype(np.int64) for c in range(2)]
    core.resume()
    rows = np.concatenate((data[:, 0], data[:, 1]), axis=2).astype(np.int64)
    for half in range(2):
        expected = before[half] + (rows @ operands[:, half].astype(np.int64)).sum(axis=0)
        assert np.array_equal(core.state.sums(half), expected)


@pytest.mark.parametrize("fast", [False, True])
def test_loops_over_bfloat16(fast: bool) -> None:
    rng = np.random.default_rng(4)
    operands, data = _operands(rng, COUNT, 4).astype(BF16), rng.integers(-9, 9, (COUNT, 2, 4, 8)).astype(BF16)
    text = _loop("macbfsp c0, z0, x4, q0, {0}", 4).replace("x4, q0, 1", "x5, q1, 1")
    core = _core(text, operands, data, fast)
    core.state.floats(0)[:] = 0
    core.resume()
    rows = np.concatenate((data[:, 0], data[:, 1]), axis=2).astype(np.float64)
    expected = np.concatenate([(rows @ operands[:, h].astype(np.float64)).sum(axis=0) for h in range(2)], axis=1)
    assert np.array_equal(core.state.floats(0), expected)


@pytest.mark.parametrize("fast", [False, True])
def test_a_mask_that_marks_three_of_four_says_where(fast: bool) -> None:
    """In a loop that would run at once, too."""
    rng = np.random.default_rng(5)
    operands, data = _operands(rng, COUNT, 8).astype(np.int8), rng.integers(0, 256, (COUNT, 2, 4, 8)).astype(np.uint8)
    core = _core(_loop("macsp c{0}, x0, x4, q0, 0", 2), operands, data, fast)
    core.state.memory[WEIGHTS + 7 * 160 + 5] |= 0b0111_0000
    told = r"bundle \d+, `macsp c0, x0, x4, q0, 0`: a mask of sparse B marks . of the four values of column 2 from k = 12"
    with pytest.raises(ModelError, match=told):
        core.resume()


def test_masks_are_read_as_pairs_and_take_a_port() -> None:
    """A load of masks is a load of 32 bytes: registers wait for it, and two loads from one bank take a cycle more."""
    operands = np.zeros((1, 2, 16, 8), np.int8)
    waits = "b.ldq y0, p4, 32\nmulsp c0, x0, x4, q1, 0\ndone"
    meets = "a.ldw w8, p4, 32 | b.ldq y0, p5, 32\ndone"
    core = _core(waits, operands, np.zeros(128, np.uint8))
    core.resume()
    assert core.stalls["pipeline"] == 3
    core = _core(meets, operands, np.zeros(128, np.uint8))
    core.state.p[5] = WEIGHTS
    core.resume()
    assert core.stalls["bank"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("macsp c0, w1, x4, q0, 1", r"line 1: macsp: operand 2 is a register x, not 'w1'"),
        ("macsp c0, x1, x4, q4, 1", r"line 1: macsp: operand q cannot be 4: it is from 0 to 3"),
        ("a.ldq y2, p1, 32", r"line 1: ldq: operand y cannot be 2: it is from 0 to 1"),
        ("macbfsp c0, z6, x4, q0, 1", r"line 1: macbfsp: operand z cannot be 6: it is from 0 to 5"),
        ("a.ldq y0, p1, 16", r"line 1: ldq: operand i cannot be 16: it is from -65536 to 65504 in steps of 32"),
        ("a.ldq y1, p1, 32 | b.ldq y1, p2, 32", r"line 1: ldq and ldq write q2 in one bundle"),
    ],
)
def test_lines_that_are_none(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        assemble(line)


def test_the_programs_text_assembles_to_its_bytes(golden: Callable[[str, str], None]) -> None:
    parts = ((False, False), (False, True), (True, True), (True, False))
    kinds = [Kind(sparse=True, residual=True), *(Kind(sparse=True, starts_partial=a, ends_partial=b) for a, b in parts)]
    program = core_program(kinds, 0xFE80, 16384)
    assert assemble(core_text(kinds, 0xFE80)) == program == assemble(disassemble(program))
    text = disassemble(core_program(kinds[:1], 0xFE80, 16384)).splitlines(keepends=True)
    golden("aie/core_sparse.s", "".join(text[entries(tuple(kinds))[0] :]))
