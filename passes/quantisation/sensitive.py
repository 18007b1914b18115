"""Which layers stay float: by name, by their own error, or as many as a loss of the whole model takes."""

from __future__ import annotations

from fnmatch import fnmatchcase

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.metric import Distance
from sparsec.passes.quantisation.build import Quantiser
from sparsec.passes.quantisation.layers import Refusal

_SAMPLES = 256  # that whole models are compared on


def layers_to_keep(quantiser: Quantiser) -> dict[str, str]:
    """Layers that stay float, with why.

    The layers that bytes hurt most are those with the least signal to quantisation noise at their results. UsageError for a glob
    that fits no layer, and a loss that cannot be met.
    """
    wanted = quantiser.settings.keep_float
    known = [x.name for x in quantiser.found]
    kept: dict[str, str] = {}
    for glob in wanted.globs:
        fits = [name for name in known if fnmatchcase(name, glob)]
        if not fits:
            raise UsageError(f"--keep-float {glob!r} fits no layer with weights: they are {', '.join(map(repr, known[:8]))}")
        kept |= dict.fromkeys(fits, f"kept float by {glob!r}")
    refused = {x.name for x in quantiser.found if isinstance(x, Refusal)}
    kept = {name: why for name, why in kept.items() if name not in refused}
    if wanted.count or wanted.loss is not None:
        order = [name for name in by_error(quantiser) if name not in kept]
        count = min(wanted.count, len(order)) if wanted.loss is None else _fewest(quantiser, kept, order, wanted.loss)
        kept |= {name: f"bytes hurt it most but {i}" if i else "bytes hurt it most" for i, name in enumerate(order[:count])}
    if len(kept) == len(quantiser.layers):
        raise UsageError("--keep-float keeps every layer float: nothing is left to quantise")
    return kept


def by_error(quantiser: Quantiser) -> list[str]:
    """Names of layers, the one with the least signal to quantisation noise first."""
    corrected = quantiser.settings.correct_bias
    return sorted((x.name for x in quantiser.layers), key=lambda name: quantiser.errors[name].sqnr(corrected=corrected))


def distance(quantiser: Quantiser) -> Distance:
    """Measures quantised models against the float one, on a part of the samples."""
    samples = quantiser.samples.spread(_SAMPLES)
    return Distance(quantiser.folded, samples, quantiser.settings.metric, quantiser.settings.threads)


def _fewest(quantiser: Quantiser, kept: dict[str, str], order: list[str], loss: float) -> int:
    """How many of `order` must stay float so that the model loses at most `loss`, by bisection."""
    compare = distance(quantiser)

    def loses(count: int) -> float:
        quantiser.say(f"try {count} layers in float")
        return compare.of(quantiser.build({*kept, *order[:count]})[0])

    low, high = 0, len(order) - 1
    if loses(low) <= loss:
        return 0
    if (least := loses(high)) > loss:
        raise UsageError(
            f"--keep-float auto:{loss:g} cannot be met: with one quantised layer "
            f"the {quantiser.settings.metric} loss is {least:.3g}"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loses(middle) <= loss else (middle, high)
    return high
