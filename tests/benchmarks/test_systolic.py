"""The benchmark of systolic arrays, on what is small."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import systolic, systolic_training
from benchmarks.systolic_picture import picture
from tests.machine import needs


def test_networks_and_traffic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_file, svg = tmp_path / "out.json", tmp_path / "out.svg"
    arguments = ["--parts", "networks,traffic", "--models", "tiny_cnn", "--sides", "4,8", "--sparsities", "50,75"]
    assert systolic.main([*arguments, "--json", str(json_file), "--svg", str(svg)]) == 0
    results = json.loads(json_file.read_text())
    rows = {(r["array"], r["pattern"]): r for r in results["networks"]}
    assert len(rows) == 4 and ("flexisaga:8x8", "block:8x1/taps=each@75%") in rows
    for row in rows.values():
        assert row["speedup"] >= 1 and row["best"] <= min(row["alone"].values())
        assert row["simulated"] in (0, row["best"])
    assert (
        rows["flexisaga:4x4", "block:4x1/taps=each@75%"]["speedup"] > rows["flexisaga:4x4", "block:4x1/taps=each@50%"]["speedup"]
    )
    assert {r["dataflow"] for r in results["traffic"]} >= {"dOS", "dWS", "dIS", "sOS", "sWS", "sIS", "csOS", "best of 7"}
    assert all(r["exposed"] >= r["cycles"] and r["energy"] > 0 for r in results["traffic"])
    for kind in {r["weights"] for r in results["traffic"]}:
        some = {r["dataflow"]: r for r in results["traffic"] if r["weights"] == kind}
        for key, best in (("cycles", ""), ("double", ", double-buffered"), ("exposed", ", exposed")):
            (found,) = (r for name, r in some.items() if name.startswith("best") and name.partition(",")[2] == best[1:])
            assert found[key] == min(r[key] for r in some.values())
    assert "lie in the published range" in capsys.readouterr().out
    lines = [e for e in ElementTree.fromstring(svg.read_text()).iter() if e.tag.endswith("polyline")]
    assert len(lines) == 2  # an array each
    assert "polyline" not in picture([])


@pytest.mark.parametrize(
    ("vectors", "pattern", "dense", "sparse"),
    [("channels", "block:1x4/taps=each@75%", "dIS", "sIS"), ("none", "unstructured@75%", "dOS", "csOS")],
)
def test_other_vectors(vectors: str, pattern: str, dense: str, sparse: str, tmp_path: Path) -> None:
    json_file = tmp_path / "out.json"
    arguments = ["--parts", "networks", "--models", "tiny_cnn", "--sides", "4", "--sparsities", "75", "--vectors", vectors]
    assert systolic.main([*arguments, "--json", str(json_file)]) == 0
    (row,) = json.loads(json_file.read_text())["networks"]
    assert row["pattern"] == pattern and row["alone"][dense] > 1.5 * row["alone"][sparse]


@needs("iverilog")
def test_rtl_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert systolic.main(["--parts", "rtl", "--products", "2"]) == 0
    assert "generated Verilog and simulator: 24 of 24 equal" in capsys.readouterr().out


def test_training_steps() -> None:
    rows = list(systolic_training.rows(["tiny_cnn"], ("sat:4x4",), 8))
    assert [r.pattern for r in rows if r.bytes_per_cycle is None] == ["2:4", "2:8", "2:16"]
    assert all(1 <= r.speedup <= r.ceiling for r in rows)


def test_unknown_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        systolic.main(["--parts", "scalesim"])
    assert "no part is called scalesim: there are scale-sim, rtl, networks" in capsys.readouterr().err
