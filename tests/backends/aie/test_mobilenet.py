"""MobileNetV2 of fewer blocks, to the last bit: ReLU6, depthwise convolutions, residuals, mean and classifier.

The whole network at full size: `python benchmarks/aie_networks.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import models
import models.mobilenet
from sparsec.backends.aie.program import ArrayPart, HostPart
from tests.backends.aie.whole import blocks, check_network, on_array

STAGES = ((1, 16, 1, 2), (6, 32, 2, 2))  # expansion, output channels, repeats, stride of the first


@pytest.mark.parametrize(("density", "target"), [(1.0, "aie2:npu1"), (0.5, "aie2:2x2")])
def test_mobilenet_v2(density: float, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.mobilenet, "_STAGES", STAGES)
    program = check_network(models.build("mobilenet_v2"), 32, tmp_path, target=target, density=density)
    convolutions, mean, classifier = 1 + 2 + 2 * 3 + 1, 1, 1
    assert on_array(program) == convolutions + mean + classifier, program.reasons
    assert [type(p) for p in program.parts] == [HostPart, ArrayPart, HostPart]
    kept, all_blocks = blocks(program)
    assert kept == all_blocks if density == 1 else kept < 0.7 * all_blocks
