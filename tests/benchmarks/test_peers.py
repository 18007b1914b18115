"""Engines in environments of their own: the protocol with onnxruntime in our own Python, and with an engine made up here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from benchmarks.peers import Peer, PeerFailure, Worker, parse_peer
from benchmarks.side_by_side import Feeds
from sparsec.compiler.measure import take_turns

# Prints as the real one does, and can only load models that exist.
DEEPSPARSE = """
import sys
__version__ = "1.8.0"
class Engine:
    def __init__(self, model, batch_size, num_cores):
        print("DeepSparse, Copyright", flush=True)
        self.told = open(model, "rb").read(4), batch_size, num_cores
        if num_cores > 2:
            raise RuntimeError("too many cores\\nand a second line")
    def run(self, arrays):
        print("running", flush=True)
        if len(arrays) > 3:
            sys.exit("fatal: a crash")
        return [a.sum() for a in arrays]
"""
ORT = Peer("onnxruntime", sys.executable)


def stub_engine(folder: Path) -> Peer:
    """DeepSparse as above, in an interpreter that finds it."""
    (folder / "stub").mkdir()
    (folder / "stub" / "deepsparse.py").write_text(DEEPSPARSE)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/stub" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return Peer("deepsparse", str(python))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Feeds]]:
    model = models.build("tiny_transformer")
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    onnx.save(model, path)
    yield path, models.inputs(model)


def test_names_and_interpreters() -> None:
    assert parse_peer("openvino=/envs/a=b/bin/python") == Peer("openvino", "/envs/a=b/bin/python")
    for text in ("openvino", "openvino=", "tvm=/usr/bin/python3"):
        with pytest.raises(ValueError, match="is not NAME=PYTHON with a NAME of deepsparse, onnxruntime, openvino"):
            parse_peer(text)
    assert ORT.name != "onnxruntime" and not ORT.reads_zeros, "it is also in our process"
    assert Peer("deepsparse", "python").reads_zeros


def test_a_worker_takes_turns(tiny: tuple[Path, Feeds]) -> None:
    with Worker(ORT) as worker:
        assert worker.version.count(".") >= 1
        worker.load(*tiny, threads=1)
        found = take_turns({"here": lambda: None}, elsewhere={"there": worker.turn}, rounds=2, seconds=0.002)
        there = found["there"]
        assert len(there.cpu) == len(there.wall) >= 4 and there.wall_median > 0
        assert len(worker.turn(0.1).cpu) > len(worker.turn(1e-6).cpu) == 2


def test_a_failure_is_told_and_the_next_model_works(tiny: tuple[Path, Feeds], tmp_path: Path) -> None:
    with Worker(ORT) as worker:
        with pytest.raises(PeerFailure, match="onnxruntime: no model is loaded"):
            worker.turn(0.01)
        with pytest.raises(PeerFailure, match=r"onnxruntime: .*absent\.onnx"):
            worker.load(tmp_path / "absent.onnx", {}, threads=1)
        worker.load(*tiny, threads=1)
        assert worker.turn(1e-6).cpu


def test_an_engine_that_prints(tiny: tuple[Path, Feeds], tmp_path: Path) -> None:
    with Worker(stub_engine(tmp_path)) as worker:
        assert worker.version == "1.8.0"
        worker.load(*tiny, threads=2)
        assert len(worker.turn(1e-6).cpu) == 2
        with pytest.raises(PeerFailure, match=r"^deepsparse: RuntimeError: too many cores$"):
            worker.load(*tiny, threads=3)


def test_an_engine_that_ends(tiny: tuple[Path, Feeds], tmp_path: Path) -> None:
    path, _ = tiny
    with Worker(stub_engine(tmp_path)) as worker:
        four = {f"x{i}": np.zeros(1, np.float32) for i in range(4)}
        with pytest.raises(PeerFailure, match="deepsparse: the worker ended with status 1: fatal: a crash"):
            worker.load(path, four, threads=1)
        with pytest.raises(PeerFailure, match="the worker ended"):
            worker.turn(0.01)


def test_engines_and_interpreters_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(PeerFailure, match="deepsparse: ModuleNotFoundError: No module named 'deepsparse'"):
        Worker(Peer("deepsparse", sys.executable))
    with pytest.raises(PeerFailure, match=r"deepsparse: .*absent: No such file"):
        Worker(Peer("deepsparse", str(tmp_path / "absent")))
