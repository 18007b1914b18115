"""Graphs in the forms that exporters write: same numbers as onnxruntime, and no shape arithmetic left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from sparsec.compiler.graph import Graph
from tests.reference import check_model, make_model

Array = np.ndarray[Any, Any]
make = helper.make_node


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


def ops(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph)


def const(name: str, value: Any, dtype: Any = np.int64) -> onnx.NodeProto:
    """A Constant node, as torch writes them."""
    array = np.asarray(value, dtype)
    return make("Constant", [], [name], value=onnx.numpy_helper.from_array(array))


def test_torchscript_view_of_a_dynamic_batch() -> None:
    """x.view(x.size(0), -1): Shape -> Gather -> Unsqueeze -> Concat -> Reshape."""
    nodes = [
        make("Shape", ["x"], ["/Shape_output_0"], name="/Shape"),
        const("/Constant_output_0", 0),
        make("Gather", ["/Shape_output_0", "/Constant_output_0"], ["/Gather_output_0"], axis=0),
        const("onnx::Unsqueeze_9", [0]),
        make("Unsqueeze", ["/Gather_output_0", "onnx::Unsqueeze_9"], ["/Unsqueeze_output_0"]),
        const("/Constant_1_output_0", [-1]),
        make("Concat", ["/Unsqueeze_output_0", "/Constant_1_output_0"], ["/Concat_output_0"], axis=0),
        make("Reshape", ["x", "/Concat_output_0"], ["y"], name="/Reshape"),
    ]
    graph = check_model(make_model(nodes, {"x": (1, ["batch", 3, 4])}, ["y"], opset=14), {"x": data(2, 3, 4)}, dims={"batch": 2})
    assert ops(graph) == {"Reshape": 1} and graph.nodes[0].name == "/Reshape"


def test_torchscript_upsample_by_a_computed_size() -> None:
    """Sizes that go through float: Shape -> Cast -> Mul -> Floor -> Cast -> Concat -> Resize, with an empty roi."""
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Slice", ["shape", "two", "four", "zero"], ["hw"]),
        make("Cast", ["hw"], ["hw_f"], to=TensorProto.FLOAT),
        make("Mul", ["hw_f", "factor"], ["scaled"]),
        make("Floor", ["scaled"], ["floored"]),
        make("Cast", ["floored"], ["new_hw"], to=TensorProto.INT64),
        make("Slice", ["shape", "zero", "two", "zero"], ["nc"]),
        make("Concat", ["nc", "new_hw"], ["sizes"], axis=0),
        make("Constant", [], ["roi"], value=helper.make_tensor("roi", 1, [0], [])),
        make("Constant", [], ["scales"], value=helper.make_tensor("scales", 1, [0], [])),
        make(
            "Resize",
            ["x", "roi", "scales", "sizes"],
            ["y"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
    ]
    weights = {"two": i64(2), "four": i64(4), "zero": i64(0), "factor": np.array([2.0, 1.5], np.float32)}
    assert ops(check_model(make_model(nodes, {"x": data(1, 2, 4, 6)}, ["y"], weights, opset=11), {"x": data(1, 2, 4, 6)})) == {
        "Resize": 1
    }


def test_torch_expand_with_minus_one() -> None:
    """x.expand(-1, n): the shape is mended by Where(Equal(shape, -1), ones, shape), of ConstantOfShape and Mul."""
    nodes = [
        make("Shape", ["target"], ["rank"]),
        make("ConstantOfShape", ["rank"], ["ones"], value=helper.make_tensor("v", 7, [1], [1])),
        make("Mul", ["ones", "minus_one"], ["minus_ones"]),
        make("Equal", ["target", "minus_ones"], ["keep"]),
        make("Where", ["keep", "ones", "target"], ["shape"]),
        make("Expand", ["x", "shape"], ["wide"]),
        make("Add", ["wide", "z"], ["y"]),
    ]
    weights = {"target": i64(-1, 5), "minus_one": np.array(-1)}
    feeds = {"x": data(3, 1), "z": data(3, 5)}
    assert ops(check_model(make_model(nodes, feeds, ["y"], weights), feeds)) == {"Expand": 1, "Map": 1}


def causal_mask(n: str) -> list[onnx.NodeProto]:
    """HF's causal mask in torch's words: Range < Range.view(-1, 1), filled with the lowest float, expanded to the batch."""
    return [
        make("Shape", ["ids"], ["ids_shape"]),
        make("Gather", ["ids_shape", "one"], ["length"]),
        make("Range", ["zero", "length", "one"], ["positions"]),
        make("Add", ["positions", "one"], ["next"]),
        make("Reshape", ["next", "column"], ["rows"]),
        make("Less", ["positions", "rows"], ["visible"]),
        make("Unsqueeze", ["length", "axis0"], ["length1"]),
        make("Concat", ["length1", "length1"], ["square"], axis=0),
        make("ConstantOfShape", ["square"], ["lowest"], value=helper.make_tensor("v", 1, [1], [float(np.finfo(np.float32).min)])),
        make("Where", ["visible", "fzero", "lowest"], ["mask"]),
        make("Unsqueeze", ["mask", "axes01"], ["mask4"]),
        make("Gather", ["ids_shape", "zero"], ["batch"]),
        make("Unsqueeze", ["batch", "axis0"], ["batch1"]),
        make("Concat", ["batch1", "axis1", "length1", "length1"], ["full"], axis=0),
        make("Expand", ["mask4", "full"], [n]),
    ]


def test_causal_mask() -> None:
    """The whole mask is known at compile time: what is left is an Add and a Softmax."""
    nodes = [*causal_mask("bias"), make("Add", ["scores", "bias"], ["masked"]), make("Softmax", ["masked"], ["y"], axis=-1)]
    weights = {
        **{"one": np.array(1), "zero": np.array(0), "column": i64(-1, 1), "axis0": i64(0), "axis1": i64(1), "axes01": i64(0, 1)},
        "fzero": np.array(0, np.float32),
    }
    model = make_model(nodes, {"ids": (7, ["batch", "seq"]), "scores": (1, ["batch", 2, "seq", "seq"])}, ["y"], weights)
    feeds = {"ids": np.zeros((2, 5), np.int64), "scores": data(2, 2, 5, 5)}
    graph = check_model(model, feeds, dims={"batch": 2, "seq": 5})
    assert ops(graph) == {"Map": 1, "Softmax": 1} and graph.inputs == ("ids", "scores")


def test_paddle_shape_chains() -> None:
    """int32 shapes with casts between, [1] constants where others write scalars, Identity chains, p2o names."""
    nodes = [
        make("Shape", ["x"], ["p2o.Shape.1"], name="p2o.Shape.0"),
        make("Cast", ["p2o.Shape.1"], ["p2o.Cast.1"], to=TensorProto.INT32),
        const("p2o.Constant.1", [0]),
        const("p2o.Constant.3", [1]),
        make("Slice", ["p2o.Cast.1", "p2o.Constant.1", "p2o.Constant.3", "p2o.Constant.1"], ["p2o.Slice.1"]),
        make("Squeeze", ["p2o.Slice.1", "p2o.Constant.1"], ["p2o.Squeeze.1"]),
        make("Unsqueeze", ["p2o.Squeeze.1", "p2o.Constant.1"], ["p2o.Unsqueeze.1"]),
        const("p2o.Constant.5", [-1], np.int32),
        make("Cast", ["p2o.Constant.5"], ["p2o.Cast.3"], to=TensorProto.INT32),
        const("p2o.Constant.7", [6], np.int32),
        make("Concat", ["p2o.Unsqueeze.1", "p2o.Cast.3", "p2o.Constant.7"], ["p2o.Concat.1"], axis=0),
        make("Cast", ["p2o.Concat.1"], ["p2o.Cast.5"], to=TensorProto.INT64),
        make("Identity", ["x"], ["p2o.Identity.1"]),
        make("Identity", ["p2o.Identity.1"], ["p2o.Identity.3"]),
        make("Reshape", ["p2o.Identity.3", "p2o.Cast.5"], ["reshape2_0.tmp_0"], name="p2o.Reshape.0"),
        const("p2o.Constant.9", [2.0], np.float32),
        make("Mul", ["reshape2_0.tmp_0", "p2o.Constant.9"], ["scale_0.tmp_0"]),
        const("p2o.Constant.11", [0.5], np.float32),
        make("Add", ["scale_0.tmp_0", "p2o.Constant.11"], ["y"]),
    ]
    graph = check_model(
        make_model(nodes, {"x": (1, [-1, 4, 3])}, ["y"], opset=13), {"x": data(2, 4, 3)}, input_shapes={"x": (2, 4, 3)}
    )
    assert ops(graph) == {"Reshape": 1, "Map": 2}
    assert graph.nodes[0].origin == ("p2o.Reshape.0",)


def test_paddle_flatten_and_dropout_and_pool() -> None:
    """Paddle's flatten (Shape, Slice, ReduceProd), inference Dropout as Identity or with a [1] ratio, adaptive pool by kernel."""
    nodes = [
        make("GlobalAveragePool", ["x"], ["pool"]),
        make("Shape", ["pool"], ["shape"]),
        make("Slice", ["shape", "one", "end"], ["tail"]),
        make("ReduceProd", ["tail"], ["width"], keepdims=1),
        make("Slice", ["shape", "start", "one"], ["head"]),
        make("Concat", ["head", "width"], ["flat_shape"], axis=0),
        make("Reshape", ["pool", "flat_shape"], ["flat"]),
        make("Dropout", ["flat", "ratio"], ["kept"]),
        make("MatMul", ["kept", "w"], ["y"]),
    ]
    weights = {"start": i64(0), "one": i64(1), "end": i64(2**31 - 1), "w": data(3, 5), "ratio": np.array(0.2, np.float32)}
    graph = check_model(make_model(nodes, {"x": data(2, 3, 4, 4)}, ["y"], weights, opset=13), {"x": data(2, 3, 4, 4)})
    assert ops(graph) == {"Reduce": 1, "Reshape": 1, "MatMul": 1}


def test_tf2onnx_image_network() -> None:
    """NHWC at the border, Transpose pairs around convolutions, Pad with constant tensors, names with slashes and colons."""
    scope = "StatefulPartitionedCall/model"
    nodes = [
        make("Transpose", ["input:0"], [f"{scope}/conv1/Conv2D__6:0"], perm=[0, 3, 1, 2]),
        make("Pad", [f"{scope}/conv1/Conv2D__6:0", "const_pads__10"], [f"{scope}/pad/Pad:0"], mode="constant"),
        make(
            "Conv", [f"{scope}/pad/Pad:0", "w1", "b1"], [f"{scope}/conv1/BiasAdd:0"], strides=[2, 2], name=f"{scope}/conv1/Conv2D"
        ),
        make("Transpose", [f"{scope}/conv1/BiasAdd:0"], ["nhwc:0"], perm=[0, 2, 3, 1]),
        make("Relu", ["nhwc:0"], ["relu:0"]),
        make("Mul", ["relu:0", "scale"], ["scaled:0"]),
        make("ReduceMean", ["scaled:0"], ["gap:0"], axes=[1, 2], keepdims=0),
        make("Shape", ["gap:0"], ["Shape__20:0"]),
        make("Cast", ["Shape__20:0"], ["Shape__21:0"], to=TensorProto.INT32),
        make("Cast", ["Shape__21:0"], ["Shape__22:0"], to=TensorProto.INT64),
        make("Slice", ["Shape__22:0", "first", "second", "first"], ["batch:0"]),
        make("Concat", ["batch:0", "rest"], ["target:0"], axis=0),
        make("Reshape", ["gap:0", "target:0"], ["Identity:0"], name="Identity"),
    ]
    weights = {
        "const_pads__10": i64(0, 0, 0, 0, 0, 0, 1, 1),
        "w1": data(8, 3, 3, 3),
        "b1": data(8),
        "scale": data(8),
        "first": i64(0),
        "second": i64(1),
        "rest": i64(2, 4),
    }
    model = make_model(nodes, {"input:0": (1, ["unk__30", 8, 8, 3])}, ["Identity:0"], weights, opset=13)
    graph = check_model(model, {"input:0": data(2, 8, 8, 3)}, dims={"unk__30": 2}, tolerance=1e-4)
    assert set(ops(graph)) == {"Transpose", "Pad", "Conv", "Map", "Reduce", "Reshape"}
    assert graph.outputs[0].name == "Identity:0"


def test_tf2onnx_strided_slices_and_one_hot_masks() -> None:
    """tf.strided_slice: Slice then Squeeze; sequence masks by Range, Less and Cast."""
    nodes = [
        make("Slice", ["x", "start", "stop", "axes", "steps"], ["cut"]),
        make("Squeeze", ["cut", "axis1"], ["row"]),
        make("Cast", ["lengths"], ["lengths_f"], to=TensorProto.FLOAT),
        make("Range", ["zero_f", "four_f", "one_f"], ["steps_f"]),
        make("Unsqueeze", ["lengths_f", "axis1"], ["column"]),
        make("Less", ["steps_f", "column"], ["mask"]),
        make("Cast", ["mask"], ["mask_f"], to=TensorProto.FLOAT),
        make("Mul", ["row", "mask_f"], ["y"]),
    ]
    weights = {
        **{"start": i64(0, -1), "stop": i64(2**31 - 1, 2**31 - 1), "axes": i64(0, 1), "steps": i64(1, 1), "axis1": i64(1)},
        **{n: np.array(v, np.float32) for n, v in (("zero_f", 0), ("four_f", 4), ("one_f", 1))},
    }
    feeds = {"x": data(2, 3, 4), "lengths": np.array([3, 1], np.int32)}
    graph = check_model(make_model(nodes, feeds, ["y"], weights, opset=13), feeds)
    assert "Range" not in ops(graph) and ops(graph)["Slice"] == 1


def torch_lib() -> list[onnx.FunctionProto]:
    """Local functions as torch's dynamo exporter writes them: Rank, IsScalar, and an operator that asks both."""
    domain, opsets = (
        "pkg.onnxscript.torch_lib",
        [helper.make_opsetid("", 18), helper.make_opsetid("pkg.onnxscript.torch_lib.common", 1)],
    )
    common = "pkg.onnxscript.torch_lib.common"
    rank = helper.make_function(
        common, "Rank", ["input"], ["return_val"], [make("Shape", ["input"], ["t"]), make("Size", ["t"], ["return_val"])], opsets
    )
    scalar = [
        make("Shape", ["input"], ["t"]),
        make("Size", ["t"], ["n"]),
        make("Constant", [], ["zero"], value_int=0),
        make("Equal", ["n", "zero"], ["return_val"]),
    ]

    def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, "branch", [], [onnx.ValueInfoProto(name=nodes[-1].output[0])])

    softmax = [
        make("IsScalar", ["self"], ["is_scalar"], domain=common, name="n0"),
        make(
            "If",
            ["is_scalar"],
            ["wide"],
            name="n1",
            then_branch=branch(make("Constant", [], ["axes"], value_ints=[0]), make("Unsqueeze", ["self", "axes"], ["self_1"])),
            else_branch=branch(make("Identity", ["self"], ["self_2"])),
        ),
        make("Softmax", ["wide"], ["soft"], name="n2"),
        make("If", ["is_scalar"], ["result"], name="n3", then_branch=branch(make("Squeeze", ["soft"], ["r"])), else_branch=branch(
            make("Identity", ["soft"], ["r2"]))),
    ]  # fmt: skip
    softmax[2].attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="dim", type=onnx.AttributeProto.INT))
    return [
        rank,
        helper.make_function(common, "IsScalar", ["input"], ["return_val"], scalar, opsets),
        helper.make_function(domain, "aten_softmax_no_dtype", ["self"], ["result"], softmax, opsets, attributes=["dim"]),
    ]


def test_dynamo_functions() -> None:
    """Calls are inlined with their attributes; the branches on the rank are decided."""
    domain = "pkg.onnxscript.torch_lib"
    nodes = [
        make("aten_softmax_no_dtype", ["x"], ["s"], domain=domain, dim=1, name="softmax"),
        make("aten_softmax_no_dtype", ["s"], ["t"], domain=domain, dim=-1, name="softmax_1"),
        make("Rank", ["t"], ["rank"], domain=f"{domain}.common"),
        make("Cast", ["rank"], ["rank_f"], to=TensorProto.FLOAT),
        make("Mul", ["t", "rank_f"], ["y"]),
    ]
    model = make_model(
        nodes, {"x": data(2, 3, 4)}, ["y"], opset=18, functions=torch_lib(), domains={domain: 1, f"{domain}.common": 1}
    )
    graph = check_model(model, {"x": data(2, 3, 4)})
    assert ops(graph) == {"Softmax": 2, "Map": 1}


def test_scalars_and_single_elements() -> None:
    """Rank 0 and [1] are interchangeable in exports: squeezes, unsqueezes and reshapes between them."""
    nodes = [
        make("ReduceMean", ["x"], ["mean"], keepdims=0),
        make("Unsqueeze", ["mean", "axis"], ["mean1"]),
        make("Squeeze", ["mean1"], ["mean0"]),
        make("Reshape", ["mean0", "one"], ["again1"]),
        make("Reshape", ["again1", "none"], ["again0"]),
        make("Sub", ["x", "again0"], ["centred"]),
        make("Gather", ["centred", "index"], ["picked"], axis=0),
        make("Concat", ["again1", "again1"], ["pair"], axis=0),
        make("Slice", ["pair", "axis", "one"], ["single"]),
        make("Mul", ["picked", "single"], ["y"]),
    ]
    weights = {"axis": i64(0), "one": i64(1), "none": i64(), "index": np.array(1)}
    check_model(make_model(nodes, {"x": data(3, 4)}, ["y"], weights), {"x": data(3, 4)})


def test_weights_as_inputs_and_constants() -> None:
    """Keras and old torch list weights among the inputs, or write them as Constant nodes."""
    nodes = [
        make("Constant", [], ["w2"], value=onnx.numpy_helper.from_array(data(5, 2))),
        make("MatMul", ["x", "w"], ["h"]),
        make("MatMul", ["h", "w2"], ["y"]),
    ]
    model = make_model(nodes, {"x": data(3, 4), "w": data(4, 5)}, ["y"], {"w": data(4, 5)}, opset=8, ir_version=3)
    graph = check_model(model, {"x": data(3, 4)})
    assert graph.inputs == ("x",) and len(graph.constants) == 2


def test_split_heads_and_chunks() -> None:
    """A fused qkv projection taken apart the three ways exporters know: Split, Slice with strides, Gather by scalar."""

    def parts(how: str) -> Sequence[onnx.NodeProto]:
        if how == "split":
            return [make("Split", ["x"], ["q", "k", "v"], axis=-1, num_outputs=3)]
        if how == "slice":
            return [make("Slice", ["x", f"s{i}", f"s{i + 1}", "last"], [n]) for i, n in enumerate("qkv")]
        return [
            make("Reshape", ["x", "five"], ["r"]),
            make("Transpose", ["r"], ["t"], perm=[2, 0, 1, 3]),
            *(make("Gather", ["t", f"i{i}"], [n], axis=0) for i, n in enumerate("qkv")),
        ]

    weights = {f"s{i}": i64(4 * i) for i in range(4)} | {"last": i64(-1), "five": i64(2, 3, 3, 4)}
    weights |= {f"i{i}": np.array(i) for i in range(3)}
    for how in ("split", "slice", "gather"):
        nodes = [*parts(how), make("Mul", ["q", "k"], ["qk"]), make("Add", ["qk", "v"], ["y"])]
        graph = check_model(make_model(nodes, {"x": data(2, 3, 12)}, ["y"], weights), {"x": data(2, 3, 12)})
        assert ops(graph)["Slice"] == 3 and "Gather" not in ops(graph)
