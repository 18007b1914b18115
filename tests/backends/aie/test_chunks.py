"""Chunks of weights as a core's program reads them: control, bias, steps backwards from the header, blocks right behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.aie.lower.chunks import Chunk, Steps, chunk_bytes
from sparsec.backends.aie.lower.paging import Spot
from sparsec.compiler.errors import LimitError

_SPOT = Spot(4096, 3, 2)
_SIZES = {"bytes": 64, "lanes": 32, "bfloat16": 128, "sparse": 160}


def _chunk(kind: str, count: int, bias: bool, goes_on: bool, seed: int) -> Chunk:
    rng = np.random.default_rng(seed)
    shape = {"bytes": (8, 8), "lanes": (8,), "bfloat16": (8, 8), "sparse": (2, 16, 8)}[kind]
    blocks = rng.integers(1, 100, (count, *shape)).astype(np.int8)
    if kind == "bfloat16":
        blocks = blocks.astype(np.uint16)  # as wide
    if kind == "sparse":
        blocks[:, :, 2::4] = blocks[:, :, 3::4] = 0
    biases = rng.integers(-(2**30), 2**30, 16 if kind == "sparse" else 8, np.int32) if bias else None
    offsets = [32 * int(n) for n in rng.integers(0, 2000, count)]
    return Chunk(biases, blocks, offsets, 77, residual=160, partial=1024, goes_on=goes_on)


@given(
    kind=st.sampled_from(sorted(_SIZES)),
    count=st.one_of(st.integers(0, 40), st.integers(0, 300)),
    bias=st.booleans(),
    goes_on=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_core_finds_all_of_a_chunk(kind: str, count: int, bias: bool, goes_on: bool, seed: int) -> None:
    """From the header on: where each block's data are, as the pointer goes backwards through the steps; biases before the header;
    blocks behind it, and nothing behind these. Its length is what ways are ranked by."""
    chunk, steps = _chunk(kind, count, bias, goes_on, seed), Steps()
    made = chunk.pack(steps, _SPOT)
    half = np.frombuffer(made, np.int16)
    head, each = chunk.lead, _SIZES[kind]
    control = np.frombuffer(made, np.uint16)[(head + 12) // 2 : (head + 32) // 2]
    first, entry, loops, onward, second, _, _, *spot = control.tolist()
    assert (entry, spot) == (77, [4096, 3, 2])
    least = 6 if goes_on and kind in ("bytes", "lanes") else 4
    stored = 2 * loops + least
    assert stored == max(least, count + count % 2) and len(made) == head + 32 + stored * each
    biases = (2 if kind == "sparse" else 1) if bias else 0
    at, steps_read = head + 10, [int(np.int16(np.uint16(second)))]
    for i in range(stored - 2):
        assert at >= 0
        steps_read.append(int(half[at // 2]))
        at -= 2 + (6 + 32 * biases + 2 if biases and i == 1 else 0)
    found = 32 * first + np.cumsum([0, *(32 * s + steps.span for s in steps_read)])
    assert found[:count].tolist() == list(chunk.offsets)
    assert 32 * int(np.int16(np.uint16(onward))) + steps.span + found[-1] == found[0] + steps.on
    if chunk.bias is not None:
        told = np.frombuffer(made, np.int32)[head // 4 - 8 * biases : head // 4].reshape(-1, 8)
        assert np.array_equal(told[::-1].reshape(-1), chunk.bias)
    if kind == "bytes":
        stored_blocks = np.frombuffer(made, np.int8)[head + 32 :].reshape(stored, 8, 8)
        assert np.array_equal(stored_blocks[:count], chunk.blocks) and not stored_blocks[count:].any()
    size, lead = chunk_bytes(np.array(count), np.array(least), each, np.array(biases))
    assert (int(size), int(lead)) == (len(made), head)


@pytest.mark.parametrize(
    ("blocks", "goes_on", "bytes_"), [(4, False, 64), (20, False, 96), (22, False, 128), (8, True, 32), (24, True, 64)]
)
def test_what_a_chunk_has_beside_blocks(blocks: int, goes_on: bool, bytes_: int) -> None:
    """A vector for control and the first steps, one for a bias, and one for every 16 further steps."""
    chunk = _chunk("bytes", blocks, bias=not goes_on, goes_on=goes_on, seed=1)
    assert len(chunk.pack(Steps(), _SPOT)) == bytes_ + 64 * blocks


def test_data_too_far_apart() -> None:
    chunk = Chunk(np.zeros(8, np.int32), np.ones((4, 8, 8), np.int8), [0, 32 * 2**16, 0, 0], 0)
    with pytest.raises(LimitError, match="does not fit 16 bits"):
        chunk.pack(Steps(), _SPOT)
