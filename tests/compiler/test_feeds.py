"""Inputs: random ones within their tables, and files, with every mistake named."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sparsec.compiler.errors import UsageError
from sparsec.compiler.feeds import random_feeds, read_feeds, table_rows
from sparsec.compiler.report import TensorInfo

X = TensorInfo(name="x", dtype="f32", shape=(2, 3))
IDS = TensorInfo(name="ids", dtype="i64", shape=(400,))


def lookup(axis: int = 0, cast: bool = False) -> onnx.ModelProto:
    table = helper.make_tensor("table", TensorProto.FLOAT, (7, 5), np.zeros(35))
    gather = helper.make_node("Gather", ["table", "i32" if cast else "ids"], ["y"], axis=axis)
    nodes = [helper.make_node("Cast", ["ids"], ["i32"], to=TensorProto.INT32), gather] if cast else [gather]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, (400,))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [ids], [y], [table]))


@pytest.mark.parametrize(("axis", "cast", "rows"), [(0, False, 7), (1, True, 5), (-1, False, 5)])
def test_indices_are_drawn_from_the_whole_table(axis: int, cast: bool, rows: int) -> None:
    found = table_rows(lookup(axis, cast))
    assert found == {"ids": rows}
    drawn = random_feeds([IDS], 0, found)["ids"]
    assert drawn.dtype == np.int64 and set(drawn.tolist()) == set(range(rows))


def test_draws_follow_the_seed_and_the_types() -> None:
    specs = [X, TensorInfo(name="b", dtype="bool", shape=(64,)), TensorInfo(name="h", dtype="bf16", shape=())]
    a, b = random_feeds(specs, 3), random_feeds(specs, 3)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["x"], random_feeds(specs, 4)["x"])
    assert (a["x"].dtype, a["b"].dtype, a["h"].dtype) == (np.float32, np.bool_, ml_dtypes.bfloat16)
    assert a["h"].shape == () and set(a["b"].tolist()) == {False, True}


def test_files_by_name_and_alone(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "all.npz", x=x, ids=np.zeros(400, np.int64))
    np.save(tmp_path / "x.npy", x)
    both = read_feeds([str(tmp_path / "all.npz")], [X, IDS])
    assert np.array_equal(both["x"], x) and both["ids"].shape == (400,)
    assert np.array_equal(read_feeds([str(tmp_path / "x.npy")], [X])["x"], x)
    named = read_feeds([str(tmp_path / "all.npz"), f"x={tmp_path / 'x.npy'}"], [X, IDS])
    assert np.array_equal(named["x"], x)


def test_values_convert_only_without_loss(tmp_path: Path) -> None:
    np.save(tmp_path / "ints.npy", np.arange(6).reshape(2, 3))
    assert read_feeds([str(tmp_path / "ints.npy")], [X])["x"].dtype == np.float32
    np.save(tmp_path / "fine.npy", np.full((2, 3), 0.1))
    with pytest.raises(UsageError, match="float64 in the file and loses values as f32"):
        read_feeds([str(tmp_path / "fine.npy")], [X])


def test_mistakes_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    np.savez(tmp_path / "z.npz", z=np.zeros(1))
    (tmp_path / "text.npy").write_text("not an array")
    x, z = str(tmp_path / "x.npy"), str(tmp_path / "z.npz")
    for files, specs, message in [
        ([x], [X], r"input 'x' is \[3, 2\] in the file, the model takes \[2, 3\]"),
        ([x], [X, IDS], r"the model has 2 inputs: write NAME="),
        ([z], [X], r"no input is called 'z': the inputs are \['x'\]"),
        ([f"x={z}"], [X], "holds arrays by name: give it without x="),
        ([], [X], r"input 'x' \(f32\[2, 3\]\) is not in the given files"),
        ([str(tmp_path / "none.npy")], [X], "cannot read .*No such file"),
        ([str(tmp_path / "text.npy")], [X], "cannot read .* as .npy or .npz"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_feeds(files, specs)
