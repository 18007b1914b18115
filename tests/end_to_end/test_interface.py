"""The C interface's promises: status codes, re-entrancy, linked and given weights, the arena's size."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.compiler.errors import UsageError
from sparsec.compiler.feeds import random_feeds
from sparsec.compiler.runtime import CompiledModel, aligned_bytes
from tests.end_to_end.program import build, small_graph

OK, NULL_POINTER, MISALIGNED = 0, 1, 2


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    return build(small_graph(), tmp_path_factory.mktemp("interface") / "net")


class Raw:
    """The C function with every pointer in the caller's hands."""

    def __init__(self, library: CompiledModel) -> None:
        self.function = ctypes.CDLL(str(library.directory / "libnet.so")).net_run
        self.arena = aligned_bytes(library.report.memory.arena_bytes + 64)
        self.inputs = [random_feeds(library.inputs)[t.name] for t in library.inputs]
        self.outputs = [np.zeros(t.shape, np.float32) for t in library.outputs]

    def __call__(self, **changed: Any) -> int:
        """Call it with good arguments but for the `changed` ones (addresses, or lists of them)."""
        good = {
            "inputs": [a.ctypes.data for a in self.inputs],
            "outputs": [a.ctypes.data for a in self.outputs],
            "weights": None,
            "arena": self.arena.ctypes.data,
        }
        structs = []
        for key in ("inputs", "outputs"):
            fields = {**good, **changed}[key]
            structs.append(None if fields is None else (ctypes.c_void_p * len(fields))(*fields))
        rest = [ctypes.c_void_p({**good, **changed}[key]) for key in ("weights", "arena")]
        return int(self.function(*structs, *rest))


def test_null_pointers(library: CompiledModel) -> None:
    raw = Raw(library)
    outputs = [a.ctypes.data for a in raw.outputs]
    assert raw() == OK
    for changed in (
        {"inputs": None},
        {"outputs": None},
        {"arena": None},
        {"inputs": [None]},
        {"outputs": [None, outputs[1]]},
        {"outputs": [outputs[0], None]},
    ):
        assert raw(**changed) == NULL_POINTER, changed


@pytest.mark.parametrize("offset", [1, 4, 32])
def test_misaligned_pointers(library: CompiledModel, offset: int) -> None:
    raw = Raw(library)
    assert raw(arena=raw.arena.ctypes.data + offset) == MISALIGNED
    weights = aligned_bytes(library.report.memory.weights_bytes + 64)
    assert raw(weights=weights.ctypes.data + offset) == MISALIGNED
    assert raw(arena=raw.arena.ctypes.data + 64) == OK


def test_inputs_and_outputs_need_no_alignment(library: CompiledModel) -> None:
    raw = Raw(library)
    assert raw() == OK
    expected = [a.copy() for a in raw.outputs]
    loose_in = np.zeros(raw.inputs[0].nbytes + 4, np.uint8)[4:].view(np.float32).reshape(raw.inputs[0].shape)
    loose_in[:] = raw.inputs[0]
    loose_out = [np.zeros(a.nbytes + 4, np.uint8)[4:].view(np.float32).reshape(a.shape) for a in raw.outputs]
    assert raw(inputs=[loose_in.ctypes.data], outputs=[a.ctypes.data for a in loose_out]) == OK
    assert all(np.array_equal(a, b) for a, b in zip(loose_out, expected, strict=True))


def test_given_weights_replace_the_linked_ones(library: CompiledModel) -> None:
    raw = Raw(library)
    weights = aligned_bytes(library.report.memory.weights_bytes)
    weights[:] = np.fromfile(library.directory / "net_weights.bin", np.uint8)
    assert raw() == OK
    expected = [a.copy() for a in raw.outputs]
    assert raw(weights=weights.ctypes.data) == OK
    assert all(np.array_equal(a, b) for a, b in zip(raw.outputs, expected, strict=True))
    weights[:] = 0
    assert raw(weights=weights.ctypes.data) == OK
    assert not raw.outputs[0].any() and (raw.outputs[1] == 0.5).all()


def test_it_writes_nothing_but_its_arena_and_outputs(library: CompiledModel) -> None:
    raw = Raw(library)
    size = library.report.memory.arena_bytes
    guarded = aligned_bytes(size + 128)
    guarded[:] = 0xA5
    before = raw.inputs[0].copy()
    assert raw(arena=guarded.ctypes.data + 64) == OK
    assert (guarded[:64] == 0xA5).all() and (guarded[64 + size :] == 0xA5).all()
    assert np.array_equal(before, raw.inputs[0])


def test_two_threads_with_two_arenas(library: CompiledModel) -> None:
    workers = [Raw(library) for _ in range(2)]
    workers[1].inputs = [a + np.float32(1) for a in workers[0].inputs]
    expected = []
    for raw in workers:
        assert raw() == OK
        expected.append([a.copy() for a in raw.outputs])
    assert not np.array_equal(expected[0][0], expected[1][0])

    def work(index: int) -> bool:
        raw, right = workers[index], True
        for _ in range(200):
            for a in raw.outputs:
                a.fill(np.nan)
            right &= raw() == OK and all(np.array_equal(a, b) for a, b in zip(raw.outputs, expected[index], strict=True))
        return right

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, [0, 1])) == [True, True]


def test_without_linked_weights_null_is_refused(tmp_path: Path) -> None:
    library = build(small_graph(), tmp_path / "net", weights="file")
    assert Raw(library)() == NULL_POINTER
    feeds = random_feeds(library.inputs)
    linked = build(small_graph(), tmp_path / "linked")
    assert np.array_equal(library.run(feeds)["y"], linked.run(feeds)["y"])
    (library.directory / "net_weights.bin").write_bytes(b"short")
    with pytest.raises(UsageError, match=r"net_weights\.bin has 5 bytes, expected \d+: compile the model again"):
        CompiledModel(library.directory).run(feeds)


def test_python_names_wrong_inputs(library: CompiledModel) -> None:
    x = random_feeds(library.inputs)["x"]
    for feeds, message in (
        ({}, r"input 'x' is missing: give a f32 array of shape \[2, 3, 7, 9\]"),
        ({"x": x, "q": x}, r"no input is called 'q': the inputs are \['x'\]"),
        ({"x": x[:1]}, r"input 'x' is float32\[1, 3, 7, 9\]"),
        ({"x": x.astype(np.float64)}, r"input 'x' is float64"),
    ):
        with pytest.raises(UsageError, match=message):
            library.run(feeds)


def test_a_run_does_not_change_what_an_earlier_one_returned(library: CompiledModel) -> None:
    x = random_feeds(library.inputs)["x"]
    first = library.run({"x": x})
    kept = {k: v.copy() for k, v in first.items()}
    library.run({"x": x + 1})
    assert all(np.array_equal(first[k], kept[k]) for k in kept)
