"""What the array backend makes of a graph: segments, images, weights and streams, before they become files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsec.backends.aie.lower.geometry import Image
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.views import View
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.transaction import Transaction
from sparsec.compiler.graph import Graph


@dataclass(frozen=True, slots=True)
class Staying:
    """Whether a layer's results stay in memory tiles for the next one, whether they go to DDR, why they do not stay, whether they
    are held in memory tiles for a later layer, or the next one, that adds them, and which rows and columns of them go to DDR:
    `every` so many-th."""

    stays: bool
    leaves: bool
    why: str
    held: bool = False
    every: int = 1


@dataclass(frozen=True)
class ArrayPart:
    """A segment on the array: its layers' plans, the nodes that are views, its control stream and weights; `ends` counts
    operations up to each layer's end, the first number those before the first layer, and `late` says what keeps each layer from
    beginning while the one before computes, `staying` what becomes of its results; `soon` whether its first data come to cores
    meanwhile."""

    plans: tuple[LayerPlan, ...]
    views: tuple[View, ...]
    control: Transaction
    weights: bytes
    ends: tuple[int, ...]
    late: tuple[str, ...]
    staying: tuple[Staying, ...]
    soon: tuple[bool, ...]


@dataclass(frozen=True)
class HostPart:
    """A segment on the host."""

    graph: Graph


@dataclass(frozen=True)
class ArrayProgram:
    """A whole network. `images` says where values are in the activation buffer, `zeros` what surrounds them there.

    `reasons` says why nodes are on the host, `passed_over` why layers are not computed in a cheaper way, both by node.
    """

    name: str
    machine: Machine
    graph: Graph
    parts: Sequence[ArrayPart | HostPart]
    reasons: Mapping[str, str]
    images: Mapping[str, Image]
    zeros: Mapping[str, int]
    activation_bytes: int
    core: bytes
    core_text: str
    passed_over: Mapping[str, str]
