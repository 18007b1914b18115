"""Call the user's C compiler on a folder of emitted files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sparsec.compiler.errors import ToolchainError

_TIMEOUT = 900.0


def find_compiler(cc: str | None) -> str:
    """The compiler to call: as given, else $CC, else the first of cc, gcc, clang on the PATH."""
    candidates = [cc] if cc else [os.environ.get("CC"), "cc", "gcc", "clang"]
    for name in candidates:
        if name and shutil.which(name.split()[0]):
            return name
    wanted = cc or "cc, gcc or clang"
    raise ToolchainError(f"no C compiler: {wanted} is not on the PATH (install one, or name it with --cc)")


def compiler_version(cc: str) -> str:
    """The first line of `cc --version`."""
    result = subprocess.run([*cc.split(), "--version"], capture_output=True, text=True, timeout=60, check=False)
    return result.stdout.splitlines()[0] if result.stdout else ""


def build_library(
    folder: Path, name: str, flags: Sequence[str], cc: str, *, output: str | None = None, defines: Sequence[str] = ()
) -> Path:
    """Compile `folder`/NAME.c (and NAME_weights.S when it is there) to a shared library in the folder; its path.

    Relative names and no debug information keep the result independent of where the folder is.
    """
    library = output or f"lib{name}.so"
    sources = [f"{name}.c", *([f"{name}_weights.S"] if (folder / f"{name}_weights.S").exists() else [])]
    command = [
        *cc.split(),
        *flags,
        *(f"-D{d}" for d in defines),
        "-fPIC",
        "-shared",
        "-I.",
        "-Wa,-I.",
        "-o",
        library,
        *sources,
        "-lm",
    ]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except OSError as exc:
        raise ToolchainError(f"cannot run the C compiler {cc!r}: {exc}") from exc
    except subprocess.TimeoutExpired:
        raise ToolchainError(f"the C compiler took more than {_TIMEOUT:.0f} s on {name}.c") from None
    if result.returncode:
        shown = "\n".join(result.stderr.splitlines()[:20])
        raise ToolchainError(f"the C compiler failed (exit {result.returncode}) on `{' '.join(command)}`:\n{shown}")
    return folder / library
