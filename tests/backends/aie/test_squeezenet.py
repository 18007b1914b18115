"""SqueezeNet at a small size, whole, to the last bit: every convolution, maximum and concatenation is on the array."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec.backends.aie.program import ArrayPart, HostPart
from tests.backends.aie.whole import blocks, check_network, on_array


@pytest.mark.parametrize(("density", "target"), [(1.0, "aie2:npu1"), (0.5, "aie2:2x2")])
def test_squeezenet(density: float, target: str, tmp_path: Path) -> None:
    program = check_network("squeezenet", 33, tmp_path, target=target, density=density)
    assert on_array(program) == 26 + 3  # convolutions, maxima
    assert sum(len(p.views) for p in program.parts if isinstance(p, ArrayPart)) == 8
    assert [type(p) for p in program.parts] == [HostPart, ArrayPart, HostPart]
    kept, all_blocks = blocks(program)
    assert kept == all_blocks if density == 1 else kept < 0.6 * all_blocks
