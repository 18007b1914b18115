"""One step of training with bidirectional weight pruning (BDWP; Fang et al., arXiv 2309.13015): values of FF, BP and WU.

Products, masks and updates are an engine's (the array with its units, or numpy); what is between products is the host's. The
weights of layers are trained, and the operands that `training_vectors` names; other constants stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.systolic.gradients import host_gradients
from sparsec.backends.systolic.layers import Layer
from sparsec.backends.systolic.network import Network
from sparsec.backends.systolic.scalar_gradients import program_gradients
from sparsec.backends.systolic.training import Trained, dependents
from sparsec.backends.systolic.training_engine import Engine
from sparsec.backends.systolic.training_forms import Form, form_of
from sparsec.backends.systolic.training_vectors import Place, VectorState, first_vectors
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import ABSENT, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.epilogue import apply_epilogue
from sparsec.compiler.ops.matmul import MatMul

Array = np.ndarray[Any, Any]
Batch = Sequence[Array]  # an array of every image


@dataclass(frozen=True)
class LayerState:
    """Weights and momenta [products, M, K] float32, and what FF and BP multiply by: made of the weights before the step."""

    w: Array
    momentum: Array
    forwards: Array  # [products, M, K]
    backwards: Array  # [products, K, M]


@dataclass(frozen=True)
class States:
    """All that is trained: layers by node, with the weights that the next step multiplies by, and vectors by place."""

    layers: Map[str, LayerState]
    vectors: Map[Place, VectorState]


@dataclass(frozen=True)
class Step:
    """The states after a step, and the loss before it."""

    states: States
    loss: float


def layer_state(engine: Engine, w: Array, momentum: Array, pruned: bool) -> LayerState:
    """With weights for both passes; those of a `pruned` layer are n:m along what each pass reduces."""
    turned = np.swapaxes(w, 1, 2)
    if not pruned:
        return LayerState(w, momentum, w, turned)
    return LayerState(w, momentum, np.stack([engine.kept(p) for p in w]), np.stack([engine.kept(p) for p in turned]))


def first_states(network: Network, engine: Engine, layers: Sequence[Trained]) -> States:
    """With the network's weights and no momenta; UsageError for weights that are not float32, or those of several layers."""
    found, seen = dict[str, LayerState](), set[str]()
    for choice, trained in zip(network.choices, layers, strict=True):
        layer = choice.layer
        if not layer.constant:
            continue
        if layer.weights in seen:
            raise UsageError(
                f"weights {layer.weights!r} are those of several layers: each would train its own", node=trained.name
            )
        seen.add(layer.weights)
        w = layer.arrangement.matrices(network.graph.constants[layer.weights])
        if w.dtype != np.float32:
            raise UsageError(f"layer {trained.name!r} multiplies {w.dtype}: float32 networks are trained", node=trained.name)
        found[trained.name] = layer_state(engine, w, np.zeros_like(w), trained.pruned)
    return States(found, first_vectors(network))


def train_step(
    network: Network,
    engine: Engine,
    layers: Sequence[Trained],
    states: States,
    images: Sequence[Map[str, Array]],
    targets: Sequence[Map[str, Array]],
) -> Step:
    """A step on a batch: inputs and targets by name of every image. The loss is half the squared error of all outputs, averaged
    over the batch. `layers` are `trained_layers` of the network. UsageError for a node that has no gradient here."""
    run = _Pass(network, engine, {t.name: t for t in layers}, states, len(images))
    run.forwards(images)
    loss = 0.0
    for port in network.graph.outputs:
        errors = [v - t[port.name] for v, t in zip(run.values[port.value], targets, strict=True)]
        loss += 0.5 * sum(float(np.square(e, dtype=np.float64).sum()) for e in errors) / len(images)
        run.receive(port.value, [e / np.float32(len(images)) for e in errors])
    run.backwards()
    return Step(States(run.layers_after, {**states.vectors, **run.vectors_after}), loss)


@dataclass
class _Pass:
    """Values, forwards, and gradients, backwards, by value and image."""

    network: Network
    engine: Engine
    trained: Map[str, Trained]
    states: States
    batch: int
    values: dict[str, Batch] = field(default_factory=dict)
    sums: dict[str, Batch] = field(default_factory=dict)
    gradients: dict[str, Batch] = field(default_factory=dict)
    layers_after: dict[str, LayerState] = field(default_factory=dict)
    vectors_after: dict[Place, VectorState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = {c.layer.node.name: c.layer for c in self.network.choices}
        self.dependents = dependents(self.network.graph, list(self.layers.values()))
        self.values.update({v: [a] * self.batch for v, a in self.network.graph.constants.items()})

    def receive(self, value: str, gradient: Batch) -> None:
        """Add to the gradient of a value, where it depends on weights."""
        if value in self.dependents:
            known = self.gradients.get(value)
            self.gradients[value] = gradient if known is None else [a + b for a, b in zip(known, gradient, strict=True)]

    def receive_all(self, node: Node, each: Sequence[Sequence[Array]], first: int = 0) -> None:
        """Gradients, of every image, of a node's operands from `first` on: for values, or updates of what is trained."""
        for k, (i, value) in enumerate((i, v) for i, v in enumerate(node.inputs) if i >= first and v != ABSENT):
            gradient = [found[k] for found in each]
            state = self.states.vectors.get((node.name, i))
            if state is None:
                self.receive(value, gradient)
                continue
            whole = np.stack(gradient).sum(axis=0)
            self.vectors_after[node.name, i] = VectorState(*self.engine.updated(state.value, state.momentum, whole))

    def operands(self, node: Node, image: int, first: int = 0) -> list[Array | None]:
        """Of an image, from `first` on; None for those left out."""
        return [self._operand(node, i, image) if v != ABSENT else None for i, v in enumerate(node.inputs) if i >= first]

    def given(self, node: Node, image: int, first: int = 0) -> list[Array]:
        """The operands without those left out."""
        return [a for a in self.operands(node, image, first) if a is not None]

    def _operand(self, node: Node, i: int, image: int) -> Array:
        state = self.states.vectors.get((node.name, i))
        return self.values[node.inputs[i]][image] if state is None else state.value

    def forwards(self, images: Sequence[Map[str, Array]]) -> None:
        """All nodes."""
        self.values.update({v: [np.asarray(image[v]) for image in images] for v in self.network.graph.inputs})
        for node in self.network.graph.nodes:
            op = node.op
            if node.name in self.layers and isinstance(op, Conv | MatMul):
                sums = self._product(self.layers[node.name])
                self.sums[node.name] = sums
                results = [apply_epilogue(op.epilogue, s, self.operands(node, i, 2)) for i, s in enumerate(sums)]
                self.values[node.output] = results
                continue
            each = [op.evaluate(self.operands(node, i)) for i in range(self.batch)]
            self.values.update({v: [results[k] for results in each] for k, v in enumerate(node.outputs)})

    def backwards(self) -> None:
        """All nodes that the loss depends on, the last one first."""
        for node in reversed(self.network.graph.nodes):
            upstream = self.gradients.get(node.output)
            if upstream is None:
                continue
            if node.name in self.layers:
                self._layer_backwards(self.layers[node.name], upstream)
                continue
            values = self.values[node.output]
            self.receive_all(node, [host_gradients(node, self.given(node, i), values[i], upstream[i]) for i in range(self.batch)])

    def _product(self, layer: Layer) -> Batch:
        """Sums of a layer, of all images at once where its weights are the same for all."""
        name, form, data = layer.node.name, form_of(self.network.graph, layer), np.stack(self.values[layer.data])
        if layer.constant:
            return list(form.result(self._products(name, "FF", self.states.layers[name].forwards, form.columns(data))))
        found = []
        for i in range(self.batch):
            w = layer.arrangement.matrices(self.values[layer.weights][i])
            found.append(form.result(self._products(name, "FF", w, form.columns(data[i : i + 1])))[0])
        return found

    def _products(self, name: str, stage: str, w: Array, x: Array) -> Array:
        return np.stack([self.engine.product(name, stage, *pair) for pair in zip(w, x, strict=True)])

    def _layer_backwards(self, layer: Layer, upstream: Batch) -> None:
        """Its epilogue's gradients, and those of its data and weights."""
        node, op = layer.node, layer.node.op
        assert isinstance(op, Conv | MatMul)
        each = [
            program_gradients(node.name, op.epilogue, [self.sums[node.name][i], *self.given(node, i, 2)], upstream[i])
            for i in range(self.batch)
        ]
        self.receive_all(node, [found[1:] for found in each], 2)
        form, data = form_of(self.network.graph, layer), np.stack(self.values[layer.data])
        error = np.stack([found[0] for found in each])
        if not layer.constant:
            for i in range(self.batch):
                self._computed_backwards(layer, form, data[i : i + 1], error[i : i + 1], i)
            return
        name, state, sums = node.name, self.states.layers[node.name], form.sums(error)
        gradient = self._products(name, "WU", sums, np.swapaxes(form.columns(data), 1, 2))
        if not self.trained[name].first:
            self.receive(layer.data, list(form.spread(self._products(name, "BP", state.backwards, sums))))
        w, momentum = self.engine.updated(state.w, state.momentum, gradient)
        self.layers_after[name] = layer_state(self.engine, w, momentum, self.trained[name].pruned)

    def _computed_backwards(self, layer: Layer, form: Form, data: Array, error: Array, image: int) -> None:
        """Of a product of two computed matrices, an image: both operands' gradients."""
        name, sums = layer.node.name, form.sums(error)
        w = layer.arrangement.matrices(self.values[layer.weights][image])
        other = self._products(name, "WU", sums, np.swapaxes(form.columns(data), 1, 2))
        mine = form.spread(self._products(name, "BP", np.swapaxes(w, 1, 2), sums))
        for value, found in (
            (layer.data, mine[0]),
            (layer.weights, layer.arrangement.value(other, self.network.graph.types[layer.weights].shape)),
        ):
            spread = [np.zeros_like(found)] * self.batch
            spread[image] = found
            self.receive(value, spread)
