"""Matrix products with constant weights as the planar kernels see them: tokens are positions."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.narrow import types_of
from sparsec.backends.cpu.lower.operands import padded_lanes
from sparsec.backends.cpu.lower.planar import PlanarLayer, PlanarPlan, Side, plan_planar
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


def plan_product(
    graph: Graph, node: Node, kinds: tuple[str, ...], weights: Array, x: Blocked, y: Blocked, isa: Isa
) -> PlanarPlan:
    """The planar plan with features stored as `x` and `y` say. `weights` [K, N] are a view of the node's constant."""
    assert isinstance(node.op, MatMul)
    source, result = graph.types[node.inputs[0]], graph.types[node.output]
    positions = prod(result.shape[:-1])
    layer = PlanarLayer(
        n=1,
        positions=positions,
        ow=positions,
        oc=result.shape[-1],
        taps=1,
        ic=source.shape[-1],
        x=_side(source, x, isa),
        y=_side(result, y, isa),
        extras=tuple(
            _side(graph.types[v], y, isa) if kind == "full" else None for v, kind in zip(node.inputs[2:], kinds, strict=True)
        ),
        kinds=kinds,
        epilogue=node.op.epilogue,
        tail_lanes=padded_lanes(node.op.epilogue, kinds, result.shape[-1], isa),
        types=types_of(graph, node, isa),
    )
    return plan_planar(layer, graph.constants[node.inputs[1]], weights.T[:, None, :], isa)


def _side(t: TensorType, layout: Blocked, isa: Isa) -> Side:
    return Side(layout.block == isa.lanes, 0, strides_of(t.with_layout(layout)).block, 0, layout.block)
