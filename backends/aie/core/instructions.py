"""The instructions of a core: bundles of 128 bits with five slots, their encoding and what each field means.

The encoding is ours (a vendor's compiler makes the real one); the limits are those of the AIE-ML core: two loads of 256 bits
and one store of 256 bits a cycle, one vector operation a cycle (256 products of int8, 128 of bfloat16), 1,024 bundles of
program memory (AMD AM020, "AIE-ML Architecture").

A bundle, from bit 0: load A (24 bits), load B (24), store (23), vector (29), scalar (28). A slot is its opcode in the lowest
bits, then the fields of its form in order; all zeros do nothing. Slots of one bundle read registers before any of them writes.

Registers: r0-r31 (32 bits), l0-l15 (pairs of them, lN = r2N and r2N+1), p0-p7 (pointers into data memory, bytes), m0-m7
(increments of pointers, bytes), w0-w23 (256 bits), x0-x11 (512 bits, xN = w2N and w2N+1), z0-z5 (1,024 bits, zN = x2N and
x2N+1), q0-q3 (masks, 128 bits), y0-y1 (two masks, yN = q2N and q2N+1), c0-c8 (accumulators, 4 positions x 8 channels of int32
or float32; a product of bfloat16 adds to the first or last 4 channels, its half).

A pair l may describe a ring in memory, its end and its bytes: an address at its end or beyond is meant so many bytes before. Real
cores of this kind step through rings by counting (`add_2d`, AMD UG1583, "Addressing intrinsics"), those before them by addresses,
as here (AI Engine Intrinsics User Guide, "Cyclic Addressing"). That it costs nothing is our assumption: counts would be set
whenever a chunk's blocks are begun with, by a move, whose slot the loops of products leave free.

The cascade takes one word of 512 bits a cycle to a neighbour and brings one from another: the store slot puts, the scalar slot,
which also moves registers, gets.

Sparse products read a B of which at most two of every four consecutive values along k are not zero: a mask and 64 bytes of
values (`sparse_b`).

Products may take their right operand transposed (`macbft` and its like), as blocks of computed tensors are stored that way:
our assumption. A real core would transpose 4 x 8 elements of 16 bits by a shuffle in its move slot, which the loops of products
leave free: one for each operand of 4 products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sparsec.compiler.errors import UsageError

BUNDLE_BYTES = 16


class Slot(Enum):
    """The parts of a bundle: lowest bit, width, and bits of the opcode."""

    A = (0, 24, 4)
    B = (24, 24, 4)
    STORE = (48, 23, 3)
    VECTOR = (71, 29, 6)
    SCALAR = (100, 28, 5)

    __hash__ = object.__hash__  # there is one of each, and it is often a key: by name takes much longer

    @property
    def low(self) -> int:
        """The slot's lowest bit."""
        return self.value[0]

    @property
    def width(self) -> int:
        """Bits of the slot."""
        return self.value[1]

    @property
    def opcode_bits(self) -> int:
        """Bits of the opcode."""
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Field:
    """An operand: a register (`kind` is its letter) or a number ("i" signed, "u" unsigned), which is stored divided by `unit`."""

    kind: str
    bits: int
    unit: int = 1

    def encode(self, number: int, what: str) -> int:
        """The stored bits; UsageError, which begins with `what`, when `number` does not fit."""
        stored, rest = divmod(number, self.unit)
        low, high = (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) if self.kind == "i" else (0, self.last)
        if rest or not low <= stored <= high:
            step = f" in steps of {self.unit}" if self.unit > 1 else ""
            raise UsageError(f"{what} cannot be {number}: it is from {low * self.unit} to {high * self.unit}{step}")
        return stored & ((1 << self.bits) - 1)

    def decode(self, stored: int) -> int:
        """The number that `stored` bits mean."""
        if self.kind == "i" and stored >> (self.bits - 1):
            stored -= 1 << self.bits
        return stored * self.unit

    @property
    def last(self) -> int:
        """The highest stored number of an unsigned field or register."""
        return COUNTS.get(self.kind, 1 << self.bits) - 1


COUNTS = {"r": 32, "l": 16, "p": 8, "m": 8, "w": 24, "x": 12, "z": 6, "q": 4, "y": 2, "c": 9}  # registers by letter

_R, _P, _M, _W, _X, _C = (Field(k, b) for k, b in (("r", 5), ("p", 3), ("m", 3), ("w", 5), ("x", 4), ("c", 4)))
_Z, _Q, _Y, _L = (Field(k, b) for k, b in (("z", 3), ("q", 2), ("y", 1), ("l", 4)))
_STEP = Field("i", 12, 32)  # after a 256-bit access
_SHORT_STEP = Field("i", 7, 32)
_FORMAT = Field("u", 1)  # of 8-bit data: 0 unsigned, 1 signed
_HALF = Field("u", 1)  # of an accumulator: the first or the last positions or channels


@dataclass(frozen=True, slots=True)
class Form:
    """What an opcode of a slot means: its mnemonic, its fields in order, how it uses them, and one line about what it does.

    `use` has a letter a field: < is read, > is written, = is both, - is a number.
    """

    name: str
    opcode: int
    fields: tuple[Field, ...]
    use: str
    does: str

    @property
    def pointer(self) -> int:
        """Which field is the pointer of a load or store."""
        return next(i for i, f in enumerate(self.fields) if f.kind == "p")

    @property
    def moves(self) -> bool:
        """Whether a load or store has a pointer: all but what goes to the cascade."""
        return any(f.kind == "p" for f in self.fields)

    @property
    def reads(self) -> tuple[int, ...]:
        """Which fields are registers that it reads."""
        return tuple(i for i, u in enumerate(self.use) if u in "<=")

    @property
    def writes(self) -> tuple[int, ...]:
        """Which fields are registers that it writes."""
        return tuple(i for i, u in enumerate(self.use) if u in ">=")


_LOADS = (
    Form("ldw", 1, (_W, _P, _STEP), ">=-", "w = 32 bytes at p; p += step"),
    Form("ldwm", 2, (_W, _P, _M), ">=<", "w = 32 bytes at p; p += m"),
    Form("ld", 3, (_R, _P, Field("i", 12, 4)), ">=-", "r = int32 at p; p += step"),
    Form("ldh", 4, (_R, _P, Field("i", 12, 2)), ">=-", "r = uint16 at p; p += step"),
    Form("ldm", 5, (_M, _P, Field("i", 12, 2)), ">=-", "m = 32 * int16 at p; p += step"),
    Form("ldc", 6, (_C, Field("u", 2), _P, _SHORT_STEP), ">-=-", "the quarter of c = 32 bytes at p, the rest stays; p += step"),
    Form("ldp", 7, (_P, _P, Field("i", 12, 2)), ">=-", "p = uint16 at p'; p' += step"),
    Form("ldu", 8, (_C, _P, _R, _FORMAT, _SHORT_STEP), ">=<--", "c[i] = the byte i at p << r; p += step"),
    Form("ldbf", 9, (_C, _HALF, _P, _SHORT_STEP), ">-=-", "2 positions of c = 16 bfloat16 at p as float32; p += step"),
    Form("ldq", 10, (_Y, _P, _STEP), ">=-", "the two masks of y = 32 bytes at p; p += step"),
    Form("ldwr", 11, (_W, _P, _L, _SHORT_STEP), ">=<-", "w = 32 bytes in the ring l at p; p += step"),
    Form("ldqr", 12, (_Y, _P, _L, _SHORT_STEP), ">=<-", "the two masks of y = 32 bytes in the ring l at p; p += step"),
)
_STORES = (
    Form(
        "srs",
        1,
        (_C, _P, _R, _FORMAT, _SHORT_STEP),
        "<=<--",
        "shift c right by r, round half to even, saturate to bytes, store; p += step",
    ),
    Form("stw", 2, (_W, _P, _STEP), "<=-", "32 bytes at p = w; p += step"),
    Form("stc", 3, (_C, Field("u", 2), _P, _SHORT_STEP), "<-=-", "32 bytes at p = the quarter of c; p += step"),
    Form("st", 4, (_R, _P, Field("i", 12, 4)), "<=-", "int32 at p = r; p += step"),
    Form("srsm", 5, (_C, _P, _R, _FORMAT, _M), "<=<-<", "as srs; p += m"),
    Form("stbf", 6, (_C, _HALF, _P, _SHORT_STEP), "<-=-", "round 2 positions of c, float32, to bfloat16, store them; p += step"),
    Form("putc", 7, (_C, _HALF), "<-", "2 positions of c, 512 bits, into the cascade; waits until it has room"),
)
_VECTORS = (
    Form("mac", 1, (_C, _W, _X, _FORMAT), "=<<-", "c[4][8] += w[4][8] x x[8][8]; bytes of w by format, of x signed"),
    Form("mul", 2, (_C, _W, _X, _FORMAT), "><<-", "c = the same product"),
    Form("mace", 3, (_C, _W, _W, _FORMAT), "=<<-", "c[i] += w[i] * w'[i], 32 lanes of bytes; w' signed"),
    Form("mule", 4, (_C, _W, _W, _FORMAT), "><<-", "c[i] = the same products"),
    Form("row", 5, (_C, _W), "><", "each of the 4 rows of c = the 8 int32 or float32 of w"),
    Form("setc", 6, (_C, Field("u", 2), _W), "=-<", "the quarter of c = w"),
    Form("ups", 7, (_C, _W, _R, _FORMAT), "=<<-", "c[i] += the byte i of w << r"),
    Form("max", 8, (_W, _W, _W, _FORMAT), "><<-", "first w = the greater of the others' bytes"),
    Form("min", 9, (_W, _W, _W, _FORMAT), "><<-", "first w = the lesser of the others' bytes"),
    Form("clr", 10, (_C,), ">", "c = 0"),
    Form("macbf", 11, (_C, _X, _X, _HALF), "=<<-", "the half of c, [4][4] float32, += x[4][8] x x'[8][4] of bfloat16"),
    Form("addbf", 12, (_C, _X), "=<", "c[i] += x[i], 32 lanes, float32 and bfloat16"),
    Form("maxf", 13, (_C, _R), "=<", "c[i] = the greater of c[i] and r, 32 lanes, float32"),
    Form("minf", 14, (_C, _R), "=<", "c[i] = the lesser of c[i] and r, 32 lanes, float32"),
    Form("macc", 15, (_C, _C, _W, _X, _FORMAT), "><<<-", "as mac, c = c' + the products"),
    Form("macec", 16, (_C, _C, _W, _W, _FORMAT), "><<<-", "as mace, c = c' + the products"),
    Form("macbfc", 17, (_C, _C, _X, _X, _HALF), "><<<-", "as macbf, the half of c = that of c' + the products, the rest stays"),
    Form("addmac", 18, (_C, _C, _C, _W, _X, _FORMAT), "><<<<-", "as mac, c = c' + c'' + the products"),
    Form("addmace", 19, (_C, _C, _C, _W, _W, _FORMAT), "><<<<-", "as mace, c = c' + c'' + the products"),
    Form("addmacbf", 20, (_C, _C, _C, _X, _X, _HALF), "><<<<-", "as macbf, the half of c = those of c' and c'' + the products"),
    Form(
        "macsp",
        21,
        (_C, _X, _X, _Q, _FORMAT),
        "=<<<-",
        "c[4][8] += x[4][16] x sparse x'[16][8] where q says; bytes of x by format",
    ),
    Form("mulsp", 22, (_C, _X, _X, _Q, _FORMAT), "><<<-", "c = the same product"),
    Form("macspc", 23, (_C, _C, _X, _X, _Q, _FORMAT), "><<<<-", "as macsp, c = c' + the products"),
    Form("addmacsp", 24, (_C, _C, _C, _X, _X, _Q, _FORMAT), "><<<<<-", "as macsp, c = c' + c'' + the products"),
    Form("macbfsp", 25, (_C, _Z, _X, _Q, _HALF), "=<<<-", "the half of c += z[4][16] x sparse x[16][4] of bfloat16 where q says"),
    Form("macbfspc", 26, (_C, _C, _Z, _X, _Q, _HALF), "><<<<-", "as macbfsp, the half of c = that of c' + the products"),
    Form("srsh", 27, (_X, _C, _R), "><<", "x = c shifted right by r, round half to even, saturate to 32 lanes of int16"),
    Form("mach", 28, (_C, _C, _X, _R), "><<<", "c[i] = c'[i] + x[i] * r, 32 lanes of int16, of r its lower half"),
    Form("macebf", 29, (_C, _W, _W, _HALF), "=<<-", "2 positions of c += w[i] * w'[i], 16 lanes of bfloat16"),
    Form(
        "macebfc",
        30,
        (_C, _C, _W, _W, _HALF),
        "><<<-",
        "as macebf, 2 positions of c = those of c' + the products",
    ),
    Form("addmacebf", 31, (_C, _C, _C, _W, _W, _HALF), "><<<<-", "as macebf, 2 of c = those of c' and c'' + the products"),
    Form("maxbf", 32, (_W, _W, _W), "><<", "first w = the greater of the others' bfloat16"),
    Form("macbft", 33, (_C, _X, _X, _HALF), "=<<-", "as macbf, x' is [4][8] and transposed"),
    Form("macbftc", 34, (_C, _C, _X, _X, _HALF), "><<<-", "as macbfc, x' is [4][8] and transposed"),
    Form("addmacbft", 35, (_C, _C, _C, _X, _X, _HALF), "><<<<-", "as addmacbf, x' is [4][8] and transposed"),
)
_IMM = Field("i", 13)
_SCALARS = (
    Form("movi", 1, (_R, Field("i", 18)), ">-", "r = number"),
    Form("movh", 2, (_R, Field("u", 16)), "=-", "upper half of r = number"),
    Form("addi", 3, (_R, _R, _IMM), "><-", "first r = second r + number"),
    Form("add", 4, (_R, _R, _R), "><<", "first r = the others' sum"),
    Form("sub", 5, (_R, _R, _R), "><<", "first r = second r - third r"),
    Form("mov", 6, (_R, _R), "><", "first r = second r"),
    Form("movp", 7, (_P, _R), "><", "p = r"),
    Form("movr", 8, (_R, _P), "><", "r = p"),
    Form("padd", 9, (_P, Field("i", 18)), "=-", "p += number"),
    Form("paddr", 10, (_P, _P, _R), "><<", "first p = second p + r"),
    Form("movm", 11, (_M, _R), "><", "m = r"),
    Form("loop", 12, (_R, Field("u", 10)), "<-", "the next bundles r times, at no cost; r = 0 skips them"),
    Form("jz", 13, (_R, Field("u", 10)), "<-", "continue at the bundle when r = 0"),
    Form("jnz", 14, (_R, Field("u", 10)), "<-", "continue at the bundle when r != 0"),
    Form("jzd", 22, (_R, Field("u", 10)), "=-", "r -= 1; continue at the bundle when that makes 0"),
    Form("jmpr", 23, (_R,), "<", "continue at the bundle r"),
    Form("movz", 24, (_R, _R, _R), "=<<", "first r = second r when third r = 0"),
    Form("addl", 25, (_R, _R, _R, _L), "><<<", "first r = the others' sum, in the ring l"),
    Form("jmp", 15, (Field("u", 10),), "-", "continue at the bundle"),
    Form("acq", 16, (Field("u", 6), _IMM), "--", "wait until the lock is at least number, and take it off"),
    Form("rel", 17, (Field("u", 6), _IMM), "--", "add number to the lock"),
    Form("acqr", 20, (Field("u", 6), _R), "-<", "wait until the lock is at least r, and take it off"),
    Form("relr", 21, (Field("u", 6), _R), "-<", "add r to the lock"),
    Form("done", 18, (), "", "stop"),
    Form("pmov", 19, (_P, _P), "><", "first p = second p"),
    Form(
        "getc",
        31,
        (_C, _HALF),
        ">-",
        "2 positions of c = 512 bits out of the cascade, the rest stays; waits until they are there",
    ),
)

ADDING: Mapping[str, str] = {
    n: p
    for p in ("mac", "mace", "macbf", "macbft", "macebf", "macsp", "macbfsp")
    for n in (f"{p}c", f"add{p}")
    if n != "addmacbfsp"
}
"""Products whose target is set to the sum of one or two other accumulators and the products of the form that is named."""

FORMS: Mapping[Slot, tuple[Form, ...]] = {
    Slot.A: _LOADS,
    Slot.B: _LOADS,
    Slot.STORE: _STORES,
    Slot.VECTOR: _VECTORS,
    Slot.SCALAR: _SCALARS,
}
_BY_OPCODE = {(slot, f.opcode): f for slot, forms in FORMS.items() for f in forms}


@dataclass(frozen=True, slots=True)
class Instruction:
    """What one slot does: a form with its operands, register numbers and numbers in the order of the form's fields."""

    form: Form
    operands: tuple[int, ...]


Bundle = Mapping[Slot, Instruction]
"""The instructions that start in one cycle, by slot."""


def encode_bundle(bundle: Bundle) -> bytes:
    """16 bytes. UsageError for an operand that its field does not hold."""
    word = 0
    for slot, instruction in bundle.items():
        bits, at = instruction.form.opcode, slot.opcode_bits
        for field, number in zip(instruction.form.fields, instruction.operands, strict=True):
            bits |= field.encode(number, f"{instruction.form.name}: operand {field.kind}") << at
            at += field.bits
        word |= bits << slot.low
    return word.to_bytes(BUNDLE_BYTES, "little")


def decode_bundle(data: bytes) -> dict[Slot, Instruction]:
    """The inverse of `encode_bundle`. UsageError for an opcode or register that there is not, or bits that no field owns."""
    word = int.from_bytes(data, "little")
    bundle: dict[Slot, Instruction] = {}
    for slot in Slot:
        bits = (word >> slot.low) & ((1 << slot.width) - 1)
        if not bits:
            continue
        opcode = bits & ((1 << slot.opcode_bits) - 1)
        form = _BY_OPCODE.get((slot, opcode))
        if form is None:
            raise UsageError(f"slot {slot.name.lower()} has no opcode {opcode}")
        at, operands = slot.opcode_bits, []
        for field in form.fields:
            stored = (bits >> at) & ((1 << field.bits) - 1)
            if field.kind in COUNTS and stored > field.last:
                raise UsageError(f"{form.name}: there is no register {field.kind}{stored}, the last is {field.kind}{field.last}")
            operands.append(field.decode(stored))
            at += field.bits
        if bits >> at:
            raise UsageError(f"{form.name} leaves bits from {at} on to nothing, but they are {bits >> at:#x}")
        bundle[slot] = Instruction(form, tuple(operands))
    return bundle
