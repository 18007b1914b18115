"""SqueezeNet's first fire modules, to the last bit: every convolution, maximum and concatenation is on the array.

The whole network at full size: `python benchmarks/aie_networks.py`.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import models
from sparsec.backends.aie.program import ArrayPart, HostPart
from tests.backends.aie.whole import blocks, check_network, on_array


def _first_modules() -> onnx.ModelProto:
    """Up to the convolution behind the second maximum."""
    proto = models.build("squeezenet")
    nodes = list(proto.graph.node)
    last = [i for i, n in enumerate(nodes) if n.op_type == "MaxPool"][1]
    del proto.graph.node[last + 2 :]
    proto.graph.output[0].name = nodes[last + 1].output[0]
    return proto


@pytest.mark.parametrize(("density", "target"), [(1.0, "aie2:npu1"), (0.5, "aie2:2x2")])
def test_squeezenet(density: float, target: str, tmp_path: Path) -> None:
    program = check_network(_first_modules(), 48, tmp_path, target=target, density=density)
    assert on_array(program) == 8 + 2, program.reasons  # convolutions, maxima
    assert sum(len(p.views) for p in program.parts if isinstance(p, ArrayPart)) == 2
    assert [type(p) for p in program.parts] == [HostPart, ArrayPart, HostPart]
    kept, all_blocks = blocks(program)
    assert kept == all_blocks if density == 1 else kept < 0.7 * all_blocks
