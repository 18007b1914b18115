"""What the user sees when something goes wrong: one message, one exit status, and a reproducer when it is our fault."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sparsec.compiler.errors import InternalError, LimitError, SparsecError, UsageError

_COPY_LIMIT = 256 << 20
_PACKAGES = ("sparsec", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "networkx", "typer")
_ENVIRONMENT = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def describe_failure(exc: BaseException, arguments: Sequence[str]) -> tuple[str, int]:
    """The message for stderr (may be empty) and the exit status of an exception that a command raised."""
    from typer import Abort, TyperException

    if isinstance(exc, SparsecError) and not isinstance(exc, InternalError):
        return f"error: {printable(str(exc))}", exc.exit_code
    if isinstance(exc, KeyboardInterrupt | Abort):
        return "interrupted", 130
    if isinstance(exc, TyperException):
        return _usage(exc), UsageError.exit_code
    if isinstance(exc, MemoryError):
        return (
            "error: out of memory: bound the model's tensors with --limits tensor-bytes=N, or give it more",
            LimitError.exit_code,
        )
    if isinstance(exc, OSError) and exc.filename is not None and exc.errno in _ENVIRONMENT | _FULL:
        code = LimitError.exit_code if exc.errno in _FULL else UsageError.exit_code
        return f"error: {printable(str(exc.filename))}: {exc.strerror}", code
    return _internal(exc, arguments), InternalError.exit_code


def printable(text: str) -> str:
    """`text` with control characters (names in models may hold any) escaped, so that a terminal shows and does not obey them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _usage(exc: Exception) -> str:
    """A mistake on the command line, with where to read on. Asking for help by giving no arguments prints the help."""
    context = getattr(exc, "ctx", None)
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    if type(exc).__name__ == "NoArgsIsHelpError":
        return str(message)
    path = context.command_path if context is not None else "sparsec"
    return f"error: {message[:1].lower()}{message[1:].rstrip('.')} (see `{path} --help`)"


def _internal(exc: BaseException, arguments: Sequence[str]) -> str:
    what = printable(f"{type(exc).__name__}: {exc}")
    try:
        folder = write_reproducer(exc, arguments)
    except OSError as failed:
        text = "".join(traceback.format_exception(exc))
        return f"error: internal: {what} (no reproducer could be written: {failed})\n{printable(text)}"
    return f"error: internal: {what} (a defect of sparsec: please report it with {folder})"


def write_reproducer(exc: BaseException, arguments: Sequence[str]) -> Path:
    """Write what is needed to see the failure again into a new folder, in the current one if it is writable; its path."""
    here = Path.cwd()
    parent = here if os.access(here, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="sparsec-reproducer-", dir=parent))
    command = shlex.join(["sparsec", *arguments])
    (folder / "command.txt").write_text(f"cd {shlex.quote(str(here))}\n{command}\n", encoding="utf-8", errors="replace")
    text = "".join(traceback.format_exception(exc))
    (folder / "traceback.txt").write_text(text, encoding="utf-8", errors="replace")
    lines = [f"python {platform.python_version()}", f"platform {platform.platform()}", f"executable {sys.executable}"]
    (folder / "versions.txt").write_text("\n".join([*lines, *map(_version_line, _PACKAGES)]) + "\n", encoding="utf-8")
    for i, model in enumerate(a for a in arguments if not a.startswith("-") and Path(a).is_file()):
        _keep(Path(model), folder, i)
    return folder


def _keep(model: Path, folder: Path, index: int) -> None:
    """A copy of a file that the command line names, or where it is and its hash when it is large."""
    if model.stat().st_size <= _COPY_LIMIT:
        shutil.copyfile(model, folder / f"{index}-{model.name}")
        return
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    (folder / f"{index}-{model.name}.txt").write_text(f"{model.resolve()}\nsha256 {digest}\n", encoding="utf-8")


def _version_line(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"
