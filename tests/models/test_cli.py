"""The command line of the models."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import models
from models.cli import main, parse_option


def test_list_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if not line.startswith(" ")] == list(models.names())
    assert "    inputs: input_ids[1, 128], attention_mask[1, 128], token_type_ids[1, 128]" in printed


def test_build_writes_the_same_model_as_the_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.onnx"
    command = ["build", "tiny_transformer", "-o", str(file), "--seed", "3", "--batch", "2"]
    assert main([*command, "--option", "layers=1", "--option", "form=dynamo", "--option", "dynamic_seq=true"]) == 0
    expected = models.build("tiny_transformer", seed=3, batch=2, layers=1, form="dynamo", dynamic_seq=True)
    assert onnx.load(file) == expected
    assert f"{len(expected.graph.node)} nodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown model 'nothing'"),
        (["tiny_cnn", "--option", "layers=3"], "tiny_cnn takes key=value for the keys dynamic_batch, not 'layers=3'"),
        (["tiny_cnn", "--option", "dynamic_batch=yes"], "dynamic_batch is true or false, not 'yes'"),
        (["tiny_transformer", "--option", "layers=two"], "layers is a whole number, not 'two'"),
        (["tiny_cnn", "--batch", "0"], "batch must be at least 1"),
    ],
)
def test_mistakes_end_with_a_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *arguments, "-o", str(tmp_path / "model.onnx")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_option_without_a_default_is_a_number() -> None:
    assert parse_option("bert_base", "opset=17") == ("opset", 17)
