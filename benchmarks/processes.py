"""Commands in processes of their own, so that their memory is given back and what they take can be told from ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class CommandFailure(Exception):
    """A command ended with a status other than 0; the message is the last that it printed."""


@dataclass(frozen=True)
class Usage:
    """What a process and its children took: wall and CPU seconds, and the largest resident set of any of them in bytes.

    `output` is what it printed on stdout.
    """

    wall: float
    cpu: float
    peak_bytes: int
    output: str = ""


# Linux counts the memory of the process that starts another as the other's too, so a small process stands between.
_WATCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
print("\\n" + json.dumps([os.waitstatus_to_exitcode(status), wall, cpu, usage.ru_maxrss * 1024]))
"""


def run_python(arguments: Sequence[str]) -> Usage:
    """Run our Python with these arguments to the end. CommandFailure with the last line of its errors when it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT)])}
    watch = [sys.executable, "-I", "-S", "-c", _WATCH, sys.executable, *arguments]
    done = subprocess.run(watch, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    output, _, last = done.stdout.rstrip("\n").rpartition("\n")
    status, wall, cpu, peak = json.loads(last)
    if status:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandFailure(f"status {status}: {message}")
    return Usage(wall, cpu, peak, output)
