"""Reports of the simulator on two small layers of one core: cycles by cause add up, rooflines hold, pictures tell."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.descriptors import Acquire, CoreDescriptor, Iteration, MemoryDescriptor, Release, ShimDescriptor
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.simulate.gantt import gantt
from sparsec.backends.aie.simulate.memory import Region
from sparsec.backends.aie.simulate.report import Layer, RunCycles, measure
from sparsec.backends.aie.simulate.run import Finished
from sparsec.backends.aie.simulate.timeline import CORE_CAUSES, Cause, Timeline
from sparsec.backends.aie.simulate.trace import chrome_trace
from sparsec.compiler.errors import InternalError, ModelError, UsageError
from tests.backends.aie.arrays import CORE, IN, MACHINE, MEMORY, OUT, SHIM, UPPER, Stream, acquire, own, release

VECTORS = 40
# Locks: 0 1 data free and full, 2 3 weights, 4 5 results, 6 the layer. Each layer: VECTORS products, then one store.
PROGRAM = f"""
    rel 0, 1
    rel 2, 1
    rel 4, 1
again:
    acq 6, 1
    acq 1, 1
    acq 3, 1
    acq 4, 1
    movi r0, 0
    movp p1, r0
    movi r0, 32768
    movp p4, r0
    movi r0, 49152
    movp p3, r0
    movi r1, {VECTORS}
    b.ldw w4, p4, 32
    b.ldw w5, p4, 32
    clr c0
    loop r1, end
    a.ldw w0, p1, 32
    mac c0, w0, x2, 0
end:
    movi r2, 7
    srs c0, p3, r2, 0, 0
    rel 5, 1
    rel 2, 1
    rel 0, 1
    jmp again
"""
DATA_BYTES, WEIGHT_BYTES, RESULT_BYTES = 32 * VECTORS, 64, 32


def _layer(stream: Stream, number: int) -> Layer:
    """Its data and weights in, its results out."""
    first = len(stream.operations)
    words = [n // 4 for n in (DATA_BYTES, WEIGHT_BYTES, RESULT_BYTES)]
    stream.write(CORE, "lock6", 1)
    stream.task(CORE, IN, 0, 0, CoreDescriptor(0, words[0], acquire=Acquire(0), release=Release(1)))
    stream.task(UPPER, IN, 0, 0, CoreDescriptor(0, words[0]))
    stream.task(CORE, IN, 1, 1, CoreDescriptor(32768 // 4, words[1], acquire=Acquire(2), release=Release(3)))
    stream.task(CORE, OUT, 0, 2, CoreDescriptor(49152 // 4, words[2], acquire=Acquire(5), release=Release(4)))
    moves = ((0, 0, 0, words[0]), (2, 2, 4096, words[1]), (1, 1, 8192, words[2]))
    for lock, channel, place, length in moves:
        odd = 24 if channel % 2 else 0
        made = MemoryDescriptor(own(place), length, iteration=Iteration(1, 1))
        stream.task(MEMORY, IN, channel, odd + 2 * lock, replace(made, release=release(lock)))
        stream.task(MEMORY, OUT, channel, odd + 2 * lock + 1, replace(made, acquire=acquire(lock)))
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(number * DATA_BYTES, words[0]), argument=0)
    stream.task(SHIM, OUT, 1, 1, ShimDescriptor(number * WEIGHT_BYTES, words[1]), argument=1)
    stream.task(SHIM, IN, 0, 2, ShimDescriptor(2 * DATA_BYTES + number * RESULT_BYTES, words[2]), token=True, argument=0)
    stream.sync()
    return Layer(f"conv{number}", first, len(stream.operations), VECTORS * 256)


@cache
def _run() -> tuple[Finished, tuple[Layer, ...], RunCycles]:
    rng = np.random.default_rng(0)
    activations = rng.integers(0, 256, 2 * DATA_BYTES + 2 * RESULT_BYTES, np.uint8)
    weights = rng.integers(-128, 128, 2 * WEIGHT_BYTES, np.int8)
    stream = Stream()
    stream.enable(CORE)
    layers = (_layer(stream, 0), _layer(stream, 1))
    regions = [Region(0, 0, 2 * DATA_BYTES, "image"), Region(0, 2 * DATA_BYTES, activations.size, "sums")]
    finished = stream.run([activations, weights], {CORE: PROGRAM}, regions=regions)
    for i in range(2):
        data = activations[i * DATA_BYTES :][:DATA_BYTES].reshape(-1, 4, 8).astype(np.int64)
        sums = sum(d @ weights[i * WEIGHT_BYTES :][:WEIGHT_BYTES].reshape(8, 8).astype(np.int64) for d in data)
        result = activations[2 * DATA_BYTES + i * RESULT_BYTES :][:RESULT_BYTES].reshape(4, 8)
        assert np.array_equal(result, np.clip(np.round(sums / 128), 0, 255))
    return finished, layers, measure(MACHINE, finished, layers)


def test_cycles_by_cause_add_up_and_rooflines_hold() -> None:
    finished, _, run = _run()
    assert run.layers[0].end == run.layers[1].begin
    assert run.layers[1].end == run.whole.end == finished.cycles
    for layer in (*run.layers, run.whole):
        for cycles in layer.cores.values():
            assert set(cycles) == set(Cause)
            assert sum(cycles[c] for c in CORE_CAUSES) == layer.cycles
            assert min(cycles.values()) >= 0
        for use in layer.channels.values():
            assert sum(use.cycles.values()) == layer.cycles
        assert layer.cycles >= layer.bound[1] > 0


def test_a_layer_says_what_was_done_and_waited_for() -> None:
    _, _, run = _run()
    for layer in run.layers:
        assert (layer.products, layer.busiest_products) == (VECTORS, VECTORS)
        assert layer.ddr_read == DATA_BYTES + WEIGHT_BYTES
        assert layer.ddr_written == RESULT_BYTES
        core, idle = layer.cores[CORE], layer.cores[UPPER]
        assert 2 * VECTORS < core[Cause.COMPUTE] < 3 * VECTORS
        assert core[Cause.PIPELINE] >= VECTORS * (MACHINE.core.load_latency - 1)
        assert core[Cause.DATA] > DATA_BYTES // 4 > core[Cause.WEIGHTS]
        assert core[Cause.LOCK] == 4 * MACHINE.costs.lock
        assert core[Cause.RESULTS] == 0
        assert idle[Cause.IDLE] == layer.cycles
        assert layer.channels[CORE, IN, 0].words == {"image": DATA_BYTES // 4}
        assert layer.channels[CORE, IN, 1].words == {"weights": WEIGHT_BYTES // 4}
        assert layer.channels[SHIM, IN, 0].words == {"results": RESULT_BYTES // 4}
        assert layer.bound == ("shim out", DATA_BYTES // 4)
        assert layer.roofline["products"] == VECTORS
        assert layer.peak_share == VECTORS * 256 / layer.cycles / MACHINE.macs_per_cycle
    assert run.whole.cores[CORE][Cause.JUMP] == 2 * MACHINE.core.jump_cycles


def test_the_table_has_a_line_a_layer() -> None:
    _, _, run = _run()
    head, *rows, note = run.text().splitlines()
    assert head.split()[:3] == ["layer", "cycles", "%"]
    assert [r.split()[0] for r in rows] == ["conv0", "conv1", "all"]
    assert all("shim out" in r for r in rows)
    assert note.startswith("aie2:2x2: cycles are a model's estimates.")


def test_layers_that_the_control_stream_has_not() -> None:
    finished, layers, _ = _run()
    with pytest.raises(ModelError, match=r"layer 'conv1' has operations \d+ to 999: the control stream has \d+"):
        measure(MACHINE, finished, [layers[0], replace(layers[1], end=999)])
    with pytest.raises(ModelError, match=r"the manifest's layers of 'part0/control\.bin' are not as expected"):
        Layer.of({"control": "part0/control.bin", "layers": [{"node": "a", "operations": [1]}]})
    entry = {"layers": [{"node": "a", "operations": [1, 4], "macs": 7, "element": "bf16"}]}
    assert Layer.of(entry) == (Layer("a", 1, 4, 7, "bf16"),)


def test_less_than_the_roofline_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    finished, layers, _ = _run()
    monkeypatch.setattr(finished.array.channels[SHIM, OUT, 0], "words_per_cycle", 0.05)
    with pytest.raises(InternalError, match=r"layer 'conv0' took \d+ cycles in simulation, less than the 6400 of its shim out"):
        measure(MACHINE, finished, layers)


def test_a_trace_names_tiles_threads_layers_and_buffers() -> None:
    finished, layers, _ = _run()
    events = json.loads(chrome_trace(MACHINE, [(finished, layers)]))["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert list(processes.values()) == ["control", "shim(0,0)", "memory(0,1)", "core(0,2)", "core(0,3)"]
    named = defaultdict(set)
    spans = [e for e in events if e["ph"] == "X"]
    for e in spans:
        named[processes[e["pid"]], threads[e["pid"], e["tid"]]].add(e["name"])
        assert e["dur"] * 1e3 == pytest.approx(e["args"]["cycles"])
    assert {"conv0: compute", "conv1: compute", "conv0: wait for image", "conv1: wait for image"} <= named["core(0,2)", "core"]
    assert {"conv0: image", "conv1: image: wait for lock"} <= named["memory(0,1)", "MM2S 0"]
    assert "conv1: weights" in named["core(0,2)", "S2MM 1"]
    assert any("wait for results" in n for n in named["control", "control stream"])
    for key in threads:
        mine = sorted(
            (e["args"]["cycle"], e["args"]["cycle"] + e["args"]["cycles"]) for e in spans if (e["pid"], e["tid"]) == key
        )
        assert all(a[1] <= b[0] for a, b in pairwise(mine))


def test_parts_follow_one_another_in_a_trace() -> None:
    finished, layers, _ = _run()
    one, two = (json.loads(chrome_trace(MACHINE, [(finished, layers)] * n))["traceEvents"] for n in (1, 2))
    spans = [[e for e in events if e["ph"] == "X"] for events in (one, two)]
    assert len(two) - len(spans[1]) == len(one) - len(spans[0])
    later = [e["args"] | {"cycle": e["args"]["cycle"] - finished.cycles} for e in spans[1][len(spans[0]) :]]
    assert later == [e["args"] for e in spans[0]]


@pytest.mark.parametrize("limit", [30, 80])
def test_a_trace_is_bounded_and_loses_no_words(limit: int) -> None:
    finished, layers, run = _run()
    events = [e for e in json.loads(chrome_trace(MACHINE, [(finished, layers)], limit))["traceEvents"] if e["ph"] == "X"]
    assert len(events) <= limit
    words = sum(sum(u.words.values()) for u in run.whole.channels.values())
    assert words <= sum(e["args"].get("words", 0) for e in events)


def test_a_picture_is_of_a_layer_or_of_all() -> None:
    finished, layers, run = _run()
    for only, begin in ((None, 0), ("conv1", run.layers[1].begin)):
        root = ElementTree.fromstring(gantt(MACHINE, finished, layers, only))
        texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any(f"cycles {begin:,} to {finished.cycles:,}" in t for t in texts)
        assert {"core(0,2)", "memory(0,1)", "MM2S 0", "conv1", "image"} <= set(texts)
        assert ("conv0" in texts) == (only is None)
        width = float(root.attrib["width"])
        for box in root.iter("{http://www.w3.org/2000/svg}rect"):
            if "x" in box.attrib:
                assert 0 <= float(box.attrib["x"]) <= float(box.attrib["x"]) + float(box.attrib["width"]) <= width
    with pytest.raises(UsageError, match="there is no layer 'conv7' on the array: expected one of conv0, conv1"):
        gantt(MACHINE, finished, layers, "conv7")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 8)), max_size=12), st.data())
def test_windows_cover_a_timeline(intervals: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Cut anywhere, the parts' cycles are the whole's; rounding may lose work, and never makes any."""
    timeline, at, work = Timeline(), 0, 0
    for gap, length, done in intervals:
        at += gap
        timeline.add(at, at + length, Cause.BUSY if done % 2 else Cause.LOCK, 0, done, min(done, length))
        at, work = at + length, work + (min(done, length) if length else 0)
    cut = data.draw(st.integers(0, at))
    whole, left, right = timeline.cycles(0, at), timeline.cycles(0, cut), timeline.cycles(cut, at)
    assert all(left[c] + right[c] == whole[c] for c in Cause)
    assert sum(whole.values()) == at
    rows = [timeline.within(a, b) for a, b in ((0, cut), (cut, at))]
    assert all((r[:, 5] <= r[:, 1] - r[:, 0]).all() for r in rows)
    assert work - 1 <= sum(int(r[:, 5].sum()) for r in rows) <= work


def test_channels_and_loads_meet_in_banks() -> None:
    """A core that always reads one bank loses a cycle for each access of words that come into it; none for those elsewhere."""

    def cycles(place: int, access_words: int) -> int:
        stream = Stream()
        stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), 1024, release=release(0)))
        stream.task(SHIM, OUT, 0, 0, ShimDescriptor(0, 1024), argument=0)
        for tile in (CORE, UPPER):
            stream.task(tile, IN, 0, 0, CoreDescriptor(place // 4, 1024))
        stream.task(MEMORY, OUT, 0, 1, MemoryDescriptor(own(0), 1024, acquire=acquire(0)))
        stream.write(CORE, "data+0x0", 1)
        for i in range(1, 8):
            stream.write(CORE, f"data+{4 * i:#x}", 1)
        stream.enable(CORE)
        machine = replace(MACHINE, costs=replace(MACHINE.costs, dma_access_words=access_words))
        text = "movi r1, 4000\nloop r1, end\na.ldw w0, p1, 0\nend:\nrel 0, 1\nacq 1, 1"
        array = stream.run([np.arange(1024, dtype=np.uint32)], {CORE: text}, machine=machine).array
        return array.cores[CORE].core.stalls["bank"]

    assert cycles(32768, 4) == 0
    assert cycles(32, 4) == 256 - 1
    assert cycles(32, 1) == 1024 - 1
    assert cycles(32, 0) == 0


def test_tiles_are_in_the_report() -> None:
    _, _, run = _run()
    assert set(run.whole.cores) == {Tile(c, r) for c in range(2) for r in (2, 3)}
