"""Calibration inputs from every source that users have, and every mistake named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.data import Input, model_inputs, read_samples
from tests.reference import make_model

IMAGE = (Input("x", np.dtype(np.float32), (None, 2, 3)),)
SINGLE = (Input("x", np.dtype(np.float32), (1, 2, 3)),)
TOKENS = (Input("ids", np.dtype(np.int64), (None, 4)), Input("mask", np.dtype(np.int64), (None, 4)))
RNG = np.random.default_rng(3)


def test_inputs_of_a_model_are_those_without_a_default() -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    model = make_model([node], {"x": (TensorProto.FLOAT, ["n", 3]), "w": (TensorProto.FLOAT, [3])}, ["y"], {"w": np.ones(3, "f")})
    assert model_inputs(model) == (Input("x", np.dtype(np.float32), (None, 3)),)


def test_every_source_gives_the_same_samples(tmp_path: Path) -> None:
    x = RNG.standard_normal((5, 2, 3)).astype(np.float32)
    np.savez(tmp_path / "all.npz", x=x)
    np.save(tmp_path / "all.npy", x)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, one in enumerate(x):
        np.save(folder / f"{i}.npy", one)
    (folder / "notes.txt").write_text("not a sample")
    sources = [tmp_path / "all.npz", str(tmp_path / "all.npy"), folder, {"x": x}, iter(x), [{"x": x[:2]}, {"x": x[2:]}]]
    for source in sources:
        samples = read_samples(source, IMAGE, batch=2)
        np.testing.assert_array_equal(np.concatenate([b["x"] for b in samples]), x)
        assert max(len(b["x"]) for b in samples) <= 2


def test_a_fixed_batch_is_kept() -> None:
    x = RNG.standard_normal((6, 2, 3)).astype(np.float32)
    assert [b["x"].shape for b in read_samples({"x": x}, SINGLE)] == [(1, 2, 3)] * 6
    three = (Input("x", np.dtype(np.float32), (3, 2, 3)),)
    assert [b["x"].shape for b in read_samples({"x": x}, three)] == [(3, 2, 3)] * 2
    with pytest.raises(UsageError, match="input 'x' has 5 samples, the model takes 3 at a time"):
        read_samples({"x": x[:5]}, three)


def test_integers_convert_where_they_lose_nothing() -> None:
    ids = np.arange(8).reshape(2, 4)
    (batch,) = read_samples({"ids": ids.astype(np.int32), "mask": ids > 3}, TOKENS)
    assert batch["ids"].dtype == batch["mask"].dtype == np.int64
    np.testing.assert_array_equal(batch["ids"], ids)


NAN = np.full((1, 2, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("feeds", "inputs", "message"),
    [
        ({"y": NAN}, IMAGE, r"no array for input 'x' \(float32\[\?, 2, 3\]\), it has 'y'"),
        ({"x": np.zeros((4, 3, 3), "f")}, IMAGE, r"input 'x' is \[4, 3, 3\], the model takes float32\[\?, 2, 3\]"),
        ({"x": np.zeros(3, "f")}, IMAGE, r"input 'x' is \[3\], the model takes"),
        ({"x": NAN}, IMAGE, "input 'x' holds NaN or infinity"),
        ({"x": np.full((1, 2, 3), 1e300)}, IMAGE, "input 'x' holds NaN or infinity"),
        ({"x": np.zeros((1, 2, 3), int)}, IMAGE, "input 'x' is int64, the model takes float32"),
        ({"x": np.zeros((1, 2, 3), str)}, IMAGE, "input 'x' is <U1, the model takes float32"),
        ({"x": np.zeros((0, 2, 3), "f")}, IMAGE, "input 'x' has 0 samples"),
        (
            {"ids": np.zeros((2, 4), int), "mask": np.zeros((3, 4), int)},
            TOKENS,
            r"different numbers of samples \('ids' 2, 'mask' 3\)",
        ),
        ([np.zeros((1, 4), int)], TOKENS, r"calibration sample 0 is one array and the model has 2 inputs: .*'ids', 'mask'"),
        ([], IMAGE, "there are no calibration samples"),
    ],
)
def test_mistakes_are_named(feeds: object, inputs: tuple[Input, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_samples(feeds, inputs)  # type: ignore[arg-type]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none.npz"):
        read_samples(tmp_path / "none.npz", IMAGE)
    with pytest.raises(UsageError, match=r"holds no \.npz or \.npy files"):
        read_samples(tmp_path, IMAGE)
    (tmp_path / "bad.npy").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"cannot read .*bad.npy"):
        read_samples(tmp_path, IMAGE)
    small = (Input("ids", np.dtype(np.int8), (None, 1)),)
    with pytest.raises(UsageError, match="input 'ids' is int64 and loses values as int8"):
        read_samples({"ids": np.array([[300]])}, small)


def test_a_sequence_input_is_refused() -> None:
    info = onnx.ValueInfoProto(name="s", type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))
    model = onnx.ModelProto()
    model.graph.input.append(info)
    with pytest.raises(UsageError, match="input 's' is not a tensor"):
        model_inputs(model)
