"""Reading models: files that are no models, external data, limits on sizes."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import models
from sparsec.compiler.errors import LimitError, ModelError, SparsecError, UnsupportedError, UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.limits import Limits
from tests.reference import check_model, make_model

Array = np.ndarray[Any, Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def add() -> onnx.ModelProto:
    """y = x + w."""
    return make_model([helper.make_node("Add", ["x", "w"], ["y"], name="add")], {"x": X}, ["y"], {"w": X})


def same(a: Graph, b: Graph) -> bool:
    return (a.inputs, a.outputs, a.nodes, a.types) == (b.inputs, b.outputs, b.nodes, b.types) and all(
        np.array_equal(v, b.constants[k]) for k, v in a.constants.items()
    )


def test_every_kind_of_source(tmp_path: Path) -> None:
    """A path, its text, bytes, a ModelProto and an onnx-ir Model give the same graph, and nothing that was given changes."""
    model = models.build("tiny_cnn")
    data = model.SerializeToString(deterministic=True)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    ours = ir.from_proto(model)
    graphs = [import_model(s) for s in (path, str(path), data, model, ours)]
    assert all(same(graphs[0], g) for g in graphs[1:])
    assert model.SerializeToString(deterministic=True) == data
    assert same(import_model(ours), graphs[0])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\x00\x01\x02 not a model", "is not an ONNX model"),
        (b"#!/bin/sh\nexit 1\n", "is not an ONNX model"),
        (models.build("tiny_cnn").SerializeToString()[:-700], "is not an ONNX model"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        import_model(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ModelError, match=message):
        import_model(content)


def test_every_truncation_is_refused() -> None:
    """Whatever is cut off, the model is refused or is whole as far as its outputs go."""
    data = add().SerializeToString()
    whole = import_model(data)
    for n in range(len(data)):
        with suppress(ModelError, UnsupportedError):
            assert same(import_model(data[:n]), whole)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path, "is a directory"),
        (tmp_path / "none.onnx", "No such file"),
        (tmp_path / "fifo", "not a regular file"),
        ("a\0b", "not a path"),
    ):
        with pytest.raises(UsageError, match=message):
            import_model(path)


def test_file_limits(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(add().SerializeToString())
    with pytest.raises(LimitError, match=r"more than the limit of 10 .*--limits file-bytes"):
        import_model(path, limits=Limits.parse("file-bytes=10"))
    with path.open("r+b") as f:
        f.truncate(3 << 30)  # sparse: takes no space
    with pytest.raises(ModelError, match="protobuf message cannot have more than 2 GiB"):
        import_model(path)


def external(folder: Path, **entries: Any) -> Path:
    """y = x + w with w's data described by `entries` (default: 24 bytes of w.bin)."""
    model = add()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "w.bin").write_bytes(bytes(16) + X.tobytes())
    return folder / "model.onnx"


def test_external_data_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path, offset=16, length=24)
    monkeypatch.chdir(tmp_path)
    for source in (path, "model.onnx"):
        graph = import_model(source)
        np.testing.assert_array_equal(interpret(graph, {"x": X})["y"], 2 * X)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "v.bin").write_bytes(X.tobytes())
    (tmp_path / "link").symlink_to("inside/v.bin")
    np.testing.assert_array_equal(interpret(import_model(external(tmp_path, location="link")), {"x": X})["y"], 2 * X)


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"location": "none.bin"}, "missing or not a regular file"),
        ({"location": "."}, "missing or not a regular file"),
        ({"location": ""}, "must be relative"),
        ({"location": "/etc/passwd"}, "must be relative"),
        ({"location": "../secret.bin"}, "leads out of the model's folder"),
        ({"location": "sub/../../secret.bin"}, "leads out of the model's folder"),
        ({"location": "link"}, "leads out of the model's folder"),
        ({"location": "folder/secret.bin"}, "leads out of the model's folder"),
        ({"offset": 17}, "needs 24 bytes at offset 17 of 'w.bin', which has only 40"),
        ({"offset": -1}, "'w' has external data of offset '-1'"),
        ({"offset": 1 << 62}, "which has only 40"),
        ({"length": 23}, "needs 24 bytes, its external data has 23"),
        ({"length": 1 << 62}, "needs 24 bytes, its external data has"),
        ({"length": -24}, "'w' has external data of length '-24'"),
        ({"offset": "x"}, "'w' has external data of offset 'x': expected a count of bytes"),
    ],
)
def test_external_data_that_lies(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    (folder / "link").symlink_to("../secret.bin")
    (folder / "folder").symlink_to("..")
    with pytest.raises(ModelError, match=message):
        import_model(external(folder, **entries))


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    path = external(tmp_path)
    with pytest.raises(ModelError, match=r"'w' has its data in 'w.bin', but the model was given in memory: give the path"):
        import_model(path.read_bytes())
    with pytest.raises(LimitError, match=r"external data have more than .*file-bytes"):
        import_model(path, limits=Limits(max_file_bytes=path.stat().st_size + 39))


def damaged(change: Any) -> onnx.ModelProto:
    model = add()
    change(model)
    return model


def first_dim(m: onnx.ModelProto) -> Any:
    return m.graph.input[0].type.tensor_type.shape.dim[0]


def second_output(m: onnx.ModelProto) -> None:
    m.graph.output.append(m.graph.output[0])


def duplicate_definition(m: onnx.ModelProto) -> None:
    m.graph.node.append(helper.make_node("Relu", ["x"], ["y"], name="again"))


def cycle(m: onnx.ModelProto) -> None:
    m.graph.node[0].input[1] = "b"
    m.graph.node.append(helper.make_node("Relu", ["y"], ["b"], name="back"))


def negative_dims(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].dims[0] = -2


def sparse(m: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    m.graph.sparse_initializer.append(helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [4]))


def not_utf8(m: onnx.ModelProto) -> None:
    m.ParseFromString(m.SerializeToString().replace(b"add", b"a\xff\xfe"))


@pytest.mark.parametrize(
    "change, kind, message",
    [
        (lambda m: m.graph.ClearField("output"), ModelError, "the graph has no outputs"),
        (lambda m: m.ClearField("graph"), ModelError, "the graph has no outputs"),
        (second_output, ModelError, "two graph outputs are called 'y'"),
        (duplicate_definition, ModelError, r"'y' is defined by node 'add' \(Add\) and again by node 'again' \(Relu\)"),
        (lambda m: m.graph.input.append(m.graph.input[0]), ModelError, "two graph inputs are called 'x'"),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), ModelError, "two initializers are called 'w'"),
        (cycle, ModelError, "cycle through nodes 'add', 'back'|cycle through nodes 'back', 'add'"),
        (lambda m: m.ClearField("opset_import"), ModelError, "does not say which opset"),
        (lambda m: setattr(m.opset_import[0], "version", 6), UnsupportedError, "uses opset 6, the oldest supported is 7"),
        (lambda m: setattr(m.opset_import[0], "version", 999), UnsupportedError, "uses opset 999, the newest"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 77), ModelError, "unknown element type .77"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 17), UnsupportedError, "'w' has element type FLOAT8E4M3FN"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 8), SparsecError, "'w' has element type STRING"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 14), UnsupportedError, "'w' has element type COMPLEX64"),
        (negative_dims, ModelError, r"'w' has shape \[-2, 3\]: extents cannot be negative"),
        (lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"), ModelError, r"data of initializer 'w' does not fit"),
        (lambda m: m.graph.initializer[0].ClearField("raw_data"), ModelError, "initializer 'w' holds no data"),
        (lambda m: m.graph.initializer[0].dims.extend([1 << 62, 1 << 62]), LimitError, "initializer 'w'|tensor 'w' of type"),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 100), LimitError, "has rank 102, more than the limit of 16"),
        (sparse, UnsupportedError, "'s' is a sparse tensor"),
        (lambda m: m.graph.node[0].input.__setitem__(1, "nowhere"), ModelError, "'add' .Add. reads 'nowhere', which no"),
        (lambda m: m.graph.node[0].ClearField("input"), ModelError, "node 'add' .Add. is malformed|node 'add'"),
        (lambda m: setattr(m.graph.output[0], "name", "nowhere"), ModelError, "graph output 'nowhere' is not defined"),
        (lambda m: m.graph.input[0].type.ClearField("tensor_type"), ModelError, "input 'x' has no type"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8), UnsupportedError, "'x' has element type STRING"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 17), UnsupportedError, "'x' has element type FLOAT8"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", -5), ModelError, "dimension 0 .* is -5"),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 1 << 62),
            LimitError,
            "tensor 'x' of type",
        ),
        (lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent(), SparsecError, "malformed|'x'"),
        (not_utf8, ModelError, "not UTF-8 text"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Add\x1b[2J\n"), ModelError, r"control characters: 'Add\\x1b\[2J\\n'"),
        (lambda m: setattr(m.graph.node[0], "op_type", ""), UnsupportedError, "operator +is not supported"),
    ],
)
def test_malformed_models(change: Any, kind: type[SparsecError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        import_model(damaged(change))
    assert caught.value.exit_code in (3, 4, 7) and len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_a_bad_weight_that_nothing_reads_does_no_harm() -> None:
    model = add()
    model.graph.initializer.append(helper.make_tensor("unused", onnx.TensorProto.STRING, [1], ["text"]))
    assert set(import_model(model).constants) == {"w"}


def test_what_value_info_says_is_not_believed() -> None:
    model = add()
    for name, dims in (("y", [7, 7, 7]), ("w", [1])):
        model.graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT8, dims))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.BOOL, [1, 2, 3, 4]))
    assert str(import_model(model).types["y"]) == "f32[2,3]"


def test_outputs_that_are_inputs_or_weights() -> None:
    """They may even declare another shape for the input."""
    model = make_model([], {"x": X}, ["x", "w"], {"w": X})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 9]))
    graph = import_model(model)
    assert graph.inputs == ("x",) and str(graph.types["x"]) == "f32[2,3]"
    out = interpret(graph, {"x": X})
    np.testing.assert_array_equal(out["x"], X)
    np.testing.assert_array_equal(out["w"], X)


def test_names_may_be_missing_repeated_or_odd() -> None:
    """Nodes without names, with equal names, and with a value's name; unused inputs stay; inputs with defaults are weights."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], name="twin"),
        helper.make_node("Relu", ["b"], ["c"], name="twin"),
        helper.make_node("Add", ["c", "w"], ['d */\n"%s'], name="x"),
        helper.make_node("Relu", ['d */\n"%s'], ["y"]),
    ]
    model = make_model(nodes, {"x": X, "idle": X, "w": X}, ["y"], {"w": X})
    graph = import_model(model)
    assert graph.inputs == ("x", "idle") and len({n.name for n in graph.nodes}) == 5
    np.testing.assert_array_equal(interpret(graph, {"x": X, "idle": X})["y"], 2 * X)


def test_nodes_in_any_order() -> None:
    nodes = [helper.make_node("Add", ["a", "w"], ["y"], name="second"), helper.make_node("Relu", ["x"], ["a"], name="first")]
    graph = import_model(make_model(nodes, {"x": X}, ["y"], {"w": X}))
    assert [n.name for n in graph.nodes] == ["first", "second"]


def test_limits_from_text() -> None:
    assert Limits.parse("tensor-bytes=2k, nodes=7") == Limits(max_tensor_bytes=2048, max_nodes=7)
    assert Limits.parse("") == Limits()
    for text in ("tensor-bytes", "frobs=1", "nodes=-1", "nodes=1e3", "nodes=1,nodes=2", "nodes=" + "9" * 30):
        with pytest.raises(UsageError, match="--limits"):
            Limits.parse(text)
    with pytest.raises(LimitError, match="more than the limit of 0"):
        import_model(add(), limits=Limits(max_nodes=0))


def test_the_default_domain_may_be_spelled_out() -> None:
    model = add()
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"
    assert same(import_model(model), import_model(add()))


def test_names_that_look_like_the_importers_own() -> None:
    """Provisional names begin with NUL; a model may use such names too."""
    names = [f"\0{i}" for i in range(1, 9)]
    nodes = [helper.make_node("Softplus", [a], [b]) for a, b in pairwise(names)]
    nodes.append(helper.make_node("Gemm", [names[-1], "w"], ["y"], alpha=0.5))
    model = make_model(nodes, {names[0]: X}, ["y"], {"w": X.T.copy()})
    check_model(model, {names[0]: X})


def test_bytes_of_booleans() -> None:
    model = make_model([helper.make_node("Where", ["c", "x", "w"], ["y"])], {"x": X}, ["y"], {"c": np.zeros(3, bool), "w": -X})
    model.graph.initializer[0].raw_data = b"\x00\x02\xff"
    graph = import_model(model)
    assert interpret(graph, {"x": X})["y"][1].tolist() == [-3, 4, 5]
    assert graph.constants["c"].tobytes() == b"\x00\x01\x01"


def test_long_names_make_short_messages() -> None:
    model = add()
    model.graph.node[0].name = "n" * 1_000_000
    model.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(UnsupportedError) as caught:
        import_model(model)
    assert len(str(caught.value)) < 1000


def test_the_callers_arrays_stay_writable() -> None:
    """Graphs freeze their constants; an onnx-ir model may hold the caller's own array."""
    weight = X.copy()
    model = ir.from_proto(add())
    model.graph.initializers["w"].const_value = ir.tensor(weight)
    graph = import_model(model)
    weight[0, 0] = 7
    assert not graph.constants["w"].flags.writeable
