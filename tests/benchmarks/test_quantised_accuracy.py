"""The benchmark of accuracy at lower precisions: its measures, and that it runs for one way to choose ranges and for bfloat16."""

import numpy as np
import pytest

from benchmarks import quantised_accuracy as benchmark


def test_decibels() -> None:
    real = np.array([[3.0, 4.0]])
    assert benchmark.decibels(real, real + np.array([[0.5, 0.0]])) == pytest.approx(20)
    assert benchmark.decibels(real, real) == float("inf")


@pytest.mark.parametrize("name", ["minmax", "bfloat16"])
def test_one_row(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).random((60, 1, 28, 28), np.float32)
    monkeypatch.setattr(benchmark, "load", lambda part: (images, np.zeros(60, np.int64)))
    monkeypatch.setattr(benchmark, "CALIBRATION_IMAGES", 40)
    assert benchmark.main(["--only", name, "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "dense, 40 images, 2 seeds" in out and len(out.splitlines()) == 4
    float_row, row = (line.split() for line in out.splitlines()[2:])
    assert float_row[0] == "float" and row[0] == name and float(row[4]) > 20
    with pytest.raises(SystemExit):
        benchmark.main(["--only", "best"])
