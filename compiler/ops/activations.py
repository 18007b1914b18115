"""Import rules of the activations that take parameters; each becomes a scalar program of a few steps."""

from __future__ import annotations

from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.map import Map, emit_map
from sparsec.compiler.scalar import Arg, Imm, Program, Tmp

GELU_ERF = "gelu(a0)"
# 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), as Hendrycks & Gimpel approximate it
GELU_TANH = (
    "mul(a0,a0);mul(t0,a0);mul(t1,0.044715);add(a0,t2);mul(t3,0.7978845608028654);tanh(t4);add(t5,1.0);mul(a0,0.5);mul(t7,t6)"
)


def swish(alpha: float) -> str:
    """x * sigmoid(alpha * x)."""
    return "silu(a0)" if alpha == 1.0 else f"mul(a0,{alpha!r});sigmoid(t0);mul(a0,t1)"


@onnx_rule("LeakyRelu", becomes="Map")
def _import_leaky_relu(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, f"leaky_relu(a0,{float(node.attr('alpha', 0.01))!r})", node.inputs[0])


@onnx_rule("Elu", becomes="Map")
def _import_elu(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, f"elu(a0,{float(node.attr('alpha', 1.0))!r})", node.inputs[0])


@onnx_rule("Selu", becomes="Map")
def _import_selu(ctx: ImportContext, node: OnnxNode) -> str:
    alpha, gamma = float(node.attr("alpha", 1.67326319217681884765625)), float(node.attr("gamma", 1.05070102214813232421875))
    return emit_map(ctx, f"elu(a0,{alpha!r});mul(t0,{gamma!r})", node.inputs[0])


@onnx_rule("Celu", becomes="Map", constraints="alpha > 0")
def _import_celu(ctx: ImportContext, node: OnnxNode) -> str:
    alpha = float(node.attr("alpha", 1.0))
    if not alpha > 0:
        raise node.refuse(f"its alpha is {alpha}, and must be positive")
    if alpha == 1.0:
        return emit_map(ctx, "elu(a0,1.0)", node.inputs[0])
    return emit_map(ctx, f"mul(a0,{1 / alpha!r});elu(t0,1.0);mul(t1,{alpha!r});lt(a0,0.0);where(t3,t2,a0)", node.inputs[0])


@onnx_rule("ThresholdedRelu", becomes="Map")
def _import_thresholded_relu(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, f"gt(a0,{float(node.attr('alpha', 1.0))!r});where(t0,a0,0.0)", node.inputs[0])


@onnx_rule("HardSigmoid", becomes="Map")
def _import_hard_sigmoid(ctx: ImportContext, node: OnnxNode) -> str:
    alpha, beta = float(node.attr("alpha", 0.2)), float(node.attr("beta", 0.5))
    return emit_map(ctx, f"hard_sigmoid(a0,{alpha!r},{beta!r})", node.inputs[0])


@onnx_rule("Mish", becomes="Map")
def _import_mish(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, "softplus(a0);tanh(t0);mul(a0,t1)", node.inputs[0])


@onnx_rule("Swish", becomes="Map")
def _import_swish(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, swish(float(node.attr("alpha", 1.0))), node.inputs[0])


@onnx_rule("Shrink", becomes="Map")
def _import_shrink(ctx: ImportContext, node: OnnxNode) -> str:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    bias, lambd = float(node.attr("bias", 0.0)), float(node.attr("lambd", 0.5))
    if not ctx.type(node.inputs[0]).dtype.is_float and not (bias.is_integer() and lambd.is_integer()):
        raise node.refuse(f"its bias {bias} and lambd {lambd} are no integers, but its data are")
    program = f"sub(a0,{bias!r});add(a0,{bias!r});gt(a0,{lambd!r});where(t2,t0,0.0);lt(a0,{-lambd!r});where(t4,t1,t3)"
    return emit_map(ctx, program, node.inputs[0])


@onnx_rule("Gelu", becomes="Map")
def _import_gelu(ctx: ImportContext, node: OnnxNode) -> str:
    kind = node.attr("approximate", "none")
    if kind not in ("none", "tanh"):
        raise node.refuse(f"its approximate is {kind!r}, expected none or tanh")
    return emit_map(ctx, GELU_TANH if kind == "tanh" else GELU_ERF, node.inputs[0])


@onnx_rule("Gelu", "QuickGelu", domain="com.microsoft", becomes="Map")
def _import_ms_gelu(ctx: ImportContext, node: OnnxNode) -> str:
    quick = node.op_type == "QuickGelu"
    return emit_map(ctx, swish(float(node.attr("alpha", 1.702))) if quick else GELU_ERF, node.inputs[0])


@onnx_rule("BiasGelu", "FastGelu", domain="com.microsoft", becomes="Map")
def _import_bias_gelu(ctx: ImportContext, node: OnnxNode) -> str:
    """The activation of x + bias (FastGelu's bias is optional)."""
    body = Program.parse(GELU_ERF if node.op_type == "BiasGelu" else GELU_TANH)
    if not node.has(1):
        return ctx.emit(Map(body), node.inputs[0])
    return ctx.emit(Map(Program().then("add", Arg(0), Arg(1)).compose(body, [Tmp(0)])), *node.inputs[:2])


@onnx_rule("Clip", becomes="Map")
def _import_clip(ctx: ImportContext, node: OnnxNode) -> str:
    """min(max(x, low), high); either bound may be absent or computed."""
    x, inputs, program = ctx.type(node.inputs[0]), [node.inputs[0]], Program()
    for i, fn in ((1, "max"), (2, "min")):
        if not node.has(i):
            continue
        array, bound = ctx.const(node.inputs[i]), Arg(len(inputs))
        if array is not None:
            scalar = array.reshape(())
            program = program.then(fn, program.result, Imm(float(scalar) if x.dtype.is_float else int(scalar)))
        else:
            inputs.append(node.inputs[i])
            program = program.then(fn, program.result, bound)
    return ctx.emit(Map(program), *inputs) if program.steps else node.inputs[0]
