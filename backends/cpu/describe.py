"""Turn a lowered program into the records of report.json."""

from __future__ import annotations

from sparsec.backends.cpu.emit import Emitted
from sparsec.backends.cpu.memory import MemoryPlan
from sparsec.backends.cpu.program import Call, Program, Space
from sparsec.compiler.explain import why_dense
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.report import Buffer, CandidateInfo, Layer, Memory, tensor_info
from sparsec.compiler.schedule import Candidate, LayerSchedule, Schedule
from sparsec.compiler.sparsity.facts import WeightFacts, weight_facts

Steps = list[tuple[int, Call]]  # the calls of a node, with their places among all calls
ASSUMED_HZ = 2.2e9  # turns predicted cycles into a time for people to read


def describe_layers(graph: Graph, schedule: Schedule, program: Program) -> tuple[Layer, ...]:
    """One record a node, in order; copies into the caller's arrays come last, under the port's name."""
    calls: dict[str, Steps] = {}
    for index, call in enumerate(program.calls):
        calls.setdefault(call.node, []).append((index, call))
    weights = weight_facts(graph)
    layers = [
        _layer(graph, node, schedule.layers[node.name], calls.pop(node.name, []), program, weights.get(node.name))
        for node in graph.nodes
    ]
    for name, rest in calls.items():
        steps, packed = tuple(i for i, _ in rest), _packed_bytes(rest, program)
        layers.append(
            Layer(node=name, op="Copy", packed_bytes=packed, calls=len(rest), steps=steps, kernel=_kernel(rest, program))
        )
    return tuple(layers)


def _kernel(calls: Steps, program: Program) -> str:
    return calls[0][1].kernel.symbol(program.isa).split("__")[0] if calls else ""


def _packed_bytes(calls: Steps, program: Program) -> int:
    """Bytes of the arrays of the weights blob that calls are given, each once."""
    read = {program.weights.extent(r.offset) for _, call in calls for r in call.operands if r.space is Space.WEIGHTS}
    return sum(nbytes for _, nbytes in read)


def _layer(graph: Graph, node: Node, chosen: LayerSchedule, calls: Steps, program: Program, weights: WeightFacts | None) -> Layer:
    operands = [v for v in node.inputs if v != ABSENT]
    weight_bytes = sum(graph.types[v].nbytes for v in operands if v in graph.constants)
    considered = _candidates(chosen) if calls else ()
    why = why_dense(weights, considered) if weights and considered else ""
    predicted = microseconds(chosen.cost.cycles) if calls else 0.0
    uses_zeros = bool(considered) and considered[0].sparse and not why
    dense_us = min((c.us for c in considered if not c.sparse), default=None) if uses_zeros else predicted
    return Layer(
        node=node.name,
        origin=node.origin,
        op=node.op.name,
        inputs=tuple(tensor_info(v, graph.types[v]) for v in operands),
        outputs=tuple(tensor_info(v, graph.types[v]) for v in node.outputs),
        macs=node.op.macs(graph.in_types(node)),
        bytes=sum(graph.types[v].nbytes for v in (*operands, *node.outputs)),
        weight_bytes=weight_bytes,
        packed_bytes=_packed_bytes(calls, program),
        kernel=_kernel(calls, program),
        calls=len(calls),
        steps=tuple(i for i, _ in calls),
        schedule=str(chosen),
        predicted_cycles=chosen.cost.cycles if calls else 0.0,
        predicted_us=predicted,
        bound_by=chosen.cost.bound_by,
        reason=chosen.reason,
        candidates=considered,
        pattern=weights.pattern if weights else "",
        density=weights.density if weights else None,
        dense_us=dense_us,
        why=why,
    )


def microseconds(cycles: float) -> float:
    """Predicted cycles as a time for people to read."""
    return cycles / ASSUMED_HZ * 1e6


def _candidates(chosen: LayerSchedule) -> tuple[CandidateInfo, ...]:
    """What was considered; where a node has one way only, that."""
    found = chosen.candidates or (Candidate(chosen.kernel, chosen.cost.cycles, False),)
    return tuple(CandidateInfo(kernel=c.kernel, us=microseconds(c.cycles), sparse=c.sparse, note=c.note) for c in found)


def describe_memory(program: Program, plan: MemoryPlan, emitted: Emitted) -> Memory:
    """The arena as planned."""
    return Memory(
        arena_bytes=emitted.arena_bytes,
        arena_peak=plan.peak,
        arena_lower_bound=plan.lower_bound,
        scratch_bytes=emitted.scratch_bytes,
        weights_bytes=emitted.weights_bytes,
        buffers=tuple(
            Buffer(name=b.name, offset=plan.offsets[b.name], bytes=b.nbytes, first=b.first, last=b.last)
            for b in sorted(program.buffers, key=lambda b: (b.first, plan.offsets[b.name]))
        ),
    )
