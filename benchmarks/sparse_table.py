"""Results of pruned models as a table for people and as records for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.side_by_side import as_record
from benchmarks.sparse_goals import PACKED_GOALS, PRUNING_GOALS, Reached, Row, Verdict, judge
from benchmarks.sparse_side import OUR_DENSE, OURS, THEIR_DENSE, Result
from sparsec.compiler.cli.console import plain_table


def table(found: Sequence[Result]) -> str:
    """All rows, with their goals."""
    engines = [e for e in _engines(found) if e != OURS]
    columns = ["model", "pattern", ">error", ">density", ">MAC ratio"]
    if engines:
        columns += [f">{OURS} ms", *(f">{e} ms" for e in engines), *(f">x {e}" for e in engines), "goal"]
    columns += [">packed", "goal", ">in library", ">prune s", ">CPU s", "goal"]
    return plain_table(columns, [_row(r, engines, verdict) for r, verdict in zip(found, verdicts(found), strict=True)])


def records(found: Sequence[Result], failures: Mapping[Row, str]) -> list[dict[str, Any]]:
    """The same as JSON data, then the rows that failed with the reason."""
    results = [_record(r, verdict) for r, verdict in zip(found, verdicts(found), strict=True)]
    failed = [{"model": row.name, "pattern": row.pattern, "spare": row.spare, "failure": why} for row, why in failures.items()]
    return results + failed


def verdicts(found: Sequence[Result]) -> list[Verdict | None]:
    """On every row's speed. Goals are for one thread."""
    reached = {}
    for r in found:
        speedup = r.speedup(THEIR_DENSE)
        if speedup is not None and r.measured.compiled.report.options.threads == 1:
            reached[r.row] = Reached(speedup, r.mac_ratio)
    return [judge(r.row, reached) for r in found]


def _engines(found: Sequence[Result]) -> list[str]:
    """Ours and onnxruntime first."""
    timed = dict.fromkeys(engine for r in found for engine in r.measured.times)
    return [e for e in dict.fromkeys((OURS, THEIR_DENSE, OUR_DENSE, *timed)) if e in timed]


def _row(r: Result, engines: Sequence[str], verdict: Verdict | None) -> list[str]:
    m, w = r.measured, r.weighed
    wrong = "" if m.verification.ok else " WRONG"
    cells = [m.model, r.row.pattern, f"{m.verification.worst.error:.1e}{wrong}"]
    cells += [f"{w.density:.3f}" if w else "", f"{r.mac_ratio:.2f}"]
    if engines:
        cells += [f"{m.seconds(e) * 1e3:.2f}" if e in m.times else "" for e in (OURS, *engines)]
        cells += ["" if (s := r.speedup(e)) is None else f"{s:.2f}" for e in engines]
        cells += [_verdict(r.row, verdict)]
    if w is None or r.pruning is None:
        return [*cells, *[""] * 6]
    packed, limit = w.packed_bytes / w.dense_bytes, PRUNING_GOALS.get(m.model)
    cells += [f"{packed:.3f}", _at_most(packed, PACKED_GOALS.get(r.row.pattern)), f"{w.library_bytes / w.dense_bytes:.3f}"]
    return [*cells, f"{r.pruning.wall:.1f}", f"{r.pruning.cpu:.1f}", _at_most(r.pruning.cpu, limit)]


def _verdict(row: Row, verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if verdict.best != row:
        return f"{verdict.goal:.2f}: see {verdict.best.pattern}"
    return f"{verdict.goal:.2f} {_met(verdict.met)}"


def _at_most(value: float, goal: float | None) -> str:
    return "" if goal is None else f"{goal:g} {_met(value <= goal)}"


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _record(r: Result, verdict: Verdict | None) -> dict[str, Any]:
    """What is known of any measurement, and what is known of a pruned one; null where it does not apply."""
    m, w = r.measured, r.weighed
    packed, goal = w.packed_bytes / w.dense_bytes if w else None, PACKED_GOALS.get(r.row.pattern)
    return {
        **as_record(m),
        "pattern": r.row.pattern,
        "spare": r.row.spare,
        "ok": m.verification.ok,
        "density": w.density if w else None,
        "mac_ratio": r.mac_ratio,
        "speedups": {engine: r.speedup(engine) for engine in m.times if engine != OURS},
        "goal": verdict.goal if verdict else None,
        "judged_on": verdict.best.pattern if verdict else None,
        "met": verdict.met if verdict else None,
        "packed_bytes_ratio": packed,
        "packed_bytes_goal": goal,
        "packed_bytes_met": None if packed is None or goal is None else packed <= goal,
        "library_bytes_ratio": w.library_bytes / w.dense_bytes if w else None,
        "prune_wall_s": r.pruning.wall if r.pruning else None,
        "prune_cpu_s": r.pruning.cpu if r.pruning else None,
        "peer_failures": dict(r.peer_failures),
    }
