"""Convolutions, transposed convolutions and pools against onnxruntime over random geometries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.ops.pool import Pool
from tests.reference import check_node, make_model

F32 = np.float32


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape).astype(F32)


@st.composite
def geometries(draw: st.DrawFn, *, pool: bool = False) -> dict[str, Any]:
    """A window over 1 to 3 dimensions: kernel, strides, dilations, extents, and either pads or auto_pad."""
    n = draw(st.sampled_from([1, 2, 2, 2, 3]))
    kernel = [draw(st.integers(1, 4)) for _ in range(n)]
    strides = [draw(st.integers(1, 3)) for _ in range(n)]
    dilations = [draw(st.integers(1, 2)) for _ in range(n)]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    extents = [s + draw(st.integers(0, 6)) for s in spans]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    mode = draw(st.sampled_from(["pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "pads":
        limit = [min(k - 1, 2) if pool else 2 for k in kernel]
        attributes["pads"] = [draw(st.integers(0, p)) for p in limit * 2]
        attributes["dilations"] = dilations
    else:
        attributes["auto_pad"] = mode
        if mode == "VALID":
            attributes["dilations"] = dilations
    return {"extents": extents, **attributes}


@settings(max_examples=50)
@given(geometries(), st.integers(1, 3), st.sampled_from([(1, 3, 5), (2, 2, 3), (4, 1, 2), (3, 1, 1)]), st.booleans())
def test_conv(geometry: dict[str, Any], batch: int, channels: tuple[int, int, int], bias: bool) -> None:
    groups, per_group_in, per_group_out = channels
    extents, kernel = geometry.pop("extents"), geometry["kernel_shape"]
    rng = np.random.default_rng(1)
    weights = {"w": normal(rng, groups * per_group_out, per_group_in, *kernel)}
    if bias:
        weights["b"] = normal(rng, groups * per_group_out)
    check_node("Conv", {"x": normal(rng, batch, groups * per_group_in, *extents)}, weights, group=groups, **geometry)


@settings(max_examples=50)
@given(geometries(), st.sampled_from([(1, 3, 2), (2, 2, 3), (3, 1, 1)]), st.booleans(), st.data())
def test_conv_transpose(geometry: dict[str, Any], channels: tuple[int, int, int], bias: bool, data: st.DataObject) -> None:
    groups, per_group_in, per_group_out = channels
    extents, kernel, strides = geometry.pop("extents"), geometry["kernel_shape"], geometry["strides"]
    dilations = geometry.get("dilations", [1] * len(kernel))
    if geometry.get("auto_pad", "").startswith("SAME"):
        assume(all(k >= s for k, s in zip(kernel, strides, strict=True)))
    else:
        geometry["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in strides]
    pads = geometry.get("pads", [0] * 2 * len(kernel))
    grown = [(e - 1) * s + (k - 1) * d + 1 for e, s, k, d in zip(extents, strides, kernel, dilations, strict=True)]
    assume(all(g > a + b for g, a, b in zip(grown, pads, pads[len(kernel) :], strict=False)))
    rng = np.random.default_rng(2)
    weights = {"w": normal(rng, groups * per_group_in, per_group_out, *kernel)}
    if bias:
        weights["b"] = normal(rng, groups * per_group_out)
    check_node("ConvTranspose", {"x": normal(rng, 2, groups * per_group_in, *extents)}, weights, group=groups, **geometry)


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("shape", [[9, 8], [10, 9]])
def test_conv_transpose_to_a_wanted_shape(mode: str, shape: list[int]) -> None:
    rng = np.random.default_rng(3)
    feeds, weights = {"x": normal(rng, 1, 2, 5, 4)}, {"w": normal(rng, 2, 3, 3, 4)}
    graph = check_node("ConvTranspose", feeds, weights, strides=[2, 2], auto_pad=mode, output_shape=shape)
    assert graph.types["y0"].shape == (1, 3, *shape)


@settings(max_examples=60)
@given(geometries(pool=True), st.sampled_from(["MaxPool", "AveragePool", "LpPool"]), st.booleans(), st.booleans())
def test_pools(geometry: dict[str, Any], op: str, ceil: bool, include_pad: bool) -> None:
    extents = geometry.pop("extents")
    if op == "LpPool":
        geometry["p"] = 3
        assume("auto_pad" not in geometry)
    if geometry.get("auto_pad", "").startswith("SAME"):  # onnxruntime computes negative padding otherwise, and refuses
        assume(all(k >= s for k, s in zip(geometry["kernel_shape"], geometry["strides"], strict=True)))
    if "auto_pad" not in geometry:
        geometry["ceil_mode"] = int(ceil)
    if op == "AveragePool":
        geometry["count_include_pad"] = int(include_pad)
    check_node(op, {"x": normal(np.random.default_rng(4), 2, 3, *extents)}, **geometry)


def test_max_pool_of_bytes() -> None:
    x = np.random.default_rng(5).integers(-128, 128, (1, 2, 6, 5)).astype(np.int8)
    check_node("MaxPool", {"x": x}, kernel_shape=[3, 2], pads=[1, 1, 1, 0])


def test_unread_indices_are_no_obstacle_but_read_ones_are() -> None:
    x = np.zeros((1, 1, 4, 4), F32)
    node = helper.make_node("MaxPool", ["x"], ["y", "where"], name="pool", kernel_shape=[2, 2])
    assert isinstance(import_model(make_model([node], {"x": x}, ["y"])).nodes[0].op, Pool)
    with pytest.raises(UnsupportedError, match=r"'pool'.*'where' \(Indices\) is not supported"):
        import_model(make_model([node], {"x": x}, ["y", "where"]))


def test_fused_conv_of_onnxruntime() -> None:
    rng = np.random.default_rng(6)
    feeds = {"x": normal(rng, 1, 3, 6, 6)}
    weights = {"w": normal(rng, 4, 3, 3, 3), "b": normal(rng, 4)}
    for activation, parameters in (("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.3, 0.4])):
        extra = {"activation_params": parameters} if parameters else {}
        check_node("FusedConv", feeds, weights, domain="com.microsoft", activation=activation, **extra)
    check_node("FusedConv", {**feeds, "z": normal(rng, 1, 4, 4, 4)}, weights, inputs=["x", "w", "b", "z"], domain="com.microsoft",
               activation="Relu")  # fmt: skip


def test_macs_count_the_dense_products() -> None:
    graph = check_node(
        "ConvTranspose", {"x": np.ones((1, 4, 3, 3), F32)}, {"w": np.ones((4, 3, 2, 2), F32)}, group=2, strides=[2, 2]
    )
    node = graph.nodes[0]
    assert isinstance(node.op, ConvTranspose)
    assert node.op.macs(graph.in_types(node)) == 9 * 4 * 3 * 4


@pytest.mark.parametrize(
    ("op", "shape", "weights", "attributes", "message"),
    [
        ("MaxPool", (1, 1, 3, 3), {}, {"kernel_shape": [4, 4]}, "does not fit"),
        ("MaxPool", (1, 1, 3, 3), {}, {"kernel_shape": [0, 1]}, "do not fit kernel"),
        ("MaxPool", (1, 1, 3, 3), {}, {"kernel_shape": [2, 2], "strides": [1]}, "do not fit kernel"),
        ("MaxPool", (1, 1, 3, 3), {}, {"kernel_shape": [2, 2], "strides": [0, 1]}, "stride 0 and dilation 1 must be positive"),
        ("AveragePool", (1, 1, 3, 3), {}, {"kernel_shape": [2, 2], "pads": [0, 2, 0, 0]}, "pads .* must be from 0 to"),
        ("AveragePool", (1, 1, 3, 3), {}, {"kernel_shape": [2, 2], "auto_pad": "SAME"}, "not one of NOTSET"),
        ("AveragePool", (1, 1, 3, 3), {}, {}, "malformed"),
        ("AveragePool", (1, 1, 2, 2, 2, 2), {}, {"kernel_shape": [1] * 4}, "1 to 3 are"),
        ("ConvTranspose", (1, 2, 3), {"w": np.ones((3, 2, 2), F32)}, {}, "do not fit 2 input channels"),
        ("ConvTranspose", (1, 2, 3), {"w": np.ones((2, 2, 2), F32)}, {"pads": [3, 3]}, "leave an output of"),
        ("ConvTranspose", (1, 2, 3), {"w": np.ones((2, 2, 2), F32)}, {"strides": [0]}, "do not fit weights"),
        ("ConvTranspose", (1, 2, 3), {"w": np.ones((2, 2, 2), F32)}, {"group": 0}, "in 0 groups"),
        ("Conv", (1, 2, 3), {"w": np.ones((3, 1, 2), F32)}, {}, "do not fit 2 input channels"),
    ],
)
def test_refusals(op: str, shape: tuple[int, ...], weights: dict[str, Any], attributes: dict[str, Any], message: str) -> None:
    node = helper.make_node(op, ["x", *weights], ["y"], name="node", **attributes)
    with pytest.raises((ModelError, UnsupportedError), match=f"'node'.*{message}"):
        import_model(make_model([node], {"x": np.ones(shape, F32)}, ["y"], weights))
