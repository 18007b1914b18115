"""Named pipelines: ordered tuples of passes, with the reason for the order beside each."""

from __future__ import annotations

from sparsec.compiler.passing.base import Pass
from sparsec.passes.algebra import Algebra
from sparsec.passes.attention import RecogniseAttention
from sparsec.passes.balance_blocks import BalanceBlocks
from sparsec.passes.batchnorm import FoldBatchNorm
from sparsec.passes.byte_means import ByteMeans
from sparsec.passes.byte_pads import BytePads
from sparsec.passes.bytes_out import BytesOut
from sparsec.passes.canonical import Canonical
from sparsec.passes.channel_shuffle import ChannelShuffle
from sparsec.passes.cse import CommonSubexpressions
from sparsec.passes.dce import DeadCode
from sparsec.passes.decompose import Decompose
from sparsec.passes.dequantise import Dequantise
from sparsec.passes.flat_products import FlatProducts
from sparsec.passes.fold import Fold
from sparsec.passes.fuse_epilogue import FuseEpilogue
from sparsec.passes.fuse_map import FuseMap
from sparsec.passes.gelu import Gelu
from sparsec.passes.identity import Identity
from sparsec.passes.integers import Integers
from sparsec.passes.layernorm import RecogniseLayerNorm
from sparsec.passes.pad import FoldPad
from sparsec.passes.requantise import Requantise
from sparsec.passes.reshapes import Reshapes
from sparsec.passes.scale import FoldScale
from sparsec.passes.softmax import RecogniseSoftmax
from sparsec.passes.space_to_depth import SpaceToDepth
from sparsec.passes.sparsity import DetectSparsity
from sparsec.passes.split import Split
from sparsec.passes.swish import Swish
from sparsec.passes.transposes import Transposes
from sparsec.passes.widen import Widen

DEFAULT: tuple[Pass, ...] = (
    Widen(),  # first of all: everything below knows float32 best
    Dequantise(),  # before folding makes real numbers of integer weights
    Integers(),  # for the same reason; after dequantise, which brings quantised values to their products
    Fold(),  # early: later passes ask whether an operand is constant
    CommonSubexpressions(),  # before fusion: a fused node no longer equals its twin
    Identity(),  # what does nothing would hide producers from the patterns below
    Algebra(),  # one spelling of each formula for the patterns below
    Canonical(),  # for the same reason; after algebra, which turns divisions into products
    Gelu(),  # before epilogues take the formula apart: its argument is read twice
    RecogniseLayerNorm(),  # for the same reason
    Swish(),  # for the same reason
    RecogniseSoftmax(),  # before attention, which begins there
    Split(),  # before attention, which wants queries, keys and values from products of their own
    RecogniseAttention(),  # before epilogues take scale and mask, and before transposes move away from it
    Transposes(),  # after the patterns, which know their transpositions; before fusion, because it moves Maps to producers
    Reshapes(),  # for the same reason
    FoldPad(),  # after transposes, which brings Pad and window together
    ChannelShuffle(),  # after reshapes, which makes shuffles short; before batchnorm, which may refuse a shuffled operand
    Fold(),  # transposed and reshaped constants
    Identity(),  # what the moves left over
    CommonSubexpressions(),  # twins that the moves made, constants among them
    FoldBatchNorm(),  # before epilogues fill up: only a bias may stand between the weights and the normalisation
    FoldScale(),  # after batchnorm, for the same reason
    Decompose(),  # what no pass took in; before fusion, which merges the pieces
    FuseEpilogue(),  # before fuse_map, which would merge the activation of one convolution with the residual of the next
    Requantise(),  # when epilogues are whole
    FuseMap(),  # what no epilogue took
    DeadCode(),  # sweeps what the others left unread
    DetectSparsity(),  # last: weights are final, and the backend asks for their zeros
)

ARRAY: tuple[Pass, ...] = (
    *DEFAULT,
    BytesOut(),  # when epilogues are final: arrays store bytes
    ByteMeans(),  # behind it: the bytes of means are those of products
    FlatProducts(),  # behind it: their epilogues read nothing else then
    SpaceToDepth(),  # late: what makes bytes of the input is a node of its own, and reads nothing but floats
    BytePads(),  # behind it: padding of what the host arranges is arranged, too
    BalanceBlocks(),  # last: all layers have the weights and the inputs that cores will share
)

PIPELINES: dict[str, tuple[Pass, ...]] = {"default": DEFAULT, "array": ARRAY, "none": ()}
