"""Convolutions of an image with few channels and a stride, as the pass `space_to_depth` leaves them, on the array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.byte_layer import conv_graph
from sparsec.backends.aie.program import ArrayPart, HostPart
from sparsec.compiler.array_driver import compared, compile_array, simulate
from sparsec.compiler.interpreter import interpret
from sparsec.passes.space_to_depth import SpaceToDepth
from tests.backends.aie.networks import compile_for, random_feeds, run_emitted


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "pads", "zero"),
    [((3, 64), (27, 22), (7, 7), 2, (3, 3, 3, 3), 128), ((1, 20), (55, 70), (5, 4), 3, (0, 2, 1, 0), 0)],
)
def test_stems(
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, int, int, int],
    zero: int,
    tmp_path: Path,
) -> None:
    """Results are the model's to the last bit, in fewer cycles, and products are counted as the model has them."""
    rng = np.random.default_rng(4)
    graph = conv_graph(rng, channels, size, kernel, stride=stride, pads=pads, zeros=(zero, 0, 2), shift=13)
    feeds, cycles, macs = random_feeds(rng, graph), [], []
    for i, made in enumerate((graph, SpaceToDepth().run(graph))):
        program = compile_for(made)
        ran = run_emitted(program, feeds, tmp_path / str(i))
        assert np.array_equal(ran.outputs["y"], interpret(graph, feeds)["y"])
        (part,) = (p for p in program.parts if isinstance(p, ArrayPart))
        (plan,) = part.plans
        assert plan.layer.node == "conv" and len([p for p in program.parts if isinstance(p, HostPart)]) == i
        cycles.append(ran.cycles)
        macs.append(plan.layer.macs(made))
    assert cycles[1] < cycles[0]
    assert macs[1] == macs[0]


def test_a_stem_of_bfloat16(tmp_path: Path) -> None:
    """Rounded by the host, which arranges it, too; compiled and executed as by the command line."""
    rng = np.random.default_rng(1)
    w, b = rng.standard_normal((16, 3, 5, 5)).astype(np.float32), rng.standard_normal(16).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="stem", pads=[2, 2, 2, 2], strides=[2, 2])
    values = [helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, s) for v, s in (("x", [1, 3, 17, 14]), ("y", None))]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    graph = helper.make_graph([node], "stem", values[:1], values[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = compile_array(proto, tmp_path / "stem", target="aie2:npu1", bfloat16=True)
    (layer,) = (layer for part in made.manifest["parts"] for layer in part.get("layers", ()))
    assert layer["node"] == "stem" and layer["origin"][0] == "stem"
    assert layer["macs"] == 9 * 7 * 16 * 3 * 25
    assert layer["all_blocks"] == 2 * 9 * 2  # 3 x 3 positions of 12 channels
    ran = simulate(tmp_path / "stem", {"x": rng.standard_normal((1, 3, 17, 14)).astype(np.float32)})
    (comparison,) = compared(tmp_path / "stem", ran)
    assert comparison.close
