"""`sparsec simulate DIR --training`: the stages of a training step on SAT, and the values of one, compared with numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.compiler.cli.console import Steps, emit_json, say, table
from sparsec.compiler.errors import UsageError, VerificationError

if TYPE_CHECKING:
    import numpy as np

    from sparsec.backends.systolic.network import Network
    from sparsec.backends.systolic.training import Schedule, Trained
    from sparsec.backends.systolic.training_step import States, Step

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]
    Feeds = Callable[[Any, int], Arrays]  # from what the graph needs and a number to inputs

MOST = 16_000_000_000  # multiplications of a step whose values are computed
_TOLERANCE = 1e-4  # of the largest magnitude of a layer: float32 sums in another order


@dataclass(frozen=True)
class Values:
    """What a step computed: the loss before it, layers and vectors (biases, scales) updated, the largest difference from numpy's
    weights and momenta (over the largest magnitude of the layer's), that of numpy from itself with sums in another order, and the
    cycles of SORE and WUVE."""

    loss: float
    layers: int
    vectors: int
    difference: float
    numpys_own: float
    unit_cycles: int


def train_systolic(folder: Path, batch: int, keep: str, feeds: Feeds, *, check: bool, json: bool, quiet: bool) -> None:
    """Stages of a step with bidirectional n:m pruning, and of a dense one; with `check` the step's values too.

    UsageError for other targets and patterns, VerificationError where values or cycles are not those of numpy and the schedule.
    """
    from sparsec.backends.systolic.folder import read_folder
    from sparsec.backends.systolic.training import trained_layers, training_schedule
    from sparsec.compiler.sparsity import NM
    from sparsec.compiler.sparsity.text import parse_goal

    pattern = parse_goal(keep).pattern
    if not isinstance(pattern, NM) or pattern.rows != 1:
        raise UsageError(f"--keep is {keep!r}: a training step multiplies by n:m weights, as 2:8")
    pruning = (pattern.n_keep, pattern.m_group)
    network = read_folder(folder).network()
    if network.machine.family != "sat":
        raise UsageError(f"{folder} was compiled for {network.machine.name}: training is for sat:RxC")
    layers = trained_layers(network.graph, [choice.layer for choice in network.choices], batch)
    dense, sparse = training_schedule(network.machine, layers), training_schedule(network.machine, layers, *pruning)
    with Steps("simulate", quiet=quiet) as steps:
        values = _values(network, layers, sparse, pruning, batch, feeds, steps) if check else "not asked for (--no-check)"
    _show(dense, sparse, values, batch, keep, json=json)


def _values(
    network: Network,
    layers: tuple[Trained, ...],
    schedule: Schedule,
    pruning: tuple[int, int],
    batch: int,
    feeds: Feeds,
    steps: Steps,
) -> Values | str:
    """Of a step from seeded inputs and targets; in words why there are none."""
    import numpy as np

    from sparsec.backends.systolic.training_engine import NumpyEngine, array_engine
    from sparsec.backends.systolic.training_step import first_states, train_step
    from sparsec.compiler.report import tensor_info

    graph = network.graph
    multiplications = 3 * batch * sum(c.layer.macs for c in network.choices)
    if multiplications > MOST:
        return f"they take {multiplications / 1e9:,.1f} G multiplications, more than {MOST / 1e9:g} G: choose a smaller --batch"
    inputs = tuple(tensor_info(v, graph.types[v]) for v in graph.inputs)
    images, rng = [feeds(inputs, i) for i in range(batch)], np.random.default_rng(0)
    shapes = {p.name: graph.types[p.value].shape for p in graph.outputs}
    targets = [{v: rng.standard_normal(shape).astype(np.float32) for v, shape in shapes.items()} for _ in range(batch)]
    array = array_engine(network.machine, layers, pruning)
    try:
        steps("train")
        done = train_step(network, array, layers, first_states(network, array, layers), images, targets)
    except UsageError as exc:
        return str(exc)
    steps("check")
    wanted, other = (
        train_step(network, plain, layers, first_states(network, plain, layers), images, targets)
        for plain in (NumpyEngine(pruning, array.optimiser, backwards) for backwards in (False, True))
    )
    expected = {name: sum(s.cycles for s in schedule.stages if s.name == name) for name in array.cycles}
    if array.cycles != expected:
        raise VerificationError(f"the step took {array.cycles} cycles by stage, and the schedule says {expected}")
    (own, _), (difference, where) = (_difference(step, wanted, array.optimiser.rate) for step in (other, done))
    if not difference <= max(_TOLERANCE, 4 * own):
        raise VerificationError(
            f"the step differs from numpy's by {difference:.1e} of the largest magnitude in {where!r}, and another order "
            f"of numpy's sums changes at most {own:.1e}"
        )
    states = done.states
    return Values(done.loss, len(states.layers), len(states.vectors), difference, own, array.units)


def _difference(done: Step, wanted: Step, rate: float) -> tuple[float, str]:
    """The largest, relative to the layer's largest magnitude, and the node; infinite where a value is no number."""
    import numpy as np

    worst, node = abs(done.loss - wanted.loss) / max(wanted.loss, 1e-30), "the loss"
    for name, a, b, top in _pairs(done.states, wanted.states, rate):
        off = float(np.abs(a - b).max(initial=0))
        share = off / top if top else off
        if not share <= worst:
            worst, node = float("inf") if np.isnan(share) else share, name
    return worst, node


def _pairs(done: States, wanted: States, rate: float) -> Iterator[tuple[str, Array, Array, float]]:
    """Weights, vectors and momenta of both, with their nodes and the magnitude that differences are relative to."""
    for name, layer in wanted.layers.items():
        yield name, done.layers[name].w, layer.w, _largest(layer.w)
        yield name, done.layers[name].momentum, layer.momentum, _largest(layer.momentum)
    # Of all vectors: some gradients are 0 but for rounding, as those of keys' biases before a softmax.
    top = max((_largest(v.momentum) for v in wanted.vectors.values()), default=0.0)
    for place, vector in wanted.vectors.items():
        yield place[0], done.vectors[place].value, vector.value, max(rate * top, _largest(vector.value))
        yield place[0], done.vectors[place].momentum, vector.momentum, top


def _largest(a: Array) -> float:
    return float(abs(a).max(initial=0))


def _show(dense: Schedule, sparse: Schedule, values: Values | str, batch: int, keep: str, *, json: bool) -> None:
    rows = [
        {
            "layer": s.layer,
            "stage": s.name,
            "dense": d.cycles + d.waiting,
            "dataflow": s.dataflow.value,
            "cycles": s.cycles,
            "waiting": s.waiting,
        }
        for s, d in zip(sparse.stages, dense.stages, strict=True)
    ]
    if json:
        computed = asdict(values) if isinstance(values, Values) else {"not computed": values}
        head = {"batch": batch, "keep": keep, "dense": dense.cycles, "cycles": sparse.cycles}
        emit_json({**head, "values": computed, "stages": rows})
        return
    columns = ("layer", "stage", ">dense", "dataflow", ">cycles", ">waiting for updates")
    table(columns, [[v if isinstance(v, str) else f"{v:,}" for v in row.values()] for row in rows])
    say("")
    if isinstance(values, Values):
        say(
            f"one step from the loss {values.loss:.6g}, in as many cycles: {values.layers} layers and "
            f"{values.vectors} biases and scales updated, "
            f"to {values.difference:.1e} the weights and momenta of numpy, which another order of its sums changes by "
            f"{values.numpys_own:.1e}; SORE and WUVE took {values.unit_cycles:,} cycles"
        )
    else:
        say(f"values were not computed: {values}")
    ratio = dense.cycles / sparse.cycles
    say(f"{sparse.cycles:,} cycles a step of {batch} with {keep} weights, {ratio:.2f} times as fast as dense, by our model")
