"""Whether a model loses less in another order of channels: it is pruned in both, and what comes out is compared.

Orders are searched for what masks keep before anything is fitted. Least squares makes up for much of that, so that an order in
which more is kept need not lose less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx

from sparsec.compiler.graph import Graph
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.importance import Outputs
from sparsec.passes.pruning.calibrated.metric import Distance, Metric, run_outputs
from sparsec.passes.pruning.calibrated.parts import divide
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.recipe import Recipe
from sparsec.passes.pruning.trials import Trials

_FIT, _MEASURE = 300, 500  # samples at most to prune with, and to compare by
_ROWS = 10_000  # of a layer's inputs that are fitted


@dataclass(frozen=True)
class Candidate:
    """A dense model with its channels in some order, and what it imports to."""

    proto: onnx.ModelProto
    graph: Graph


def losses(
    candidates: Sequence[Candidate], recipe: Recipe, samples: Samples, settings: Settings, say: Callable[[str], None]
) -> tuple[float, ...]:
    """What each candidate loses that is pruned with some of the samples, against the first one dense, on others.

    That is the divergence of the softmax; where the outputs have none, or count as values, the mean squared difference. One batch
    of samples serves both. Empty where no output is floating-point. Raises what pruning raises.
    """
    fit, measured = samples, samples
    if len(samples) > 1:
        first, second = divide(samples, (None, _MEASURE), recipe.seed)
        fit, measured = first.first(_FIT).samples, second.samples
    measured = _alike(measured)
    metric = _metric(candidates[0].proto, measured, settings)
    if metric is None:
        return ()
    judge, found = Distance(candidates[0].proto, measured, metric, settings.threads), []
    quick = replace(settings, rows=min(settings.rows, _ROWS))
    for number, each in enumerate(candidates, 1):
        say(f"try order {number} of {len(candidates)}")
        found.append(judge.of(Trials(each.proto, each.graph, fit, quick).prune(recipe)).value)
    return tuple(found)


def _alike(samples: Samples) -> Samples:
    """The batches whose samples have the extents of the first one's."""
    extents = [{name: a.shape[1:] for name, a in feeds.items()} for feeds in samples]
    return Samples(tuple(feeds for feeds, same in zip(samples, extents, strict=True) if same == extents[0]))


def _metric(dense: onnx.ModelProto, samples: Samples, settings: Settings) -> Metric | None:
    """What outputs are compared by."""
    outputs = run_outputs(dense, Samples(samples.batches[:1]), settings.threads).values()
    floats = [a for a in outputs if a.dtype.kind == "f"]
    if not floats:
        return None
    logits = settings.outputs is Outputs.softmax and all(a.ndim > 1 and a.shape[-1] > 1 for a in floats)
    return Metric.kl if logits else Metric.mse
