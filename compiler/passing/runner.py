"""The one runner of pipelines: verifies after every pass, times, dumps, and says where an error arose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsec.compiler.errors import InternalError, LimitError, UnsupportedError, UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.base import Notes, Pass
from sparsec.compiler.passing.dump import Dumper
from sparsec.compiler.verify import verify


@dataclass(frozen=True, slots=True)
class PassTiming:
    """What one pass took: CPU seconds of this thread, and nodes before and after."""

    name: str
    seconds: float
    changed: bool
    nodes_before: int
    nodes_after: int


def run_pipeline(
    graph: Graph,
    passes: Sequence[Pass],
    *,
    notes: Notes | None = None,
    timings: list[PassTiming] | None = None,
    dumper: Dumper | None = None,
    progress: Callable[[str], None] | None = None,
) -> Graph:
    """Run `passes` in order on `graph`, which is verified first and after every pass.

    `notes` collects why nodes were left alone, `timings` gets one entry a pass, `dumper` writes graphs, `progress` is called
    with each pass's name before it runs. A user's error (UsageError, UnsupportedError, LimitError) keeps its class and gets
    the pass's name; anything else is a defect and becomes an InternalError that names pass, node and the passes already run.
    """
    notes = notes if notes is not None else Notes()
    verify(graph)
    if dumper is not None:
        dumper.dump(0, "import", graph, changed=True)
    done: list[str] = []
    for index, step in enumerate(passes, start=1):
        if progress is not None:
            progress(step.name)
        before, start = graph, time.thread_time()
        graph = _run_one(step, before, notes, done)
        if timings is not None:
            seconds = time.thread_time() - start
            timings.append(PassTiming(step.name, seconds, graph is not before, len(before.nodes), len(graph.nodes)))
        if dumper is not None:
            dumper.dump(index, step.name, graph, changed=graph is not before)
        done.append(step.name)
    return graph


def _run_one(step: Pass, before: Graph, notes: Notes, done: Sequence[str]) -> Graph:
    ran = f"passes already run: {', '.join(done) or 'none'}"
    try:
        after = step.run(before, notes)
    except (UsageError, UnsupportedError, LimitError) as exc:
        raise type(exc)(f"pass {step.name}: {exc}", node=exc.node, tensor=exc.tensor) from exc
    except Exception as exc:
        node = notes.at
        where = f" at node {node.name!r} ({node.op.name}; from {', '.join(map(repr, node.origin))})" if node is not None else ""
        what = f"{type(exc).__name__}: {exc}"
        raise InternalError(f"pass {step.name!r} failed{where}: {what}; {ran}", node=node.name if node else None) from exc
    if after is not before:
        try:
            verify(after)
        except Exception as exc:
            node_name, tensor = getattr(exc, "node", None), getattr(exc, "tensor", None)
            raise InternalError(f"pass {step.name!r} broke the graph: {exc}; {ran}", node=node_name, tensor=tensor) from exc
    return after
