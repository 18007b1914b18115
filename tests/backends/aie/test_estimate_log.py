"""The benchmark of the paper's totals: its table, and logs of instructions that it reads."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import aie_paper
from benchmarks.aie_paper import Row, compare, read_log, report
from sparsec.backends.aie.estimate.network import INPUT, Layer
from sparsec.backends.aie.estimate.paper import LayerTime, paper_layers
from sparsec.compiler.errors import UsageError

_HEADER = "model,k,weights,instruction,layer,start_us,end_us,duration_us,iterations"
_LAYERS = (
    Layer("a", "conv", (INPUT,), (3, 32, 32), (16, 32, 32), (3, 3), (1, 1), (1, 1, 1, 1)),
    Layer("b", "conv", ("a",), (16, 32, 32), (32, 32, 32)),
    Layer("p", "max", ("b",), (32, 32, 32), (32, 16, 16), (2, 2), (2, 2)),
)


def _log(times: Sequence[LayerTime]) -> list[str]:
    """Instructions as the authors' logs write them, an input and a concatenation among them."""
    lines, now = [_HEADER], 0.0

    def add(instruction: str, layer: str, begin: float, duration: float) -> None:
        lines.append(f"net,4,dense,{instruction},{layer},{begin},{begin + duration},{duration},1")

    add("COMP", "data_input", 0, 0)
    add("WRITE", "", 0, 0)
    for t in times:
        add("LOADW", "", now, t.load_weights)
        add("LOAD", "", now, t.load)
        now += max(t.load, t.load_weights)
        for s in t.segments:
            add("LOADWM", "", now, s.weights)
            add("LOADFM", "", now + s.weights, s.load)
            add("COMP", t.layer.name, now + s.weights, s.compute)
            now += s.time
            add("WRITEFM", "", now - s.write, s.write)
        add("WRITE", "", now, t.write)
        now += t.write
    add("COMP", "concat_c", now, 0)
    add("WRITE", "", now, 0)
    return lines


def _written(path: Path, lines: Sequence[str]) -> Path:
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_log_is_read_layer_by_layer(name: str, tmp_path: Path) -> None:
    times = paper_layers(_LAYERS, 4)
    log = read_log(_written(tmp_path / name, _log(times)))
    (logged,) = log.values()
    assert [seen.name for seen in logged] == ["a", "b", "p"]
    assert [seen.time for seen in logged] == pytest.approx([t.time for t in times])
    assert [seen.segments for seen in logged] == [len(t.segments) for t in times]
    text = compare({"net": _LAYERS}, log)
    assert "3/3" in text and len(text.splitlines()) == 2


def test_layers_apart_are_listed(tmp_path: Path) -> None:
    other = paper_layers((*_LAYERS[:1], Layer("b", "conv", ("a",), (16, 32, 32), (64, 32, 32)), *_LAYERS[2:]), 4)
    text = compare({"net": _LAYERS}, read_log(_written(tmp_path / "log.csv", _log(other))))
    assert "2/3" in text
    assert text.splitlines()[-1].split()[:4] == ["net", "4", "dense", "b"]


def test_logs_that_do_not_match(tmp_path: Path) -> None:
    log = read_log(_written(tmp_path / "log.csv", _log(paper_layers(_LAYERS, 4))))
    with pytest.raises(UsageError, match="the log has 'net', 'dense': expected other, dense or sparse"):
        compare({"other": _LAYERS}, log)
    with pytest.raises(UsageError, match="the log has 3 layers of net on 4x4: expected 2"):
        compare({"net": _LAYERS[:2]}, log)
    with pytest.raises(UsageError, match=r"bad\.csv: line 2: expected the columns of an instruction log: 'instruction'"):
        read_log(_written(tmp_path / "bad.csv", ["model,k,weights", "net,4,dense"]))
    with pytest.raises(UsageError, match=r"bad\.csv: line 2: expected the columns"):
        read_log(_written(tmp_path / "bad.csv", [_HEADER, "net,four,dense,LOAD,,0,0,0,1"]))


def test_report_says_how_far_it_is_off() -> None:
    rows = [
        Row(2, "net", "dense", 10.0, 11.0, 3.0, 2.0),
        Row(2, "net", "sparse", 8.0, 8.0, 2.0, 1.0),
        Row(3, "net", "dense", None, None, 1.0, 0.5, "x does not fit: use y"),
    ]
    text = report(rows)
    assert "+10.00 %" in text and "x does not fit: use y" in text
    assert "2 totals: median 5.00%, at most 10.00%" in text


def test_json_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(aie_paper, "NETWORKS", {"resnet50": "squeezenet"})
    monkeypatch.setattr(aie_paper, "SIZES", (2, 3))
    assert aie_paper.main(["--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["k"], r["model"], r["weights"], r["published_ms"]) for r in rows] == [
        (2, "resnet50", "dense", 24.923),
        (2, "resnet50", "sparse", 15.826),
        (3, "resnet50", "dense", None),
        (3, "resnet50", "sparse", None),
    ]
    assert all(r["paper_ms"] > 0 and r["physical_ms"] >= r["roofline_ms"] > 0 for r in rows)
    assert "published ms" in capsys.readouterr().out


def test_a_log_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(aie_paper, "NETWORKS", {})
    with pytest.raises(SystemExit, match="2"):
        aie_paper.main(["--log", str(tmp_path / "none.csv")])
    assert "none.csv" in capsys.readouterr().err
