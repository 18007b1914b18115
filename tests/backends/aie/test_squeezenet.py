"""SqueezeNet's first fire modules, to the last bit: every convolution, maximum and concatenation is on the array.

The whole network at full size: `python benchmarks/aie_networks.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx.utils import Extractor

import models
from sparsec.backends.aie.program import ArrayPart, HostPart
from tests.backends.aie.whole import blocks, check_network, on_array


@pytest.mark.parametrize(("density", "target"), [(1.0, "aie2:npu1"), (0.5, "aie2:2x2")])
def test_squeezenet(density: float, target: str, tmp_path: Path) -> None:
    proto = models.build("squeezenet")
    weights = {t.name for t in proto.graph.initializer}
    inputs = [v.name for v in proto.graph.input if v.name not in weights]
    last = [n for n in proto.graph.node if n.op_type == "MaxPool"][1]
    cut = Extractor(proto).extract_model(inputs, [last.output[0]])
    program = check_network(cut, 48, tmp_path, target=target, density=density)
    assert on_array(program) == 7 + 2  # convolutions, maxima
    assert sum(len(p.views) for p in program.parts if isinstance(p, ArrayPart)) == 2
    assert [type(p) for p in program.parts] == [HostPart, ArrayPart, HostPart]
    kept, all_blocks = blocks(program)
    assert kept == all_blocks if density == 1 else kept < 0.7 * all_blocks
