"""Find the first layer whose result is wrong, by bisection over intermediate values.

Values keep their ONNX names through the passes, so a value can be made an output of both the compiled library and the reference,
and compared. One at a time: an output changes fusion and the memory plan as little as that, so the defect stays where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.report import Report
from sparsec.compiler.verify_model import OutputCheck, Verification

Array = np.ndarray[Any, Any]
Check = Callable[[str], Verification | None]


@dataclass(frozen=True)
class Culprit:
    """The first wrong value: its layer, the check that failed, and the last right value that the layer reads (None: an input)."""

    layer: str
    op: str
    kernel: str
    origin: tuple[str, ...]
    value: str
    check: OutputCheck
    right_operands: tuple[str, ...]
    tried: int


def with_output(model: onnx.ModelProto, value: str) -> onnx.ModelProto:
    """A copy of `model` with `value` as its only additional output (the copy shares no message with the original)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if value not in {o.name for o in copy.graph.output}:
        known = {v.name: v for v in copy.graph.value_info}
        copy.graph.output.append(known[value] if value in known else onnx.ValueInfoProto(name=value))
    return copy


def candidates(model: onnx.ModelProto, report: Report) -> list[str]:
    """The values that can be compared: results of layers that are ONNX values of the main graph too, in order."""
    names = {o for n in model.graph.node for o in n.output if o}
    return [o.name for layer in report.layers for o in layer.outputs if o.name in names]


def locate(report: Report, values: Sequence[str], check: Check) -> Culprit | None:
    """Bisect over `values` (in order) for the first that `check` finds wrong, then follow its operands back.

    `check` compares one value with the reference, or returns None when it cannot be compared. None when no value is wrong.
    The bisection takes about log2(len(values)) checks and assumes that what follows a wrong value is wrong; where the network
    branches, the operands of the value that it found are checked too, so that the layer returned has right operands.
    """
    known: dict[str, Verification | None] = {}

    def wrong(value: str) -> bool:
        if value not in known:
            known[value] = check(value)
        found = known[value]
        return found is not None and not found.ok

    low, high = 0, len(values) - 1
    if high < 0 or not wrong(values[high]):
        found = next((i for i in range(high, -1, -1) if wrong(values[i])), None)
        if found is None:
            return None
        high = found
    while low < high:
        middle = (low + high) // 2
        if wrong(values[middle]):
            high = middle
        else:
            low = middle + 1
    return _settle(report, values[low], set(values), wrong, known)


def _settle(
    report: Report, value: str, values: set[str], wrong: Callable[[str], bool], known: Mapping[str, Verification | None]
) -> Culprit:
    """Walk from a wrong value to a wrong operand of its layer as long as there is one."""
    layers = {o.name: layer for layer in report.layers for o in layer.outputs}
    while True:
        layer = layers[value]
        operands = [t.name for t in layer.inputs if t.name in values]
        bad = next((v for v in operands if wrong(v)), None)
        if bad is None:
            break
        value = bad
    found = known[value]
    assert found is not None
    right = tuple(operands)
    return Culprit(layer.node, layer.op, layer.kernel, layer.origin, value, found.worst, right, len(known))
