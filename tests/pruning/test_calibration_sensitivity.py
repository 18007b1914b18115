"""Sensitivities are the squared norms of what follows, and uniform where that is not known."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from sparsec.passes.pruning.calibrated.sensitivity import Sensitivity
from tests.reference import make_model

RNG = np.random.default_rng(0)
W = RNG.standard_normal((3, 4, 2, 2)).astype(np.float32)  # OC 3, IC 4
V = RNG.standard_normal((5, 12)).astype(np.float32)  # reads 3 channels of 4 places
GROUPED = RNG.standard_normal((6, 2, 1, 1)).astype(np.float32)
NORMAL = {n: np.abs(RNG.standard_normal(4)).astype(np.float32) + 0.5 for n in ("gamma", "beta", "mean", "var")}


def model(*nodes: onnx.NodeProto) -> Sensitivity:
    weights = {"w": W, "v": V, "grouped": GROUPED, **NORMAL}
    return Sensitivity(make_model(list(nodes), {"x": (TensorProto.FLOAT, [1, 4, 3, 3])}, ["y"], weights))


def test_layers_one_behind_the_other() -> None:
    """Normalisation, convolution, activation, flatten and classifier: the product of matrices of squares."""
    found = model(
        helper.make_node("BatchNormalization", ["x", *NORMAL], ["n"]),
        helper.make_node("Conv", ["n", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    )
    inner = np.square(V.astype(np.float64)).sum(axis=0).reshape(3, 4).sum(axis=1)
    outer = inner @ np.square(W.astype(np.float64)).sum(axis=(2, 3)) * NORMAL["gamma"] ** 2 / (NORMAL["var"] + 1e-5)
    np.testing.assert_allclose(found.of("c", 3), inner / inner.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.of("x", 4), outer / outer.mean(), rtol=1e-6)
    np.testing.assert_array_equal(found.of("y", 5), np.ones(5))


def test_branches_add_up_and_groups_read_their_own() -> None:
    found = model(
        helper.make_node("Conv", ["x", "grouped"], ["g"], group=2),
        helper.make_node("GlobalAveragePool", ["g"], ["p"]),
        helper.make_node("Conv", ["x", "grouped"], ["h"], group=2),
        helper.make_node("Add", ["p", "h"], ["y"]),
    )
    squares = np.square(GROUPED.astype(np.float64))[..., 0, 0].reshape(2, 3, 2).sum(axis=1).reshape(-1)
    np.testing.assert_allclose(found.of("x", 4), squares / squares.mean(), rtol=1e-6)


def test_what_is_not_known_is_uniform() -> None:
    """Behind an unknown node, and where one of two readers is unknown; values that nothing reads count nothing."""
    found = model(
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["s"], axis=1),
        helper.make_node("Mul", ["c", "s"], ["y"]),
    )
    for value, channels in (("c", 3), ("x", 4), ("never", 2)):
        np.testing.assert_array_equal(found.of(value, channels), np.ones(channels))
