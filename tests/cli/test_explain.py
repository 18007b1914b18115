"""`sparsec explain`: what it says of zeros that are used and of zeros that are not, and the same as JSON."""

import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.compiler.cli import main
from sparsec.compiler.explain import measured_sums, rows_of, sentence, slower
from sparsec.compiler.report import CandidateInfo, Layer
from tests.machine import needs

Out = pytest.CaptureFixture[str]
Golden = Callable[[str, str], None]
FIXED = ["--target", "x86_64+avx512f", "-q"]  # predictions of a machine that need not be this one


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def weights(name: str, shape: tuple[int, ...], keep: float, rows: int, dtype: type = np.float32) -> onnx.TensorProto:
    """Random weights whose first axis shares its zeros in groups of `rows`, with `keep` of the inputs."""
    rng = np.random.default_rng(len(name) + sum(shape))
    mask = rng.random((-(-shape[0] // rows), *shape[1:])) < keep
    values = rng.standard_normal(shape) * np.repeat(mask, rows, axis=0)[: shape[0]]
    return numpy_helper.from_array(values.astype(dtype), name)


def mixed() -> onnx.ModelProto:
    """A layer for every case: used, filled in, beaten by winograd, depthwise, other types, few zeros, computed weights."""
    x = ["x", "x64", "t", "d"]
    nodes = [
        helper.make_node("Conv", ["x", "used.w"], ["a"], name="used"),
        helper.make_node("Conv", ["x", "filled.w"], ["blocked"], name="filled"),
        helper.make_node("Conv", ["blocked", "after.w"], ["b"], name="after", pads=[1] * 4),
        helper.make_node("Conv", ["x", "blocks.w"], ["c"], name="blocks", pads=[1] * 4),
        helper.make_node("Conv", ["x", "taps.w"], ["e"], name="taps", pads=[1] * 4),
        helper.make_node("Conv", ["x", "depthwise.w"], ["f"], name="depthwise", pads=[1] * 4, group=64),
        helper.make_node("Conv", ["x64", "double.w"], ["g"], name="double"),
        helper.make_node("Conv", ["x", "few.w"], ["h"], name="few"),
        helper.make_node("ConvTranspose", ["x", "transposed.w"], ["i"], name="transposed"),
        helper.make_node("MatMul", ["t", "batch.w"], ["j"], name="batch"),
        helper.make_node("MatMul", ["d", "product.w"], ["k"], name="product"),
    ]
    initializers = [
        weights("used.w", (64, 64, 1, 1), 0.25, 32),
        weights("filled.w", (64, 64, 1, 1), 0.8, 1),
        weights("after.w", (64, 64, 3, 3), 1.0, 1),
        weights("blocks.w", (64, 64, 1, 1), 0.25, 32),
        weights("taps.w", (64, 64, 3, 3), 0.5, 16),
        weights("depthwise.w", (64, 1, 3, 3), 0.5, 1),
        weights("double.w", (16, 8, 1, 1), 0.5, 16, np.float64),
        weights("few.w", (64, 64, 1, 1), 0.95, 1),
        weights("transposed.w", (64, 16, 2, 2), 0.25, 1),
        weights("batch.w", (2, 32, 32), 0.25, 1),
        weights("product.w", (64, 48), 0.25, 1),
    ]
    blocks = numpy_helper.to_array(initializers[3]) * np.ones((1, 1, 3, 3), np.float32)
    initializers[3] = numpy_helper.from_array(blocks, "blocks.w")
    shapes = {"x": (1, 64, 28, 28), "x64": (1, 8, 4, 4), "t": (2, 8, 32), "d": (5, 64)}
    inputs = [helper.make_tensor_value_info(n, TensorProto.DOUBLE if n == "x64" else TensorProto.FLOAT, shapes[n]) for n in x]
    last = [n for n in nodes if n.name != "filled"]
    outputs = [helper.make_tensor_value_info(n.output[0], TensorProto.DOUBLE if n.name == "double" else 1, None) for n in last]
    graph = helper.make_graph(nodes, "mixed", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def cases() -> str:
    onnx.save(mixed(), "mixed.onnx")
    return "mixed.onnx"


def explained(*arguments: str) -> dict[str, dict[str, Any]]:
    with redirect_stdout(StringIO()) as out:
        assert main(["explain", *arguments, "--json"]) == 0
    return {layer["node"]: layer for layer in json.loads(out.getvalue())["layers"]}


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("cases") / "mixed.onnx"
    onnx.save(mixed(), path)
    return explained(str(path), *FIXED)


def test_every_reason_in_words(cases: str, golden: Golden, capsys: Out) -> None:
    assert main(["explain", cases, *FIXED]) == 0
    golden("explain/mixed.txt", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("two-of-four", ["--pattern", "2:4"]),
        ("shared-rows", ["--pattern", "2:4/rows=16", "--layer", "/pointwise/*=block:8x8@50%"]),
        ("dense", ["--all"]),
    ],
)
def test_a_model_pruned_on_the_way(name: str, arguments: list[str], golden: Golden, capsys: Out) -> None:
    onnx.save(models.build("tiny_cnn"), "tiny.onnx")
    assert main(["explain", "tiny.onnx", *FIXED, *arguments]) == 0
    golden(f"explain/{name}.txt", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("used", r"^$"),
        ("blocks", r"^$"),
        (
            "filled",
            r"keeps 8\d %; panels of 32 outputs fill in to 100 % of the weight rows: sparse panels .* us, but dense panels ",
        ),
        ("taps", r"keeps 50 %; panels of \d+ outputs read 50 % of the weight rows: sparse panels predicted .*, but winograd F\("),
        ("depthwise", r", but it is depthwise: every output reads one channel, and no kernel for that leaves zeros out$"),
        ("double", r", but only two-dimensional float32 convolutions of constant weights have sparse kernels$"),
        ("few", r"^only 6 % of its weights are zero: sparse kernels are tried from 10 % on$"),
        ("transposed", r"^no pattern keeps 2\d %, but no kernel for ConvTranspose leaves zeros out$"),
        ("batch", r", but its weights are a batch of matrices, and no kernel for that leaves zeros out$"),
    ],
)
def test_the_reason_of(layer: str, reason: str, layers: dict[str, dict[str, Any]]) -> None:
    found = layers[layer]
    assert re.search(reason, found["why"]), found["why"]
    assert found["sparse"] == (reason == "^$") == (found["predicted_gain"] > 1)


def test_candidates_are_the_chosen_one_and_then_by_time(layers: dict[str, dict[str, Any]]) -> None:
    for layer in layers.values():
        times = [c["us"] for c in layer["candidates"]]
        assert times[0] == layer["predicted_us"] and times[1:] == sorted(times[1:])


PRUNING = ["--pattern", "2:4/rows=16"]


def small() -> str:
    """Two convolutions: quick to compile."""
    nodes = [
        helper.make_node("Conv", ["x", "first.w"], ["y"], name="first"),
        helper.make_node("Conv", ["y", "second.w"], ["z"], name="second"),
    ]
    x, z = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64, 6, 6]) for n in "xz")
    dense = [weights(f"{n.name}.w", (64, 64, 1, 1), 1.0, 1) for n in nodes]
    graph = helper.make_graph(nodes, "small", [x], [z], dense)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "small.onnx")
    return "small.onnx"


@needs("gcc")
def test_a_folder_says_the_same_as_its_model(capsys: Out) -> None:
    assert main(["compile", small(), "-o", "out", *PRUNING, *FIXED, "--no-verify"]) == 0
    capsys.readouterr()
    texts = []
    for subject in (["small.onnx", *PRUNING, *FIXED], ["out", "-q"]):
        for form in ([], ["--all"], ["--json"]):
            assert main(["explain", *subject, *form]) == 0
            texts.append(capsys.readouterr().out.replace("small.onnx", "out"))
    assert texts[:3] == texts[3:] and "first: its weights hold no zeros; not pruned: the first convolution" in texts[0]


@needs("gcc")
@pytest.mark.parametrize("target", ["host", "generic"])
def test_measuring_times_both_forms(target: str, capsys: Out) -> None:
    options = [*PRUNING, "--target", target, "-q"]
    assert main(["compile", small(), "-o", "out", *options, "--no-verify"]) == 0
    assert main(["explain", "out", "--measure", "--rounds", "1", "-q"]) == 0
    out = capsys.readouterr().out
    assert "measured us  gain" in out and "In all, measured: " in out
    assert main(["explain", "small.onnx", *options, "--measure", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["totals"]) == {"predicted", "measured"} and found["totals"]["measured"]["gain"] > 0
    assert [x["node"] for x in found["layers"]] == ["first", "second"] and found["layers"][1]["sparse"]
    assert all(x["measured_us"] > 0 and x["measured_gain"] > 0 for x in found["layers"])


def test_sparse_layers_that_are_slower_are_said_to_be() -> None:
    candidates = (CandidateInfo(kernel="sparse panels", us=1.0, sparse=True), CandidateInfo(kernel="dense", us=2.0))
    layer = Layer(node="n", op="Conv", density=0.5, candidates=candidates, predicted_us=1.0, dense_us=2.0)
    rows = rows_of([layer], measured=[4.0], dense={"n": 3.0})
    assert slower(rows) == {"sparse panels predicted 2.00 times as fast as dense, measured 0.75": ["n"]}
    assert sentence(measured_sums(rows, 3.0), "measured") == (
        "measured: 4 us, in dense form 3 us: 1.33 times slower. Sparse layers take 100 % of the time; more zeros in them cannot "
        "shorten the other 0 us"
    )
    assert slower(rows_of([layer], measured=[2.0], dense={"n": 3.0})) == {} == slower(rows_of([layer]))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["EMPTY"], 3, "error: empty holds no readable report.json: compile the model into it first"),
        (["OUT", "--pattern", "2:4"], 2, "error: out is compiled already: give the .onnx file to explain it with other options"),
        (["OUT", "--measure"], 2, "error: the model that out was compiled from is not there (gone.onnx): give the .onnx file"),
        (
            ["MODEL", "--measure", "--target", "aarch64+neon"],
            2,
            "error: aarch64+neon does not run on this machine: leave --measure",
        ),
        (["MODEL", "--target", "z80"], 2, "error: target 'z80' is not known"),
        (["MODEL", "--pattern", "2by4"], 2, "error: pattern '2by4' is not known"),
        (["nowhere.onnx"], 2, "error: cannot read 'nowhere.onnx'"),
    ],
)
@needs("gcc")
def test_mistakes(arguments: list[str], status: int, message: str, capsys: Out) -> None:
    Path("empty").mkdir()
    if "OUT" in arguments:
        Path("gone.onnx").write_bytes(Path(small()).read_bytes())
        assert main(["compile", "gone.onnx", "-o", "out", "-q", "--no-verify", "--target", "generic"]) == 0
        Path("gone.onnx").unlink()
    capsys.readouterr()
    names = {"EMPTY": "empty", "OUT": "out", "MODEL": small()}
    assert main(["explain", *(names.get(a, a) for a in arguments), "-q"]) == status
    assert message in capsys.readouterr().err


@needs("gcc")
def test_measuring_wants_the_model_as_it_was(capsys: Out) -> None:
    Path("copy.onnx").write_bytes(Path(small()).read_bytes())
    assert main(["compile", "copy.onnx", "-o", "out", "-q", "--no-verify", "--target", "generic"]) == 0
    onnx.save(models.build("tiny_cnn", seed=5), "copy.onnx")
    assert main(["explain", "out", "--measure", "-q"]) == 2
    assert "error: copy.onnx is not the model any more that out was compiled from" in capsys.readouterr().err


@needs("gcc")
def test_kernels_restrict_the_choice(cases: str, capsys: Out) -> None:
    assert main(["compile", cases, "-o", "out", "--kernels", "panels", "--no-verify", *FIXED]) == 0
    capsys.readouterr()
    found = explained("out", "-q")
    kernels = {node: layer["candidates"][0]["kernel"] for node, layer in found.items()}
    assert {kernels[n] for n in ("used", "filled", "blocks", "taps", "product")} == {"dense panels"}
    assert (kernels["depthwise"], kernels["double"]) == ("depthwise", "direct loops")
    assert found["used"]["why"].endswith(", but no sparse kernel was considered (--kernels)")
    assert json.loads(Path("out/report.json").read_text())["options"]["kernels"] == ["panels"]


@needs("gcc")
def test_a_gain_wants_a_dense_kernel_to_compare_with(capsys: Out) -> None:
    assert main(["compile", small(), "-o", "out", *PRUNING, "--kernels", "sparse-panels", "--no-verify", *FIXED]) == 0
    capsys.readouterr()
    found = explained("out", "-q")
    assert (found["second"]["predicted_gain"], found["first"]["predicted_gain"]) == (None, 1.0)
    assert [c["kernel"] for c in found["second"]["candidates"]] == ["sparse panels"]
    assert main(["explain", "out", "-q"]) == 0
    assert "second  2:4/rows=16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "panels,wings",
            "error: --kernels: there is no family 'wings' of kernels: give some of panels, sparse-panels, planar, winograd, ",
        ),
        ("panels,", "error: --kernels takes families with commas, as panels,winograd, not 'panels,'"),
    ],
)
def test_unknown_families(text: str, message: str, cases: str, capsys: Out) -> None:
    assert main(["compile", cases, "--kernels", text, "-q"]) == 2
    assert message in capsys.readouterr().err
