"""Prunings of one model with the same calibration samples, again and again."""

from __future__ import annotations

import onnx

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.memory import Memory
from sparsec.passes.pruning.calibrated.model import prune_calibrated
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.recipe import Recipe


class Trials:
    """Prunes a model by recipes that differ in what they ask of layers, channels in their order."""

    def __init__(self, dense: onnx.ModelProto, graph: Graph, samples: Samples, settings: Settings) -> None:
        """`graph` is what `dense` imports to; neither is changed."""
        self._dense, self._graph, self._samples, self._settings = dense, graph, samples, settings
        self._memory = Memory()

    def prune(self, recipe: Recipe) -> onnx.ModelProto:
        """The model pruned. Raises what `sparsec.prune` raises."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self._dense)
        editor = WeightEditor(proto, None)
        prune_calibrated(editor, self._graph, recipe, self._samples, self._settings, lambda _: None, self._memory)
        return proto
