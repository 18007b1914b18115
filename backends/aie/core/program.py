"""The program of a core: which kinds of product it knows, where its locks and parameters are, and its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from sparsec.backends.aie.core.assembly import assemble, bundles_of, labels_of
from sparsec.backends.aie.core.instructions import BUNDLE_BYTES
from sparsec.backends.aie.core.sparse_b import MASK_BYTES
from sparsec.backends.aie.templating import environment
from sparsec.compiler.errors import FitError

HEADER_BYTES = 32  # of a chunk, right before its blocks: its first steps, the last of them first, and control
CONTROL_OFFSET = 12  # of control in the header
FIRST_STEPS = 2  # in the header of a chunk that begins with a bias, which is between these and the others
BIAS_BYTES = 32  # of 8 channels
SPARSE_BYTES = 2 * MASK_BYTES  # before the values of sparse operands: masks
PAGES_OFFSET = 14  # in control, of a chunk's bytes to the next one, and of its numbers of pages
BLOCKS_OFFSET = HEADER_BYTES - CONTROL_OFFSET - PAGES_OFFSET  # from there to the blocks
LEAST_BLOCKS = {False: 4, True: 6}  # of a chunk, by whether it goes on with partial sums of bytes
FIRST_STORE_BYTES = 256  # before partial sums: where a chunk's first stores land, as those of a vector before its first


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of product that a chunk of weights asks for.

    `depthwise` multiplies lane by lane (blocks of 32 bytes) instead of by 8 x 8 matrices (64 bytes); `maximum` takes the
    greatest of what would be multiplied. `signed` says whether data, the residual and results are signed bytes; `wide` results
    are the int32 sums. A chunk may go on with partial sums, or end with them; or go on with what the cascade brings (`gets`), or
    end with putting sums into it (`puts`). `cuts`: results are not below, not above a bound. `scaled` sums are multiplied by a
    number before they are shifted, and shifted twice. Of `bfloat16` are data, weights, residual and results alike; partial sums
    are float32. `sparse` products make 16 channels at a time out of operands of which two of four values are stored.
    `transposed`: blocks are [output, input].
    """

    depthwise: bool = False
    signed: tuple[bool, bool, bool] = (False, False, False)
    residual: bool = False
    starts_partial: bool = False
    ends_partial: bool = False
    cuts: tuple[bool, bool] = (False, False)
    maximum: bool = False
    wide: bool = False
    bfloat16: bool = False
    gets: bool = False
    puts: bool = False
    sparse: bool = False
    scaled: bool = False
    transposed: bool = False

    @property
    def has_bias(self) -> bool:
        """Whether sums begin with the bias of the chunk, not with what there is of them."""
        return not (self.starts_partial or self.gets)

    @property
    def name(self) -> str:
        """A label of the program."""
        data, added, result = ("bf16" if self.bfloat16 else "i8" if s else "u8" for s in self.signed)
        product = "maximum" if self.maximum else "depthwise" if self.depthwise else "sparse" if self.sparse else "product"
        parts = ["next" if self.gets else "more" if self.starts_partial else "new", product, data]
        parts += ["plus", added] if self.residual else []
        parts += [word for word, cut in zip(("low", "high"), self.cuts, strict=True) if cut]
        parts += ["scaled"] if self.scaled else []
        parts += ["turned"] if self.transposed else []
        return "_".join([*parts, "on" if self.puts else "part" if self.ends_partial else "i32" if self.wide else result])


@dataclass(frozen=True, slots=True)
class Locks:
    """A core's locks by number: what is full or free of the buffers of data, weights, results and residual, and which layers,
    of even and odd turns, it may begin."""

    data_free: int = 0
    data_full: int = 1
    weights_free: int = 2
    weights_full: int = 3
    results_free: int = 4
    results_full: int = 5
    layer_even: int = 6
    layer_odd: int = 7
    residual_free: int = 8
    residual_full: int = 9


LOCKS = Locks()


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a core is told of a layer, each an int32: the order is that of memory.

    `units` of activations, `vectors`: how often a chunk multiplies 4 vectors; addresses of the first buffer of data and of 4
    vectors before the first buffer of results, with the sum of both buffers' addresses; for how many units chunks are
    `awaited`; bytes from one load of the 4 vectors to the next (`within`, see `Steps.registers`); `chunks` for each unit; where
    the control of the first chunk in the ring of weights is, the ring's end, and its bytes; shifts of sums and of the residual;
    bytes from a chunk's `PAGES_OFFSET` to its `blocks` and from one half of partial sums to the other; pages of the first chunk,
    and of the ring; buffers of each kind; buffers of the residual, of data, and pages, that are not in use at the end
    (`residual_left`, `data_left`, `weights_left`), of these `weights_rest` full; bytes from the results of the first of 16
    channels to those of the others (`apart`); how many units are left where a tile begins of which only some rows are results,
    `last_units` (0: no such tile), and how often chunks multiply 4 vectors from there on, `last_vectors`; the least and the
    greatest result, each as the 4 bytes of a word or a float32, where results are cut to them; where sums are scaled, what they
    are multiplied by, what is added to that, and by how much it is shifted before it is narrowed to int16 (`scaling`), all
    before `shift`.

    What DMA channels have taken for the layer before it begins is not among its buffers and pages (`weights_pages`,
    `data_buffers`, `residual_buffers`), nor what they have taken for the next one among those at its end; where that is more than
    is left, the layer has so much more to begin with.
    """

    units: int
    vectors: int
    data: int
    data_sum: int
    results: int
    results_sum: int
    awaited: int
    within: tuple[int, int, int, int]
    chunks: int
    weights: int
    weights_end: int
    weights_bytes: int
    shift: int
    added_shift: int
    blocks: int
    halves: int
    first_pages: int
    weights_pages: int
    data_buffers: int
    residual_buffers: int
    results_buffers: int
    residual_left: int
    data_left: int
    weights_left: int
    weights_rest: int = 0
    apart: int = 0
    last_units: int = 0
    last_vectors: int = 0
    bounds: tuple[int, int] | None = None
    scaling: tuple[int, int, int] | None = None

    def words(self) -> tuple[int, ...]:
        """The words of memory."""
        values = (getattr(self, f.name) for f in fields(self) if f.name not in ("bounds", "scaling"))
        words = [w for v in values for w in (v if isinstance(v, tuple) else (v,))]
        if self.bounds is not None or self.scaling is not None:
            words += [0] * (_PLACES["bounds"] - len(words))
        if self.bounds is not None:
            words += [word for bound in self.bounds for word in [bound] * 8]
        if self.scaling is not None:  # no layer has both
            factor, added, shift = self.scaling
            words += [*[added] * 8, factor, shift]
        return tuple(words)


PARAMETER_BYTES = 192  # of one layer; two layers' are there at a time
_PLACES = {"buffers": 23, "last": 29, "bounds": 32}


@lru_cache(maxsize=64)
def entries(kinds: tuple[Kind, ...]) -> tuple[int, ...]:
    """The bundle that each kind of product begins with, as chunks name it; more kinds behind them change nothing."""
    labels = labels_of(core_text(kinds, 0))
    return tuple(labels[k.name] for k in kinds)


def core_text(kinds: Sequence[Kind], parameters: int) -> str:
    """The program's assembly. `parameters` is the address of the first of two layers' parameters in data memory."""
    described = [
        {
            "name": k.name,
            "product": "mace" if k.depthwise else "mac",
            "maximum": k.maximum,
            "cuts": [int(cut) for cut in k.cuts],
            "wide": k.wide,
            "scaled": k.scaled,
            "residual": k.residual,
            "data": int(k.signed[0]),
            "added": int(k.signed[1]),
            "result": int(k.signed[2]),
            "starts_partial": k.starts_partial,
            "ends_partial": k.ends_partial,
            "bfloat16": k.bfloat16,
            "gets": k.gets,
            "puts": k.puts,
            "sparse": int(k.sparse),
            "transposed": k.transposed,
            "jump": -2 * (CONTROL_OFFSET // 2 - FIRST_STEPS + 1) - BIAS_BYTES * (1 + k.sparse) if k.has_bias else -2,
        }
        for k in kinds
    ]
    places = {f"{name}_word": 4 * place for name, place in _PLACES.items()}
    at = (parameters, parameters + PARAMETER_BYTES)
    more = {"pages_offset": PAGES_OFFSET, "bias_offset": -CONTROL_OFFSET - BIAS_BYTES, **places}
    return environment().get_template("core.s.j2").render(kinds=described, locks=LOCKS, parameters=at, **more)


def core_program(kinds: Sequence[Kind], parameters: int, program_bytes: int) -> bytes:
    """The program's bundles. FitError when they do not fit `program_bytes` of program memory."""
    text = core_text(kinds, parameters)
    if (count := bundles_of(text)) * BUNDLE_BYTES > program_bytes:
        raise FitError(
            "the core's program",
            demand=f"{count} bundles for {len(kinds)} kinds of product",
            bound=f"{program_bytes // BUNDLE_BYTES} bundles",
            remedy="split the model, so that each part needs fewer kinds",
        )
    return assemble(text)
