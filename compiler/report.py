"""report.json: what a compilation decided and what came of it, as a schema that programs may rely on.

Written by the driver beside the library, read by `sparsec inspect`, `bench`, the benchmarks and `CompiledModel.report`.
Sizes are in bytes, times in seconds unless the field's name says otherwise. Cycles and predicted times are a cost model's
estimates, never measurements.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsec.compiler.errors import ModelError
from sparsec.compiler.pruning_report import BudgetReport, LayerReport
from sparsec.compiler.quantisation_report import QuantisationReport
from sparsec.compiler.types import TensorType

SCHEMA_VERSION = 1
FILE_NAME = "report.json"
GRAPH_FILE_NAME = "graph.txt"  # the final graph in the text form, constants by hash


class _Record(BaseModel):
    """Base of the records: immutable, and nothing but the declared fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorInfo(_Record):
    """A named value."""

    name: str = Field(description="name in the ONNX model")
    dtype: str = Field(description="element type as the IR writes it: f32, i64, bool, ...")
    shape: tuple[int, ...] = Field(description="logical extents, row-major")
    layout: str = Field(default="", description="storage order as the IR writes it; empty for row-major")
    sparsity: str = Field(default="", description="pattern of a constant's zeros, as 2:4/rows=32/nnz=18432; empty for dense")


def tensor_info(name: str, t: TensorType) -> TensorInfo:
    """The record of a value of type `t`."""
    return TensorInfo(
        name=name, dtype=t.dtype.value, shape=t.shape, layout=str(t.layout), sparsity=str(t.sparsity).removeprefix("~")
    )


class ModelInfo(_Record):
    """The model that was compiled."""

    name: str = Field(description="the graph's name in the ONNX file")
    path: str = Field(default="", description="the file as it was given, empty for a model that was passed as an object")
    sha256: str = Field(default="", description="of the file's bytes (of the serialised model when it was passed as an object)")
    nodes: int = Field(default=0, description="ONNX nodes that compute something at run time")


class Versions(_Record):
    """What the compiler ran on."""

    sparsec: str
    python: str = ""
    onnx: str = ""
    cc: str = Field(default="", description="first line of what `cc --version` prints")


class Options(_Record):
    """The options of the compilation, after defaults were filled in."""

    name: str = Field(description="prefix of every C symbol, and NAME in libNAME.so")
    target: str = Field(description="machine that the C is for, as x86_64+avx512f; `host` is resolved")
    threads: int = 1
    weights: str = Field(default="incbin", description="incbin, file or inline")
    passes: str = Field(default="", description="the pipeline as text")
    dims: dict[str, int] = Field(default_factory=dict, description="--dim: symbol to extent")
    input_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict, description="--input: name to shape")
    cc: str = ""
    cflags: tuple[str, ...] = ()
    max_arena: int | None = None
    kernels: tuple[str, ...] = Field(default=(), description="--kernels: families that were chosen from; empty for all")


class CandidateInfo(_Record):
    """One way to compute a layer that was considered."""

    kernel: str = Field(description="family of kernels, in words")
    us: float = Field(description="predicted microseconds of one thread")
    sparse: bool = Field(default=False, description="whether it leaves zeros of the weights out")
    note: str = Field(default="", description="what it does with this layer, or what limits it")


class Layer(_Record):
    """One node of the final graph: where it came from, and how it is computed."""

    node: str = Field(description="the node's name in the final graph")
    origin: tuple[str, ...] = Field(default=(), description="names of the ONNX nodes that it stands for")
    op: str = Field(description="operator of the graph IR")
    inputs: tuple[TensorInfo, ...] = Field(default=(), description="operands, constants included, absent ones left out")
    outputs: tuple[TensorInfo, ...] = ()
    macs: int = Field(default=0, description="multiply-accumulates of the dense computation")
    bytes: int = Field(default=0, description="operands read once plus results written once, storage padding included")
    weight_bytes: int = Field(default=0, description="the part of `bytes` that is constant")
    packed_bytes: int = Field(
        default=0, description="constants of the library that the kernel calls read, as packed: weights, index lists, biases"
    )
    kernel: str = Field(default="", description="C function that computes it, without `__ISA`; empty when nothing runs (a view)")
    calls: int = Field(default=1, description="kernel calls that the node takes")
    steps: tuple[int, ...] = Field(
        default=(), description="the numbers of those calls among all calls of a run, as profiles count them"
    )
    schedule: str = Field(default="", description="loops by memory level, outermost first")
    predicted_cycles: float = Field(default=0.0, description="estimate of the cost model, one thread")
    predicted_us: float = Field(default=0.0, description="the same in microseconds at the clock that the target assumes")
    bound_by: str = Field(default="", description="what the estimate says limits it: compute, or a memory level")
    reason: str = Field(default="", description="why this kernel and these tiles")
    candidates: tuple[CandidateInfo, ...] = Field(
        default=(), description="what was considered: the chosen one, then the others by predicted time; empty for a view"
    )
    pattern: str = Field(default="", description="pattern of its weights' zeros, as 2:4/rows=32; empty for none")
    density: float | None = Field(default=None, description="share of its weights that are not zero; null without weights")
    dense_us: float | None = Field(
        default=0.0,
        description="predicted_us of the best candidate that leaves no zeros out; null where there is none (--kernels)",
    )
    why: str = Field(default="", description="why the zeros of its weights are not left out; empty where they are")

    @property
    def sparse(self) -> bool:
        """Whether it is computed without (some of) the zeros of its weights."""
        return bool(self.candidates) and self.candidates[0].sparse and not self.why

    @property
    def runner_up(self) -> CandidateInfo | None:
        """The next best choice."""
        return self.candidates[1] if len(self.candidates) > 1 else None


class Buffer(_Record):
    """An arena buffer: alive from call `first` to call `last`, both included."""

    name: str
    offset: int
    bytes: int
    first: int
    last: int


class Memory(_Record):
    """The arena that the caller provides, and the weights."""

    arena_bytes: int = Field(description="NAME_ARENA_BYTES: buffers, then scratch for every thread")
    arena_peak: int = Field(description="bytes that the planned buffers span")
    arena_lower_bound: int = Field(description="the largest sum of live buffers at any call: no plan can take less")
    scratch_bytes: int = Field(default=0, description="scratch of one thread, part of arena_bytes")
    weights_bytes: int = Field(description="packed weights, alignment included")
    buffers: tuple[Buffer, ...] = ()


class Sources(_Record):
    """The generated text."""

    c_bytes: int = Field(description="bytes of C text, weights apart")
    files: tuple[str, ...] = Field(default=(), description="generated files, relative to the folder")
    kernels: int = Field(default=0, description="distinct kernel instances")


class PhaseTime(_Record):
    """Wall time of one phase of the compilation (import, a pass, schedule, lower, emit, cc)."""

    phase: str
    seconds: float


class PassRecord(_Record):
    """One pass of the pipeline, in the order in which they ran."""

    name: str
    seconds: float = Field(description="CPU time of the compiling thread")
    changed: bool = Field(description="whether the pass changed the graph")
    nodes_before: int
    nodes_after: int


class Report(_Record):
    """The whole of report.json."""

    schema_version: int = SCHEMA_VERSION
    versions: Versions
    model: ModelInfo
    options: Options
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[Layer, ...]
    memory: Memory
    sources: Sources
    phases: tuple[PhaseTime, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    pruning: tuple[LayerReport, ...] = Field(default=(), description="what pruning did to each weight, where it was asked for")
    budget: BudgetReport | None = Field(default=None, description="how layers shared a budget, where pruning was given one")
    quantisation: QuantisationReport | None = Field(default=None, description="what quantising did, where it was asked for")
    peak_rss_bytes: int = Field(default=0, description="largest resident set of the compiling process so far, C compiler apart")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(layer.macs for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Wall time of the compilation."""
        return sum(p.seconds for p in self.phases)

    @property
    def predicted_us(self) -> float:
        """Estimated time of one run on one thread, in microseconds."""
        return sum(layer.predicted_us for layer in self.layers)

    def text(self) -> str:
        """The file's text: indented JSON that ends with a newline."""
        return self.model_dump_json(indent=1) + "\n"


def read_report(folder: Path) -> Report:
    """The report of a compiled folder. ModelError when there is none, or another version of sparsec wrote it."""
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ModelError(f"{folder} holds no readable {FILE_NAME}: compile the model into it first") from exc
    try:
        return Report.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path} is not a report of this version of sparsec ({where}: {first['msg']}): compile again") from exc


def schema_text() -> str:
    """The JSON schema of report.json, as docs/report.schema.json holds it."""
    schema = Report.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
