"""DMA channels of the simulator against counters in plain Python: walks, zeros, iterations, chains, multicast, locks, time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.descriptors import (
    Acquire,
    CoreDescriptor,
    Dim,
    Iteration,
    MemoryDescriptor,
    Pad,
    Release,
    ShimDescriptor,
)
from sparsec.backends.aie.simulate.events import Lock
from sparsec.backends.aie.simulate.report import measure
from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.backends.aie.transaction import Operation
from sparsec.compiler.errors import StreamError
from tests.backends.aie.arrays import CORE, IN, MACHINE, MEMORY, OUT, SHIM, UPPER, Stream, acquire, own, release, walk

WORDS = 2048


def _data(seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.random.default_rng(seed).integers(0, 2**32, WORDS, np.uint32)


def _dims(count: int, wraps: int, steps: int) -> st.SearchStrategy[tuple[Dim, ...]]:
    """`count` dimensions, the last without wrap."""
    inner = st.tuples(*[st.builds(Dim, st.integers(1, steps), st.integers(1, wraps)) for _ in range(count - 1)])
    return st.builds(lambda d, last: (*d, Dim(last)), inner, st.integers(1, steps))


_PADS = st.tuples(*[st.builds(Pad, st.integers(0, 2), st.integers(0, 2)) for _ in range(3)])


@settings(deadline=None, max_examples=40)
@given(_dims(3, 4, 9), _dims(4, 4, 9), st.integers(1, 120), st.integers(0, 50), st.integers(0, 50))
def test_words_go_from_one_walk_to_another(
    source: tuple[Dim, ...], target: tuple[Dim, ...], length: int, first: int, place: int
) -> None:
    """From DDR in any order to a memory tile in any order; where a place is written twice, the later word stays."""
    data = _data()
    stream = Stream()
    stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(place), length, target))
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(4 * first, length, source), argument=0)
    memory = stream.run([data]).array.memories[MEMORY]
    expected: dict[int, int] = {}
    for a, b in zip(walk(length, source), walk(length, target), strict=True):
        assert a is not None
        assert b is not None
        expected[place + b] = int(data[first + a])
    assert np.flatnonzero(memory.written).tolist() == sorted(expected)
    assert all(int(memory.bytes.view(np.uint32)[w]) == v for w, v in expected.items())


@settings(deadline=None, max_examples=40)
@given(_dims(4, 5, 7), _PADS, st.integers(1, 200), st.integers(1, 3), st.integers(1, 40))
def test_zeros_iterations_and_multicast(
    dims: tuple[Dim, ...], pads: tuple[Pad, Pad, Pad], length: int, times: int, step: int
) -> None:
    """A memory tile adds zeros to what both cores take; each execution begins `step` words later."""
    data = _data()
    stream = Stream()
    for tile in (CORE, UPPER):
        stream.task(tile, IN, 0, 0, CoreDescriptor(0, length * times))
    stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), WORDS, release=release(0)))
    moved = MemoryDescriptor(own(0), length, dims, Iteration(step, times), acquire(0), padding=pads)
    stream.task(MEMORY, OUT, 0, 1, replace(moved, release=release(0)), times)
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(0, WORDS), argument=0)
    array = stream.run([data]).array
    expected = [0 if o is None else int(data[o + i * step]) for i in range(times) for o in walk(length, dims, pads)]
    for tile in (CORE, UPPER):
        memory = array.cores[tile].memory
        assert memory.bytes.view(np.uint32)[: length * times].tolist() == expected
        assert int(memory.written.astype(bool).sum()) == length * times


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 3))
def test_chains_run_in_order_and_repeat(lengths: list[int], times: int) -> None:
    """Each descriptor names the next; the whole chain runs `times` times, and the task's end gives one token."""
    total = sum(lengths)
    data = _data()[: total * times]
    stream = Stream()
    firsts = np.cumsum([0, *lengths]).tolist()
    for i, n in reversed(list(enumerate(lengths))):
        last = i == len(lengths) - 1
        made = MemoryDescriptor(own(firsts[i]), n, iteration=Iteration(total, times), next=None if last else i + 1)
        if i:
            stream.operations.append(_only_descriptor(i, made))
        else:
            stream.task(MEMORY, IN, 0, 0, made, times, token=True)
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(0, total * times), argument=0)
    stream.sync(MEMORY)
    finished = stream.run([data])
    assert np.array_equal(finished.array.memories[MEMORY].bytes.view(np.uint32)[: data.size], data)
    assert not finished.array.tokens[MEMORY, IN, 0]


def _only_descriptor(number: int, made: MemoryDescriptor) -> Operation:
    stream = Stream([])
    stream.task(MEMORY, IN, 0, number, made)
    return stream.operations[0]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.booleans()), max_size=30))
def test_locks_serve_whoever_can_be_served(actions: list[tuple[bool, int, bool]]) -> None:
    """At least or exactly, the first of those who can be; never below zero, never above what it holds."""
    lock = Lock("lock", 63)
    value, waiting, granted, served = 0, list[tuple[int, int, bool]](), list[int](), list[int]()

    def settle() -> None:
        nonlocal value
        i = 0
        while i < len(waiting):
            number, wanted, at_least = waiting[i]
            if value < wanted or (value != wanted and not at_least):
                i += 1
                continue
            del waiting[i]
            value -= wanted
            served.append(number)
            i = 0

    for number, (takes, amount, at_least) in enumerate(actions):
        if takes:
            waiting.append((number, amount, at_least))
            lock.acquire("one", amount, at_least, lambda n=number: granted.append(n))  # type: ignore[misc]
        elif value + amount <= 63:
            value += amount
            lock.release(amount, Cause.LOCK)
        else:
            with pytest.raises(StreamError, match="lock would hold"):
                lock.release(amount, Cause.LOCK)
        settle()
        assert granted == served
        assert lock.value == value


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(0, 3))
def test_time_is_never_below_what_channels_need(length: int, back: int, latency: int) -> None:
    """In to a core and out again: every channel's words, DDR's bytes, and the whole are within their bounds."""
    data = _data()
    stream = Stream()
    stream.task(CORE, IN, 0, 0, CoreDescriptor(0, length, release=Release(0)))
    stream.task(UPPER, IN, 0, 0, CoreDescriptor(0, length))
    n = min(length, back)
    stream.task(CORE, OUT, 0, 1, CoreDescriptor(0, n, acquire=Acquire(0)))
    stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), length, release=release(0)))
    stream.task(MEMORY, OUT, 0, 1, MemoryDescriptor(own(0), length, acquire=acquire(0)))
    stream.task(MEMORY, IN, 1, 24, MemoryDescriptor(own(WORDS), n, release=release(1)))
    stream.task(MEMORY, OUT, 1, 25, MemoryDescriptor(own(WORDS), n, acquire=acquire(1)))
    stream.task(SHIM, IN, 0, 1, ShimDescriptor(4 * (WORDS - n), n), token=True, argument=1)
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(0, length), argument=0)
    stream.sync()
    result = np.zeros(WORDS, np.uint32)
    costs = replace(MACHINE.costs, ddr_latency=100 * latency, ddr_bytes_per_cycle=8)
    machine = replace(MACHINE, costs=costs)
    finished = stream.run([data, result], machine=machine)
    assert np.array_equal(result[WORDS - n :], data[:n])
    whole = measure(machine, finished, []).whole
    assert whole.ddr_read == 4 * length
    assert whole.ddr_written == 4 * n
    assert whole.cycles >= max(length, n) + 100 * latency
    assert whole.cycles >= whole.bound[1] >= max(length, n) * 2  # two shims share 8 bytes a cycle, a channel has 2
    for use in whole.channels.values():
        assert sum(use.cycles.values()) == whole.cycles
        assert sum(use.words.values()) <= use.cycles[Cause.BUSY]
