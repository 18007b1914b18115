"""The text form of a core's program: one bundle a line, slots separated by bars, and back.

    again:                                    # a label
      a.ldw w0, p1, 32 | b.ldw w8, p2, 32 | mac c0, w0, x4, 1
      loop r3, end                            # the bundles up to the label, r3 times
      jnz r2, again

Mnemonics and operands are those of `instructions`; loads say which port they use. A number may be a name that the caller gives
a value. The number of `loop` is the bundles of its body, of a jump the bundle to go on at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from sparsec.backends.aie.core.instructions import (
    BUNDLE_BYTES,
    COUNTS,
    FORMS,
    Bundle,
    Field,
    Form,
    Instruction,
    Slot,
    decode_bundle,
    encode_bundle,
)
from sparsec.compiler.errors import UsageError

_LABEL = re.compile(r"([A-Za-z_]\w*):")
_NAMED = {
    ({Slot.A: "a.", Slot.B: "b."}.get(slot, "") + form.name): (slot, form) for slot, forms in FORMS.items() for form in forms
}
_PARTS = {"x": ("w", 2), "z": ("w", 4), "y": ("q", 2), "l": ("r", 2)}  # registers that consist of others
_TARGETS = {"jz": 1, "jnz": 1, "jzd": 1, "jmp": 0}  # which operand is a bundle


def assemble(text: str, symbols: Mapping[str, int] | None = None) -> bytes:
    """The bytes of a program. UsageError names the line that is wrong."""
    labels, lines = _parsed(text)
    parts = []
    for at, (number, line) in enumerate(lines):
        try:
            parts.append(encode_bundle(_bundle(line, at, labels, symbols or {})))
        except UsageError as exc:
            raise UsageError(f"line {number}: {exc}") from exc
    return b"".join(parts)


def labels_of(text: str) -> dict[str, int]:
    """The bundle that each label of a program stands before. UsageError names the line of a label that is there twice."""
    return _parsed(text)[0]


def bundles_of(text: str) -> int:
    """How many bundles a program is, be they more than jumps reach."""
    return len(_parsed(text)[1])


def _parsed(text: str) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """The labels of a text, and the lines of its bundles with their numbers."""
    labels: dict[str, int] = {}
    lines: list[tuple[int, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if found := _LABEL.fullmatch(line):
            if found[1] in labels:
                raise UsageError(f"line {number}: the label {found[1]!r} is there twice")
            labels[found[1]] = len(lines)
        elif line:
            lines.append((number, line))
    return labels, lines


def _bundle(line: str, at: int, labels: Mapping[str, int], symbols: Mapping[str, int]) -> dict[Slot, Instruction]:
    bundle: dict[Slot, Instruction] = {}
    for part in line.split("|"):
        mnemonic, _, rest = part.strip().partition(" ")
        if mnemonic == "nop":
            continue
        if mnemonic not in _NAMED:
            raise UsageError(f"there is no instruction {mnemonic!r}")
        slot, form = _NAMED[mnemonic]
        if slot in bundle:
            raise UsageError(f"slot {slot.name.lower()} is taken twice, by {bundle[slot].form.name} and {mnemonic}")
        words = [w.strip() for w in rest.split(",")] if rest.strip() else []
        if len(words) != len(form.fields):
            raise UsageError(f"{mnemonic} takes {len(form.fields)} operands, not {len(words)}: {form.does}")
        numbers = [_operand(form, i, w, at, labels, symbols) for i, w in enumerate(words)]
        bundle[slot] = Instruction(form, tuple(numbers))
    _check_writes(bundle.values())
    return bundle


def _operand(form: Form, i: int, word: str, at: int, labels: Mapping[str, int], symbols: Mapping[str, int]) -> int:
    field = form.fields[i]
    if field.kind in COUNTS:
        if not re.fullmatch(rf"{field.kind}\d+", word):
            raise UsageError(f"{form.name}: operand {i + 1} is a register {field.kind}, not {word!r}")
        return int(word[1:])
    if word in labels and form.name == "loop":
        return labels[word] - at - 1
    if word in labels and _TARGETS.get(form.name) == i:
        return labels[word]
    if word in symbols:
        return symbols[word]
    try:
        return int(word, 0)
    except ValueError:
        raise UsageError(f"{form.name}: {word!r} is neither a number nor a known name") from None


def _check_writes(instructions: Iterable[Instruction]) -> None:
    written: dict[tuple[str, int], str] = {}
    for instruction in instructions:
        for register in written_registers(instruction):
            if register in written:
                name = f"{register[0]}{register[1]}"
                raise UsageError(f"{written[register]} and {instruction.form.name} write {name} in one bundle")
            written[register] = instruction.form.name


def written_registers(instruction: Instruction) -> Sequence[tuple[str, int]]:
    """The registers (letter, number) that an instruction writes; l, x, y and z as what they consist of."""
    form, operands = instruction.form, instruction.operands
    found = [(form.fields[i].kind, operands[i]) for i in form.writes]
    return [half for kind, n in found for half in _halves(kind, n)]


def loaded_registers(load: Instruction) -> Sequence[tuple[str, int]]:
    """The registers (letter, number) that a load sets to what is in memory."""
    return _halves(load.form.fields[0].kind, load.operands[0])


def read_registers(instruction: Instruction) -> Sequence[tuple[str, int]]:
    """The registers (letter, number) that an instruction reads; l, x, y and z as what they consist of."""
    form, operands = instruction.form, instruction.operands
    found = [(form.fields[i].kind, operands[i]) for i in form.reads]
    return [half for kind, n in found for half in _halves(kind, n)]


def _halves(kind: str, n: int) -> Sequence[tuple[str, int]]:
    part, count = _PARTS.get(kind, (kind, 1))
    return [(part, count * n + i) for i in range(count)]


def disassemble(program: bytes) -> str:
    """The text of a program, which assembles to the same bytes. UsageError names the bundle that is none."""
    if len(program) % BUNDLE_BYTES:
        raise UsageError(f"a program of {len(program)} bytes ends within a bundle of {BUNDLE_BYTES}")
    lines = []
    for at in range(0, len(program), BUNDLE_BYTES):
        try:
            lines.append(bundle_text(decode_bundle(program[at : at + BUNDLE_BYTES])))
        except UsageError as exc:
            raise UsageError(f"bundle {at // BUNDLE_BYTES}: {exc}") from exc
    return "".join(f"{line}\n" for line in lines)


def bundle_text(bundle: Bundle) -> str:
    """One line of assembly."""
    return " | ".join(_text(slot, bundle[slot]) for slot in Slot if slot in bundle) or "nop"


def _text(slot: Slot, instruction: Instruction) -> str:
    port = {Slot.A: "a.", Slot.B: "b."}.get(slot, "")
    words = ", ".join(map(_word, instruction.form.fields, instruction.operands))
    return f"{port}{instruction.form.name} {words}".rstrip()


def _word(field: Field, number: int) -> str:
    return f"{field.kind}{number}" if field.kind in COUNTS else str(number)
