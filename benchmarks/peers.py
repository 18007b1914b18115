"""Engines in environments of their own, timed in turns with those of this process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.peer_worker import ENGINES
from benchmarks.side_by_side import Feeds
from sparsec.compiler.measure import Timing

WORKER = Path(__file__).with_name("peer_worker.py")
READ_ZEROS = frozenset({"deepsparse"})  # gain from zeros, so they get the pruned model


class PeerFailure(Exception):
    """An engine that could not be started, or that could not load or run a model."""


@dataclass(frozen=True)
class Peer:
    """An engine, and the Python that has it."""

    kind: str
    python: str

    @property
    def name(self) -> str:
        """As results call it: onnxruntime is also in this process."""
        return f"{self.kind} apart" if self.kind == "onnxruntime" else self.kind

    @property
    def reads_zeros(self) -> bool:
        """Whether it gets the pruned model: the others take as long on the dense one."""
        return self.kind in READ_ZEROS


def parse_peer(text: str) -> Peer:
    """`NAME=PYTHON`. ValueError when it is not."""
    kind, separator, python = text.partition("=")
    if not separator or not python or kind not in ENGINES:
        raise ValueError(f"{text!r} is not NAME=PYTHON with a NAME of {', '.join(ENGINES)}")
    return Peer(kind, python)


class Worker:
    """A process of `peer_worker.py`. Close it, or use it in a `with`."""

    def __init__(self, peer: Peer) -> None:
        """Start it. PeerFailure when the interpreter does not exist or cannot import the engine."""
        self.peer = peer
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the worker)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # ours is for another interpreter
        command = [peer.python, str(WORKER), peer.kind]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, bufsize=1, env=environment
            )
        except OSError as exc:
            raise PeerFailure(f"{peer.kind}: {peer.python}: {exc.strerror}") from exc
        try:
            self.version = str(self._answer()["ready"])
        except PeerFailure:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def load(self, model: Path, feeds: Feeds, threads: int) -> None:
        """Load a model in the place of the one before. PeerFailure with the engine's words when it cannot."""
        with tempfile.TemporaryDirectory(prefix="sparsec-peer-") as folder:
            inputs = Path(folder) / "inputs.npz"
            np.savez(inputs, *feeds.values())
            order = {"load": str(model.resolve()), "inputs": str(inputs), "names": list(feeds), "threads": threads}
            self._ask(order)

    def turn(self, seconds: float) -> Timing:
        """Run for about `seconds`."""
        answer = self._ask({"turn": seconds})
        return Timing(tuple(answer["cpu"]), tuple(answer["wall"]))

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what could not be sent any more
                if stream is not None:
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # an engine's threads may keep it
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended: the answer says why
            self._process.stdin.write(json.dumps(order) + "\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise PeerFailure(f"{self.peer.kind}: the worker ended with status {self._process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            first = (str(answer["error"]).strip().splitlines() or ["no message"])[0]
            raise PeerFailure(f"{self.peer.kind}: {first}")
        return answer
