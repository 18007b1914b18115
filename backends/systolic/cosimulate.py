"""Run a stream on the generated Verilog, under Icarus Verilog or Verilator."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.rtl import emit_bench, emit_rtl
from sparsec.compiler.errors import ToolchainError, UsageError

Array = np.ndarray[Any, Any]
CYCLES = 50_000_000  # after which a run is given up


@dataclass(frozen=True)
class RtlRun:
    """Cycles in which the array moved, those of the last drain, those in which only the controller worked, and the sums."""

    cycles: int
    tail: int
    control: int
    output: Array


TOOLS = {"iverilog": ("iverilog", "vvp"), "verilator": ("verilator", "g++", "make")}  # the programs that each needs
# -Wall but for widths (what is narrowed fits), and for what a bench does: it makes a clock, with delays
_QUIET = ("WIDTH", "TIMESCALEMOD", "DECLFILENAME", "UNUSED", "BLKSEQ", "STMTDLY")
_VERILATOR = (
    "--binary",
    "--timing",
    "--top-module",
    "bench",
    "-CFLAGS",
    "-O0",
    "-MAKEFLAGS",
    "OPT_GLOBAL=-O0",
    "-Wall",
    *(f"-Wno-{rule}" for rule in _QUIET),
)


def available(tool: str = "iverilog") -> bool:
    """Whether a tool of `TOOLS` is installed."""
    return all(shutil.which(program) for program in TOOLS[tool])


@dataclass(frozen=True)
class Sizes:
    """Bytes of the memories of micro-ops, weights and data, and how many sums the output memory holds."""

    program: int
    weights: int
    data: int
    sums: int


@dataclass(frozen=True)
class Model:
    """An array's Verilog, built in `folder` with memories of `sizes`; it runs any number of streams that fit them."""

    folder: Path
    sizes: Sizes
    command: tuple[str, ...]

    def run(self, stream: bytes, weights: bytes, data: Array, outputs: int) -> RtlRun:
        """Simulate; `data` are int8 or uint8. ToolchainError where that does not end, UsageError for more than the sizes."""
        asked = Sizes(len(stream), len(weights), data.size, outputs)
        if any(a > b for a, b in zip(astuple(asked), astuple(self.sizes), strict=True)):
            raise UsageError(f"the Verilog was built for {self.sizes}, and {asked} does not fit: build it with larger memories")
        for name, image in (("program", stream), ("weights", weights), ("data", data.tobytes())):
            (self.folder / f"{name}.hex").write_text("\n".join(f"{b:02x}" for b in image or b"\0") + "\n")
        printed = _tool(list(self.command), self.folder)
        found = re.search(r"halted=(\d) failed=(\d) cycles=(\d+) tail=(\d+) control=(\d+)", printed)
        if found is None or found[1] != "1" or found[2] != "0":
            raise ToolchainError(f"the generated Verilog did not run to its end: {printed.strip()[-500:]}")
        words = [w for w in (self.folder / "sums.hex").read_text().split() if re.fullmatch("[0-9a-f]{8}", w)]
        output = np.array([int(w, 16) for w in words[:outputs]], np.uint32).view(np.int32)
        return RtlRun(int(found[3]), int(found[4]), int(found[5]), output)


def build(machine: Machine, sizes: Sizes, folder: Path, tool: str = "iverilog") -> Model:
    """An array's Verilog in `folder`, which exists, made ready to run by a tool of `TOOLS`. ToolchainError when that fails."""
    sources = emit_rtl(machine)
    sources["bench.v"] = emit_bench(sizes.program, max(1, sizes.weights), sizes.data, sizes.sums, CYCLES)
    for name, text in sources.items():
        (folder / name).write_text(text)
    modules = [name for name in sources if name.endswith(".v")]
    if tool == "verilator":
        _tool(["verilator", *_VERILATOR, *modules], folder)
        return Model(folder, sizes, ("obj_dir/Vbench",))
    _tool(["iverilog", "-g2012", "-Wall", "-Wno-timescale", "-s", "bench", "-o", "bench", *modules], folder)
    return Model(folder, sizes, ("vvp", "-n", "bench"))


def cosimulate(machine: Machine, stream: bytes, weights: bytes, data: Array, outputs: int, folder: Path) -> RtlRun:
    """Build the array's Verilog for one stream, and run that under Icarus Verilog."""
    return build(machine, Sizes(len(stream), len(weights), data.size, outputs), folder).run(stream, weights, data, outputs)


def _tool(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout + done.stderr
