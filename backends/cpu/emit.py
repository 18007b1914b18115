"""Print a Program as files: C, header, weights, and the rules that build them. Deterministic to the byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.backends.cpu.kernel import environment, struct_declaration, struct_initializer
from sparsec.backends.cpu.memory import MemoryPlan
from sparsec.backends.cpu.prelude import prelude
from sparsec.backends.cpu.program import ALIGN, Interface, Program, Ref, Space
from sparsec.backends.naming import comment, identifier, identifiers, string_literal

OPTIMISE = "-O3"
WEIGHTS_MODES = ("incbin", "file", "inline")


@dataclass(frozen=True)
class Emitted:
    """Files by name, and the numbers that the report repeats."""

    name: str
    files: dict[str, bytes]
    arena_bytes: int
    scratch_bytes: int
    weights_bytes: int
    text_bytes: int
    compile_flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """An input or output as the templates print it."""

    field: str
    ctype: str
    comment: str
    literal: str
    dtype: str
    shape: tuple[int, ...]
    shape_name: str
    bytes: int


def _fields(ports: tuple[Interface, ...], side: str) -> list[_Field]:
    names = identifiers([p.name for p in ports])
    return [
        _Field(
            field,
            p.type.dtype.c,
            comment(f"{p.name}: {p.type.dtype.value}[{', '.join(map(str, p.type.shape))}]"),
            string_literal(p.name),
            p.type.dtype.value,
            p.type.shape,
            f"spc_{side}_shape_{i}",
            p.type.elements * p.type.dtype.itemsize,
        )
        for i, (p, field) in enumerate(zip(ports, names, strict=True))
    ]


def compile_flags(program: Program) -> tuple[str, ...]:
    """Flags that the generated C must be compiled with, whoever does it."""
    return ("-std=c11", *program.isa.cflags, *(("-fopenmp",) if program.threads > 1 else ()))


def emit(program: Program, plan: MemoryPlan, weights: str = "incbin") -> Emitted:
    """The files of a library. `weights`: linked by .incbin, read by the caller from a file, or inlined in the C text."""
    name = identifier(program.name)
    macro = name.upper()
    inputs, outputs = _fields(program.inputs, "in"), _fields(program.outputs, "out")
    blob = b"".join(program.weights.chunks)
    fields = {
        **{(Space.INPUT, p.name): f.field for p, f in zip(program.inputs, inputs, strict=True)},
        **{(Space.OUTPUT, p.name): f.field for p, f in zip(program.outputs, outputs, strict=True)},
    }
    geometries: dict[tuple[str, str], str] = {}
    calls = []
    for call in program.calls:
        value = struct_initializer(call.geometry)
        geometry = geometries.setdefault((call.kernel.family, value), f"spc_g{len(geometries)}")
        arguments = [f"&{geometry}"]
        for pointer, ref in zip(call.kernel.pointers(), call.operands, strict=True):
            arguments.append(_address(ref, pointer.ctype, pointer.const, plan, fields))
        symbol = call.kernel.symbol(program.isa)
        calls.append({"symbol": symbol, "arguments": arguments, "comment": comment(call.node), "parts": call.parts})
    families = dict.fromkeys((c.kernel.family, c.kernel.geometry) for c in program.calls)
    scratch = program.scratch_bytes
    counters = ALIGN * len(program.calls) if program.threads > 1 else 0
    context = {
        "name": name,
        "macro": macro,
        "guard": f"SPARSEC_{macro}_H",
        "isa": program.isa,
        "threads": program.threads,
        "linked": "" if weights == "file" else weights,
        "cflags": comment(" ".join((OPTIMISE, *compile_flags(program)))),
        "optimise": OPTIMISE,
        "isa_flags": " ".join(program.isa.cflags),
        "arena_bytes": plan.peak + scratch * program.threads + counters or ALIGN,
        "counters_offset": plan.peak + scratch * program.threads,
        "counters_bytes": counters,
        "weights_bytes": len(blob),
        "scratch_offset": plan.peak,
        "scratch_bytes": scratch,
        "inputs": inputs,
        "outputs": outputs,
        "prelude": prelude(program.isa, integers=any(k.integers for k in program.kernels())),
        "structs": [struct_declaration(f, g) for f, g in families],
        "sources": [k.source(program.isa) for k in program.kernels()],
        "geometries": [{"family": f, "value": v, "name": n} for (f, v), n in geometries.items()],
        "calls": calls,
        "inline_words": _words(blob) if weights == "inline" else [],
    }
    templates = {f"{name}.h": "library.h.j2", f"{name}.c": "library.c.j2", "Makefile": "Makefile.j2"}
    templates |= {"CMakeLists.txt": "CMakeLists.txt.j2", f"{name}.pc": "library.pc.j2"}
    if weights == "incbin":
        templates[f"{name}_weights.S"] = "weights.S.j2"
    files = {f: environment().get_template(t).render(context).encode() for f, t in templates.items()}
    text = sum(len(files[f]) for f in (f"{name}.h", f"{name}.c"))
    if weights != "inline":
        files[f"{name}_weights.bin"] = blob
    return Emitted(name, files, int(str(context["arena_bytes"])), scratch, len(blob), text, (OPTIMISE, *compile_flags(program)))


def _words(blob: bytes) -> list[str]:
    padded = blob + bytes(-len(blob) % 8) or bytes(8)
    return [f"0x{int(w):016x}" for w in np.frombuffer(padded, "<u8")]


def _address(ref: Ref, ctype: str, const: bool, plan: MemoryPlan, fields: dict[tuple[Space, str], str]) -> str:
    """The C expression of an address, cast to the kernel's parameter type."""
    qualifier = "const " if const else ""
    cast = f"({qualifier}{ctype} *)"
    if ref.space is Space.NULL:
        return "NULL"
    if ref.space is Space.ARENA:
        return f"{cast}(a + {plan.offsets[ref.buffer] + ref.offset})"
    if ref.space is Space.WEIGHTS:
        return f"{cast}(w + {ref.offset})"
    side = "in" if ref.space is Space.INPUT else "out"
    field = f"{side}->{fields[ref.space, ref.buffer]}"
    if ref.offset:
        field = f"((const unsigned char *){field} + {ref.offset})" if const else f"((unsigned char *){field} + {ref.offset})"
    return f"{cast}{field}"
