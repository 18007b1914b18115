import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import needs

FAMILIES = ["attention", "copy", "depthwise", "direct", "gather", "lines", "map", "matmul", "norm", "pool", "reduce", "relayout"]


@pytest.mark.slow
@needs("gcc")
def test_kernels_stay_in_their_buffers_and_have_defined_behaviour() -> None:
    """The kernels' own tests once more, under gcc's address and undefined-behaviour sanitizers."""
    runtimes = [
        subprocess.run(["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"{here}/test_{f}.py" for f in FAMILIES)],
        env={
            **os.environ,
            "SPARSEC_SANITIZE": "1",
            "LD_PRELOAD": ":".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        cwd=here.parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
