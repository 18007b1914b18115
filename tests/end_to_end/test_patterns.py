"""Every sparsity pattern, pruned and compiled, against onnxruntime on the pruned ONNX: every target and family of kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.backends.cpu.lower.explain import FAMILIES
from sparsec.compiler.driver import compile as compile_model
from tests.machine import needs

PATTERNS = [
    "2:4", "1:4", "2:4/rows=4", "1:4/rows=32", "block:8x8@50%", "block:8x8/taps=each@75%", "block:32x1@75%", "block:16x4@50%",
    "block:8x8/2:4", "nmg:1:4:2", "nmg:2:4:1", "hinm:16:2:4@75%", "unstructured@90%",
]  # fmt: skip


def network(seed: int = 3) -> onnx.ModelProto:
    """Convolutions with a residual sum, a stride, groups, a ragged number of channels, and a product with tokens."""
    rng = np.random.default_rng(seed)
    layers = [  # inputs, outputs, kernel, stride, groups
        ("first", 3, 48, 3, 1, 1),
        ("one", 48, 64, 1, 1, 1),
        ("three", 64, 64, 3, 1, 1),
        ("back", 64, 48, 1, 1, 1),
        ("down", 48, 40, 3, 2, 1),
        ("groups", 40, 64, 3, 1, 2),
        ("ragged", 64, 37, 1, 1, 1),
    ]
    nodes, tensors, value = [], [], "x"
    for name, ic, oc, k, stride, groups in layers:
        w = (rng.standard_normal((oc, ic // groups, k, k)) / np.sqrt(ic // groups * k * k)).astype(np.float32)
        tensors += [
            numpy_helper.from_array(w, f"{name}.w"),
            numpy_helper.from_array(rng.standard_normal(oc).astype(np.float32), f"{name}.b"),
        ]
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"{name}.w", f"{name}.b"],
                [f"{name}.c"],
                name=name,
                pads=[k // 2] * 4,
                strides=[stride] * 2,
                group=groups,
            )
        )
        if name == "back":
            nodes.append(helper.make_node("Add", ["back.c", "first"], ["back.s"], name="sum"))
        nodes.append(
            helper.make_node("Relu" if name != "ragged" else "Sigmoid", ["back.s" if name == "back" else f"{name}.c"], [name])
        )
        value = name
    tensors += [numpy_helper.from_array(rng.standard_normal((64, 48)).astype(np.float32) / 8, "wide.w")]
    tensors += [numpy_helper.from_array(rng.standard_normal((48, 64)).astype(np.float32) / 7, "narrow.w")]
    tensors += [numpy_helper.from_array(rng.standard_normal((64, 8)).astype(np.float32) / 8, "last.w")]
    nodes += [
        helper.make_node("MatMul", ["t", "wide.w"], ["wide"], name="wide"),
        helper.make_node("MatMul", ["wide", "narrow.w"], ["narrow"], name="narrow"),
        helper.make_node("Add", ["narrow", "t"], ["z"], name="skip"),
        helper.make_node("MatMul", ["z", "last.w"], ["scores"], name="last"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 3, 15, 14)), ("t", (1, 21, 64)))]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("ragged", "scores")]
    return helper.make_model(
        helper.make_graph(nodes, "patterns", inputs, outputs, tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def check(pattern: str, target: str, folder: Path, kernels: tuple[str, ...] = ()) -> set[str]:
    """Compile the pruned network and compare; the kernels that its layers chose."""
    pruned = sparsec.prune(network(), pattern)
    assert pruned.report.changed
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((1, 3, 15, 14)).astype(np.float32),
        "t": rng.standard_normal((1, 21, 64)).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(pruned.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    compiled = compile_model(pruned.proto, folder, target=target, kernels=kernels)
    got = compiled.run(feeds)
    for output, want in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        np.testing.assert_allclose(
            got[output.name], want, rtol=1e-4, atol=2e-5 * np.abs(want).max(), err_msg=f"{pattern} {kernels}"
        )
    return {layer.candidates[0].kernel for layer in compiled.report.layers if layer.candidates}


@needs("gcc")
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "target", ["host", *(pytest.param(name, marks=pytest.mark.slow) for name in ("x86_64+avx2+fma", "generic"))]
)
def test_a_pruned_network_computes_the_same(pattern: str, target: str, tmp_path: Path) -> None:
    check(pattern, target, tmp_path / "out")


@needs("gcc")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_planar_kernels_take_every_pattern(pattern: str, tmp_path: Path) -> None:
    assert "planar" in check(pattern, "host", tmp_path / "out", ("planar",))


@needs("gcc")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_computes_the_same(family: str, tmp_path: Path) -> None:
    check("block:32x1@75%", "host", tmp_path / "out", (family,))
