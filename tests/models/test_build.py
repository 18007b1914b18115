"""Every model builds, is deterministic, and its outputs are sane and depend on its inputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import models

ort = pytest.importorskip("onnxruntime")


def session(model: onnx.ModelProto) -> Any:
    """Open the model in onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, *seeds: int) -> list[list[NDArray[Any]]]:
    """Run the model under onnxruntime on the inputs of each seed."""
    opened = session(model)
    return [opened.run(None, models.inputs(model, seed)) for seed in seeds]


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def digest(model: onnx.ModelProto) -> str:
    """Hash the graph and the first 4 KiB of every initializer (all bytes would take seconds on the large models)."""
    state = hashlib.sha256()
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        state.update(part.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        state.update(f"{tensor.name}{list(tensor.dims)}{tensor.data_type}".encode() + tensor.raw_data[:4096])
    return state.hexdigest()


# Trainable parameters as published for the reference implementations. MobileNetV2 has 17,056 fewer than torchvision's
# 3,504,872, one a channel: the folded normalisation leaves one bias of each scale and bias.
PARAMETERS = {
    "alexnet": 60_965_224,
    "bert_base": 109_482_240,
    "inception_v3": 23_834_568,
    "mobilenet_v2": 3_487_816,
    "resnet50": 25_557_032,
    "squeezenet": 1_235_496,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vit_b16": 86_567_656,
}
STATISTICS = ("running_mean", "running_var", "_rm_0", "_riv_0")

# Over 300 MB of weights: building and running one takes seconds.
LARGE = ("bert_base", "vgg16", "vgg19", "vit_b16", "zfnet512")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in models.names()],
)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Build each model once for the tests of this file."""
    yield request.param, models.build(request.param)


def test_outputs_depend_on_the_input(built: tuple[str, onnx.ModelProto]) -> None:
    """Two inputs give clearly different, finite outputs."""
    name, model = built
    first, second = run(model, 1, 2)
    softmax = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    for value, a, b in zip(model.graph.output, first, second, strict=True):
        assert np.isfinite(a).all() and np.isfinite(b).all()
        assert distance(a, b) > 1e-2, f"{name}: {value.name} hardly depends on the input"
        if value.name in softmax:
            assert a.max() < 0.95, f"{name}: saturated"
            assert np.ptp(a) > 1e-4, f"{name}: uniform"
        else:
            assert 1e-3 < a.std() < 1e3, f"{name}: {value.name} is out of range"


def test_building_twice_gives_the_same_model(built: tuple[str, onnx.ModelProto]) -> None:
    """The seed decides the model; large ones are compared with one layer, or through their smaller relatives' code."""
    name, model = built
    options: dict[str, Any] = {}
    if name in LARGE:
        if "layers" not in models.describe(name).options:
            pytest.skip("its weights come from the same code as those of smaller models, and take seconds")
        options = {"layers": 1}
        model = models.build(name, **options)
    assert digest(model) == digest(models.build(name, **options))


def test_description_matches_the_model(built: tuple[str, onnx.ModelProto]) -> None:
    """The described inputs are the graph inputs without defaults, and the checker accepts the graph."""
    name, model = built
    info = models.describe(name)
    given = {tensor.name for tensor in model.graph.initializer}
    shapes = tuple(
        (v.name, tuple(d.dim_value for d in v.type.tensor_type.shape.dim)) for v in model.graph.input if v.name not in given
    )
    assert info.name == name
    assert set(info.inputs) == set(shapes)
    if model.ByteSize() < 200e6:
        onnx.checker.check_model(model)


def test_parameter_count(built: tuple[str, onnx.ModelProto]) -> None:
    """The architectures have the published number of parameters."""
    name, model = built
    if name not in PARAMETERS:
        pytest.skip("no published count for this layout")
    used = {value for node in model.graph.node for value in node.input}
    trained = [
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name in used and not tensor.name.endswith(STATISTICS)
    ]
    assert sum(trained) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet50", "inception_v1", "shufflenet", "mobilenet_v2"])
def test_batch(name: str) -> None:
    """A batch of images gives one output row each."""
    model = models.build(name, batch=2)
    (output,) = run(model, 1)[0]
    assert output.shape == (2, 1000)
    assert distance(output[0], output[1]) > 1e-2


def test_small_models_are_byte_identical() -> None:
    """The serialized bytes are equal for equal seeds and differ for others."""
    first, again, other = (models.build("mobilenet_v2", seed=s).SerializeToString(deterministic=True) for s in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("form", "opset"), [("torchscript", None), ("torchscript", 13), ("dynamo", None), ("dynamo", 20)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_transformer_forms(form: str, opset: int | None, dynamic: bool) -> None:
    """Both exporters' forms run with static and dynamic extents, at several opsets, and compute the same function."""
    options: dict[str, Any] = {"batch": 2, "dynamic_batch": dynamic, "dynamic_seq": dynamic}
    model = models.build("tiny_transformer", form=form, opset=opset, **options)
    onnx.checker.check_model(model)
    feeds = models.inputs(model, 1, dims={"batch": 2, "sequence": 12})
    assert feeds["input_ids"].shape == (2, 12)
    results = [session(m).run(None, feeds) for m in (model, models.build("tiny_transformer", batch=2))]
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["torchscript", "dynamo"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_vit_forms(form: str, dynamic: bool) -> None:
    """Both exporters' forms run with a static and a dynamic batch."""
    model = models.build("vit_b16", batch=2, layers=1, form=form, dynamic_batch=dynamic)
    onnx.checker.check_model(model)
    (logits,) = session(model).run(None, models.inputs(model, 1, dims={"batch": 2}))
    assert logits.shape == (2, 1000)
    assert distance(logits[0], logits[1]) > 1e-2


def test_mistakes_are_named() -> None:
    """Unknown models and options are refused with the known ones."""
    with pytest.raises(ValueError, match="unknown model 'resnet51'"):
        models.build("resnet51")
    with pytest.raises(TypeError, match=r"resnet50 has no option layers \(its options: none\)"):
        models.build("resnet50", layers=3)
    with pytest.raises(ValueError, match="unknown form 'jit'"):
        models.build("bert_base", form="jit")
    with pytest.raises(ValueError, match="opset of the dynamo form must be between 17 and 23, not 14"):
        models.build("vit_b16", form="dynamo", opset=14)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        models.build("resnet50", batch=0)
