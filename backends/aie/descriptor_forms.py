"""Where descriptors keep their fields: the words and bits of each kind of tile.

The places were read in aie-rt (`xaiemlgbl_params.h`, descriptors of the memory, memory tile and NoC modules) against AMD AM025
and mlir-aie (`AIEDmaToNpu.cpp`); `descriptors` says what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.backends.aie.registers import DATA_BYTES, DMAS, Field, Kind

WORD_BYTES = 4
MOST_TURNS = 64  # that an iteration counts, in 6 bits of all forms
OWN_WORDS = DATA_BYTES[Kind.MEMORY] // WORD_BYTES  # a memory tile's own first word, as its descriptors count


@dataclass(frozen=True)
class Form:
    """How a kind of tile stores descriptors: a field by name, where wraps exist, and what a base may be."""

    kind: Kind
    fields: dict[str, Field]
    dimensions: int
    base_words: int  # words that a base can address, 0: as many as the field
    base_unit: int  # bytes that a base counts

    @property
    def words(self) -> int:
        """Registers of one descriptor."""
        return DMAS[self.kind].words


CHAIN = {
    "next": Field(27, 4),
    "use_next": Field(26, 1),
    "valid": Field(25, 1),
    "release_value": Field(18, 7),
    "release_lock": Field(13, 4),
    "acquire_enable": Field(12, 1),
    "acquire_value": Field(5, 7),
    "acquire_lock": Field(0, 4),
    "tlast_suppress": Field(31, 1),
}
CORE = Form(
    Kind.CORE,
    {
        "base": Field(14, 14),
        "length": Field(0, 14),
        "compression": Field(31, 1, 1),
        "packet": Field(30, 1, 1),
        "out_of_order": Field(24, 6, 1),
        "packet_id": Field(19, 5, 1),
        "packet_type": Field(16, 3, 1),
        "d1_step": Field(13, 13, 2),
        "d0_step": Field(0, 13, 2),
        "d1_wrap": Field(21, 8, 3),
        "d0_wrap": Field(13, 8, 3),
        "d2_step": Field(0, 13, 3),
        "iteration_current": Field(19, 6, 4),
        "iteration_wrap": Field(13, 6, 4),
        "iteration_step": Field(0, 13, 4),
        **{name: replace(f, word=5) for name, f in CHAIN.items()},
    },
    dimensions=3,
    base_words=DATA_BYTES[Kind.CORE] // WORD_BYTES,
    base_unit=WORD_BYTES,
)
CORE_STEP_BYTES = WORD_BYTES << CORE.fields["iteration_step"].width  # at most, from one execution of a descriptor to the next
MEMORY = Form(
    Kind.MEMORY,
    {
        "packet": Field(31, 1),
        "packet_type": Field(28, 3),
        "packet_id": Field(23, 5),
        "out_of_order": Field(17, 6),
        "length": Field(0, 17),
        "d0_before": Field(26, 6, 1),
        "next": Field(20, 6, 1),
        "use_next": Field(19, 1, 1),
        "base": Field(0, 19, 1),
        "tlast_suppress": Field(31, 1, 2),
        "d0_wrap": Field(17, 10, 2),
        "d0_step": Field(0, 17, 2),
        "d1_before": Field(27, 5, 3),
        "d1_wrap": Field(17, 10, 3),
        "d1_step": Field(0, 17, 3),
        "compression": Field(31, 1, 4),
        "d2_before": Field(27, 4, 4),
        "d2_wrap": Field(17, 10, 4),
        "d2_step": Field(0, 17, 4),
        "d2_after": Field(28, 4, 5),
        "d1_after": Field(23, 5, 5),
        "d0_after": Field(17, 6, 5),
        "d3_step": Field(0, 17, 5),
        "iteration_current": Field(23, 6, 6),
        "iteration_wrap": Field(17, 6, 6),
        "iteration_step": Field(0, 17, 6),
        "valid": Field(31, 1, 7),
        "release_value": Field(24, 7, 7),
        "release_lock": Field(16, 8, 7),
        "acquire_enable": Field(15, 1, 7),
        "acquire_value": Field(8, 7, 7),
        "acquire_lock": Field(0, 8, 7),
    },
    dimensions=4,
    base_words=3 * OWN_WORDS,
    base_unit=WORD_BYTES,
)
SHIM = Form(
    Kind.SHIM,
    {
        "length": Field(0, 32),
        "base_low": Field(2, 30, 1),
        "packet": Field(30, 1, 2),
        "out_of_order": Field(24, 6, 2),
        "packet_id": Field(19, 5, 2),
        "packet_type": Field(16, 3, 2),
        "base_high": Field(0, 16, 2),
        "secure": Field(30, 1, 3),
        "d0_wrap": Field(20, 10, 3),
        "d0_step": Field(0, 20, 3),
        "burst": Field(30, 2, 4),
        "d1_wrap": Field(20, 10, 4),
        "d1_step": Field(0, 20, 4),
        "stream_id": Field(28, 4, 5),
        "cache": Field(24, 4, 5),
        "quality": Field(20, 4, 5),
        "d2_step": Field(0, 20, 5),
        "iteration_current": Field(26, 6, 6),
        "iteration_wrap": Field(20, 6, 6),
        "iteration_step": Field(0, 20, 6),
        **{name: replace(f, word=7) for name, f in CHAIN.items()},
    },
    dimensions=3,
    base_words=0,
    base_unit=1,
)
REMEDIES = {  # by the last part of a field's name
    "length": "split the transfer into several descriptors",
    "base": "place the buffer inside the memory",
    "step": "order the dimensions so that the far one is outermost, or split the transfer",
    "wrap": "split the dimension in two, or the transfer into several descriptors",
    "before": "split the padding over several descriptors",
    "after": "split the padding over several descriptors",
    "lock": "use a lock that the tile has",
    "value": "take or give less at a time",
    "next": "use a descriptor that the tile has",
    "current": "begin below the wrap",
}
