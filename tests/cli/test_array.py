"""`compile --target aie2:...`, `simulate`, and what `explain` and `targets` say of arrays."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sparsec.backends.aie.lower.modes import Cut
from sparsec.compiler.cli import main

Out = pytest.CaptureFixture[str]
INT8 = ["--precision", "int8", "--power-of-two", "--per-tensor"]


@pytest.fixture(scope="module")
def array(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("array")
    np.savez(folder / "calib.npz", input=np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32))
    options = [*INT8, "--calib", str(folder / "calib.npz"), "--target", "aie2:npu1"]
    assert main(["compile", str(model), "-o", str(folder / "tiny"), *options, "-q"]) == 0
    return folder / "tiny"


def test_the_folder_has_streams_and_libraries(array: Path) -> None:
    names = {p.name for p in array.iterdir()}
    assert {"manifest.json", "core.s", "core_0_2.bin", "core_3_5.bin", "model.onnx"} <= names
    parts = json.loads((array / "manifest.json").read_text())["parts"]
    assert {p["kind"] for p in parts} == {"array", "host"}
    for part in parts:
        if part["kind"] == "array":
            assert (array / part["control"]).stat().st_size > 1000
        else:
            assert (array / part["folder"] / "report.json").exists()


def test_simulate_equals_the_interpreter(array: Path, capsys: Out, tmp_path: Path) -> None:
    outputs = tmp_path / "out.npz"
    traces = ["--trace", str(tmp_path / "t.json"), "--svg", str(tmp_path / "pictures")]
    assert main(["simulate", str(array), "-o", str(outputs), *traces, "-q"]) == 0
    out = capsys.readouterr().out
    assert "outputs equal the interpreter's" in out and "cycles on aie2:npu1" in out
    assert "part  where  nodes" in out
    assert np.load(outputs)["output"].shape == (1, 10)
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert list((tmp_path / "pictures").glob("*.svg"))


def test_simulate_says_where_outputs_differ(array: Path, capsys: Out, tmp_path: Path) -> None:
    """Weights that are not the model's: a changed byte of the file."""
    other = tmp_path / "tiny"
    shutil.copytree(array, other)
    part = next(p for p in json.loads((other / "manifest.json").read_text())["parts"] if p["kind"] == "array")
    data = bytearray((other / part["weights"]).read_bytes())
    data[32:64] = bytes(b ^ 0x40 if i % 4 == 1 else b for i, b in enumerate(data[32:64]))  # the bias of 8 channels
    (other / part["weights"]).write_bytes(bytes(data))
    assert main(["simulate", str(other), "-q"]) == 5
    assert "output 'output' of the simulation differs from the interpreter's by up to" in capsys.readouterr().err
    assert main(["simulate", str(other), "--no-check", "-q"]) == 0


def test_explain_says_where_nodes_went(array: Path, capsys: Out) -> None:
    assert main(["explain", str(array)]) == 0
    out = capsys.readouterr().out
    host, kept = (
        "it does not make bytes of bytes, element by element",
        "its values are made where they are read: nothing is moved",
    )
    assert host in out and kept in out
    assert main(["explain", str(array), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["where"] for r in rows} == {"array", "host"}
    layers = [r["how"] for r in rows if r["where"] == "array" and r["how"] != kept]
    cuts = [
        re.sub(r"^channels in [0-9]+ parts(, rows of each in [0-9]+ bands)?, in place of positions: ", "", how) for how in layers
    ]
    assert len(layers) == 8 and all(how in out for how in layers)
    assert all(cut.startswith(tuple(each.value for each in Cut)) for cut in cuts)
    assert cuts != layers, "a depthwise layer, whose cores have channels of their own"


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"stays": True, "leaves": False}, "results stay in memory tiles for the next layer, never in DDR"),
        ({"held": True, "leaves": True}, "results stay in memory tiles until they are added and go to DDR"),
        (
            {"stays": True, "leaves": True, "every": 2},
            "results stay in memory tiles for the next layer, and of every 2 rows and columns one goes to DDR",
        ),
        ({"stays": True, "held": True}, "results stay in memory tiles for the next layer and until they are added, never in DDR"),
        ({"not_kept": "nobody wants them here"}, "results go to DDR, as nobody wants them here"),
    ],
)
def test_explain_says_what_becomes_of_results(
    array: Path, kept: dict[str, object], told: str, capsys: Out, tmp_path: Path
) -> None:
    manifest = json.loads((array / "manifest.json").read_text())
    layer = next(p for p in manifest["parts"] if p["kind"] == "array")["layers"][0]
    layer.update({"stays": False, "held": False, "leaves": False, "every": 1, "not_kept": "", "begins_late": ""} | kept)
    other = tmp_path / "tiny"
    shutil.copytree(array, other)
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert main(["explain", str(other), "--json"]) == 0
    (row,) = (r for r in json.loads(capsys.readouterr().out) if r["node"] == layer["node"])
    assert row["how"].endswith(f"; {told}")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["compile", "MODEL", "--target", "aie2:npu1", "-j", "2"], 2, "--threads is for C libraries: leave it out for aie2:npu1"),
        (["compile", "MODEL", "--target", "aie2:npu1", "--weights", "file"], 2, "--weights is for C libraries"),
        (["compile", "MODEL", "--target", "sat:4x4", "--precision", "bf16"], 2, "sat:4x4 does not multiply bfloat16"),
        (["compile", "MODEL", "--target", "aie2:9x9"], 2, "there is no array 'aie2:9x9': give aie2:KxK with K from 2 to 8"),
        (["simulate", "."], 2, ". has no manifest.json: give a folder that was compiled for an array"),
        (["targets", "aie2:x"], 2, "there is no array 'aie2:x'"),
    ],
)
def test_refusals(
    arguments: list[str], status: int, message: str, model: Path, capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(model) if a == "MODEL" else a for a in arguments]) == status
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_targets_show_an_arrays_numbers(capsys: Out) -> None:
    assert main(["targets", "aie2:npu1"]) == 0
    out = capsys.readouterr().out
    assert "core.data_bytes" in out and "assumed" in out
    assert main(["targets", "aie2:npu1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"parameter": "columns", "value": 4, "source": "mlir-aie, target model of AIE2"} in rows
    assert main(["targets"]) == 0
    out = capsys.readouterr().out
    assert "aie2:ve2802" in out and "flexisaga:RxC" in out
    assert main(["targets", "aie2:ve2802"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "24 of 304 cores compute: columns 4 to 9, rows 3 to 6; memory tiles of row 1;" in told
    assert "4 by that of 2, 5 by that of 3, 8 by that of 14, 9 by that of 15" in told and "12 of 38 shims reach DDR" in told
