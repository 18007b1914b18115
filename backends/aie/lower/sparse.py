"""Which layers sparse products compute, and what is said of that."""

from __future__ import annotations

from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import Mode
from sparsec.backends.aie.lower.tiling import Tiling


def why_dense(layer: ConvLayer, mode: Mode, splits: int) -> str:
    """Why sparse products do not compute a layer in a cut with so many parts of the input channels, as a clause, or ""."""
    if not layer.two_of_four:
        return "not two of every four weights are zeros"
    if layer.shifts.scaling is not None:
        return "its sums are scaled"
    if splits > 1 and layer.residual is not None:
        return "a residual would be added to sums in parts"
    if layer.output_blocks % (2 * mode.channel_parts):
        return f"{layer.output_blocks} blocks of 8 output channels are no pairs for each of {mode.channel_parts} groups of cores"
    if mode.chain > 1:
        return "cores of a chain make one block of 8 output channels at a time"
    if layer.input_blocks % (2 * splits):
        return f"{layer.input_blocks} blocks of 8 input channels are no pairs in {splits} parts"
    return ""


def told_products(t: Tiling) -> str:
    """What is to be said of a layer's products, in words; "" for dense weights."""
    if t.sparse:
        return "sparse-B products of 4 x 16 x 8, as two of every four weights are zeros"
    if not t.layer.two_of_four:
        return ""
    why = why_dense(t.layer, t.mode, t.splits)
    why = f"in this cut {why}" if why else "cheaper by the model"
    return f"dense products, though two of every four weights are zeros: {why}"
