"""Emitted folders in the simulator: reports of real layers, and files that are missing, cut off or of another kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.byte_layer import conv_graph
from sparsec.backends.aie.simulate.model import ArrayModel, ModelRun
from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.compiler.errors import ModelError, SparsecError, StreamError, UsageError
from tests.backends.aie.networks import compile_for, random_feeds, run_emitted


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelRun]:
    """A convolution of 16 to 24 channels with a residual, which has run."""
    rng = np.random.default_rng(0)
    graph = conv_graph(rng, (16, 24), (10, 12), (3, 3), pads=(1, 1, 1, 1), residual=True)
    folder = tmp_path_factory.mktemp("conv")
    return folder, run_emitted(compile_for(graph), random_feeds(rng, graph), folder)


def test_a_layer_is_above_its_roofline_and_names_its_values(ran: tuple[Path, ModelRun]) -> None:
    folder, run = ran
    machine = ArrayModel(folder).machine
    cycles = run.parts[0].cycles(machine)
    (layer,) = cycles.layers
    assert layer.name == "conv"
    assert layer.macs == 16 * 24 * 9 * 120
    assert layer.cycles >= layer.bound[1] > 0
    assert layer.products * 256 >= layer.macs
    assert all(sum(c.values()) == layer.cycles for c in layer.cores.values())
    assert layer.mean()[Cause.DATA] > layer.mean()[Cause.BANK]
    words = {name for use in layer.channels.values() for name in use.words}
    assert words == {"x", "r", "weights", "results"}
    assert layer.ddr_written >= 24 * 120
    events = json.loads(run.trace(machine))["traceEvents"]
    assert {"conv: x", "conv: weights", "conv: results", "conv: compute"} <= {e["name"] for e in events}
    picture = run.parts[0].pictures(machine)["conv"]
    assert ">conv</text>" in picture


def _cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def _manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda f: (f / "core_1_3.bin").unlink(),
            ModelError,
            r"core_1_3\.bin cannot be read \(No such file.*compile the model again",
        ),
        (lambda f: _cut(f / "core_1_3.bin", 40), StreamError, r"the program of core\(1,3\): 40 bytes end within a bundle of 16"),
        (lambda f: _cut(f / "part0/control.bin", 800), StreamError, r"part0/control\.bin: at byte"),
        (lambda f: _cut(f / "part0/weights.bin", 1001), StreamError, r"weights has 1,001 bytes: expected whole words of 4"),
        (
            lambda f: _cut(f / "part0/weights.bin", 64),
            StreamError,
            r"cycle \d+, shim.*weights: the word at 0x40 is outside of its 64",
        ),
        (lambda f: _cut(f / "manifest.json", 90), ModelError, r"manifest\.json is not a manifest"),
        (
            lambda f: _manifest(f, lambda m: m.pop("machine")),
            ModelError,
            r"lacks what a manifest of format \d has \(KeyError\('machine'\)",
        ),
        (lambda f: _manifest(f, lambda m: m.update(format=0)), ModelError, r"is of format 0, this program reads"),
        (lambda f: (f / "manifest.json").unlink(), UsageError, r"has no manifest\.json"),
    ],
)
def test_spoilt_folders(
    ran: tuple[Path, ModelRun], tmp_path: Path, spoil: Callable[[Path], object], error: type[SparsecError], message: str
) -> None:
    folder, _ = ran
    for source in folder.rglob("*"):
        if source.is_file():
            target = tmp_path / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    feeds = {"x": np.zeros((1, 16, 10, 12), np.uint8), "r": np.zeros((1, 24, 10, 12), np.uint8)}
    spoil(tmp_path)

    def host(entry: Any) -> Any:
        raise AssertionError(entry)

    with pytest.raises(error, match=message):
        ArrayModel(tmp_path).run(feeds, host)
