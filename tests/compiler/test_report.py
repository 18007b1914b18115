"""report.json: what is written reads back, mistakes are named, and the schema in docs/ is the current one."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from sparsec.compiler.errors import ModelError
from sparsec.compiler.report import (
    Buffer,
    Layer,
    Memory,
    ModelInfo,
    Options,
    PhaseTime,
    Report,
    Sources,
    TensorInfo,
    Versions,
    read_report,
    schema_text,
)

DOCS = Path(__file__).parents[2] / "docs"


def example() -> Report:
    x = TensorInfo(name="x", dtype="f32", shape=(1, 3, 8, 8))
    y = TensorInfo(name='y"\n', dtype="f32", shape=(1, 4, 8, 8), layout="@c16a1")
    conv = Layer(node="c", origin=("Conv_0", "Relu_1"), op="conv", inputs=(x,), outputs=(y,), macs=6912, predicted_us=1.5)
    return Report(
        versions=Versions(sparsec="0.1.0"),
        model=ModelInfo(name="g"),
        options=Options(name="g", target="generic", input_shapes={"x": (1, 3, 8, 8)}),
        inputs=(x,),
        outputs=(y,),
        layers=(conv, Layer(node="v", op="reshape", macs=1, predicted_us=0.5)),
        memory=Memory(
            arena_bytes=128,
            arena_peak=64,
            arena_lower_bound=64,
            weights_bytes=64,
            buffers=(Buffer(name="c", offset=0, bytes=64, first=0, last=1),),
        ),
        sources=Sources(c_bytes=1000),
        phases=(PhaseTime(phase="import", seconds=0.25), PhaseTime(phase="cc", seconds=0.5)),
    )


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    report = example()
    (tmp_path / "report.json").write_text(report.text())
    assert read_report(tmp_path) == report
    assert report.text().endswith("}\n")


def test_totals() -> None:
    report = example()
    assert (report.macs, report.seconds, report.predicted_us) == (6913, 0.75, 2.0)


def test_a_folder_without_a_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no readable report\.json: compile the model into it first"):
        read_report(tmp_path)


def test_a_report_with_a_wrong_field_is_refused_with_its_place(tmp_path: Path) -> None:
    data = json.loads(example().text())
    data["memory"]["arena_bytes"] = "many"
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"memory\.arena_bytes: .*compile again"):
        read_report(tmp_path)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        Layer.model_validate({"node": "n", "op": "conv", "surprise": 1})


def test_the_schema_in_docs_is_current() -> None:
    assert (DOCS / "report.schema.json").read_text() == schema_text(), "run `make docs`"
