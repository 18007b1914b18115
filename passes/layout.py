"""Layout assignment: one storage order for every value, chosen over the whole network with conversions priced.

The choice is an integer linear program: a node takes exactly one of the layout options that the target offers for it; a value
that a reader wants in another order than its producer makes costs one conversion, shared by all readers who want that order.
Networks are near-trees with a handful of options a node, so the relaxation is almost always integral and HiGHS answers in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.errors import InternalError, UnsupportedError
from sparsec.compiler.graph import ABSENT, Graph
from sparsec.compiler.layout import ROW_MAJOR, Layout
from sparsec.compiler.passing.base import Notes, Pass
from sparsec.compiler.target import LayoutOption, Target
from sparsec.passes.common.conversions import Converter
from sparsec.passes.common.halos import assign_halos


@dataclass
class _Program:
    """A 0-1 program under construction: costs, and rows of (coefficients, lower, upper)."""

    costs: list[float]
    integral: list[int]
    rows: list[tuple[list[tuple[int, float]], float, float]]

    def variable(self, cost: float, *, integral: bool) -> int:
        self.costs.append(cost)
        self.integral.append(int(integral))
        return len(self.costs) - 1

    def solve(self) -> np.ndarray:
        entries = [(r, c, v) for r, (row, _, _) in enumerate(self.rows) for c, v in row]
        matrix = coo_array(
            ([v for _, _, v in entries], ([r for r, _, _ in entries], [c for _, c, _ in entries])),
            shape=(len(self.rows), len(self.costs)),
        )
        scale = max(max(self.costs), 1.0)
        result = milp(
            np.asarray(self.costs) / scale,
            integrality=np.asarray(self.integral),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix.tocsr(), [r[1] for r in self.rows], [r[2] for r in self.rows]),
            options={"mip_rel_gap": 1e-4, "time_limit": 20.0},
        )
        if result.x is None:
            raise InternalError(f"layout assignment found no solution: {result.message}")
        return np.asarray(result.x)


def choose_layouts(graph: Graph, target: Target) -> dict[str, LayoutOption]:
    """The option of every node (by node name) that minimises predicted cycles, conversions included."""
    options: dict[str, Sequence[LayoutOption]] = {}
    for node in graph.nodes:
        found = target.legal(graph, node)
        if not found:
            shown = ", ".join(str(t) for t in graph.in_types(node) if t)
            raise UnsupportedError(
                f"node {node.name!r} ({node.op.name} of {shown}) has no kernel on target {target.name}", node=node.name
            )
        options[node.name] = found
    program = _Program([], [], [])
    pick: dict[str, list[int]] = {}
    made: dict[str, dict[Layout, list[int]]] = {}  # value -> layout -> option variables that make it so
    for node in graph.nodes:
        pick[node.name] = [program.variable(o.cycles, integral=True) for o in options[node.name]]
        program.rows.append(([(x, 1.0) for x in pick[node.name]], 1.0, 1.0))
        for x, option in zip(pick[node.name], options[node.name], strict=True):
            for value, layout in zip(node.outputs, option.outputs, strict=True):
                made.setdefault(value, {}).setdefault(layout, []).append(x)
    conversions: dict[tuple[str, Layout], int] = {}

    def want(value: str, layout: Layout, x: int | None) -> None:
        """Reader variable x (None: always) needs `value` as `layout`: made so, or converted."""
        source = made.get(value, {ROW_MAJOR: []})
        fixed = value not in made and layout == ROW_MAJOR
        if fixed or (value in made and len(source) == 1 and layout in source):
            return
        if (value, layout) not in conversions:
            origin = next(iter(source))
            cycles = target.conversion_cycles(graph, value, origin if origin != layout else ROW_MAJOR, layout)
            conversions[value, layout] = program.variable(cycles, integral=False)
        row = [(conversions[value, layout], 1.0), *((m, 1.0) for m in source.get(layout, []))]
        if x is None:
            program.rows.append((row, 1.0, np.inf))
        else:
            program.rows.append(([*row, (x, -1.0)], 0.0, np.inf))

    for node in graph.nodes:
        for x, option in zip(pick[node.name], options[node.name], strict=True):
            for value, wanted in zip(node.inputs, option.inputs, strict=True):
                if value != ABSENT and wanted is not None and value not in graph.constants:
                    want(value, wanted, x)
    for port in graph.outputs:
        want(port.value, ROW_MAJOR, None)
    if not graph.nodes:
        return {}
    solution = program.solve()
    return {n.name: options[n.name][int(np.argmax([solution[x] for x in pick[n.name]]))] for n in graph.nodes}


@dataclass(frozen=True)
class AssignLayouts(Pass):
    """Choose and set layouts, and put `Relayout` nodes where a reader wants another order than the producer makes.

    Then give every blocked value the halo that its readers want; where a value cannot carry one (it shares its storage with a
    reshaped value, say), the reader gets a converted copy.
    """

    target: Target
    name: ClassVar[str] = "layout"
    summary: ClassVar[str] = "storage order of every value, by predicted cycles over the whole network"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        chosen = choose_layouts(graph, self.target)
        editor = GraphEditor(graph)
        for node in graph.nodes:
            for value, layout in zip(node.outputs, chosen[node.name].outputs, strict=True):
                editor.set_layout(value, layout)
        converter = Converter(editor)
        for node in graph.nodes:
            wanted = chosen[node.name].inputs
            inputs = [
                converter.get(v, layout) if v != ABSENT and layout is not None and v not in graph.constants else v
                for v, layout in zip(node.inputs, wanted, strict=True)
            ]
            converter.rewire(node, inputs)
        for port in graph.outputs:
            if graph.types[port.value].layout != ROW_MAJOR or editor.types[port.value].layout != ROW_MAJOR:
                converter.rewire_output(port.name, converter.get(port.value, ROW_MAJOR))
        return assign_halos(editor.finish(), self.target)
