"""Loops that run at once against the same loops bundle by bundle: registers, memory, cycles, stalls, and accesses by bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.core import loops
from sparsec.backends.aie.core.assembly import assemble
from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.execute import State
from sparsec.backends.aie.core.nests import Nest, Ran, Template
from sparsec.backends.aie.core.timing import Latencies, Scoreboard, Timed
from sparsec.compiler.errors import ModelError

Array = np.ndarray[Any, Any]
BYTES, BANK = 16384, 2048
TABLE, WEIGHTS, RESULTS = 0x400, 0x1000, 0x2000


def _core(text: str, fast: bool, seed: int, written: int = BYTES, whole: bool = False) -> Core:
    core = Core(assemble(text), Latencies(4, 4, 4), BYTES, BANK, fast)
    rng = np.random.default_rng(seed)
    s = core.state
    s.memory[:written] = rng.integers(0, 256, written, np.uint8)
    s.memory[TABLE:WEIGHTS] = rng.integers(-2, 5, (WEIGHTS - TABLE) // 2, np.int16).view(np.uint8)
    s.written[: written // 4] = 1
    s.w[:] = rng.integers(0, 256, s.w.shape, np.uint8)
    s.c[:] = rng.integers(0, 256, s.c.shape, np.uint8)
    if whole:
        for array in (s.memory, s.w.reshape(-1), s.c.reshape(-1)):
            array[:] = rng.integers(-4, 5, array.size // 4).astype(np.float32).view(np.uint8)
    return core


def _same(text: str, seed: int, whole: bool = False) -> tuple[Core, Core]:
    """The program's two runs, which must not differ in anything."""
    fast, slow = (_core(text, f, seed, whole=whole) for f in (True, False))
    for core in (fast, slow):
        assert core.resume().kind == "done"
    a, b = fast.state, slow.state
    assert (a.r, a.p, a.m) == (b.r, b.p, b.m)
    for name in ("w", "c", "memory", "written"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert fast.now == slow.now
    assert fast.stalls == slow.stalls
    assert fast.accesses == slow.accesses
    assert fast.products == slow.products
    assert np.array_equal(fast.executed, slow.executed)
    assert fast.board.outlook() == slow.board.outlook()
    return fast, slow


def _must_run(run: Callable[[Nest, State, int], Ran | None]) -> Callable[[Nest, State, int], Ran]:
    """The same, which fails where a loop cannot be run at once."""

    def ran(nest: Nest, state: State, bank_bytes: int) -> Ran:
        found = run(nest, state, bank_bytes)
        assert found is not None
        return found

    return ran


def _pointers(data: int, weights: int, table: int) -> list[str]:
    """Bundles that set p1, p4, p5, the steps m0-m3, and the ring l9, which weights are near the end of."""
    made = [f"movi r18, {weights + 96}", "movi r19, 224"]
    for p, value in (("p1", data), ("p4", weights), ("p5", table), ("p3", RESULTS)):
        made += [f"movi r0, {value}", f"movp {p}, r0"]
    for m, value in (("m0", 32), ("m1", 64), ("m2", 0), ("m3", 32)):
        made += [f"movi r0, {value}", f"movm {m}, r0"]
    return made


@st.composite
def _plain_body(draw: st.DrawFn) -> list[str]:
    """Bundles of loads and products: data by p1 with steps, weights by p4, steps by p5."""
    made = []
    for _ in range(draw(st.integers(1, 6))):
        slots = []
        kind = draw(st.sampled_from(["", "ldw", "ldwm"]))
        if kind:
            step = "32" if kind == "ldw" else f"m{draw(st.integers(0, 3))}"
            slots.append(f"a.{kind} w{draw(st.integers(0, 3))}, p1, {step}")
        kind = draw(st.sampled_from(["", "ldw", "ldwr", "ldm"]))
        if kind.startswith("ldw"):
            ring = ", l9" if kind == "ldwr" else ""
            slots.append(f"b.{kind} w{draw(st.integers(4, 9))}, p4{ring}, {32 * draw(st.integers(-1, 2))}")
        elif kind == "ldm":
            slots.append(f"b.ldm m{draw(st.integers(0, 3))}, p5, 2")
        kind = draw(st.sampled_from(["", "mac", "mace"]))
        if kind:
            c, signed = draw(st.integers(0, 2)), draw(st.integers(0, 1))
            other = f"x{draw(st.integers(2, 4))}" if kind == "mac" else f"w{draw(st.integers(4, 9))}"
            slots.append(f"{kind} c{c}, w{draw(st.integers(0, 3))}, {other}, {signed}")
        made.append(" | ".join(slots) or "nop")
    return made


@settings(deadline=None, max_examples=60)
@given(_plain_body(), st.integers(1, 9), st.sampled_from([0x1000, 0x1800, 0x1400]), st.integers(0, 99))
def test_a_plain_loop_is_its_bundles(body: Sequence[str], times: int, weights: int, seed: int) -> None:
    """`weights` may share a bank with data, so that loads meet."""
    text = [*_pointers(0x1200, weights, TABLE), f"movi r1, {times}", "loop r1, end", *body, "end:", "done"]
    _same("\n".join(text), seed)


@st.composite
def _nest(draw: st.DrawFn) -> list[str]:
    """A loop as products have it: sums begin, a plain loop adds to them, stores take them, pointers go back or on."""
    inner = draw(st.integers(0, 5))
    pipelined = draw(st.booleans())
    begin = draw(st.sampled_from(["row c{c}, w12", "clr c{c}", "mul c{c}, w1, x4, 1", "mule c{c}, w2, w8, 0"]))
    store = draw(st.sampled_from(["srs c{c}, p3, r3, 1, 32", "stc c{c}, 2, p3, 32", "srsm c{c}, p3, r3, 0, m5"]))
    accumulators = range(draw(st.integers(1, 3)))
    begins = [begin.format(c=c) for c in accumulators]
    stores = [store.format(c=c) for c in accumulators]
    if pipelined:
        first = [f"{s} | {b}" for s, b in zip(stores, begins, strict=True)]
    else:
        first = begins
    body = [*first, "movi r2, " + str(inner), "loop r2, inner"]
    for c in accumulators:
        loads = [
            "a.ldwm w1, p1, m0 | ",
            "a.ldw w2, p1, 32 | b.ldw w8, p4, 32 | ",
            "b.ldwr w8, p4, l9, 32 | ",
            "b.ldm m0, p5, 2 | ",
        ]
        product = draw(st.sampled_from([f"mac c{c}, w1, x4, 0", f"mac c{c}, w2, x4, 1", f"mace c{c}, w2, w8, 1"]))
        body.append(draw(st.sampled_from(loads)) + product)
    body += ["inner:", draw(st.sampled_from(["pmov p4, p6", "paddr p4, p6, r5", "nop"])), "pmov p5, p7"]
    body += [draw(st.sampled_from(["addl r7, r5, r5, l9", "addl r18, r18, r5, l9", "nop"]))]
    body += [draw(st.sampled_from(["padd p1, 32", "b.ldw w13, p2, 32 | padd p1, -32", "nop"]))]
    if draw(st.booleans()):
        body.append("ups c0, w13, r4, 1")
    return body if pipelined else [*body, *stores]


@settings(deadline=None, max_examples=120)
@given(_nest(), st.integers(1, 12), st.sampled_from([0xC00, 0x1400]), st.integers(0, 99))
def test_a_loop_of_loops_is_its_bundles(body: Sequence[str], times: int, weights: int, seed: int) -> None:
    """Data begin in another bank than weights or in the same: cycles agree whether loads meet or not."""
    text = _pointers(0x800, weights, 0x420)
    text += ["movi r3, 6", "movi r4, 3", "movi r5, 64", "pmov p6, p4", "pmov p7, p5", "movi r0, 3072", "movp p2, r0"]
    text += ["movi r0, 64", "movm m5, r0", f"movi r1, {times}", "loop r1, end", *body, "end:", "done"]
    program = "\n".join(text)
    try:
        _core(program, False, seed).resume()
    except ModelError:
        with pytest.raises(ModelError) as slow:
            _core(program, False, seed).resume()
        with pytest.raises(ModelError) as fast:
            _core(program, True, seed).resume()
        assert str(fast.value) == str(slow.value)
        return
    _same(program, seed)


@st.composite
def _handed_on(draw: st.DrawFn) -> list[str]:
    """A loop as the program of cores has it: c4 and c5 are stored while c0 and c1 are added to, then take their sums.

    Sums begin with c8 or with nothing; c4 and c5 may be loaded in between, and are added to then.
    """
    kind = draw(st.sampled_from(["mac", "mace", "macbf"]))
    last = {"mac": "x4, 1", "mace": "w9, 0", "macbf": "x4, %d"}[kind]
    data = {"mac": "w1", "mace": "w2", "macbf": "x1"}[kind]

    def product(name: str, registers: str) -> list[str]:
        halves = (0, 1) if kind == "macbf" else (0,)
        return [f"{name} {registers}, {data}, {last % h if '%' in last else last}" for h in halves]

    zero = kind != "macbf" and draw(st.booleans())
    store = "stbf c{c}, {q}, p3, 32" if kind == "macbf" and draw(st.booleans()) else "stc c{c}, {q}, p3, 32"
    body = [store.format(c=c, q=q) for c in (4, 5) for q in range(2)]
    first = kind.replace("mac", "mul") if zero else f"{kind}c"
    for c in (0, 1):
        body += product(first, f"c{c}" if zero else f"c{c}, c8")
    loads = draw(st.sampled_from(["", "ldc"] + (["ldbf"] if kind == "macbf" else ["ldu"])))
    for c in (4, 5):
        if loads == "ldc":
            body += [f"b.ldc c{c}, {q}, p2, 32" for q in range(4)]
        elif loads == "ldbf":
            body += [f"a.ldbf c{c}, {q}, p2, 32" for q in range(2)]
        elif loads:
            body += [f"a.ldu c{c}, p2, r4, 1, 32"]
    inner = ["a.ldw w2, p1, 32 | " + line for c in (0, 1) for line in product(kind, f"c{c}")]
    body += [f"movi r2, {draw(st.integers(0, 3))}", "loop r2, inner", *inner, "inner:"]
    for c in (0, 1):
        body += product(f"add{kind}" if loads else f"{kind}c", f"c{4 + c}, c{c}, c{4 + c}" if loads else f"c{4 + c}, c{c}")
    return body


@settings(deadline=None, max_examples=80)
@given(_handed_on(), st.integers(1, 9), st.integers(0, 99))
def test_sums_that_are_handed_on_are_those_of_bundles(body: Sequence[str], times: int, seed: int) -> None:
    """All is small whole numbers of float32, each of which is two of bfloat16, so that sums are the same in any order."""
    text = [*_pointers(0x800, 0x1400, TABLE), "movi r4, 3", "movi r0, 3072", "movp p2, r0", f"movi r1, {times}"]
    program = "\n".join([*text, "loop r1, end", *body, "end:", "done"])
    made = Nest.run
    with pytest.MonkeyPatch.context() as patch:
        ran: list[Ran | None] = []

        def noted(self: Nest, state: State, bank_bytes: int) -> Ran | None:
            ran.append(made(self, state, bank_bytes))
            return ran[-1]

        patch.setattr(Nest, "run", noted)
        _same(program, seed, whole=True)
    assert [r is not None for r in ran] == [True]


def test_memory_is_cleared_at_once() -> None:
    """500 stores of one register, with the bank of each."""
    text = "movi r0, 0\nmovp p0, r0\nmovi r1, 500\nloop r1, end\nstw w0, p0, 32\nend:\ndone"
    fast, _ = _same(text, 1)
    assert fast.accesses[:2] == [64, 64]
    template = Template.of(fast._bundles, 4, 5, (), ())
    assert template is not None
    made = Nest.of(template, _core(text, True, 1).state, 500)
    assert made is not None
    assert made.times == 500


def _through_a_table(table: int, pairs: int, data: int) -> str:
    """Three iterations that multiply data whose places steps of a table tell, from `table` on."""
    text = [*_pointers(data, 0x1400, table), "movi r3, 9", f"movi r2, {pairs}", "pmov p6, p4", "pmov p7, p5", "movi r1, 3"]
    inner = [
        "a.ldwm w1, p1, m3 | b.ldm m3, p5, 2",
        "b.ldw w8, p4, 32",
        "b.ldw w9, p4, 32",
        "mac c0, w1, x4, 0",
        "mac c1, w1, x4, 0",
    ]
    body = ["clr c0", "clr c1", "loop r2, inner", *inner, "inner:", "stc c0, 1, p3, 32", "srs c1, p3, r3, 1, 32"]
    return "\n".join([*text, "loop r1, end", *body, "pmov p4, p6", "pmov p5, p7", "padd p1, 128", "end:", "done"])


def test_loops_that_differ_in_steps_and_pointers_share_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, and data that begin elsewhere, change addresses and values; another number of pairs is another template."""
    made: list[Template | None] = []
    of = Template.of

    def noted(*arguments: Any) -> Template | None:
        made.append(of(*arguments))
        return made[-1]

    monkeypatch.setattr(Template, "of", noted)
    monkeypatch.setattr(Nest, "run", _must_run(Nest.run))
    found = []
    for table, pairs, data in ((0x420, 5, 0x880), (0x480, 5, 0x880), (0x4A0, 5, 0x980), (0x420, 4, 0x880)):
        text = _through_a_table(table, pairs, data)
        core = _core(text, True, 7)
        if found:
            core._code._templates = found[0]._code._templates
        core.resume()
        slow = _core(text, False, 7)
        slow.resume()
        assert np.array_equal(core.state.memory, slow.state.memory)
        assert (core.now, core.stalls, core.accesses) == (slow.now, slow.stalls, slow.accesses)
        assert (core.state.r, core.state.p, core.state.m) == (slow.state.r, slow.state.p, slow.state.m)
        found.append(core)
    results = {core.state.memory[RESULTS : RESULTS + 192].tobytes() for core in found}
    assert len(results) == 4
    assert len(made) == 2


def test_sums_that_are_shifted_by_another_number_have_another_template() -> None:
    """The same loop three times, whose shift a bundle between them changes."""
    loop = ["loop r1, inner", "mul c0, w1, x4, 1", "srs c0, p3, r3, 1, 32", "inner:"]
    text = [*_pointers(0x880, 0x1400, TABLE), "movi r3, 4", "movi r4, 3", "movi r1, 3", "loop r4, outer", *loop]
    fast, _ = _same("\n".join([*text, "addi r3, r3, 3", "outer:", "done"]), 4)
    results = fast.state.memory[RESULTS:].reshape(-1, 32)
    assert len({results[n].tobytes() for n in (0, 3, 6)}) == 3


@settings(deadline=None, max_examples=60)
@given(_nest(), st.integers(1, 3), st.integers(0, 99))
def test_what_is_carried_out_once_is_its_bundles(body: Sequence[str], times: int, seed: int) -> None:
    """Between jumps, which no loop holds, and twice within a loop that ends there."""
    text = [*_pointers(0x800, 0x1400, 0x420), "movi r3, 6", "movi r4, 3", "movi r5, 64", "pmov p6, p4", "pmov p7, p5"]
    text += ["movi r0, 3072", "movp p2, r0", "movi r0, 64", "movm m5, r0", f"movi r6, {times}", "again:", *body]
    _same("\n".join([*text, "jzd r6, over", "jmp again", "over:", "done"]), seed)


def test_a_long_stretch_is_carried_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sums begin with what was there, and go on where it ends."""
    ran: list[tuple[int, int]] = []
    at_once = Core._run_nest

    def noted(core: Core, start: int, end: int, times: int) -> bool:
        ran.append((end - start, times))
        return at_once(core, start, end, times)

    monkeypatch.setattr(Core, "_run_nest", noted)
    body = ["mac c0, w1, x4, 0", "loop r2, inner", "a.ldw w1, p1, 32 | mac c0, w1, x4, 1", "inner:", "macc c1, c0, w2, x5, 1"]
    text = [*_pointers(0x800, 0x1400, TABLE), "movi r2, 4", "jmp on", "on:", *body, "mace c1, w1, w9, 0", "srs c1, p3, r2, 1, 32"]
    _same("\n".join([*text, "movh r2, 1", "mac c1, w1, x4, 1", "done"]), 2)
    assert ran == [(6, 1)]


@pytest.mark.parametrize("moves", ["padd p5, 2", "b.ldm m0, p5, 2"])
def test_a_table_that_moves_from_one_iteration_to_the_next_is_read_where_it_is(moves: str) -> None:
    """Steps of each iteration are others, so that addresses are no line."""
    body = ["mul c0, w1, x4, 1", "b.ldm m3, p5, 0" if moves.startswith("padd") else moves, "a.ldwm w1, p1, m3"]
    body += ["srs c0, p3, r3, 1, 32", moves if moves.startswith("padd") else "nop"]
    text = [*_pointers(0xA00, 0x1400, 0x420), "movi r3, 7", "movi r1, 9", "loop r1, end", *body, "end:", "done"]
    _same("\n".join(text), 6)


@pytest.mark.parametrize("product", ["mac c0, w1, x4, 1", "mace c0, w1, w9, 0"])
@pytest.mark.parametrize("partial", [True, False])
def test_partial_sums_are_loaded_and_stored_at_once(product: str, partial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the program of cores for parts of input channels: an iteration stores the sums of the one before in their place."""
    at_once, run = [], Nest.run

    def noted(self: Nest, state: State, bank_bytes: int) -> Ran | None:
        at_once.append(run(self, state, bank_bytes))
        return at_once[-1]

    monkeypatch.setattr(Nest, "run", noted)
    if partial:
        back, quarters = -128, [f"stc c0, {q}, p3, 32 | a.ldc c0, {q}, p0, 32" for q in range(4)]
    else:
        back, quarters = 2048, ["srs c0, p3, r3, 1, 32 | a.ldc c0, 0, p0, 32", *[f"a.ldc c0, {q}, p0, 32" for q in (1, 2, 3)]]
    text = [
        *_pointers(0x800, 0x1400, TABLE),
        f"movi r0, {RESULTS}",
        "movp p0, r0",
        "movi r3, 5",
        f"padd p3, {back}",
        "movi r1, 9",
    ]
    text += [
        "loop r1, end",
        *quarters,
        "movi r2, 3",
        "loop r2, in",
        f"a.ldw w1, p1, 32 | {product}",
        "in:",
        "nop",
        "end:",
        "done",
    ]
    _same("\n".join(text), 5)
    assert len(at_once) == 1
    assert at_once[0] is not None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a.ldw w1, p1, 32 | stw w1, p3, 32", "what is stored is loaded again"),
        ("mac c0, w1, x4, 1 | srs c0, p4, r3, 1, 32", "a sum goes on over iterations"),
        ("stw w1, p4, 0", "all iterations store to one place"),
        ("macc c0, c1, w1, x4, 1\nmacc c1, c0, w1, x4, 0\nstc c1, 0, p3, 32", "sums go on by way of each other"),
    ],
)
def test_what_depends_on_iterations_before_runs_bundle_by_bundle(body: str, why: str) -> None:
    """p3 is 64 bytes ahead of p1, so that a load reads what was stored two iterations before."""
    text = "\n".join([*_pointers(0x800, 0x1000, TABLE), "movi r0, 2112", "movp p3, r0", "movi r1, 9", "loop r1, end", body])
    _same(f"{text}\nend:\ndone", 3)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("body", "start", "message"),
    [
        ("a.ldw w1, p1, 32 | mac c0, w1, x4, 1", BYTES - 96, r"bundle 3, `a.ldw w1.*outside of the 16,384 bytes"),
        ("a.ldw w1, p1, 32\nmac c0, w1, x4, 1", 0x3000, r"bundle 3, `a.ldw w1.*reads words that nothing has written"),
        ("a.ldw w1, p1, 32", 16, r"not aligned to 32"),
        ("stw w1, p1, 32", BYTES - 96, r"bundle 3, `stw w1.*a store of 32 bytes at 0x4000 is outside"),
    ],
)
def test_a_loop_that_leaves_memory_says_which_bundle_and_address(fast: bool, body: str, start: int, message: str) -> None:
    text = f"movi r0, {start}\nmovp p1, r0\nloop r1, end\n{body}\nend:\ndone"
    core = _core(text, fast, 1, 0x3040)
    if start != 0x3000:
        core.state.written[:] = 1
    core.state.r[1] = 9
    with pytest.raises(ModelError, match=message):
        core.resume()


def test_plain_bodies_are_loads_and_products_only() -> None:
    def plain(text: str) -> bool:
        return loops.is_plain(_core(text, True, 0)._bundles)

    assert plain("a.ldw w1, p1, 32 | mac c0, w1, x4, 1")
    assert not plain("stw w1, p1, 32")
    assert not plain("addi r1, r1, 1")
    assert not plain("b.ldm m1, p1, 2\na.ldwm w1, p1, m1")


@settings(deadline=None, max_examples=50)
@given(_plain_body(), _plain_body(), st.integers(1, 30))
def test_repeating_takes_as_long_as_issuing(before: Sequence[str], body: Sequence[str], times: int) -> None:
    latencies = Latencies(4, 5, 4)
    lead, timed = ([Timed.of(b, latencies) for b in _core("\n".join(t), True, 0)._bundles] for t in (before, body))
    quick, slow = Scoreboard(latencies), Scoreboard(latencies)
    for _ in range(2):  # the second time from what was kept
        for b in lead:
            quick.issue(b)
            slow.issue(b)
        lost = quick.repeat(1, timed, times)
        assert lost == sum(slow.issue(b) for _ in range(times) for b in timed)
        assert quick.now == slow.now
        assert quick.outlook() == slow.outlook()
