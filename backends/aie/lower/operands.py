"""The stream of weights that come out of a computed tensor: which blocks a part of the channels takes, and what moves them.

Frames, what is constant of chunks, come once into a memory tile, which holds all of them; blocks come as the image in DDR has
them, through a ring. The memory tile sends a frame, then the blocks of its chunk, so that cores see pages like any others. Blocks
of bfloat16 are two operands of 4 outputs each: of blocks that are not transposed the memory tile sends one half behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.backends.aie.descriptors import Acquire, Dim, Iteration, MemoryDescriptor, Release, ShimDescriptor
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM
from sparsec.backends.aie.lower.geometry import BLOCK, BYTE, TILE_VECTORS, Image
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError

_COUNTED = 64  # pages that an iteration counts
_MOST = 6  # pages of a round of descriptors


def regular(t: Tiling) -> bool:
    """Whether one descriptor of a shim describes the blocks of a part of the channels: as many of each head, or one of every
    n-th head; and whether units have equally many, where heads are units. The first of these then wants its residual, which comes
    behind all of a tile's data: cores have to have room for these."""
    computed, parts = t.layer.computed, t.mode.channel_parts
    assert computed is not None
    if t.diagonal and t.layer.residual is not None and t.splits > t.buffers:
        return False
    outer, heads = computed.outer, computed.heads
    if any(not t.output_blocks(p) or _round(len(t.output_blocks(p))) is None for p in range(parts)):
        return False
    if t.diagonal and (outer * heads // t.splits) % parts:
        return False
    return heads == 1 or outer % parts == 0 or (parts % outer == 0 and outer * heads % parts == 0)


def does_not_fit(machine: Machine, layer: ConvLayer) -> FitError:
    """Why there is no way to multiply by a computed tensor."""
    computed, element = layer.computed, layer.element
    assert computed is not None
    chunk, data = computed.inner * element.block_bytes, TILE_VECTORS * computed.inner * element.vector_bytes
    return FitError(
        f"layer {layer.node!r} on {machine.name}",
        demand=f"{chunk:,} bytes of blocks of one chunk, twice, {data:,} of 16 positions of {BLOCK * computed.inner} channels, "
        f"and {computed.outer} results of a head",
        bound=f"{machine.core.data_bytes:,} bytes of a core, and {LOCK_MAXIMUM} results of each that a lock counts",
        remedy="cut the sums into parts of fewer channels, or use a larger array",
        node=layer.node,
    )


def _round(pages: int) -> int | None:
    """How many pages of a stream a round of descriptors has, None where they cannot count them."""
    return next((n for n in range(1, _MOST + 1) if pages % n == 0 and pages // n <= _COUNTED), None)


def ring_of(t: Tiling, part: int, slots: int) -> int:
    """Pages that a ring for so many holds in whole rounds."""
    each = _round(t.pages(part)) or 1
    return slots // each * each


def held_bytes(t: Tiling, part: int, pages: int) -> int:
    """Bytes of a memory tile for so many pages of a stream, with all frames where blocks are computed."""
    if t.layer.computed is None:
        return pages * t.page_bytes[part]
    return t.pages(part) * t.frame_bytes + pages * t.blocks_bytes


def from_image(t: Tiling, image: Image, part: int) -> tuple[ShimDescriptor, int, int]:
    """What moves the blocks of a part of the channels out of DDR, the byte where they begin, and how often it runs.

    FitError where positions of the image do not follow one another.
    """
    computed, parts = t.layer.computed, t.mode.channel_parts
    assert computed is not None
    if image.left or image.width != image.columns:
        raise FitError(
            f"the computed weights {computed.value!r} of layer {t.layer.node!r}",
            demand=f"rows of {image.width} positions, as another layer reads {image.left} before and "
            f"{image.width - image.left - image.columns} behind the {image.columns} of each",
            bound="positions that follow one another",
            remedy="multiply a copy of it",
            node=t.layer.node,
        )
    block, column = BLOCK * BLOCK * image.size // 4, image.height * image.width * BLOCK * image.size // 4
    inward, outward = (column, block) if computed.transposed else (block, column)
    head = computed.inner * column if computed.transposed else computed.outer * column
    own = len(t.output_blocks(part))
    if computed.heads == 1 or computed.outer % parts == 0:
        first, times, step = outward * part, computed.heads, head
    else:  # a block of every n-th head
        first, times, step = part // computed.outer * head + part % computed.outer * outward, own, parts // computed.outer * head
    dims = (Dim(1, block), Dim(inward, computed.inner), Dim(parts * outward))
    made = ShimDescriptor(0, own // times * computed.inner * block, dims, iteration=Iteration(step, times))
    return made, image.at(0, 0, 0) + 4 * (computed.first * head + first), times


def sent(t: Tiling, part: int, base: int, slots: int, full: Acquire, free: Release) -> tuple[list[MemoryDescriptor], int]:
    """What sends pages of a stream out of a memory tile, whose frames begin at word `base`, and how often it runs for a tile."""
    pages, frame, blocks = t.pages(part), t.frame_bytes // 4, t.blocks_bytes // 4
    each = _round(pages)
    assert each is not None
    return [d for n in range(each) for d in _page(t, (base, pages, each, slots), n, (frame, blocks), full, free)], pages // each


def _page(
    t: Tiling, ring: tuple[int, int, int, int], n: int, words: tuple[int, int], full: Acquire, free: Release
) -> Iterator[MemoryDescriptor]:
    """The n-th page of a round: its frame, its blocks, and blocks of zeros behind these."""
    (base, pages, each, slots), (frame, blocks), start = ring, words, t.chunk_start // 4
    turns = Iteration(each * frame, pages // each)
    yield MemoryDescriptor(base + n * frame, start, (), turns, full)
    computed = t.layer.computed
    assert computed is not None
    halves = (Dim(1, 2), Dim(4, BLOCK), Dim(2, 2), Dim(32)) if t.layer.element is not BYTE and not computed.transposed else ()
    begin = base + pages * frame + n * blocks
    made = MemoryDescriptor(begin, blocks, halves, Iteration(each * blocks, slots // each), None, free)
    if frame == start:
        yield made
        return
    yield replace(made, release=None)
    yield MemoryDescriptor(base + n * frame + start, frame - start, (), turns, None, free)
