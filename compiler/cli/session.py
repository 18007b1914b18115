"""What `run`, `bench` and `verify` have in common: a compiled model from a file or a folder, and inputs for it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.compiler.cli.options import CompileOptions
from sparsec.compiler.errors import ToolchainError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from sparsec.compiler.cli.console import Steps
    from sparsec.compiler.runtime import CompiledModel

    Feeds = dict[str, np.ndarray[Any, Any]]


@contextmanager
def opened(subject: Path, options: CompileOptions, steps: Steps) -> Iterator[CompiledModel]:
    """The compiled model of a folder, or of an .onnx file compiled into a temporary folder that is removed at the end."""
    if subject.is_dir():
        if options != CompileOptions():
            raise UsageError(f"{subject} is compiled already: give the .onnx file to compile it with other options")
        from sparsec.compiler import driver

        yield driver.load(subject)
        return
    with tempfile.TemporaryDirectory(prefix="sparsec-") as folder:
        yield options.compile(subject, Path(folder) / "library", steps)


def model_path(subject: Path, compiled: CompiledModel) -> Path:
    """The .onnx file: the subject itself, or the file that the folder was compiled from."""
    if not subject.is_dir():
        return subject
    recorded = compiled.report.model.path
    if not recorded or not Path(recorded).is_file():
        where = f" ({recorded})" if recorded else ""
        raise UsageError(f"the model that {subject} was compiled from is not there{where}: give the .onnx file instead")
    return Path(recorded)


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, as reports record it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def feeds_for(subject: Path, compiled: CompiledModel, *, seed: int = 0, files: Sequence[str] = ()) -> Feeds:
    """One set of inputs; a folder can do without the model that it was compiled from (integers are then 0 or 1)."""
    from sparsec.compiler.feeds import random_feeds

    recorded = compiled.report.model.path
    if not files and subject.is_dir() and not (recorded and Path(recorded).is_file()):
        return random_feeds(compiled.inputs, seed)
    return reference_feeds(compiled, Path(recorded) if subject.is_dir() else subject, seed=seed, files=files)[0]


def runs_here(compiled: CompiledModel) -> bool:
    """Whether this machine can load and execute the library."""
    from sparsec.backends.cpu.isa import isa_named
    from sparsec.backends.cpu.isa import runs_here as isa_runs_here

    if not isa_runs_here(isa_named(compiled.report.options.target)):
        return False
    try:
        compiled.load()
    except ToolchainError:  # built by a cross compiler
        return False
    return True


def reference_feeds(
    compiled: CompiledModel, model: Path | onnx.ModelProto, *, samples: int = 1, seed: int = 0, files: Sequence[str] = ()
) -> list[Feeds]:
    """Input sets: one from `files` when there are any, else `samples` random ones, whose indices fit the model's tables."""
    import onnx

    from sparsec.compiler.feeds import random_feeds, read_feeds, table_rows

    if files:
        return [read_feeds(files, compiled.inputs)]
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
    rows = table_rows(proto)
    return [random_feeds(compiled.inputs, seed + i, rows) for i in range(samples)]


@contextmanager
def profile_build(compiled: CompiledModel) -> Iterator[CompiledModel]:
    """The library built again with a clock after every step, from the sources in its folder; gone at the end."""
    from sparsec.backends.cpu.toolchain import build_library
    from sparsec.compiler.runtime import CompiledModel

    options, source = compiled.report.options, compiled.directory.resolve()
    with tempfile.TemporaryDirectory(prefix="sparsec-") as name:
        folder = Path(name)
        for file in compiled.report.sources.files:
            (folder / file).symlink_to(source / file)
        defines = (f"{options.name.upper()}_PROFILE",)
        library = build_library(folder, options.name, options.cflags, options.cc, output="libprofile.so", defines=defines)
        yield CompiledModel(compiled.directory, library=str(library))
