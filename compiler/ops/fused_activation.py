"""Import rules of onnxruntime's fused Conv and Gemm: the layer, then its activation as a scalar program (a pass fuses them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.conv import import_conv
from sparsec.compiler.ops.gemm import import_gemm
from sparsec.compiler.ops.map import emit_map

# activation -> (program with its parameters as {0}, {1}; the defaults of those)
_ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "Relu": ("relu(a0)", ()),
    "Tanh": ("tanh(a0)", ()),
    "Sigmoid": ("sigmoid(a0)", ()),
    "LeakyRelu": ("leaky_relu(a0,{0!r})", (0.01,)),
    "Clip": ("max(a0,{0!r});min(t0,{1!r})", (float("-inf"), float("inf"))),
    "HardSigmoid": ("hard_sigmoid(a0,{0!r},{1!r})", (0.2, 0.5)),
}


def _activate(ctx: ImportContext, node: OnnxNode, x: str, parameters: Sequence[float]) -> str:
    name = node.attr("activation", "")
    if not name:
        return x
    if name not in _ACTIVATIONS:
        raise node.refuse(f"its activation is {name!r}, expected one of {', '.join(_ACTIVATIONS)}")
    program, defaults = _ACTIVATIONS[name]
    given = [float(p) for p in parameters[: len(defaults)]]
    return emit_map(ctx, program.format(*given, *defaults[len(given) :]), x)


@onnx_rule("FusedConv", domain="com.microsoft", becomes="Conv, Map", constraints="as Conv")
def _import_fused_conv(ctx: ImportContext, node: OnnxNode) -> str:
    """Input 3, where given, is added before the activation."""
    y = import_conv(ctx, replace(node, inputs=node.inputs[:3]))
    if node.has(3):
        y = emit_map(ctx, "add(a0,a1)", y, node.inputs[3])
    return _activate(ctx, node, y, node.attr("activation_params", []))


@onnx_rule("FusedGemm", domain="com.microsoft", becomes="MatMul, Map", constraints="as Gemm")
def _import_fused_gemm(ctx: ImportContext, node: OnnxNode) -> str:
    named = [node.attr(f"activation_{k}") for k in ("alpha", "beta")]
    return _activate(ctx, node, import_gemm(ctx, node), [p for p in named if p is not None])
