"""MobileNetV2 at a small size, whole, to the last bit: ReLU6, depthwise convolutions, residuals, mean and classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec.backends.aie.program import ArrayPart, HostPart
from tests.backends.aie.whole import blocks, check_network, on_array


@pytest.mark.parametrize(("density", "target"), [(1.0, "aie2:npu1"), (0.5, "aie2:2x2")])
def test_mobilenet_v2(density: float, target: str, tmp_path: Path) -> None:
    program = check_network("mobilenet_v2", 32, tmp_path, target=target, density=density)
    assert on_array(program) == 52 + 2  # convolutions, the mean and the classifier
    assert [type(p) for p in program.parts] == [HostPart, ArrayPart, HostPart]
    kept, all_blocks = blocks(program)
    assert kept == all_blocks if density == 1 else kept < 0.6 * all_blocks
