"""Instructions one at a time: what they leave in registers and memory, against numpy; jumps; and their bytes and text."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.aie.core.assembly import assemble, disassemble, labels_of
from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.execute import State
from sparsec.backends.aie.core.instructions import FORMS, Form, Instruction, Slot, decode_bundle, encode_bundle
from sparsec.backends.aie.core.timing import Latencies
from sparsec.compiler.errors import UsageError

Array = np.ndarray[Any, Any]
BF16 = ml_dtypes.bfloat16


def _ran(text: str, seed: int = 0, registers: dict[int, int] | None = None) -> tuple[State, State]:
    """A state of random bytes before and after a program; p1 is 64, r2 is 3 unless `registers` says else."""
    states = []
    for times in (0, 1):
        core = Core(assemble(f"{text}\ndone"), Latencies(4, 4, 4), 4096, 512)
        rng, s = np.random.default_rng(seed), core.state
        for array in (s.memory, s.w):
            array[:] = rng.integers(0, 256, array.shape, np.uint8)
        for c in range(len(s.c)):
            s.floats(c)[:] = rng.integers(-99, 99, (4, 8))
        s.written[:] = 1
        s.p[1], s.r[2] = 64, 3
        for r, value in (registers or {}).items():
            s.r[r] = value
        while times and core.resume().kind != "done":
            pass
        states.append(s)
    return states[0], states[1]


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("text", "sources"), [("macc c0, c8, w1, x4", [8]), ("addmac c4, c0, c4, w1, x4", [0, 4])])
def test_products_with_a_target_of_their_own(text: str, sources: list[int], signed: int) -> None:
    before, after = _ran(f"{text}, {signed}")
    target = 0 if len(sources) == 1 else 4
    data = before.w[1].view(np.int8 if signed else np.uint8).reshape(4, 8).astype(np.int64)
    expected = data @ before.x(4).view(np.int8).reshape(8, 8).astype(np.int64) + sum(
        before.sums(c).astype(np.int64) for c in sources
    )
    assert np.array_equal(after.sums(target), expected.astype(np.int32))
    for c in {*range(9)} - {target}:
        assert np.array_equal(after.c[c], before.c[c])


@pytest.mark.parametrize(("text", "sources"), [("macec c0, c8, w1, w9, 1", [8]), ("addmace c4, c0, c4, w1, w9, 1", [0, 4])])
def test_lanes_with_a_target_of_their_own(text: str, sources: list[int]) -> None:
    before, after = _ran(text)
    made = before.w[1].view(np.int8).astype(np.int32) * before.w[9].view(np.int8).astype(np.int32)
    expected = made.reshape(4, 8) + sum(before.sums(c).astype(np.int64) for c in sources)
    assert np.array_equal(after.sums(0 if len(sources) == 1 else 4), expected.astype(np.int32))


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(("text", "sources"), [("macbfc c0, c8, x1, x4", [8]), ("addmacbf c4, c0, c4, x1, x4", [0, 4])])
def test_products_of_bfloat16_set_one_half(text: str, sources: list[int], half: int) -> None:
    """Vectors hold whole numbers, so that the order of sums does not matter."""
    core = Core(assemble(f"{text}, {half}\ndone"), Latencies(4, 4, 4), 4096, 512)
    rng, s = np.random.default_rng(1), core.state
    s.w[:24] = rng.integers(-9, 9, (24, 16)).astype(BF16).view(np.uint8)
    for c in range(9):
        s.floats(c)[:] = rng.integers(-99, 99, (4, 8))
    target, mine = (0 if len(sources) == 1 else 4), slice(4 * half, 4 * half + 4)
    expected = s.floats(target).copy()
    left, right = (s.x(n).view(BF16).astype(np.float32) for n in (1, 4))
    expected[:, mine] = left.reshape(4, 8) @ right.reshape(8, 4) + sum(s.floats(c)[:, mine] for c in sources)
    core.resume()
    assert np.array_equal(s.floats(target), expected)


@pytest.mark.parametrize("signed", [0, 1])
def test_bytes_are_shifted_as_they_are_loaded(signed: int) -> None:
    before, after = _ran(f"a.ldu c5, p1, r2, {signed}, 96")
    data = before.memory[64:96].view(np.int8 if signed else np.uint8).astype(np.int32)
    assert np.array_equal(after.sums(5), data.reshape(4, 8) << 3)
    assert after.p[1] == 160


def test_bfloat16_is_widened_as_it_is_loaded() -> None:
    before, after = _ran("b.ldbf c5, 1, p1, 32")
    expected = before.floats(5).copy()
    expected[2:] = before.memory[64:96].view(BF16).astype(np.float32).reshape(2, 8)
    assert np.array_equal(after.floats(5), expected, equal_nan=True)
    assert after.p[1] == 96


def test_pointers_are_loaded() -> None:
    before, after = _ran("b.ldp p5, p1, 4")
    assert after.p[5] == int(before.memory[64:66].view(np.uint16)[0])
    assert after.p[1] == 68


@pytest.mark.parametrize(("end", "at"), [(96, 64), (65, 64), (64, 32), (32, 32)])
def test_loads_in_a_ring(end: int, at: int) -> None:
    """What is at its end, or beyond, is meant a ring of 32 bytes before; the pointer goes on as it would without a ring."""
    before, after = _ran("a.ldwr w3, p1, l9, 192", registers={18: end, 19: 32})
    assert np.array_equal(after.w[3], before.memory[at : at + 32])
    assert after.p[1] == 256
    before, after = _ran("b.ldqr y1, p1, l9, -128", registers={18: end, 19: 32})
    assert np.array_equal(np.concatenate([after.q(2), after.q(3)]), before.memory[at : at + 32])
    assert after.p[1] == -64


@pytest.mark.parametrize(("end", "expected"), [(75, 74), (74, 10), (20, 10)])
def test_sums_in_a_ring(end: int, expected: int) -> None:
    _, after = _ran("addl r4, r5, r6, l10", registers={5: 70, 6: 4, 20: end, 21: 64})
    assert after.r[4] == expected


@pytest.mark.parametrize(("third", "expected"), [(0, 3), (1, 7), (-1, 7)])
def test_a_move_on_zero(third: int, expected: int) -> None:
    _, after = _ran("movz r20, r2, r31", registers={20: 7, 31: third})
    assert after.r[20] == expected


def test_a_jump_counts_down_to_zero_and_one_goes_where_a_register_says() -> None:
    lines = ["movi r5, 3", "movi r6, 0", "again:", "addi r6, r6, 10", "jzd r5, out", "jmp again"]
    text = "\n".join([*lines, "out:", "movi r7, 8", "jmpr r7", "movi r6, -1", "last:", "mov r9, r6"])
    assert labels_of(text) == {"again": 2, "out": 5, "last": 8}
    _, after = _ran(text)
    assert (after.r[5], after.r[6], after.r[9]) == (0, 30, 30)


def _operands(form: Form) -> st.SearchStrategy[tuple[int, ...]]:
    def field(i: int) -> st.SearchStrategy[int]:
        f = form.fields[i]
        low, high = (-(1 << (f.bits - 1)), (1 << (f.bits - 1)) - 1) if f.kind == "i" else (0, f.last)
        return st.integers(low, high).map(lambda n: n * f.unit)

    return st.tuples(*(field(i) for i in range(len(form.fields))))


@given(st.data())
def test_every_instruction_has_bytes_of_its_own(data: st.DataObject) -> None:
    """Any operands of any slot: encoded, decoded and as text."""
    slot = data.draw(st.sampled_from(Slot))
    form = data.draw(st.sampled_from(FORMS[slot]))
    bundle = {slot: Instruction(form, data.draw(_operands(form)))}
    encoded = encode_bundle(bundle)
    assert decode_bundle(encoded) == bundle
    assert disassemble(encoded).startswith({Slot.A: "a.", Slot.B: "b."}.get(slot, "") + form.name)


def test_forms_fit_their_slots() -> None:
    for slot, forms in FORMS.items():
        assert len({f.opcode for f in forms}) == len(forms)
        for form in forms:
            assert form.opcode < 1 << slot.opcode_bits
            assert slot.opcode_bits + sum(f.bits for f in form.fields) <= slot.width, form.name


def test_there_are_nine_accumulators() -> None:
    with pytest.raises(UsageError, match=r"operand c cannot be 9: it is from 0 to 8"):
        assemble("clr c9")


@pytest.mark.parametrize(("shift", "factor"), [(0, 21400), (3, -2), (1, 0x1FFFF), (9, 0x8000)])
def test_sums_of_16_bits_times_a_number(shift: int, factor: int) -> None:
    """Sums that are too large saturate; of the register the lower half counts, signed."""
    core = Core(assemble("srsh x3, c5, r2\nmach c4, c0, x3, r7\ndone"), Latencies(4, 4, 4), 4096, 512)
    rng, s = np.random.default_rng(1), core.state
    s.sums(0)[:], s.sums(5)[:] = rng.integers(-(2**20), 2**20, (4, 8)), rng.integers(-(2**18), 2**18, (4, 8))
    s.sums(5)[0, :4] = [24, -24, 40, -40]  # a half of 16
    s.r[2], s.r[7] = shift, factor
    core.resume()
    narrow = [max(-(2**15), min(2**15 - 1, round(Fraction(int(v), 1 << shift)))) for v in s.sums(5).reshape(-1)]
    assert np.array_equal(s.x(3).view(np.int16), narrow)
    times = int(np.uint16(factor % 2**16).view(np.int16))
    assert np.array_equal(s.sums(4).reshape(-1), s.sums(0).reshape(-1) + times * np.array(narrow))


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(
    ("text", "target", "sources"),
    [
        ("macebf c0, w1, w9", 0, [0]),
        ("macebfc c0, c8, w1, w9", 0, [8]),
        ("addmacebf c4, c0, c4, w1, w9", 4, [0, 4]),
    ],
)
def test_lanes_of_bfloat16_set_two_positions(text: str, target: int, sources: list[int], half: int) -> None:
    core = Core(assemble(f"{text}, {half}\ndone"), Latencies(4, 4, 4), 4096, 512)
    rng, s = np.random.default_rng(1), core.state
    s.w[:24] = rng.integers(-9, 9, (24, 16)).astype(BF16).view(np.uint8)
    for c in range(9):
        s.floats(c)[:] = rng.integers(-99, 99, (4, 8))
    expected, mine = s.floats(target).copy(), slice(2 * half, 2 * half + 2)
    left, right = (s.w[n].view(BF16).astype(np.float32).reshape(2, 8) for n in (1, 9))
    expected[mine] = left * right + sum(s.floats(c)[mine] for c in sources)
    core.resume()
    assert np.array_equal(s.floats(target), expected)


def test_the_greater_of_bfloat16() -> None:
    core = Core(assemble("maxbf w3, w1, w2\ndone"), Latencies(4, 4, 4), 4096, 512)
    rng, s = np.random.default_rng(2), core.state
    values = np.where(rng.random((2, 16)) < 0.2, -np.inf, rng.normal(0, 5, (2, 16))).astype(BF16)
    s.w[1:3] = values.view(np.uint8)
    core.resume()
    assert np.array_equal(s.w[3].view(BF16), np.maximum(*values.astype(np.float32)))
