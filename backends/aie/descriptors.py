"""Buffer descriptors: what a DMA channel moves, in which order, and which locks it takes and gives.

Three kinds as three classes (core, memory tile, shim), each `encode`d to the words of its registers and `decode`d from them.
Lengths, steps and wraps count 32-bit words.

Where their fields are, `descriptor_forms` says. Their meaning, by AM025 and aie-rt (`xaie_dma_aieml.c`):

- a length is stored as it is, steps minus one, wraps as they are and 0 for none, the iteration's wrap and step minus one;
- the outermost dimension has a step only; a dimension without wrap is the last that counts;
- an acquired value is stored negative for "at least" and as it is for "exactly"; releasing 0 is no release;
- zeros before and after dimension 0 are words, those of dimensions 1 and 2 are whole wraps of the dimension below; only a memory
  tile's MM2S channels add them;
- in a memory tile, addresses and locks count through its western neighbour, itself and its eastern neighbour
  (mlir-aie, `getMemLocalBaseAddress`, `getLockLocalBaseIndex`), so its own begin at `OWN_WORDS` and `OWN_LOCKS`;
- the length counts the zeros too (mlir-aie's verifier of `dma_bd`).

Assumed: a wrap of zeros is as wide as a padded wrap (so that rows stay even); the base moves by the iteration's step times its
current number, which then counts on and returns to 0 after `wrap` executions (AM025 says when it counts, not what is added).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, ClassVar, Self

import numpy as np

from sparsec.backends.aie.descriptor_forms import CORE, MEMORY, REMEDIES, SHIM, WORD_BYTES, Form
from sparsec.backends.aie.registers import DMAS, Kind
from sparsec.compiler.errors import FitError, StreamError, UsageError

Offsets = np.ndarray[Any, np.dtype[np.int64]]
PADDING = -1  # in `offsets` and `addresses`: a zero that is not read from memory
OWN_LOCKS = 64  # and its own first lock
_SIGNED = 7  # bits of a lock's value in a descriptor


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension of the walk: `step` words between neighbours, `wrap` of them; 0 goes on until the length is reached."""

    step: int = 1
    wrap: int = 0


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros before and after a dimension: words for dimension 0, whole wraps of the dimension below for others."""

    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Iteration:
    """What changes from one execution of the descriptor to the next: the base moves by `step` words, `wrap` times over."""

    step: int = 1
    wrap: int = 1
    current: int = 0


@dataclass(frozen=True, slots=True)
class Acquire:
    """Wait until a lock holds at least (or exactly) `value`, then take `value` from it."""

    lock: int
    value: int = 1
    at_least: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """Add `value`, which may be negative, to a lock when all words have moved."""

    lock: int
    value: int = 1


@dataclass(frozen=True, slots=True)
class Packet:
    """The header that an MM2S channel puts before the words."""

    id: int
    type: int = 0


@dataclass(frozen=True, slots=True)
class Axi:
    """How a shim's DMA reaches DDR. `burst` 0, 1, 2: 64, 128, 256 bytes; the defaults are mlir-aie's."""

    burst: int = 2
    cache: int = 2
    quality: int = 0
    stream_id: int = 0
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What all kinds have. Use CoreDescriptor, MemoryDescriptor or ShimDescriptor.

    `base` counts words (core, memory tile) or bytes (shim); `length` is all words that move, zeros included. `dims` run from the
    innermost; missing ones are Dim(). `next` is the descriptor that follows, None ends the task.
    """

    FORM: ClassVar[Form]

    base: int
    length: int
    dims: tuple[Dim, ...] = ()
    iteration: Iteration = Iteration()
    acquire: Acquire | None = None
    release: Release | None = None
    next: int | None = None
    valid: bool = True
    packet: Packet | None = None
    out_of_order: int = 0
    tlast_suppress: bool = False

    def __post_init__(self) -> None:
        form = self.FORM
        if len(self.dims) > form.dimensions:
            self._refuse("dimensions", len(self.dims), f"{form.dimensions}", "join dimensions, or use the iteration")
        missing = form.dimensions - len(self.dims)
        object.__setattr__(self, "dims", tuple(self.dims) + (Dim(),) * missing)
        if self.dims[-1].wrap:
            self._refuse(
                f"d{form.dimensions - 1}_wrap",
                self.dims[-1].wrap,
                "0: the outermost dimension never wraps",
                "end it by the length",
            )
        if self.acquire and self.acquire.at_least and self.acquire.value < 1:
            raise UsageError(
                f"the acquire of lock {self.acquire.lock} waits for at least {self.acquire.value}: expected 1 or more, "
                "or no acquire at all"
            )
        if self.release and not self.release.value:
            raise UsageError(f"the release of lock {self.release.lock} gives 0, which is stored as none: leave the release out")
        self._check_base()
        if not 0 <= self.iteration.current < self.iteration.wrap:
            self._refuse_field("iteration_current", self.iteration.current, 0, self.iteration.wrap - 1)
        bounds = _bounds(form.kind)
        for name, value in self._values().items():
            low, high = bounds[name]
            if not low <= value <= high:
                self._refuse_field(name, value, low, high)

    def _refuse(self, name: str, value: int, bound: str, remedy: str) -> None:
        what = name.replace("_", " ")
        raise FitError(f"{what} of a {self.FORM.kind.value} descriptor", demand=f"{value}", bound=bound, remedy=remedy)

    def _check_base(self) -> None:
        if self.FORM.base_words and not 0 <= self.base < self.FORM.base_words:
            self._refuse("base", self.base, f"0 to {self.FORM.base_words - 1} words", REMEDIES["base"])

    def _refuse_field(self, name: str, stored: int, low: int, high: int) -> None:
        """Tells a stored number and its bounds as the numbers that the caller gave."""
        last = name.rpartition("_")[2]
        less = 1 if name.endswith("_step") or name == "iteration_wrap" else 0
        unit = " words" if last in ("length", "step") else ""
        self._refuse(name, stored + less, f"{low + less} to {high + less}{unit}", REMEDIES.get(last, "choose a value in range"))

    def _values(self) -> dict[str, int]:
        """The numbers to store, by field. Negative ones are not yet in two's complement."""
        values = {
            "length": self.length,
            "iteration_current": self.iteration.current,
            "iteration_wrap": self.iteration.wrap - 1,
            "iteration_step": self.iteration.step - 1,
            "valid": self.valid,
            "packet": self.packet is not None,
            "out_of_order": self.out_of_order,
            "tlast_suppress": self.tlast_suppress,
            "use_next": self.next is not None,
            "next": self.next or 0,
            "base": self.base,
        }
        for i, dim in enumerate(self.dims):
            values[f"d{i}_step"] = dim.step - 1
            if i < len(self.dims) - 1:
                values[f"d{i}_wrap"] = dim.wrap
        if self.packet:
            values |= {"packet_id": self.packet.id, "packet_type": self.packet.type}
        if self.acquire:
            value = -self.acquire.value if self.acquire.at_least else self.acquire.value
            values |= {"acquire_enable": 1, "acquire_lock": self.acquire.lock, "acquire_value": value}
        if self.release:
            values |= {"release_lock": self.release.lock, "release_value": self.release.value}
        return values

    def encode(self) -> tuple[int, ...]:
        """The words of the descriptor's registers, first to last."""
        words = [0] * self.FORM.words
        for name, value in self._values().items():
            field = self.FORM.fields[name]
            words[field.word] |= field.put(value & field.maximum)
        return tuple(words)

    @classmethod
    def decode(cls, words: tuple[int, ...]) -> Self:
        """The descriptor that `encode` made these words of.

        Raises StreamError where there are more or fewer of them, where they hold what no descriptor can, or where bits are set
        that nothing reads.
        """
        found = _decoded(cls.FORM.kind, words)
        assert isinstance(found, cls)
        return found

    @classmethod
    def _arguments(cls, stored: dict[str, int]) -> dict[str, Any]:
        """The constructor's arguments from stored numbers."""
        count = cls.FORM.dimensions
        acquired, released = _signed(stored["acquire_value"]), _signed(stored["release_value"])
        return {
            "base": stored.get("base", 0),
            "length": stored["length"],
            "dims": tuple(Dim(stored[f"d{i}_step"] + 1, stored.get(f"d{i}_wrap", 0)) for i in range(count)),
            "iteration": Iteration(stored["iteration_step"] + 1, stored["iteration_wrap"] + 1, stored["iteration_current"]),
            "acquire": Acquire(stored["acquire_lock"], abs(acquired), acquired < 0) if stored["acquire_enable"] else None,
            "release": Release(stored["release_lock"], released) if released else None,
            "next": stored["next"] if stored["use_next"] else None,
            "valid": bool(stored["valid"]),
            "packet": Packet(stored["packet_id"], stored["packet_type"]) if stored["packet"] else None,
            "out_of_order": stored["out_of_order"],
            "tlast_suppress": bool(stored["tlast_suppress"]),
        }

    def _pads(self) -> tuple[Pad, ...]:
        return ()

    def offsets(self) -> Offsets:
        """Words from the base, in the order in which they move, [length]; PADDING for zeros. Shared and read-only."""
        return _walk(self.length, self.dims, self._pads())

    def addresses(self) -> Offsets:
        """Word addresses, [length], of the current iteration; PADDING for zeros.

        In a core they count from its data memory's first word, in a memory tile from its western neighbour's (its own begin at
        OWN_WORDS), in a shim from address 0 of DDR. Raises FitError where they leave the memory.
        """
        offsets = self.offsets()
        first = self.base * self.FORM.base_unit // WORD_BYTES + self.iteration.current * self.iteration.step
        padded = any(p != Pad() for p in self._pads())
        found = np.where(offsets == PADDING, PADDING, offsets + first) if padded else offsets + first
        if self.FORM.base_words and found.size and (last := int(found.max())) >= self.FORM.base_words:
            self._refuse("last word", last, f"word {self.FORM.base_words - 1}", "move the buffer or shorten the walk")
        return found

    def advanced(self) -> Self:
        """The descriptor as its registers hold it after one execution: the next iteration, the first after the last."""
        current = (self.iteration.current + 1) % self.iteration.wrap
        return replace(self, iteration=replace(self.iteration, current=current))

    def __str__(self) -> str:
        """One line: what differs from the defaults."""
        parts = [f"base {self.base:#x}", f"length {self.length}"]
        used = max((i + 1 for i, d in enumerate(self.dims) if d != Dim()), default=0)
        parts += [f"d{i} {d.wrap or '-'}x{d.step}" for i, d in enumerate(self.dims[:used])]
        parts += [f"pad{i} {p.before}+{p.after}" for i, p in enumerate(self._pads()) if p != Pad()]
        if self.iteration != Iteration():
            parts.append(f"iteration {self.iteration.current} of {self.iteration.wrap}x{self.iteration.step}")
        if self.acquire:
            parts.append(f"acquire {self.acquire.lock} {'>=' if self.acquire.at_least else '=='} {self.acquire.value}")
        if self.release:
            parts.append(f"release {self.release.lock} {self.release.value:+d}")
        if self.packet:
            parts.append(f"packet {self.packet.id} type {self.packet.type}")
        if self.next is not None:
            parts.append(f"next {self.next}")
        parts += [word for word, on in (("compressed", getattr(self, "compression", False)), ("invalid", not self.valid)) if on]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class CoreDescriptor(Descriptor):
    """A descriptor of a core's DMA: three dimensions, the third without wrap; 14-bit base and length in words."""

    FORM: ClassVar[Form] = CORE

    compression: bool = False

    def _values(self) -> dict[str, int]:
        return {**Descriptor._values(self), "compression": self.compression}

    @classmethod
    def _arguments(cls, stored: dict[str, int]) -> dict[str, Any]:
        return {**super(CoreDescriptor, cls)._arguments(stored), "compression": bool(stored["compression"])}


@dataclass(frozen=True, slots=True)
class MemoryDescriptor(Descriptor):
    """A descriptor of a memory tile's DMA: four dimensions, zeros around the three inner ones (`padding`, innermost first)."""

    FORM: ClassVar[Form] = MEMORY

    padding: tuple[Pad, ...] = ()
    compression: bool = False

    def __post_init__(self) -> None:
        if len(self.padding) > 3:
            self._refuse("padded dimensions", len(self.padding), "3", "split the transfer")
        object.__setattr__(self, "padding", tuple(self.padding) + (Pad(),) * (3 - len(self.padding)))
        Descriptor.__post_init__(self)
        for i, dim in enumerate(self.dims[:3]):
            outer = any(p != Pad() for p in self.padding[i + 1 :])
            if not dim.wrap and (self.padding[i].after or outer):
                raise UsageError(
                    f"dimension {i} of a memory descriptor has no wrap, but zeros after it or around a dimension above: "
                    "give it a wrap"
                )

    def _values(self) -> dict[str, int]:
        values = {**Descriptor._values(self), "compression": self.compression}
        for i, pad in enumerate(self.padding):
            values |= {f"d{i}_before": pad.before, f"d{i}_after": pad.after}
        return values

    @classmethod
    def _arguments(cls, stored: dict[str, int]) -> dict[str, Any]:
        padding = tuple(Pad(stored[f"d{i}_before"], stored[f"d{i}_after"]) for i in range(3))
        return {
            **super(MemoryDescriptor, cls)._arguments(stored),
            "padding": padding,
            "compression": bool(stored["compression"]),
        }

    def _pads(self) -> tuple[Pad, ...]:
        return self.padding


@dataclass(frozen=True, slots=True)
class ShimDescriptor(Descriptor):
    """A descriptor of a shim's DMA: a 48-bit base in bytes, aligned to words; three dimensions, the third without wrap."""

    FORM: ClassVar[Form] = SHIM

    axi: Axi = Axi()

    def _check_base(self) -> None:
        if self.base % WORD_BYTES or not 0 <= self.base < 1 << 48:
            self._refuse("base", self.base, "0 to 2^48 - 4 bytes in steps of 4", "align the buffer to 4 bytes")

    def _values(self) -> dict[str, int]:
        values = Descriptor._values(self)
        base = values.pop("base")
        axi = {
            "burst": self.axi.burst,
            "cache": self.axi.cache,
            "quality": self.axi.quality,
            "stream_id": self.axi.stream_id,
            "secure": self.axi.secure,
        }
        return {**values, "base_low": base >> 2 & (1 << 30) - 1, "base_high": base >> 32, **axi}

    @classmethod
    def _arguments(cls, stored: dict[str, int]) -> dict[str, Any]:
        axi = Axi(stored["burst"], stored["cache"], stored["quality"], stored["stream_id"], bool(stored["secure"]))
        base = stored["base_high"] << 32 | stored["base_low"] << 2
        return {**super(ShimDescriptor, cls)._arguments(stored), "base": base, "axi": axi}


CLASSES: dict[Kind, type[Descriptor]] = {Kind.CORE: CoreDescriptor, Kind.MEMORY: MemoryDescriptor, Kind.SHIM: ShimDescriptor}


def check_channel_descriptor(kind: Kind, channel: int, descriptor: int) -> None:
    """FitError where a channel cannot run a descriptor: in a memory tile even channels take 0-23, odd ones 24-47.

    The rule is aie-rt's (`_XAieMl_MemTileDmaCheckBdChValidity`) and mlir-aie's.
    """
    count = DMAS[kind].descriptors
    low, high = (0, count - 1) if kind is not Kind.MEMORY else (channel % 2 * count // 2, (channel % 2 + 1) * count // 2 - 1)
    if not low <= descriptor <= high:
        raise FitError(
            f"descriptor for channel {channel} of a {kind.value} tile",
            demand=f"descriptor {descriptor}",
            bound=f"descriptors {low} to {high}",
            remedy="number it in this range",
        )


@cache
def _bounds(kind: Kind) -> dict[str, tuple[int, int]]:
    """The least and the greatest number that each field of a kind of tile may store."""
    form = CLASSES[kind].FORM
    found = {}
    for name, field in form.fields.items():
        low, high = 0, field.maximum
        if name.endswith("_value"):
            low, high = -(1 << (_SIGNED - 1)), (1 << (_SIGNED - 1)) - 1
        elif name.endswith("_lock"):
            high = DMAS[kind].locks - 1
        elif name == "next":
            high = DMAS[kind].descriptors - 1
        found[name] = low, high
    return found


@lru_cache(maxsize=4096)
def _decoded(kind: Kind, words: tuple[int, ...]) -> Descriptor:
    """`decode`, kept: the same few words are written again and again."""
    cls = CLASSES[kind]
    form = cls.FORM
    if len(words) != form.words:
        raise StreamError(f"a {form.kind.value} descriptor has {form.words} words, not {len(words)}")
    stored = {name: field.get(words[field.word]) for name, field in form.fields.items()}
    try:
        found = cls(**cls._arguments(stored))
    except (FitError, UsageError) as exc:
        raise StreamError(f"words {_hex(words)} are not a descriptor: {exc}") from None
    for i, (given, again) in enumerate(zip(words, found.encode(), strict=True)):
        if given != again:
            raise StreamError(f"word {i} of a {form.kind.value} descriptor has bits {given ^ again:#x} set, which nothing reads")
    return found


def _signed(stored: int) -> int:
    return stored - (1 << _SIGNED) if stored >> (_SIGNED - 1) else stored


def _hex(words: tuple[int, ...]) -> str:
    return " ".join(f"{w:#010x}" for w in words)


@lru_cache(maxsize=64)
def _walk(length: int, dims: tuple[Dim, ...], pads: tuple[Pad, ...]) -> Offsets:
    """Offsets [length] of the words of a walk, PADDING for zeros."""
    left = np.arange(length, dtype=np.int64)
    offsets = np.zeros(length, np.int64)
    padded = np.zeros(length, bool)
    for i, dim in enumerate(dims):
        pad = pads[i] if i < len(pads) else Pad()
        if dim.wrap:
            left, place = np.divmod(left, pad.before + dim.wrap + pad.after)
        else:
            place = left
        place = place - pad.before
        padded |= (place < 0) | ((place >= dim.wrap) if dim.wrap else False)
        offsets += place * dim.step
        if not dim.wrap:
            break
    offsets[padded] = PADDING
    offsets.flags.writeable = False
    return offsets
