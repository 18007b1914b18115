"""Zero a halo after its interior has been written: the arena is reused, so what lies there is stale."""

from __future__ import annotations

from sparsec.backends.cpu.kernels.relayout import zero_halo
from sparsec.backends.cpu.lower.base import LowerContext
from sparsec.compiler.graph import Node


def fill_halo(ctx: LowerContext, node: Node, value: str) -> None:
    """Append the call that zeroes the halo of a blocked value."""
    view = ctx.view(value)
    kernel, geometry = zero_halo(view.type)
    ctx.call(node, kernel, geometry, [view.ref])
