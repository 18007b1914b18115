"""`compile --target aie2:... --precision bf16`, and what `simulate` says of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sparsec.compiler.cli import main

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bfloat16(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bfloat16") / "tiny"
    assert main(["compile", str(model), "-o", str(folder), "--precision", "bf16", "--target", "aie2:npu1", "-q"]) == 0
    return folder


def test_bfloat16_layers_are_within_the_bound_of_their_sums(bfloat16: Path, capsys: Out) -> None:
    layers = [e for p in json.loads((bfloat16 / "manifest.json").read_text())["parts"] for e in p.get("layers", ())]
    assert {e["element"] for e in layers} == {"bf16"} and len(layers) == 7
    assert main(["simulate", str(bfloat16), "-q"]) == 0
    assert "7 layers within the bound of their sums" in capsys.readouterr().out


def test_simulate_says_which_bfloat16_layer_is_wrong(bfloat16: Path, capsys: Out, tmp_path: Path) -> None:
    """Biases of the first 8 channels that are not the model's."""
    other = tmp_path / "tiny"
    shutil.copytree(bfloat16, other)
    part = next(p for p in json.loads((other / "manifest.json").read_text())["parts"] if p["kind"] == "array")
    data = bytearray((other / part["weights"]).read_bytes())
    data[32:64] = np.full(8, 3, np.float32).tobytes()
    (other / part["weights"]).write_bytes(bytes(data))
    assert main(["simulate", str(other), "-q"]) == 5
    message = " ".join(capsys.readouterr().err.split())
    assert f"layer '{part['layers'][0]['node']}' differs from the interpreter's result for the same data by up to" in message
    assert "times what the order of its sums explains" in message
