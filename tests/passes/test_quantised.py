"""Quantised models become integer arithmetic: dequantise, integers and requantise."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.fuse_epilogue import FuseEpilogue
from sparsec.passes.pipelines import DEFAULT
from tests.quantised import QdqBuilder, residual_network

Array = np.ndarray[Any, Any]


def optimised(model: onnx.ModelProto) -> Graph:
    return run_pipeline(import_model(model), DEFAULT)


def products(graph: Graph) -> dict[str, Any]:
    return {n.origin[0]: n for n in graph.nodes if isinstance(n.op, Conv | MatMul)}


def by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))


@pytest.mark.parametrize("data", [np.uint8, np.int8])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_product_sums_integers(data: Any, seed: int) -> None:
    model = residual_network(seed, data=data)
    graph = optimised(model)
    found = products(graph)
    assert set(found) == {"first", "inner", "wide", "deep", "last", "y"}
    for node in found.values():
        assert [graph.types[v].dtype for v in node.inputs[:2]] == [DType.U8, DType.I8]
    assert all(graph.types[n.output].dtype is DType.U8 for k, n in found.items() if k not in ("last", "y"))
    (pool,) = (n for n in graph.nodes if isinstance(n.op, Pool))
    assert graph.types[pool.output].dtype is DType.U8
    (pad,) = (n for n in graph.nodes if isinstance(n.op, Pad))  # the image's zero point is not 0
    assert pad.op.fill == 121.0 and found["first"].inputs[0] == pad.output
    x = np.random.default_rng(seed).normal(0, 1.5, (1, 3, 31, 29)).astype(np.float32)
    got, want = interpret(graph, {"x": x})["y"], by_onnxruntime(model, {"x": x})["y"]
    assert np.ptp(want) > 0.1
    np.testing.assert_allclose(got, want, atol=2e-2 * np.abs(want).max())


def test_epilogues_hold_one_factor_a_channel() -> None:
    graph = optimised(residual_network())
    program = str(products(graph)["inner"].op.epilogue)
    assert program == "add(a0,a1);cast.f32(t0);mul(t1,a2);relu(t2);round(t3);relu(t4);min(t5,255.0);cast.u8(t6)"
    assert str(products(graph)["wide"].op.epilogue).count("mul") == 2  # the sums', and the residual's


def downsampled(*, side_first: bool) -> onnx.ModelProto:
    """A residual block whose side path is a convolution, too; only the other summand is quantised, which comes last or not."""
    b = QdqBuilder(0)
    x = b.quantised("x", 0.03, 121)
    stem = b.quantised(b.node("Relu", [b.conv(x, "stem", (16, 3, 3, 3))], "r0"), 0.02, 0)
    if side_first:
        b.conv(stem, "side", (32, 16, 1, 1), strides=[2, 2])
    inner = b.quantised(b.node("Relu", [b.conv(stem, "inner", (32, 16, 3, 3), strides=[2, 2])], "r1"), 0.02, 0)
    rounded = b.quantised(b.conv(inner, "rounded", (32, 32, 3, 3)), 0.02, 128)
    if not side_first:
        b.conv(stem, "side", (32, 16, 1, 1), strides=[2, 2])
    both = b.quantised(b.node("Relu", [b.node("Add", [rounded, "side"], "sum")], "r2"), 0.03, 0)
    return b.model({"x": (1, 3, 15, 16)}, [b.node("MaxPool", [both], "y", kernel_shape=[2, 2])])  # of bytes


@pytest.mark.parametrize("side_first", [True, False])
def test_both_products_of_a_sum_leave_bytes(*, side_first: bool) -> None:
    """The one that rounds before the sum hands its bytes to the other one, wherever that is, which rounds the sum."""
    model = downsampled(side_first=side_first)
    x = np.random.default_rng(1).normal(0, 1.5, (1, 3, 15, 16)).astype(np.float32)
    fusing = next(i for i, p in enumerate(DEFAULT) if isinstance(p, FuseEpilogue))
    before = run_pipeline(import_model(model), DEFAULT[:fusing])
    after = run_pipeline(before, DEFAULT[fusing : fusing + 1])
    assert len(after.nodes) < len(before.nodes)
    (got,), (want,) = (interpret(g, {"x": x}).values() for g in (after, before))
    np.testing.assert_array_equal(got, want)
    graph = optimised(model)
    found = products(graph)
    assert set(found) == {"stem", "inner", "rounded", "side"}
    assert all(graph.types[n.output].dtype is DType.U8 for n in found.values())
    assert all(str(n.op.epilogue).count("round") == 1 for n in found.values())
    assert found["rounded"].output in found["side"].inputs
    (want,) = by_onnxruntime(model, {"x": x}).values()
    (got,) = interpret(graph, {"x": x}).values()
    assert np.ptp(want) > 0.5 and np.abs(got - want).max() < 0.03 * 1.01  # one unit: it adds in float32


@pytest.mark.parametrize("zero", [0, 77, 255])
def test_inputs_are_quantised_as_onnxruntime_does(zero: int) -> None:
    """Quotients beside halves: a product with the reciprocal would land on the other side of some."""
    scale = np.float32(0.0173)
    halves = ((np.arange(-300, 300) + 0.5) * np.float64(scale)).astype(np.float32)
    x = np.concatenate([np.nextafter(halves, np.float32(d)) for d in (-99, 99)] + [halves]).reshape(1, -1)
    b = QdqBuilder(0)
    model = b.model({"x": x.shape}, [b.quantised("x", float(scale), zero)])
    np.testing.assert_array_equal(
        *(next(iter(r.values())) for r in (interpret(optimised(model), {"x": x}), by_onnxruntime(model, {"x": x})))
    )


@pytest.mark.parametrize("kind", ["plain", "relu", "residual", "depthwise", "strided", "product", "mean"])
@pytest.mark.parametrize("data", [np.uint8, np.int8])
def test_results_are_one_unit_off_at_most(kind: str, data: Any) -> None:
    """From the same bytes: onnxruntime and we round sums that are scaled in another order."""
    b = QdqBuilder(5, data=data)
    x = b.quantised("x", 0.0173, 120)
    if kind == "product":
        y = b.node("Gemm", [x, *b.weights("y", (24, 16), 0, x)], "y", transB=1)
    elif kind == "mean":
        y = b.node("GlobalAveragePool", [x], "y")
    else:
        shape = (16, 1, 3, 3) if kind == "depthwise" else (16, 16, 3, 3)
        y = b.conv(x, "y", shape, group=16 if kind == "depthwise" else 1, strides=[2, 2] if kind == "strided" else [1, 1])
    if kind == "residual":
        y = b.node("Add", [y, x], "sum")
    if kind == "relu":
        y = b.node("Relu", [y], "positive")
    step = 0.0173
    model = b.model({"x": (64, 16) if kind == "product" else (2, 16, 12, 12)}, [b.quantised(y, step, 131)])
    graph = optimised(model)
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (64, 16) if kind == "product" else (2, 16, 12, 12)).astype(np.float32)}
    got, want = (next(iter(run.values())) for run in (interpret(graph, feeds), by_onnxruntime(model, feeds)))
    units = np.rint((got - want) / np.float32(step))
    assert np.abs(units).max() <= 1 and (units != 0).mean() < 0.01 and len(np.unique(want)) > 10


def test_weights_without_a_scale_for_each_output_stay_real() -> None:
    b = QdqBuilder(0)
    x = b.quantised("x", 0.02, 0)
    w = b.node(
        "DequantizeLinear", [b.constant("w", np.ones((4, 6), np.int8)), b.constant("s", np.ones(6, np.float32))], "wdq", axis=1
    )
    model = b.model(
        {"x": (3, 4)}, [b.node("MatMul", [b.node("MatMul", [x, w], "ok"), b.constant("v", np.ones((6, 2), np.float32))], "y")]
    )
    found = products(optimised(model))
    assert optimised(model).types[found["ok"].inputs[0]].dtype is DType.U8  # axis 1 of [K, N] is the output's
    rows = onnx.numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), "s")  # a scale for each input instead
    model.graph.node[2].attribute[0].i = 0
    next(t for t in model.graph.initializer if t.name == "s").CopyFrom(rows)
    graph = optimised(model)
    assert graph.types[products(graph)["ok"].inputs[0]].dtype is DType.F32


def test_quantising_twice_alike_does_nothing() -> None:
    b = QdqBuilder(0)
    x = b.quantised("x", 0.02, 7)
    again = b.quantised(b.node("Transpose", [x], "t", perm=[1, 0]), 0.02, 7)
    other = b.quantised(again, 0.03, 7)
    graph = optimised(b.model({"x": (3, 4)}, [other]))
    maps = [str(n.op.program) for n in graph.nodes if isinstance(n.op, Map)]
    assert sum(p.count("round") for p in maps) == 2  # the first, and the one with another scale
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    q = np.clip(np.round(x / np.float32(0.02)) + 7, 0, 255)
    r = np.clip(np.round((q.T - 7) * np.float32(0.02) / np.float32(0.03)) + 7, 0, 255)
    np.testing.assert_allclose(interpret(graph, {"x": x})[other], (r - 7) * np.float32(0.03), atol=0.031)


def integer_model(op: str, inputs: dict[str, Array], weights: dict[str, Array], **attributes: Any) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()]
    tensors = [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()]
    node = helper.make_node(op, [*inputs, *weights], ["y"], name="node", **attributes)
    out = onnx.TensorProto.INT32 if op.endswith("Integer") else onnx.TensorProto.UINT8
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", out, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("zeros", [(0, 0), (255, 0), (130, 0), (12, 128)])
def test_integer_operators_sum_bytes(zeros: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 6, 7, 5)).astype(np.uint8)
    kind = np.uint8 if zeros[1] else np.int8
    w = rng.integers(1, 128, (9, 6, 3, 3)).astype(kind)
    model = integer_model("ConvInteger", {"x": x}, {"w": w, "xz": np.uint8(zeros[0]), "wz": kind(zeros[1])}, pads=[1, 1, 1, 1])
    graph = optimised(model)
    (conv,) = products(graph).values()
    assert graph.types[conv.inputs[1]].dtype is DType.I8 and conv.op.zero == zeros[0]
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], by_onnxruntime(model, {"x": x})["y"])


@pytest.mark.parametrize("rows", [8, 600])
def test_zero_points_of_columns(rows: int) -> None:
    """As onnxruntime writes dynamic quantisation with a scale for each column; import leaves large constants to the passes."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (4, rows)).astype(np.uint8), rng.integers(-100, 100, (rows, 500)).astype(np.int8)
    zeros = rng.integers(-20, 20, 500).astype(np.int8)
    model = integer_model("MatMulInteger", {"x": x}, {"w": w, "xz": np.uint8(3), "wz": zeros})
    graph = optimised(model)
    (product,) = products(graph).values()
    assert [graph.types[v].dtype for v in product.inputs[:2]] == [DType.U8, DType.I8]
    np.testing.assert_array_equal(graph.constants[product.inputs[1]], w - zeros)
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], by_onnxruntime(model, {"x": x})["y"])


def test_weights_beyond_int8_stay_wide() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (4, 8)).astype(np.uint8), rng.integers(0, 256, (8, 5)).astype(np.uint8)
    model = integer_model("MatMulInteger", {"x": x}, {"w": w, "xz": np.uint8(3), "wz": np.uint8(0)})
    graph = optimised(model)
    (product,) = products(graph).values()
    assert graph.types[product.inputs[1]].dtype is DType.I32
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], by_onnxruntime(model, {"x": x})["y"])


def test_qlinear_convolutions_are_onnxruntime_s_to_the_last_unit() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (1, 8, 9, 9)).astype(np.uint8)
    weights = {
        "xs": np.float32(0.02), "xz": np.uint8(119), "w": rng.integers(-127, 128, (12, 8, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 12).astype(np.float32), "wz": np.zeros(12, np.int8), "ys": np.float32(0.05),
        "yz": np.uint8(100), "b": rng.integers(-500, 500, 12).astype(np.int32),
    }  # fmt: skip
    model = integer_model("QLinearConv", {"x": x}, weights, pads=[1, 1, 1, 1])
    graph = optimised(model)
    assert len(products(graph)) == 1 and not [n for n in graph.nodes if isinstance(n.op, Map)]
    got, want = interpret(graph, {"x": x})["y"], by_onnxruntime(model, {"x": x})["y"]
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(want)) > 50


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
def test_weights_of_four_bits_are_summed_as_bytes(kind: int) -> None:
    rng = np.random.default_rng(2)
    low, high = (-8, 8) if kind == onnx.TensorProto.INT4 else (0, 16)
    w = helper.make_tensor("w", kind, (9, 7), rng.integers(low, high, 63).astype(np.int8))
    zero = helper.make_tensor("wz", kind, (7,), np.full(7, (low + high) // 2, np.int8))
    b = QdqBuilder(0)
    x = b.quantised("x", 0.02, 130)
    b.tensors += [w, zero]
    real = b.node("DequantizeLinear", ["w", b.constant("ws", rng.uniform(0.1, 1, 7).astype(np.float32)), "wz"], "wdq", axis=1)
    model = b.model({"x": (5, 9)}, [b.node("MatMul", [x, real], "y")])
    model.opset_import[0].version, model.ir_version = 21, 10
    graph = optimised(model)
    assert [graph.types[v].dtype for v in products(graph)["y"].inputs[:2]] == [DType.U8, DType.I8]
    feeds = {"x": rng.normal(size=(5, 9)).astype(np.float32)}
    np.testing.assert_allclose(interpret(graph, feeds)["y"], by_onnxruntime(model, feeds)["y"], rtol=1e-5, atol=1e-5)


def test_data_of_four_bits_are_refused() -> None:
    b = QdqBuilder(0)
    b.tensors.append(helper.make_tensor("z", onnx.TensorProto.UINT4, (), [3]))
    q = b.node("QuantizeLinear", ["x", b.constant("s", np.float32(0.5)), "z"], "q")
    model = b.model({"x": (5, 9)}, [b.node("DequantizeLinear", [q, "s", "z"], "y")])
    model.opset_import[0].version, model.ir_version = 21, 10
    with pytest.raises(UnsupportedError, match=r"node 'q' .* quantises to 4 bits, which only constants may have"):
        import_model(model)


def dynamic(rng: np.random.Generator, scales: int, *, bias: bool = False) -> onnx.ModelProto:
    """A product of dynamically quantised data as onnxruntime's quantiser writes it; `bias`: an activation and a residual, too."""
    w = rng.integers(-127, 128, (64, 20)).astype(np.int8)
    tensors = {"w": w, "wz": np.int8(0), "ws": rng.uniform(0.001, 0.01, scales).astype(np.float32)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["sums"], name="product"),
        helper.make_node("Cast", ["sums"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Mul", ["real", "scale"], ["y"]),
    ]
    x = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 13, 64))]
    if bias:
        tensors["b"] = rng.normal(size=20).astype(np.float32)
        nodes[-1].output[0] = "p"
        nodes += [
            helper.make_node("Add", ["p", "b"], ["pb"]),
            helper.make_node("Relu", ["pb"], ["a"]),
            helper.make_node("Add", ["a", "r"], ["y"]),
        ]
        x.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, (2, 13, 20)))
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    constants = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph(nodes, "g", x, [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scales", [1, 20])
def test_dynamic_quantisation_is_one_product(scales: int, bias: bool) -> None:
    rng = np.random.default_rng(0)
    model = dynamic(rng, scales, bias=bias)
    before, graph = import_model(model), optimised(model)
    (product,) = products(graph).values()
    assert [graph.types[v].dtype for v in product.inputs[:2]] == [DType.U8, DType.I8] and product.output == "y"
    assert sum(n.op.program.steps[0].fn == "div" for n in graph.nodes if isinstance(n.op, Map)) == 1  # the data
    for low, high in ((-3, 3), (0, 2), (-4, 0), (0, 0)):  # zero points between, at 0 and at 255; all zeros
        feeds = {"x": rng.uniform(low, high, (2, 13, 64)).astype(np.float32)}
        if bias:
            feeds["r"] = rng.normal(size=(2, 13, 20)).astype(np.float32)
        got = interpret(graph, feeds)["y"]
        np.testing.assert_array_equal(got, interpret(before, feeds)["y"])
        np.testing.assert_allclose(got, by_onnxruntime(model, feeds)["y"], rtol=1e-5, atol=1e-5)


def dynamic_conv(groups: int, batch: int) -> onnx.ModelProto:
    """A padded convolution of dynamically quantised data, scaled, with a bias and an activation."""
    rng = np.random.default_rng(2)
    tensors = {
        "w": rng.integers(-127, 128, (16, 16 // groups, 3, 3)).astype(np.int8), "wz": np.int8(0), "ws": np.float32(0.003),
        "b": rng.normal(size=(1, 16, 1, 1)).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z", "wz"], ["sums"], name="product", pads=[1, 0, 1, 2], group=groups),
        helper.make_node("Cast", ["sums"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Mul", ["real", "scale"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["pb"]),
        helper.make_node("Relu", ["pb"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (batch, 16, 7, 6))
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    constants = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(("groups", "batch"), [(1, 1), (1, 2), (2, 1), (16, 1)])
def test_padding_takes_no_share_of_a_zero_point(groups: int, batch: int) -> None:
    model = dynamic_conv(groups, batch)
    graph = optimised(model)
    (product,) = products(graph).values()
    assert graph.types[product.inputs[0]].dtype is DType.U8 and product.output == "y"
    for low, high in ((-3, 3), (-4, 0), (0, 1)):
        feeds = {"x": np.random.default_rng(1).uniform(low, high, (batch, 16, 7, 6)).astype(np.float32)}
        got = interpret(graph, feeds)["y"]
        np.testing.assert_array_equal(got, interpret(import_model(model), feeds)["y"])
        np.testing.assert_allclose(got, by_onnxruntime(model, feeds)["y"], rtol=1e-5, atol=1e-5)


def test_a_scale_that_others_read_is_computed_in_the_epilogue_again() -> None:
    model = dynamic(np.random.default_rng(0), 20)
    model.graph.node.append(helper.make_node("Identity", ["scale"], ["also"]))
    model.graph.output.append(helper.make_tensor_value_info("also", onnx.TensorProto.FLOAT, None))
    graph = optimised(model)
    (product,) = products(graph).values()
    assert product.output == "y" and "also" in [p.name for p in graph.outputs]


def test_sums_that_32_bits_may_not_hold_stay_real() -> None:
    b = QdqBuilder(0)
    x = b.quantised("x", 0.02, 0)
    w = b.node("DequantizeLinear", [b.constant("w", np.ones((70000, 2), np.int8)), b.constant("s", np.float32(0.1))], "wdq")
    graph = optimised(b.model({"x": (1, 70000)}, [b.node("MatMul", [x, w], "y")]))
    assert graph.types[products(graph)["y"].inputs[0]].dtype is DType.F32


def at_the_ends(op: str, data: Any, x_end: int, y_end: int) -> tuple[onnx.ModelProto, Array]:
    """An operator with zero points 0, 255, -128 or 127, and data: sums go beyond an end, and lie halfway between results."""
    rng = np.random.default_rng(4)
    ends = np.iinfo(data).min, np.iinfo(data).max
    shape = (1, 8, 6, 6) if op == "QLinearConv" else (12, 8)
    x = rng.integers(ends[0], ends[1] + 1, shape).astype(data)
    w = rng.integers(-2, 3, (10, 8, 3, 3) if op == "QLinearConv" else (8, 10)).astype(np.int8)
    weights = {
        "xs": np.float32(0.5), "xz": data(ends[x_end]), "w": w, "ws": np.float32(0.25), "wz": np.int8(0),
        "ys": np.float32(0.25), "yz": data(ends[y_end]),
    }  # fmt: skip
    model = integer_model(op, {"x": x}, weights, **({"pads": [1, 1, 1, 1]} if op == "QLinearConv" else {}))
    model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(data))
    return model, x


ENDS = [
    (op, data, a, b) for op in ("QLinearConv", "QLinearMatMul") for data in (np.uint8, np.int8) for a in (0, 1) for b in (0, 1)
]


@pytest.mark.parametrize(("op", "data", "x_end", "y_end"), ENDS)
def test_zero_points_at_the_ends_of_their_range(op: str, data: Any, x_end: int, y_end: int) -> None:
    model, x = at_the_ends(op, data, x_end, y_end)
    graph = optimised(model)
    want = by_onnxruntime(model, {"x": x})["y"]
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], want)
    assert want.min() == np.iinfo(data).min or want.max() == np.iinfo(data).max
    assert [graph.types[v].dtype for n in products(graph).values() for v in n.inputs[:2]] == [DType.U8, DType.I8]
