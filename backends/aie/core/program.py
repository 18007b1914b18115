"""The program of a core: which kinds of product it knows, where its locks and parameters are, and its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from sparsec.backends.aie.core.assembly import assemble
from sparsec.backends.aie.core.instructions import BUNDLE_BYTES
from sparsec.compiler.errors import LimitError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of product that a chunk of weights asks for.

    `depthwise` multiplies lane by lane (blocks of 32 bytes) instead of by 8 x 8 matrices (64 bytes). The formats say whether
    bytes of data, of the residual (None: there is none) and of results are signed.
    """

    depthwise: bool = False
    data: bool = False
    added: bool | None = None
    result: bool = False

    @property
    def name(self) -> str:
        """A label of the program."""
        formats = {False: "u8", True: "i8"}
        parts = ["depthwise" if self.depthwise else "product", formats[self.data], formats[self.result]]
        return "_".join(parts + ([f"plus_{formats[self.added]}"] if self.added is not None else []))

    @property
    def block_bytes(self) -> int:
        """What one block of weights takes."""
        return 32 if self.depthwise else 64


@dataclass(frozen=True, slots=True)
class Locks:
    """A core's locks by number: what is full or free of the buffers of data, weights, results and parameters."""

    data_free: int = 0
    data_full: int = 1
    weights_free: int = 2
    weights_full: int = 3
    results_free: int = 4
    results_full: int = 5
    layer_free: int = 6
    layer_full: int = 7


LOCKS = Locks()


def core_text(kinds: Sequence[Kind], parameters: int) -> str:
    """The program's assembly. `parameters` is the address of a layer's parameters in data memory."""
    source = (files("sparsec.templates") / "aie" / "core.s.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    described = [
        {
            "name": k.name,
            "product": "mace" if k.depthwise else "mac",
            "residual": k.added is not None,
            "data": int(k.data),
            "added": int(bool(k.added)),
            "result": int(k.result),
        }
        for k in kinds
    ]
    return environment.from_string(source).render(kinds=described, locks=LOCKS, parameters=parameters)


def core_program(kinds: Sequence[Kind], parameters: int, program_bytes: int) -> bytes:
    """The program's bundles. LimitError when they do not fit `program_bytes` of program memory."""
    program = assemble(core_text(kinds, parameters))
    if len(program) > program_bytes:
        raise LimitError(
            f"the core's program takes {len(program) // BUNDLE_BYTES} bundles, its memory holds {program_bytes // BUNDLE_BYTES}: "
            f"it knows {len(kinds)} kinds of product; split the model, so that each part needs fewer"
        )
    return program
