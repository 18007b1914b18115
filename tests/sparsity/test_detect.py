"""Every pattern is recognised from its own masks, and dense weights stay dense."""

import numpy as np
import pytest

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes
from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, Sparsity, Unstructured
from sparsec.compiler.sparsity.detect import detect
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import View, layer_weights
from sparsec.compiler.types import TensorType
from sparsec.passes.pruning.masks import choose
from sparsec.passes.sparsity import DetectSparsity

RNG = np.random.default_rng(5)


def weights(pattern: Sparsity, sparsity: float, shape: tuple[int, int, int] = (64, 9, 64)) -> np.ndarray:
    w = RNG.standard_normal(shape).astype(np.float32)
    return np.where(choose(Goal(pattern, sparsity), np.abs(w)).mask, w, 0)


@pytest.mark.parametrize(
    ("pattern", "sparsity"),
    [
        (NM(2, 4), 0.5),
        (NM(1, 4), 0.75),
        (NM(1, 2), 0.5),
        (NM(4, 8), 0.5),
        (NM(2, 4, 4), 0.5),
        (NM(2, 4, 32), 0.5),
        (NM(1, 4, 32), 0.75),
        (Block(8, 8), 0.5),
        (Block(8, 8, "each"), 0.75),
        (Block(32, 1), 0.5),
        (Block(16, 4), 0.5),
        (Block(1, 4), 0.75),
        (NMG(1, 4, 16), 0.75),
        (NMG(2, 4, 4), 0.5),
        (HiNM(32, 2, 4), 0.75),
        (HiNM(16, 2, 4), 0.75),
        (Unstructured(), 0.9),
        (Unstructured(), 0.6),
    ],
    ids=str,
)
def test_the_tightest_pattern_is_the_one_that_was_pruned_to(pattern: Sparsity, sparsity: float) -> None:
    w = weights(pattern, sparsity)
    found = detect(w)
    assert found[0] == pattern.of(w)
    assert all(p.holds(w) and p.nnz == np.count_nonzero(w) for p in found)
    assert detect(w, pattern) == (pattern.of(w),)


def test_dense_and_nearly_dense_weights_have_no_pattern() -> None:
    w = RNG.standard_normal((64, 1, 64)).astype(np.float32)
    assert detect(w) == ()
    w[RNG.random(w.shape) < 0.05] = 0
    assert detect(w) == detect(w, NM(2, 4)) == ()


def test_a_claim_that_does_not_hold_or_stores_too_much_is_not_believed() -> None:
    w = weights(Unstructured(), 0.9)
    assert detect(w, NM(1, 4))[0] == detect(w, Block(8, 8))[0] == Unstructured(np.count_nonzero(w))


def test_a_block_size_that_is_not_looked_for_is_known_from_a_claim() -> None:
    w = weights(Block(5, 3), 0.5, (60, 1, 60))
    assert detect(w, Block(5, 3)) == (Block(5, 3).of(w),)
    assert detect(w)[0] != Block(5, 3).of(w)


def test_n_of_m_blocks_are_known_from_a_claim() -> None:
    claim = Block(8, 8, n_keep=2, m_group=4)
    w = weights(claim, 0.5, (64, 1, 64))
    assert detect(w, claim) == (claim.of(w),)
    assert detect(w)[0] == Block(8, 8).of(w)
    other = weights(Block(8, 8), 0.5, (64, 1, 64))
    assert detect(other, claim) == detect(other) and not claim.holds(other)


def test_an_all_zero_weight_is_recognised() -> None:
    assert detect(np.zeros((8, 1, 8), np.float32))[0].nnz == 0


def graph(conv: np.ndarray, products: dict[str, tuple[np.ndarray, bool]]) -> Graph:
    """A convolution, and products of one input with several constants."""
    f32 = DType.F32
    op = Conv((1, 1), (1, 1), (1, 1, 1, 1))
    x, a = TensorType(f32, (1, conv.shape[1], 4, 4)), TensorType(f32, (3, 32))
    types = {"x": x, "a": a, "w": TensorType(f32, conv.shape)}
    types["y"] = op.infer([x, types["w"]])[0]
    nodes, outputs = [Node("conv", op, ("x", "w"), ("y",))], [Port("y", "y")]
    for name, (w, flipped) in products.items():
        product = MatMul(trans_b=flipped)
        types[name] = TensorType(f32, w.shape)
        types[f"{name}.y"] = product.infer([a, types[name]])[0]
        nodes.append(Node(f"{name}.dot", product, ("a", name), (f"{name}.y",)))
        outputs.append(Port(f"{name}.y", f"{name}.y"))
    constants = {"w": conv, **{n: w for n, (w, _) in products.items()}}
    return Graph("g", ("x", "a"), tuple(outputs), tuple(nodes), types, constants)


def test_the_pass_records_patterns_in_types_whatever_the_storage_order() -> None:
    filters = weights(NM(2, 4), 0.5, (16, 9, 32))
    conv = View.CONV.restore(filters, (16, 32, 3, 3))
    np.testing.assert_array_equal(View.CONV.filters(conv), filters)
    rows = weights(NM(2, 4, 4), 0.5, (16, 1, 32))
    given = graph(conv, {"kn": (View.KN.restore(rows, (32, 16)), False), "nk": (View.NK.restore(rows, (16, 32)), True)})
    assert [x.view for x in layer_weights(given)] == [View.CONV, View.KN, View.NK]
    after = DetectSparsity().run(given)
    assert str(after.types["w"]) == f"f32[16,32,3,3]~2:4/nnz={np.count_nonzero(filters)}"
    assert after.types["kn"].sparsity == after.types["nk"].sparsity == NM(2, 4, 4).of(rows)
    assert DetectSparsity().run(after) is after


def test_weights_that_others_read_stay_dense_and_the_note_says_so() -> None:
    filters = weights(NM(1, 4), 0.75, (32, 1, 32))
    given = graph(np.ones((4, 4, 3, 3), np.float32), {"kn": (filters[:, 0], False), "nk": (filters[:, 0], True)})
    editor = GraphEditor(given)
    editor.replace_uses("nk", "kn")  # one product reads it as [K, N], the other as [N, K]
    notes = Notes()
    after = DetectSparsity().run(editor.finish(), notes)
    assert after.types["kn"].sparsity == DENSE
    expected = "its zeros are not used: layers that share its weights read them in different ways"
    assert [n.reason for n in notes.entries] == [expected]
