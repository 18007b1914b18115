"""Run a stream on the generated Verilog under Icarus Verilog."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.rtl import emit_bench, emit_rtl
from sparsec.compiler.errors import ToolchainError

Array = np.ndarray[Any, Any]
CYCLES = 50_000_000  # after which a run is given up


@dataclass(frozen=True)
class RtlRun:
    """Cycles in which the array moved, those of the last drain, those in which only the controller worked, and the sums."""

    cycles: int
    tail: int
    control: int
    output: Array


def available() -> bool:
    """Whether Icarus Verilog is installed."""
    return shutil.which("iverilog") is not None and shutil.which("vvp") is not None


def cosimulate(machine: Machine, stream: bytes, weights: bytes, data: Array, outputs: int, folder: Path) -> RtlRun:
    """Simulate the array's Verilog in `folder`, which exists; `data` are int8 or uint8. ToolchainError when that fails."""
    images = {"program": stream, "weights": weights or b"\0", "data": data.tobytes()}
    for name, image in images.items():
        (folder / f"{name}.hex").write_text("\n".join(f"{b:02x}" for b in image) + "\n")
    sources = emit_rtl(machine)
    sources["bench.v"] = emit_bench(len(stream), len(images["weights"]), data.size, outputs, CYCLES)
    for name, text in sources.items():
        (folder / name).write_text(text)
    _tool(["iverilog", "-g2012", "-Wall", "-Wno-timescale", "-s", "bench", "-o", "bench", *sources], folder)
    printed = _tool(["vvp", "-n", "bench"], folder)
    found = re.search(r"halted=(\d) failed=(\d) cycles=(\d+) tail=(\d+) control=(\d+)", printed)
    if found is None or found[1] != "1" or found[2] != "0":
        raise ToolchainError(f"the generated Verilog did not run to its end: {printed.strip()[-500:]}")
    words = [w for w in (folder / "sums.hex").read_text().split() if not w.startswith("//") and re.fullmatch("[0-9a-f]{8}", w)]
    output = np.array([int(w, 16) for w in words], np.uint32).view(np.int32)
    return RtlRun(int(found[3]), int(found[4]), int(found[5]), output)


def _tool(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout + done.stderr
