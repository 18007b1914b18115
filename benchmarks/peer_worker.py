"""An engine in an environment of its own, which does what it is told line by line (`benchmarks/peers.py` is the other side).

    python peer_worker.py deepsparse|onnxruntime|openvino

Needs Python 3.8, numpy and the engine, nothing of sparsec. Lines are JSON. It begins with {"ready": VERSION}, then answers

    {"load": MODEL, "inputs": FILE.npz, "names": [...], "threads": N}     {}
    {"turn": SECONDS}                                                     {"cpu": [...], "wall": [...]}

where the file holds the inputs as `arr_0`, `arr_1`, ... in the order of `names`, and the lists are the seconds of every run of
the turn. {"error": TEXT} answers what went wrong. The end of stdin ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Feeds = Mapping[str, np.ndarray[Any, Any]]
    Run = Callable[[], object]


def onnxruntime_runner(model: str, feeds: Feeds, threads: int) -> Run:
    """A plain session of onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs, fixed = [o.name for o in session.get_outputs()], dict(feeds)
    return lambda: session.run(outputs, fixed)


def openvino_runner(model: str, feeds: Feeds, threads: int) -> Run:
    """OpenVINO on the CPU in float32, one stream of `threads` threads."""
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    fixed = dict(feeds)
    return lambda: request.infer(fixed, share_inputs=True, share_outputs=True)


def deepsparse_runner(model: str, feeds: Feeds, threads: int) -> Run:
    """DeepSparse, which takes its inputs in the model's order."""
    from deepsparse import Engine

    engine, arrays = Engine(model=model, batch_size=1, num_cores=threads), [np.ascontiguousarray(a) for a in feeds.values()]
    return lambda: engine.run(arrays)


ENGINES: dict[str, Callable[[str, Feeds, int], Run]] = {
    "deepsparse": deepsparse_runner,
    "onnxruntime": onnxruntime_runner,
    "openvino": openvino_runner,
}


def _load(engine: str, order: Mapping[str, Any]) -> Run:
    with np.load(order["inputs"]) as file:
        feeds = {name: file[f"arr_{i}"] for i, name in enumerate(order["names"])}
    run = ENGINES[engine](order["load"], feeds, order["threads"])
    run()
    return run


def _turn(run: Run, seconds: float) -> dict[str, list[float]]:
    """An untimed run, then runs for about `seconds`, 2 at least and 1000 at most."""
    run()
    cpu: list[float] = []
    wall: list[float] = []
    end = time.perf_counter() + seconds
    while len(cpu) < 2 or (len(cpu) < 1000 and time.perf_counter() < end):
        w, c = time.perf_counter(), time.process_time()
        run()
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
    return {"cpu": cpu, "wall": wall}


def main(engine: str) -> None:
    """Serve one engine until stdin ends."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]  # our neighbours must not shadow what the engine imports
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # engines print as they like; the answers keep a channel of their own

    def say(answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        say({"ready": str(getattr(import_module(engine), "__version__", ""))})
    except Exception as exc:
        say({"error": f"{type(exc).__name__}: {exc}"})
        return
    run: Run | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "load" in order:
                run = None  # the memory of the last model, before the next one takes its own
                run = _load(engine, order)
                say({})
            elif run is None:
                say({"error": "no model is loaded"})
            else:
                say(_turn(run, order["turn"]))
        except Exception as exc:  # engines have exceptions of all kinds, and the next model may work
            say({"error": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    main(sys.argv[1])
