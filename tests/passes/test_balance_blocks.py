"""Channels put into an order in which cores have equal numbers of blocks: values stay, and work is even."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.scalar import Program
from sparsec.compiler.sparsity import NM, Block
from sparsec.compiler.sparsity.weights import View
from sparsec.compiler.types import TensorType
from sparsec.passes import balance_blocks
from sparsec.passes.balance_blocks import BalanceBlocks
from sparsec.passes.flat_products import FlatProducts
from sparsec.passes.permutation.sharing import waited
from tests.backends.aie.networks import compile_for, run_emitted
from tests.passes.helpers import check, random_array

Array = np.ndarray[Any, Any]
ADDED = "cast.f32(a2);sub(t3,128.0);mul(t4,0.5);add(t2,t5)"


def _bytes_of(value: str, n: int) -> str:
    """The steps that make bytes with the zero point 128 of a value, the first of which is number n."""
    return f"round({value});add(t{n},128.0);max(t{n + 1},0.0);min(t{n + 2},255.0);cast.u8(t{n + 3})"


class Layers:
    """Layers of bytes behind the input "x", u8, with their weights, which are named as they are, and biases."""

    def __init__(self, channels: int, size: tuple[int, int] = (3, 2), seed: int = 0) -> None:
        self.editor = GraphEditor(Graph("g", ("x",), (), (), {"x": TensorType(DType.U8, (1, channels, *size))}))
        self.rng = np.random.default_rng(seed)

    def weights(self, name: str, shape: tuple[int, ...], kept: float) -> str:
        """int8 [OC, IC, ...]: 8 x 8 blocks of zeros, and others without any zero."""
        w = self.rng.integers(1, 128, shape) * self.rng.choice([-1, 1], shape)
        whole = self.rng.random((-(-shape[0] // 8), -(-shape[1] // 8))) < kept
        mask = np.kron(whole, np.ones((8, 8), int))[: shape[0], : shape[1]]
        return self.editor.add_constant((w * mask.reshape(*shape[:2], *[1] * (len(shape) - 2))).astype(np.int8), name)

    def add(self, op: Op, *inputs: str) -> str:
        return self.editor.add(op, inputs, hint=op.name).output

    def conv(
        self,
        v: str,
        name: str,
        oc: int,
        k: int = 1,
        *,
        groups: int = 1,
        residual: str = "",
        kept: float = 0.5,
        floats: bool = False,
    ) -> str:
        """A convolution with a bias for each channel, perhaps a residual, and bytes as results, or floats; of its 8 x 8 blocks of
        weights a share of `kept` is not zero."""
        inputs = self.editor.types[v].shape[1] // groups
        w = self.weights(name, (oc, inputs, k, k), kept)
        bias, scaled = self.sums(name, (oc, 1, 1), inputs * k * k * kept)
        n = 6 if residual else 2
        text = scaled if floats else ";".join([scaled, *[ADDED] * bool(residual), _bytes_of(f"t{n}", n + 1)])
        op = Conv((1, 1), (1, 1), (k // 2,) * 4, groups, Program.parse(text), 128 if v != "x" else 2)
        made = self.editor.add(op, (v, w, bias, *filter(None, [residual])), hint=f"{name}.out", origin=(name,))
        return made.output

    def sums(self, name: str, shape: tuple[int, ...], products: float) -> tuple[str, str]:
        """A bias, and the steps that add it to sums of so many products and scale them to most of a byte's range."""
        shift = round(np.log2(75 * np.sqrt(products)))
        bias = self.rng.integers(-60 << shift, 60 << shift, shape).astype(np.int32)
        return self.editor.add_constant(bias, f"{name}.bias"), f"add(a0,a1);cast.f32(t0);mul(t1,{2.0**-shift!r})"

    def product(self, v: str, name: str, width: int, *, flipped: bool = False) -> str:
        """A flattened image times weights, stored as [N, K] or as [K, N]."""
        shape = self.editor.types[v].shape
        k = int(np.prod(shape[1:]))
        w = self.weights(name, (width, k), 0.5)
        if not flipped:
            self.editor.constants[w] = np.ascontiguousarray(self.editor.constants[w].T)
            self.editor.types[w] = TensorType(DType.I8, (k, width))
        flat = self.add(Reshape((1, k)), v)
        bias, scaled = self.sums(name, (width,), k / 2)
        op = MatMul(False, flipped, Program.parse(f"{scaled};{_bytes_of('t2', 3)}"), 128)
        return self.editor.add(op, (flat, w, bias), hint=f"{name}.out", origin=(name,)).output

    def finish(self, *outputs: str) -> Graph:
        self.editor.outputs = [Port(f"y{i}", v) for i, v in enumerate(outputs)]
        self.editor.changed = True
        return self.editor.finish()


def reordered(graph: Graph, after: Graph) -> set[str]:
    """The constants that changed, each of which has its entries in another order."""
    changed = {v for v, a in graph.constants.items() if not np.array_equal(a, after.constants[v])}
    assert all(np.array_equal(np.sort(graph.constants[v], axis=None), np.sort(after.constants[v], axis=None)) for v in changed)
    return changed


def balanced(graph: Graph) -> Graph:
    """The graph behind the pass: nothing but constants is new, and outputs, which are of many values, are the same to the bit."""
    after = check(BalanceBlocks(), graph, tolerance=0)
    assert after.nodes == graph.nodes and after.types == graph.types
    found = interpret(graph, {v: random_array(graph.types[v], np.random.default_rng(1)) for v in graph.inputs})
    assert all(len(np.unique(y)) > 12 for y in found.values()), "outputs that tell nothing"
    return after


def blocks(w: Array) -> Array:
    """Of weights [OC, IC, ...] the positions of 8 x 8 blocks with a weight that is not zero, [blocks of OC, blocks of IC]."""
    w = w.reshape(*w.shape[:2], -1)
    oc, ic = (range(0, n, 8) for n in w.shape[:2])
    return np.array([[np.any(w[o : o + 8, i : i + 8] != 0, axis=(0, 1)).sum() for i in ic] for o in oc])


def turns(w: Array, n: int) -> Array:
    """The blocks of each of n cores that take every n-th block of outputs."""
    return np.array([blocks(w)[i::n].sum() for i in range(n)])


def parts(w: Array, n: int) -> Array:
    """The blocks of each of n parts of the inputs for each block of outputs, [blocks of OC, n]."""
    found = blocks(w)
    return found.reshape(len(found), n, -1).sum(axis=2)


def chain(channels: int = 64, kept: float = 0.5, seed: int = 0, size: tuple[int, int] = (3, 2)) -> Graph:
    b = Layers(16, size, seed)
    first = b.conv("x", "first", channels, kept=kept)
    second = b.conv(first, "second", channels, 3, kept=kept)
    return b.finish(b.conv(second, "last", 24, kept=kept))


def _residual() -> Graph:
    b = Layers(16)
    v = b.conv("x", "first", 64)
    v = b.conv(b.conv(v, "narrow", 48), "wide", 64, residual=v)
    return b.finish(b.conv(v, "last", 24))


def _concat() -> Graph:
    b = Layers(16)
    both = b.add(Concat(1), b.conv("x", "left", 48), b.conv("x", "right", 64))
    return b.finish(b.conv(both, "last", 24, 3))


def _twice() -> Graph:
    """A value twice in the inputs of a layer, which moves in both places."""
    b = Layers(16)
    v = b.conv("x", "first", 64)
    return b.finish(b.conv(b.add(Concat(1), v, b.conv(v, "middle", 32), v), "last", 24))


def _depthwise() -> Graph:
    b = Layers(16)
    v = b.conv(b.conv("x", "first", 64), "windows", 64, 3, groups=64, kept=1.0)
    v = b.add(Pool("max", (2, 2), (1, 1), (1, 1), (0, 0, 1, 1)), v)
    return b.finish(b.conv(v, "last", 24))


def _grouped() -> Graph:
    """8 groups of 4 channels move together, and no channel within its group."""
    b = Layers(16)
    v = b.conv(b.conv("x", "first", 128), "groups", 128, 3, groups=32, kept=1.0)
    return b.finish(b.conv(v, "last", 24))


def _flat(flipped: bool) -> Graph:
    b = Layers(16)
    return b.finish(b.product(b.conv("x", "first", 64), "last", 24, flipped=flipped))


STRUCTURES: dict[str, tuple[Callable[[], Graph], set[str]]] = {
    "chain": (chain, {"first", "second", "last"}),
    "residual": (_residual, {"first", "narrow", "wide", "last"}),
    "concat": (_concat, {"left", "right", "last"}),
    "twice": (_twice, {"first", "middle", "last"}),
    "depthwise": (_depthwise, {"first", "windows", "last"}),
    "grouped": (_grouped, {"first", "groups", "last"}),
    "flat [K, N]": (lambda: _flat(False), {"first", "last"}),
    "flat [N, K]": (lambda: _flat(True), {"first", "last"}),
    "the window is the image": (lambda: run_pipeline(_flat(False), [FlatProducts()]), {"first"}),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_values_stay_where_channels_move(name: str) -> None:
    made, layers = STRUCTURES[name]
    graph = made()
    found = reordered(graph, balanced(graph))
    assert layers <= found
    assert "last.bias" not in found, "outputs keep their order"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cores_have_equal_numbers_of_blocks(seed: int) -> None:
    """A layer of 32 x 32 blocks: in turns of 2, 4, 8 and 16 cores the one with most has hardly more than the mean."""
    graph = chain(256, seed=seed, size=(1, 1))
    before, after = graph.constants["second"], balanced(graph).constants["second"]
    for n, most in ((2, 1.01), (4, 1.02), (8, 1.04), (16, 1.1)):
        old, new = turns(before, n), turns(after, n)
        assert new.max() < old.max() and new.max() <= most * new.mean(), n


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parts_of_inputs_are_more_even(seed: int) -> None:
    """What chains wait for: for each 8 outputs the part with most blocks. A layer of few outputs can have all of them even."""
    graph = chain(256, seed=seed, size=(1, 1))
    after = balanced(graph)
    for name, left in (("second", 0.8), ("last", 0.5)):
        for n in (2, 4, 8):
            old, new = (parts(g.constants[name], n) for g in (graph, after))
            lost = [(p.max(axis=1) - p.mean(axis=1)).sum() for p in (old, new)]
            assert lost[1] <= left * lost[0], (name, n)


@pytest.mark.parametrize("channels", [64, 128])
def test_cores_of_few_blocks_wait_less_than_for_even_work(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Than with orders in which no more is looked for than equal sums of squares."""
    graphs = [chain(channels, seed=seed, size=(1, 1)) for seed in range(3)]

    def wait() -> float:
        made = [BalanceBlocks().run(graph) for graph in graphs]
        return sum(waited(blocks(g.constants[name]).astype(float)) for g in made for name in ("first", "second", "last"))

    found = wait()
    monkeypatch.setattr(balance_blocks, "_FEW", 0)
    assert found < wait()


def _width(channels: int) -> Graph:
    b = Layers(16)
    return b.finish(b.conv(b.conv("x", "first", channels), "last", 24))


def _behind(channels: int) -> Graph:
    """A layer that reads 64 channels behind so many others."""
    b = Layers(16)
    both = b.add(Concat(1), b.conv("x", "left", channels, kept=1.0), b.conv("x", "right", 64))
    return b.finish(b.conv(both, "last", 24))


def _groups(channels: int) -> Graph:
    """Groups of so many channels: 2 of 32, too few to be moved 8 at a time, or 32 of 2."""
    b = Layers(16)
    v = b.conv(b.conv("x", "first", 64), "groups", 64, 3, groups=64 // channels)
    return b.finish(b.conv(v, "last", 24))


def _through(floats: bool) -> Graph:
    """Bytes that a layer makes, or a node behind it that reads the layer's floats."""
    b = Layers(16)
    v = b.conv("x", "first", 64, floats=floats)
    if floats:
        v = b.add(Map(Program.parse(_bytes_of("a0", 0))), v)
    return b.finish(b.conv(v, "last", 24))


def _leaving(leaves: bool) -> Graph:
    b = Layers(16)
    v = b.conv("x", "first", 64)
    return b.finish(*[v] * leaves, b.conv(v, "last", 24))


@pytest.mark.parametrize(
    ("kept", "moved"),
    [
        pytest.param(chain(kept=1.0), chain(), id="dense"),
        pytest.param(_width(60), _width(64), id="no multiple of 8"),
        pytest.param(_width(8), _width(64), id="one block"),
        pytest.param(_behind(12), _behind(16), id="not at a block"),
        pytest.param(_groups(32), _groups(2), id="within groups"),
        pytest.param(_through(True), _through(False), id="floats"),
        pytest.param(_leaving(True), _leaving(False), id="outputs"),
    ],
)
def test_orders_that_are_kept(kept: Graph, moved: Graph) -> None:
    """The graph itself comes back; but for what is in the way, there is another order."""
    assert BalanceBlocks().run(kept) is kept
    assert reordered(moved, balanced(moved)) & {"first", "right"}


def test_a_layer_by_itself_reads_and_makes_what_others_know() -> None:
    b = Layers(128)
    graph = b.finish(b.conv("x", "only", 128))
    assert BalanceBlocks().run(graph) is graph


def test_channels_in_front_of_a_place_in_the_middle_of_a_block_move() -> None:
    b = Layers(16)
    whole = b.add(Concat(1), b.conv("x", "left", 64), b.conv("x", "middle", 12), b.conv("x", "right", 64))
    graph = b.finish(b.conv(whole, "last", 24))
    assert reordered(graph, balanced(graph)) == {"left", "left.bias", "last"}


def _claimed(rows: int) -> Graph:
    """Four layers; of every 4 inputs the second multiplies 2, the same ones for so many outputs, as its type says."""
    b = Layers(16)
    v = b.conv(b.conv("x", "first", 64), "second", 128)
    graph = b.finish(b.conv(b.conv(v, "third", 64), "last", 24))
    two = np.argsort(b.rng.random((128 // rows, 16, 4)), axis=2).reshape(-1, 64) < 2
    w = graph.constants["second"] * np.repeat(two, rows, axis=0)[:, :, None, None]
    claim = replace(graph.types["second"], sparsity=NM(2, 4, rows))
    return replace(graph, types={**graph.types, "second": claim}, constants={**graph.constants, "second": w})


def test_what_types_claim_stays_true() -> None:
    """The outputs of the layer keep their order, its inputs do not; a claim that holds in any order is in nobody's way."""
    graph = _claimed(16)
    after = balanced(graph)
    assert reordered(graph, after) == {"first", "first.bias", "second", "third", "third.bias", "last"}
    assert graph.types["second"].sparsity.holds(View.CONV.filters(after.constants["second"]))
    notes = Notes()
    run_pipeline(graph, [BalanceBlocks()], notes=notes)
    begin = "balance_blocks: the channels of 'second' keep their order: 'second' would not be 2:4/rows=16: "
    assert [str(n).startswith(begin) for n in notes.entries] == [True]
    free = _claimed(8)
    assert {"first", "second.bias", "third", "last"} <= reordered(free, balanced(free))


def _even(seed: int, channels: int) -> tuple[Graph, Graph]:
    """Layers of which the second multiplies 2 of every 4 blocks of so many inputs, without and with a type that says so."""
    b = Layers(16, seed=seed)
    v = b.conv(b.conv("x", "first", channels), "second", 128, 3, kept=1.0)
    graph = b.finish(b.conv(b.conv(v, "third", 64), "last", 24))
    two = np.argsort(b.rng.random((16, channels // 32, 4)), axis=2).reshape(16, -1) < 2
    w = graph.constants["second"] * np.kron(two, np.ones((8, 8), np.int8))[:, :, None, None]
    graph = replace(graph, constants={**graph.constants, "second": w})
    claim = replace(graph.types["second"], sparsity=Block(8, 8, n_keep=2, m_group=4))
    return graph, replace(graph, types={**graph.types, "second": claim})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_of_every_four_blocks_stay_so(seed: int) -> None:
    """3 times 4 blocks have halves that are not equal: an order in which they are would break the pattern. Rows may move."""
    plain, claimed = _even(seed, 96)
    claim = claimed.types["second"].sparsity
    assert not claim.holds(View.CONV.filters(balanced(plain).constants["second"]))
    after = balanced(claimed)
    assert claim.violation(View.CONV.filters(after.constants["second"])) == ""
    assert reordered(claimed, after) == {"second", "second.bias", "third", "third.bias", "last"}
    notes = Notes()
    run_pipeline(claimed, [BalanceBlocks()], notes=notes)
    why = "the channels of 'first' keep their order: 'second' would not be block:8x8/2:4: row "
    assert [str(n).startswith(f"balance_blocks: {why}") for n in notes.entries] == [True]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_of_every_four_blocks_are_even_parts_already(seed: int) -> None:
    """Halves of 8 blocks of inputs: the order stays that good, and is found for the layer that makes them."""
    _, claimed = _even(seed, 64)
    after = balanced(claimed)
    assert claimed.types["second"].sparsity.holds(View.CONV.filters(after.constants["second"]))
    assert "first" in reordered(claimed, after)
    halves = parts(after.constants["second"], 2)
    assert (halves == halves[:, :1]).all()


def _shuffled(b: Layers, v: str, groups: int) -> str:
    n, c, h, w = b.editor.types[v].shape
    split = b.add(Transpose((0, 2, 1, 3, 4)), b.add(Reshape((n, groups, c // groups, h, w)), v))
    return b.add(Reshape((n, c, h, w)), split)


def _sliced(b: Layers, v: str, start: int, stop: int) -> str:
    shape = b.editor.types[v].shape
    return b.add(Slice((0, start, 0, 0), (1,) * 4, (1, stop - start, *shape[2:])), v)


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Layers one behind the other, whose channels are added, joined, split, grouped, shuffled and flattened."""
    b = Layers(8, (draw(st.integers(1, 2)), 2), draw(st.integers(0, 99)))
    widths, values = st.sampled_from([8, 16, 24, 32, 40, 48, 64, 12, 20]), ["x"]
    values.append(v := b.conv("x", "l0", draw(widths)))
    for i in range(1, draw(st.integers(2, 6))):
        c = b.editor.types[v].shape[1]
        divisors = st.sampled_from([g for g in range(1, c + 1) if c % g == 0])
        match draw(st.sampled_from(["conv", "residual", "join", "split", "grouped", "depthwise", "shuffled"])):
            case "conv":
                v = b.conv(v, f"l{i}", draw(widths), draw(st.sampled_from([1, 3])))
            case "residual":
                inner = b.conv(v, f"l{i}", draw(widths))
                v = b.conv(inner, f"m{i}", c, residual=v)
            case "join":
                v = b.add(Concat(1), *draw(st.permutations([v, draw(st.sampled_from(values))])))
            case "split":
                at = draw(st.integers(1, c - 1)) if draw(st.booleans()) or c <= 8 else 8
                left, right = _sliced(b, v, 0, at), _sliced(b, v, at, c)
                v = b.add(Concat(1), right, b.conv(left, f"l{i}", draw(widths)))
            case "grouped":
                groups = draw(divisors)
                v = b.conv(v, f"l{i}", groups * draw(st.sampled_from([4, 8, 16])) if groups < 9 else c, groups=groups)
            case "depthwise":
                v = b.conv(v, f"l{i}", c, 3, groups=c, kept=1.0)
            case "shuffled":
                v = _shuffled(b, v, draw(divisors))
        values.append(v)
    if draw(st.booleans()):
        return b.finish(b.product(v, "last", 16, flipped=draw(st.booleans())))
    return b.finish(b.conv(v, "last", 16))


@settings(max_examples=25)
@given(networks())
def test_any_network_keeps_its_values(graph: Graph) -> None:
    check(BalanceBlocks(), graph, tolerance=0)


def test_an_array_is_done_earlier(tmp_path: Path) -> None:
    """Every second block of a layer's outputs has hardly any weights: of two cores, which take turns, one would have all."""
    graph = chain(128, size=(20, 20))
    heavy = np.repeat(np.arange(16) % 2 == 0, 8)[:, None, None, None]
    graph = replace(graph, constants={**graph.constants, "second": graph.constants["second"] * heavy})
    feeds = {"x": random_array(graph.types["x"], np.random.default_rng(1))}
    cycles = []
    for made in (graph, balanced(graph)):
        run = run_emitted(compile_for(made, "aie2:2x2"), feeds, tmp_path / str(len(cycles)))
        assert np.array_equal(run.outputs["y0"], interpret(graph, feeds)["y0"])
        cycles.append(run.cycles)
    assert cycles[1] < 0.95 * cycles[0], cycles
