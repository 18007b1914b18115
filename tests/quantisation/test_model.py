"""Quantised models: their form, their results under onnxruntime and here, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import sparsec
from sparsec.compiler.errors import ModelError, UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.passes.pruning.model import prune
from sparsec.passes.quantisation.model import quantise
from sparsec.passes.quantisation.ranges import Method
from sparsec.passes.quantisation.settings import KeepFloat, Settings
from tests.quantisation.networks import N, bytes_of, model_of, parameters, residual, samples, weights
from tests.reference import run_ort

Array = np.ndarray[Any, Any]
X = samples((2, 3, 8, 8))


def ratio(real: Array, quantised: Array) -> float:
    return float(10 * np.log10(np.square(real).sum() / np.square(real - quantised).sum()))


def quantised(model: onnx.ModelProto, data: list[Array], **settings: Any) -> onnx.ModelProto:
    found = quantise(model, data, Settings(threads=1, **settings)).proto
    onnx.checker.check_model(found, full_check=True)
    return found


def test_what_becomes_bytes_in_a_residual_block() -> None:
    made = quantised(residual(), X)
    # between a convolution and what alone reads it nothing is quantised; of the two that are added, one is fused
    assert bytes_of(made) == {"x", "y2", "y3", "z1", "z2", "z5", "p", "f"}
    found = parameters(made)
    assert found["y2"] == found["y3"] and found["p"] == found["f"] and found["y2"][1] == found["z5"][1] == 0
    ops = [n.op_type for n in made.graph.node]
    assert "BatchNormalization" not in ops and ops.count("Conv") == 4
    assert all(
        n.input[0].endswith("_dequantized") or "_dequantized_" in n.input[0]
        for n in made.graph.node
        if n.op_type in ("Conv", "Gemm")
    )


def test_weights_are_symmetric_int8_by_channel_and_biases_int32_in_the_products_scale() -> None:
    made = quantised(residual(), X)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    producers = {o: n for n in made.graph.node for o in n.output}
    layers = [n for n in made.graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(layers) == 5
    for node in layers:
        x, w, b = (producers[v] for v in node.input)
        data, scale, zero = (arrays[v] for v in w.input)
        assert data.dtype == zero.dtype == np.int8 and not zero.any() and scale.shape == (data.shape[0],)
        assert np.abs(data).reshape(len(data), -1).max(axis=1).tolist() == [127] * len(data)
        bias, bias_scale, bias_zero = (arrays[v] for v in b.input)
        assert bias.dtype == np.int32 and not bias_zero.any()
        np.testing.assert_array_equal(bias_scale, arrays[x.input[1]] * scale)


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({}, 25),
        ({"method": Method.minmax}, 25),
        ({"method": Method.percentile}, 25),
        ({"method": Method.entropy}, 8),
        ({"per_channel": False}, 24),
        ({"power_of_two": True}, 20),
        ({"correct_bias": False}, 24),
    ],
)
def test_results_are_close_to_the_float_models(settings: dict[str, Any], least: float) -> None:
    model, x = residual(), samples((16, 3, 8, 8), 1, seed=7)[0]
    made = quantised(model, X, **settings)
    assert ratio(run_ort(model, {"x": x})["out"], run_ort(made, {"x": x})["out"]) > least


@pytest.mark.parametrize("power", [False, True])
def test_interpreter_and_onnxruntime_agree(power: bool) -> None:
    made, x = quantised(residual(), X, power_of_two=power), samples((2, 3, 8, 8), 1, seed=9)[0]
    ours = interpret(import_model(made, dims={"n": 2}), {"x": x})["out"]
    np.testing.assert_allclose(ours, run_ort(made, {"x": x}, optimise=False)["out"], atol=1e-6)


def test_power_of_two_scales_everywhere() -> None:
    made = quantised(residual(), X, power_of_two=True)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    scales = [arrays[n.input[1]] for n in made.graph.node if n.op_type == "DequantizeLinear"]
    assert len(scales) > 10 and all((np.frexp(s)[0] == 0.5).all() for s in scales)


def test_bias_correction_takes_the_mean_error_away() -> None:
    model = model_of([N("Gemm", ["x", "w"], ["out"], transB=1)], ["n", 64], ["out"], weights(w=(8, 64)))
    data = [np.abs(a) for a in samples((64, 64), 4)]
    x = np.concatenate(data)
    real = run_ort(model, {"x": x})["out"]
    errors = {c: run_ort(quantised(model, data, correct_bias=c), {"x": x})["out"] - real for c in (True, False)}
    assert np.abs(errors[True].mean(axis=0)).max() < 0.1 * np.abs(errors[False].mean(axis=0)).max()


def test_zeros_of_pruned_weights_stay_and_the_record_of_patterns_goes() -> None:
    pruned = prune(residual(), "2:4", dims={"n": 1})
    assert any(p.key == "sparsec.sparsity" for p in pruned.proto.metadata_props)
    found = quantise(pruned.proto, X, Settings(threads=1))
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in found.proto.graph.initializer}
    for name in ("a", "b"):
        before = onnx.numpy_helper.to_array(next(t for t in pruned.proto.graph.initializer if t.name == name))
        assert (before == 0).mean() == 0.5 and not arrays[f"{name}_quantized"][before == 0].any()
    assert not any(p.key == "sparsec.sparsity" for p in found.proto.metadata_props)
    layer = next(x for x in found.report.layers if x.node == "a")
    assert layer.zeros == 0.5 and layer.zeros_quantised is not None and layer.zeros_quantised >= 0.5
    import_model(found.proto, dims={"n": 1})


def test_concat_gives_its_parts_one_scale() -> None:
    nodes = [
        N("Conv", ["x", "a"], ["p"]),
        N("Conv", ["x", "b"], ["q"]),
        N("Concat", ["p", "q"], ["j"], axis=1),
        N("Conv", ["j", "c"], ["out"]),
    ]
    w = weights(a=(4, 3, 1, 1), b=(4, 3, 1, 1), c=(2, 8, 1, 1))
    w["b"] *= 5
    found = parameters(quantised(model_of(nodes, [2, 3, 8, 8], ["out"], w), X))
    assert set(found) == {"x", "p", "q", "j"} and found["p"] == found["q"] == found["j"] != found["x"]


def test_a_sum_is_an_add() -> None:
    model = residual()
    next(n for n in model.graph.node if n.op_type == "Add").op_type = "Sum"
    assert bytes_of(quantised(model, X)) == bytes_of(quantised(residual(), X))


def test_swish_is_not_cut_off_its_convolution() -> None:
    nodes = [
        N("Conv", ["x", "a"], ["y"]),
        N("Sigmoid", ["y"], ["s"]),
        N("Mul", ["y", "s"], ["z"]),
        N("Conv", ["z", "b"], ["out"]),
    ]
    made = quantised(model_of(nodes, [2, 3, 8, 8], ["out"], weights(a=(4, 3, 1, 1), b=(2, 4, 1, 1))), X)
    assert bytes_of(made) == {"x", "z"}


def test_attention_and_normalisation_stay_float() -> None:
    nodes = [
        N("MatMul", ["x", "q"], ["q0"]), N("Add", ["q0", "qb"], ["q1"]),
        N("MatMul", ["x", "k"], ["k1"]), N("MatMul", ["x", "v"], ["v1"]),
        N("Transpose", ["k1"], ["kt"], perm=[0, 2, 1]), N("MatMul", ["q1", "kt"], ["s"]), N("Softmax", ["s"], ["p"]),
        N("MatMul", ["p", "v1"], ["c"]), N("MatMul", ["c", "o"], ["o0"]), N("Add", ["ob", "o0"], ["o1"]),
        N("Add", ["o1", "x"], ["r"]), N("LayerNormalization", ["r", "g"], ["h"]),
        N("MatMul", ["h", "u"], ["u0"]), N("Gelu", ["u0"], ["u1"]), N("MatMul", ["u1", "d"], ["d0"]),
        N("Add", ["d0", "h"], ["out"]),
    ]  # fmt: skip
    w = weights(q=(8, 8), k=(8, 8), v=(8, 8), o=(8, 8), u=(8, 16), d=(16, 8), qb=(8,), ob=(8,), g=(8,))
    model = model_of(nodes, [2, 6, 8], ["out"], w)
    made, x = quantised(model, samples((2, 6, 8))), samples((2, 6, 8), 1, seed=5)[0]
    assert bytes_of(made) == {"x", "c", "h", "u1"}
    arrays = {t.name: t for t in made.graph.initializer}
    assert arrays["q_bias_quantized"].data_type == onnx.TensorProto.INT32 and "qb" not in arrays
    assert ratio(run_ort(model, {"x": x})["out"], run_ort(made, {"x": x})["out"]) > 30


def test_decomposed_layer_norm_is_left_alone() -> None:
    nodes = [
        N("MatMul", ["x", "a"], ["y"]), N("ReduceMean", ["y"], ["m"], axes=[-1]), N("Sub", ["y", "m"], ["c"]),
        N("Mul", ["c", "c"], ["c2"]),
        N("ReduceMean", ["c2"], ["v"], axes=[-1]), N("Add", ["v", "e"], ["ve"]), N("Sqrt", ["ve"], ["sd"]),
        N("Div", ["c", "sd"], ["n"]),
        N("Mul", ["n", "g"], ["h"]), N("MatMul", ["h", "b"], ["out"]),
    ]  # fmt: skip
    w = {**weights(a=(8, 8), b=(8, 8), g=(8,)), "e": np.float32(1e-5)}
    made = quantised(model_of(nodes, [2, 6, 8], ["out"], w, opset=13), samples((2, 6, 8)))
    assert bytes_of(made) == {"x", "h"}


def test_shared_weights_and_several_readers() -> None:
    nodes = [
        N("MatMul", ["x", "w"], ["a"]),
        N("Relu", ["a"], ["b"]),
        N("MatMul", ["b", "w"], ["c"]),
        N("Add", ["c", "a"], ["out"]),
    ]
    model = model_of(nodes, [4, 8], ["out", "b"], weights(w=(8, 8)))
    made, x = quantised(model, samples((4, 8))), samples((4, 8), 1, seed=3)[0]
    real, found = run_ort(model, {"x": x}), run_ort(made, {"x": x})
    assert ratio(real["out"], found["out"]) > 20 and ratio(real["b"], found["b"]) > 30


def test_layers_stay_float_by_name_number_and_ratio() -> None:
    model = residual()

    def floats(*entries: str) -> list[str]:
        report = quantise(model, X, Settings(threads=1, keep_float=KeepFloat.parse(entries))).report
        assert report.sqnr is not None
        return [x.node for x in report.layers if x.status == "float"]

    assert floats("stem", "f*") == ["stem", "fc"]
    report = quantise(model, X, Settings(threads=1)).report
    order = sorted(report.layers, key=lambda x: x.sqnr or 0)
    assert set(floats("2")) == {x.node for x in order[:2]}
    assert report.sqnr is not None and floats(f"auto:{report.sqnr - 0.1}") == []
    assert floats(f"auto:{report.sqnr + 3}") != []


def test_as_few_layers_stay_float_as_a_loss_by_a_metric_takes() -> None:
    model = residual()
    labels = np.concatenate([run_ort(model, {"x": x})["out"].argmax(axis=1) for x in X])

    def made(entry: str | KeepFloat) -> tuple[int, float]:
        keep = entry if isinstance(entry, KeepFloat) else KeepFloat.parse([entry], labels)
        report = quantise(model, X, Settings(threads=1, method=Method.entropy, keep_float=keep)).report
        assert report.loss is not None
        return len(report.layers) - len(report.quantised), report.loss

    loose, all_bytes = made("auto:kl:1000")
    assert loose == 0
    some, loss = made(f"auto:kl:{all_bytes / 2}")
    assert some > 0 and loss <= all_bytes / 2
    floats, drop = made("auto:accuracy:0")
    assert drop <= 0 and 0 <= floats < 5
    custom = KeepFloat(
        max_drop=0.0, metric=lambda outputs, known: float((outputs["out"].argmax(1) == known).mean()), labels=labels
    )
    assert made(custom) == (floats, drop)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["nothing*"], "fits no layer with weights: they are 'stem'"),
        (["*"], "keeps every layer float: nothing is left to quantise"),
        (["auto:much"], "takes a signal to noise ratio in dB, as auto:30, not 'auto:much'"),
        (["auto:200"], "cannot be met: with one quantised layer the outputs have"),
        (["2", "auto:0.1"], "a number of layers, auto:DB, or auto:METRIC:X, and one of them"),
        (["auto:25", "auto:kl:0.1"], "a number of layers, auto:DB, or auto:METRIC:X, and one of them"),
        (["auto:kl:small"], "auto:kl:X takes a largest loss, as auto:kl:0.005, not 'auto:kl:small'"),
        (["auto:f1:0.1"], "metric 'f1' is not known: expected kl, mse, cosine, accuracy"),
        (["auto:mse:-1"], "the largest drop is -1: give a loss of 0 or more"),
        (["auto:mse:0"], "auto:mse:0 cannot be met: with one quantised layer the loss is"),
        (["auto:accuracy:0.1"], "the metric accuracy takes labels: give a file, or an array 'labels'"),
    ],
)
def test_wrong_wishes_for_float_layers(entries: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantise(residual(), X, Settings(threads=1, keep_float=KeepFloat.parse(entries)))


def test_outputs_that_are_integers_are_not_compared() -> None:
    nodes = [N("MatMul", ["x", "w"], ["y"]), N("ArgMax", ["y"], ["out"], axis=1)]
    model = model_of(nodes, [4, 8], ["out"], weights(w=(8, 8)))
    assert quantise(model, samples((4, 8)), Settings(threads=1)).report.sqnr is None


def test_what_a_subgraph_reads_stays_float() -> None:
    inner = onnx.helper.make_graph([N("Neg", ["y"], ["n"])], "inner", [], [onnx.ValueInfoProto(name="n")])
    other = onnx.helper.make_graph([N("Abs", ["y"], ["a"])], "other", [], [onnx.ValueInfoProto(name="a")])
    nodes = [
        N("Relu", ["x"], ["y"]),
        N("MatMul", ["y", "w"], ["out"]),
        N("If", ["c"], ["z"], then_branch=inner, else_branch=other),
    ]
    w = {**weights(w=(8, 8)), "c": np.array(True)}
    model, x = model_of(nodes, [4, 8], ["out", "z"], w), samples((4, 8), 1)[0]
    made = quantised(model, samples((4, 8)))
    assert bytes_of(made) == {"y"}
    np.testing.assert_array_equal(run_ort(made, {"x": x})["z"], -np.maximum(x, 0))


def test_half_precision_is_refused_with_the_reason() -> None:
    nodes = [N("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16), N("MatMul", ["h", "w"], ["out"])]
    model = model_of(nodes, [4, 8], ["out"], {"w": weights(w=(8, 8))["w"].astype(np.float16)})
    with pytest.raises(UsageError, match=r"nothing to quantise .*its weights are float16, not float32"):
        quantise(model, samples((4, 8)))


def test_old_opsets_and_initializers_that_are_inputs() -> None:
    model = residual(opset=11)
    model.ir_version = 3
    model.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer)
    made = quantised(model, X)
    assert [v.name for v in made.graph.input] == ["x"]
    assert made.opset_import[0].version == 13
    x = samples((4, 3, 8, 8), 1, seed=7)[0]
    assert ratio(run_ort(model, {"x": x})["out"], run_ort(made, {"x": x})["out"]) > 25


def test_refusals() -> None:
    model = residual()
    with pytest.raises(UsageError, match="there are no calibration samples"):
        quantise(model, [])
    with pytest.raises(UsageError, match="holds NaN or infinity"):
        quantise(model, [np.full((1, 3, 8, 8), np.nan, np.float32)])
    with pytest.raises(UsageError, match=r"the model is quantised already \(DequantizeLinear node"):
        quantise(quantised(model, X), X)
    relu = model_of([N("Relu", ["x"], ["out"])], [1, 4], ["out"], {})
    with pytest.raises(UsageError, match="no Conv, Gemm or MatMul of float32 data and constant weights"):
        quantise(relu, samples((1, 4)))
    log = model_of([N("Log", ["x"], ["y"]), N("MatMul", ["y", "w"], ["out"])], [1, 4], ["out"], weights(w=(4, 4)))
    with pytest.raises(ModelError, match="value 'y' is NaN or infinite on the calibration data"):
        quantise(log, [np.zeros((1, 4), np.float32)])
    with pytest.raises(UsageError, match="the method 'best' is not known: expected minmax, percentile, mse, entropy"):
        Settings(method="best")  # type: ignore[arg-type]


def test_the_public_function_takes_paths_and_saves(tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=np.concatenate(X))
    found = sparsec.quantise(tmp_path / "m.onnx", tmp_path / "calib.npz")
    found.save(tmp_path / "q.onnx")
    assert found.report.samples == 16 and len(found.report.quantised) == 5
    saved = onnx.load(tmp_path / "q.onnx")
    assert saved == found.proto
    again = sparsec.quantise(tmp_path / "m.onnx", tmp_path / "calib.npz")
    assert again.proto.SerializeToString(deterministic=True) == found.proto.SerializeToString(deterministic=True)
