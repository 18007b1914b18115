"""Small models, one or two nodes each, that together reach every lowering: layouts, element types, tails, empty tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.reference import make_model

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(20)


@dataclass(frozen=True)
class Case:
    """A model and an input for it."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array] = field(repr=False)


def normal(*shape: int, dtype: Any = np.float32) -> Array:
    """Normally distributed numbers."""
    return RNG.standard_normal(shape).astype(dtype)


def integers(low: int, high: int, *shape: int, dtype: Any = np.int64) -> Array:
    """Integers in [low, high)."""
    return RNG.integers(low, high, shape).astype(dtype)


def i64(*numbers: int) -> Array:
    """A vector of int64."""
    return np.asarray(numbers, np.int64)


def one(
    name: str,
    op_type: str,
    feeds: dict[str, Array],
    weights: dict[str, Array] | None = None,
    *,
    outputs: int = 1,
    **attributes: Any,
) -> Case:
    """A case of one node, whose inputs are the feeds and then the weights; a weight called "" is an absent operand."""
    weights = weights or {}
    names = [n if not n.startswith("-") else "" for n in (*feeds, *weights)]
    ys = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, ys, name=op_type, **attributes)
    kept = {n: a for n, a in weights.items() if not n.startswith("-")}
    return Case(name, make_model([node], feeds, ys, kept), feeds)


def between_convs(name: str, op_type: str, x: Array, weights: dict[str, Array] | None = None, **attributes: Any) -> Case:
    """A pointwise convolution, the node, and a 3x3 convolution of the node's first two dimensions' channels: blocked data."""
    inner = helper.make_node(op_type, ["a", *(weights or {})], ["b"], name=op_type, **attributes)
    first = normal(x.shape[1], x.shape[1], 1, 1)
    probe = make_model([inner], {"a": x}, ["b"], weights)
    channels = onnx.shape_inference.infer_shapes(probe, data_prop=True).graph.output[0].type.tensor_type.shape.dim[1].dim_value
    constants = {"w1": first, "w2": normal(8, channels, 3, 3), **(weights or {})}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="before"),
        inner,
        helper.make_node("Conv", ["b", "w2"], ["y"], name="after", pads=[1, 1, 1, 1]),
    ]
    return Case(name, make_model(nodes, {"x": x}, ["y"], constants), {"x": x})


def data_movement() -> list[Case]:
    """Slice, Pad, Expand, Tile, Concat, Transpose."""
    image, tokens = normal(2, 20, 5, 7), normal(2, 6, 24)
    cases = []
    for dtype in (np.float32, np.int64, np.int8, np.float64, np.float16, np.bool_, np.uint16):
        x = (
            integers(0, 2, 3, 4, 5, dtype=dtype)
            if dtype == np.bool_
            else integers(-9 if dtype != np.uint16 else 0, 9, 3, 4, 5, dtype=dtype)
        )
        kind = np.dtype(dtype).name
        bounds = {"starts": i64(2, 3, 0), "ends": i64(-100, 1, 9), "axes": i64(0, 1, 2), "steps": i64(-1, -1, 2)}
        cases.append(one(f"slice_{kind}", "Slice", {"x": x}, bounds))
        cases.append(one(f"transpose_{kind}", "Transpose", {"x": x}, perm=[2, 0, 1]))
        cases.append(one(f"expand_{kind}", "Expand", {"x": x[:, :1]}, {"shape": i64(2, 3, 4, 5)}))
        cases.append(one(f"tile_{kind}", "Tile", {"x": x}, {"repeats": i64(2, 1, 3)}))
        cases.append(one(f"concat_{kind}", "Concat", {"a": x, "b": x[:, :2]}, axis=1))
        if dtype != np.uint16:
            value = {"pads": i64(1, 0, 2, 0, 3, 1), "value": np.asarray(3).astype(dtype)}
            cases.append(one(f"pad_{kind}", "Pad", {"x": x}, value))
    for mode in ("constant", "edge", "reflect", "wrap"):
        cases.append(one(f"pad_{mode}", "Pad", {"x": image}, {"pads": i64(0, 2, 4, 1, 1, 0, 3, 5)}, mode=mode))
        cases.append(between_convs(f"pad_{mode}_blocked", "Pad", image, {"pads": i64(0, 0, 1, 2, 0, 0, 2, 1)}, mode=mode))
    cases.append(one("pad_wrap_far", "Pad", {"x": normal(2, 3)}, {"pads": i64(3, 7, 2, 8)}, mode="wrap"))
    cases.append(one("pad_crop", "Pad", {"x": image}, {"pads": i64(0, -3, 2, -1, 1, 0, -1, 2)}, mode="edge"))
    cases.append(one("pad_value", "Pad", {"x": image}, {"pads": i64(0, 1, 1, 0, 0, 0, 1, 0), "value": np.float32(2.5)}))
    cases.append(
        between_convs("pad_value_blocked", "Pad", image[:, :16], {"pads": i64(0, 0, 1, 2, 0, 0, 2, 1), "value": np.float32(2.5)})
    )
    cases.append(one("pad_tokens", "Pad", {"x": tokens}, {"pads": i64(0, 1, 0, 0, 1, 0)}))
    wide = normal(1, 50, 4, 5)
    for name, (start, end) in {"blocks": (16, 48), "tail": (32, 50), "odd": (3, 41), "few": (17, 19), "head": (0, 20)}.items():
        cases.append(between_convs(f"slice_channels_{name}", "Slice", wide, {"s": i64(start), "e": i64(end), "ax": i64(1)}))
    cases.append(between_convs("slice_space", "Slice", wide, {"s": i64(0, 1), "e": i64(9, 4), "ax": i64(2, 3), "p": i64(2, 1)}))
    cases.append(between_convs("slice_back", "Slice", wide, {"s": i64(3, 16), "e": i64(0, 49), "ax": i64(2, 1), "p": i64(-1, 1)}))
    cases.append(between_convs("slice_channel_steps", "Slice", wide, {"s": i64(1), "e": i64(49), "ax": i64(1), "p": i64(3)}))
    return cases


def concatenations() -> list[Case]:
    """Concatenations of blocked values: aligned and not, shared parts, constants, slices of one value."""
    x = normal(1, 16, 5, 6)
    w = {f"w{i}": normal(n, 16, 1, 1) for i, n in enumerate((16, 32, 5, 20))}
    convs = [helper.make_node("Conv", ["x", f"w{i}"], [f"p{i}"], name=f"c{i}") for i in range(4)]

    def graph(name: str, nodes: list[onnx.NodeProto], outputs: list[str], extra: dict[str, Array] | None = None) -> Case:
        return Case(name, make_model([*convs, *nodes], {"x": x}, outputs, {**w, **(extra or {})}), {"x": x})

    def concat(inputs: list[str], output: str, axis: int = 1) -> onnx.NodeProto:
        return helper.make_node("Concat", inputs, [output], name=output, axis=axis)

    def last(value: str, channels: int) -> tuple[onnx.NodeProto, dict[str, Array]]:
        weights = {f"v{value}": normal(4, channels, 3, 3)}
        return helper.make_node("Conv", [value, f"v{value}"], [f"y{value}"], name=f"l{value}", pads=[1] * 4), weights

    cases = []
    for name, parts in {"aligned": [0, 1, 3], "unaligned": [2, 0, 3, 2, 1], "twice": [0, 0, 1], "small": [2, 2]}.items():
        end, weights = last("z", sum((16, 32, 5, 20)[p] for p in parts))
        cases.append(graph(f"concat_{name}", [concat([f"p{p}" for p in parts], "z"), end], ["yz"], weights))
    a, wa = last("z1", 48)
    b, wb = last("z2", 36)
    cases.append(graph("concat_shared", [concat(["p0", "p1"], "z1"), concat(["p0", "p3"], "z2"), a, b], ["yz1", "yz2"], wa | wb))
    halves = [helper.make_node("Slice", ["p1", f"s{i}", f"e{i}", "ax"], [f"h{i}"], name=f"h{i}") for i in range(2)]
    bounds = {"s0": i64(0), "e0": i64(16), "s1": i64(16), "e1": i64(32), "ax": i64(1)}
    c, wc = last("z", 48)
    cases.append(graph("concat_shuffle", [*halves, concat(["h1", "p0", "h0"], "z"), c], ["yz"], wc | bounds))
    d, wd = last("z", 23)
    cases.append(graph("concat_constant", [concat(["k", "p3"], "z"), d], ["yz"], wd | {"k": normal(1, 3, 5, 6)}))
    e, we = last("z", 20)
    cases.append(graph("concat_rows", [concat(["p3", "p3"], "z", 2), e], ["yz"], we))
    return cases


def lines() -> list[Case]:
    """Reductions, softmax, normalisations."""
    image, tokens = normal(2, 20, 5, 7), normal(2, 6, 24)
    cases = []
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp"):
        for name, axes in {"rows": (2, 3), "mixed": (0, 2), "channels": (1,), "all": (0, 1, 2, 3), "last": (3,)}.items():
            cases.append(one(f"{op}_{name}", op, {"x": image * 0.5}, {"axes": i64(*axes)}, keepdims=len(axes) % 2))
        cases.append(between_convs(f"{op}_blocked", op, image, {"axes": i64(2, 3)}))
    for dtype in (np.float64, np.float16, np.int32, np.int64, np.int8, np.uint8):
        kind, x = np.dtype(dtype).name, integers(1, 5, 3, 4, 5, dtype=dtype)
        for op in ("ReduceSum", "ReduceMax", "ReduceMean", "ReduceMin"):
            if dtype not in (np.int8, np.uint8) or op in ("ReduceMax", "ReduceMin"):
                cases.append(one(f"{op}_{kind}", op, {"x": x}, {"axes": i64(0, 2)}))
        for op in ("ArgMax", "ArgMin"):
            cases.append(one(f"{op}_{kind}", op, {"x": x}, axis=1, select_last_index=int(op == "ArgMin"), keepdims=0))
    cases.append(one("argmax", "ArgMax", {"x": image}, axis=3))
    cases.append(one("mean_tokens", "ReduceMean", {"x": tokens}, {"axes": i64(1)}, keepdims=0))
    for axis in (1, 2, 3):
        cases.append(one(f"softmax_{axis}", "Softmax", {"x": image * 4}, axis=axis))
        cases.append(one(f"log_softmax_{axis}", "LogSoftmax", {"x": image * 4}, axis=axis))
    for dtype in (np.float64, np.float16):
        kind = np.dtype(dtype).name
        cases.append(one(f"softmax_{kind}", "Softmax", {"x": normal(3, 5, dtype=dtype)}, axis=-1))
    scale, bias = {"scale": normal(20)}, {"bias": normal(20)}
    cases.append(one("instance_norm", "InstanceNormalization", {"x": image}, scale | bias))
    cases.append(one("group_norm", "GroupNormalization", {"x": image}, scale | bias, num_groups=4))
    cases.append(one("group_norm_computed", "GroupNormalization", {"x": image} | scale | bias, num_groups=1))
    statistics = {"m": normal(20), "v": np.abs(normal(20)) + 0.5}
    cases.append(one("batch_norm", "BatchNormalization", {"x": image}, scale | bias | statistics))
    cases.append(one("batch_norm_computed", "BatchNormalization", {"x": image} | scale | bias | statistics))
    cases.append(one("layer_norm", "LayerNormalization", {"x": tokens, "scale": normal(24), "bias": normal(24)}))
    return cases


def positions() -> list[Case]:
    """Gathers and scatters."""
    cases = []
    for dtype in (np.float32, np.int64, np.int8, np.float64, np.float16, np.bool_):
        x = integers(0, 2, 5, 4, 6, dtype=dtype) if dtype == np.bool_ else integers(-9, 9, 5, 4, 6, dtype=dtype)
        kind = np.dtype(dtype).name
        cases.append(one(f"gather_{kind}", "Gather", {"x": x, "i": integers(-4, 4, 2, 3)}, axis=1))
        cases.append(one(f"gather_constant_{kind}", "Gather", {"x": x}, {"i": i64(3, 0, 1, -1, 2)}, axis=0))
        i = integers(-6, 6, 3, 4, 7, dtype=np.int32)
        cases.append(one(f"gather_elements_{kind}", "GatherElements", {"x": x, "i": i}, axis=2))
        cases.append(one(f"gather_nd_{kind}", "GatherND", {"x": x, "i": integers(-4, 4, 5, 3, 1)}, batch_dims=1))
        i = np.stack([RNG.permutation(6)[:5] for _ in range(12)]).reshape(3, 4, 5)
        cases.append(one(f"scatter_elements_{kind}", "ScatterElements", {"x": x, "i": i, "u": x[:3, :, :5]}, axis=2))
        pairs = np.stack(np.divmod(RNG.permutation(20)[:7], 4), axis=1)
        u = integers(0, 2, 7, 6, dtype=dtype)
        cases.append(one(f"scatter_nd_{kind}", "ScatterND", {"x": x, "i": pairs, "u": u}))
    for reduction in ("add", "mul", "min", "max"):
        x, i, u = normal(4, 5), integers(-4, 4, 6, 5), normal(6, 5)
        cases.append(one(f"scatter_elements_{reduction}", "ScatterElements", {"x": x, "i": i, "u": u}, reduction=reduction))
        cases.append(one(f"scatter_nd_{reduction}", "ScatterND", {"x": x, "i": i[:, :1], "u": u}, reduction=reduction))
    return cases


def line_network(x: Array) -> Case:
    """Convolutions over one dimension with everything that fuses into them, and a pool."""
    weights = {"w1": normal(10, 6, 3), "b1": normal(10), "w2": normal(10, 10, 3), "w3": normal(10, 1, 3), "s": normal(10, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="a", pads=[1, 1]),
        helper.make_node("Relu", ["a"], ["ar"], name="ar"),
        helper.make_node("Conv", ["ar", "w2"], ["b"], name="b", pads=[1, 1]),
        helper.make_node("Add", ["b", "ar"], ["c"], name="c"),
        helper.make_node("Mul", ["c", "s"], ["d"], name="d"),
        helper.make_node("MaxPool", ["d"], ["p"], name="p", kernel_shape=[3], strides=[2], ceil_mode=1),
        helper.make_node("Conv", ["p", "w3"], ["y"], name="y", pads=[2, 0], group=10),
    ]
    return Case("line_network", make_model(nodes, {"x": x}, ["y"], weights), {"x": x})


def half_network(x: Array) -> Case:
    """Convolutions of float16 with a residual sum: between them, maps round float32 to float16 and back."""
    weights = {"w1": normal(20, 20, 1, 1) / 5, "w2": normal(20, 20, 3, 3) / 15, "b": normal(20), "s": normal(20, 9) / 5}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b"], ["a"], name="a"),
        helper.make_node("Relu", ["a"], ["ar"], name="ar"),
        helper.make_node("Conv", ["ar", "w2", "b"], ["c"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "ar"], ["d"], name="d"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        helper.make_node("MatMul", ["f", "s"], ["y"], name="y"),
    ]
    feeds = {"x": x.astype(np.float16)}
    return Case("half_network", make_model(nodes, feeds, ["y"], {k: a.astype(np.float16) for k, a in weights.items()}), feeds)


def transposed(x: Array) -> list[Case]:
    """Transposed convolutions in phases: strides against windows, dilations and paddings, epilogues, and what stays direct."""
    forms: list[dict[str, Any]] = [
        {"w": normal(20, 10, 4, 4), "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"w": normal(20, 7, 4, 3), "strides": [3, 2], "dilations": [2, 1], "pads": [0, 2, 3, 1], "output_padding": [1, 0]},
        {"w": normal(20, 17, 5, 5), "strides": [2, 2], "pads": [2, 2, 2, 2], "output_padding": [1, 1]},
        {"w": normal(20, 9, 3, 3), "strides": [1, 1], "pads": [1, 0, 1, 2]},
        {"w": normal(20, 6, 2, 1), "strides": [3, 2]},
    ]
    cases = []
    for i, form in enumerate(forms):
        weights = {"w": form.pop("w")}
        cases.append(between_convs(f"transposed_phases_{i}", "ConvTranspose", x, weights, **form))
    weights = {"w": normal(20, 10, 4, 4), "b": normal(10)}
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["t"], name="t", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["t", "r"], ["s"], name="s"),
        helper.make_node("Sigmoid", ["s"], ["y"], name="y"),
        helper.make_node("GlobalAveragePool", ["y"], ["z"], name="z"),
    ]
    feeds = {"x": x, "r": normal(x.shape[0], 10, 2 * x.shape[2], 2 * x.shape[3])}
    cases.append(Case("transposed_epilogue", make_model(nodes, feeds, ["y", "z"], weights), feeds))
    cases.append(one("transposed_point", "ConvTranspose", {"x": x[:, :, :1, :1].copy()}, weights, strides=[2, 1]))
    return cases


def windows() -> list[Case]:
    """Convolutions of every kind, pools, resizing, local response normalisation."""
    image, line, volume = normal(2, 20, 9, 7), normal(2, 6, 24), normal(1, 4, 5, 6, 7)
    bias = {"b": normal(10)}
    cases = [
        one("conv_computed", "Conv", {"x": image, "w": normal(10, 20, 3, 2)} | bias, strides=[2, 1], pads=[1, 0, 2, 1]),
        one("conv_groups", "Conv", {"x": image}, {"w": normal(10, 10, 3, 3)} | bias, group=2, dilations=[2, 1]),
        one("conv_line", "Conv", {"x": line}, {"w": normal(10, 6, 4)} | bias, strides=[3], dilations=[2], pads=[2, 1]),
        one("conv_depthwise_line", "Conv", {"x": line}, {"w": normal(6, 1, 3)}, group=6, pads=[1, 1]),
        line_network(line),
        one("conv_volume", "Conv", {"x": volume}, {"w": normal(10, 4, 3, 2, 3)} | bias, pads=[1, 0, 1, 1, 1, 0]),
        one("conv_f64", "Conv", {"x": image.astype(np.float64)}, {"w": normal(10, 20, 3, 3, dtype=np.float64)}),
        one("conv_f16", "Conv", {"x": image.astype(np.float16)}, {"w": normal(10, 20, 3, 3, dtype=np.float16)}),
        one("transposed", "ConvTranspose", {"x": image}, {"w": normal(20, 5, 3, 3)}, group=2, strides=[2, 3], pads=[1, 0] * 2),
        one("transposed_line", "ConvTranspose", {"x": line}, {"w": normal(6, 5, 3)}, strides=[2], output_padding=[1]),
        one("transposed_computed", "ConvTranspose", {"x": volume, "w": normal(4, 2, 2, 2, 2)}, strides=[2, 2, 2]),
        between_convs("transposed_between", "ConvTranspose", image, {"w": normal(20, 12, 2, 2)}, strides=[2, 2]),
        *transposed(image),
        half_network(image),
        one("pool_line", "MaxPool", {"x": line}, kernel_shape=[3], strides=[2], pads=[1, 1]),
        one("pool_volume", "MaxPool", {"x": volume}, kernel_shape=[2, 3, 2], strides=[1, 2, 2], pads=[1, 1, 0, 0, 1, 1]),
        one("pool_average_volume", "AveragePool", {"x": volume}, kernel_shape=[2, 3, 2], count_include_pad=1, pads=[1] * 6),
        one("pool_int8", "MaxPool", {"x": integers(-9, 9, 1, 3, 6, 6, dtype=np.int8)}, kernel_shape=[2, 2], pads=[1, 0, 0, 1]),
        one("pool_lp", "LpPool", {"x": image}, kernel_shape=[3, 3], p=3, strides=[2, 2]),
        one("pool_f64", "AveragePool", {"x": volume.astype(np.float64)}, kernel_shape=[2, 2, 2]),
        one("lrn", "LRN", {"x": image}, size=5, alpha=0.3, beta=0.75, bias=1.5),
        one("lrn_even", "LRN", {"x": line}, size=4, alpha=0.3),
        between_convs("lrn_blocked", "LRN", image, size=3, alpha=0.5),
    ]  # fmt: skip
    for mode in ("nearest", "linear", "cubic"):
        for name, scales in {"image": (1, 1, 2.3, 0.7), "axis": (1, 1.9, 1, 1), "all": (2, 0.5, 1.7, 1.2)}.items():
            empty_roi = {"-roi": np.zeros(0, np.float32)}
            factors = empty_roi | {"scales": np.asarray(scales, np.float32)}
            if mode != "cubic" or name != "all":  # onnxruntime has no cubic interpolation of more than two axes
                cases.append(one(f"resize_{mode}_{name}", "Resize", {"x": image}, factors, mode=mode))
            if name == "image":
                cases.append(between_convs(f"resize_{mode}_blocked", "Resize", image, factors, mode=mode))
        sizes = {"-roi": i64(), "-scales": i64(), "sizes": i64(2, 13, 5, 20)}
        if mode != "cubic":
            cases.append(one(f"resize_{mode}_last", "Resize", {"x": image.transpose(0, 2, 3, 1).copy()}, sizes, mode=mode))
            whole = integers(0, 99, *image.shape, dtype=np.uint8)
            factors = {"-roi": i64(), "scales": np.asarray((1, 1, 2, 4), np.float32)}
            asymmetric = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
            cases.append(one(f"resize_{mode}_uint8", "Resize", {"x": whole}, factors, **asymmetric))
    roi = {"roi": np.asarray([0, 0, 0.2, -0.1, 1, 1, 1.3, 0.8], np.float32), "-scales": i64(), "sizes": i64(2, 20, 6, 9)}
    crop = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.5}
    cases.append(one("resize_crop", "Resize", {"x": image}, roi, **crop))
    return cases


def products() -> list[Case]:
    """Matrix products of every type and form, attention."""
    a, b, byte = normal(2, 1, 5, 7), normal(3, 7, 6), integers(0, 9, 1, 3, 5, 5, dtype=np.uint8)
    wide = {k: normal(*s, dtype=np.float64) for k, s in {"a": (7, 4), "b": (20, 7), "c": (4, 1)}.items()}
    cases = [
        one("matmul_batched", "MatMul", {"a": a, "b": b}),
        one("matmul_f64", "MatMul", {"a": a.astype(np.float64), "b": b.astype(np.float64)}),
        one("matmul_i32", "MatMul", {"a": integers(-9, 9, 4, 5, dtype=np.int32)}, {"b": integers(0, 9, 3, 5, 2, dtype=np.int32)}),
        one("matmul_i64", "MatMul", {"a": integers(-9, 9, 5), "b": integers(-9, 9, 5, 3)}),
        one("matmul_f16", "MatMul", {"a": normal(5, 7, dtype=np.float16)}, {"b": normal(7, 20, dtype=np.float16)}),
        one("matmul_empty_sum", "MatMul", {"a": normal(4, 0), "b": normal(0, 3)}),
        one("gemm_empty_sum", "Gemm", {"a": normal(4, 0), "b": normal(0, 3), "c": normal(3)}),
        one("gemm", "Gemm", {"a": normal(7, 4)}, {"b": normal(20, 7), "c": normal(20)}, transA=1, transB=1, alpha=0.5, beta=2.0),
        one("gemm_f64", "Gemm", wide, transA=1, transB=1),
        one("matmul_integer", "MatMulInteger", {"a": byte[0, 0], "b": integers(-9, 9, 5, 6, dtype=np.int8)}),
        one("conv_integer", "ConvInteger", {"x": byte}, {"w": integers(0, 9, 4, 3, 3, 3, dtype=np.uint8)}, pads=[1] * 4),
    ]  # fmt: skip
    return cases


def sorting() -> list[Case]:
    """Running sums and the best of a line."""
    cases = []
    for dtype in (np.float32, np.float64, np.int32, np.int64):
        kind, x = np.dtype(dtype).name, integers(-9, 9, 3, 7, 4, dtype=dtype)
        for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
            name = f"cumsum_{kind}_{exclusive}{reverse}"
            cases.append(one(name, "CumSum", {"x": x}, {"axis": np.asarray(1)}, exclusive=exclusive, reverse=reverse))
        distinct = RNG.permuted(np.arange(84).reshape(3, 7, 4), axis=1).astype(dtype)
        for largest in (0, 1):
            cases.append(
                one(f"topk_{kind}_{largest}", "TopK", {"x": distinct}, {"k": i64(3)}, outputs=2, axis=1, largest=largest)
            )
    return cases


def empty() -> list[Case]:
    """Tensors without elements."""
    none = np.zeros((0, 3), np.float32)
    return [
        one("empty_concat", "Concat", {"a": none, "b": normal(2, 3)}, axis=0),
        one("empty_relu", "Relu", {"x": none}),
        one("empty_conv", "Conv", {"x": np.zeros((0, 3, 5, 5), np.float32)}, {"w": normal(4, 3, 3, 3)}),
        one("empty_softmax", "Softmax", {"x": none}),
        one("empty_sum", "ReduceSum", {"x": none}, {"axes": i64(0)}, keepdims=0),
        one("empty_pad", "Pad", {"x": none}, {"pads": i64(2, 0, 1, 1)}),
    ]


@cache
def all_cases() -> dict[str, Case]:
    """Every case by its name."""
    found: dict[str, Case] = {}
    for make in (data_movement, concatenations, lines, positions, windows, products, sorting, empty):
        for case in make():
            assert case.name not in found, case.name
            found[case.name] = case
    return found
