"""Resize, Pad, Concat, Transpose and the depth/space shuffles against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.resize import COORDINATES, ROUNDINGS
from tests.reference import check_node, make_model

F32 = np.float32


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(F32)


@settings(max_examples=60)
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from([c for c in COORDINATES if c.startswith(("half", "pytorch", "align", "asym"))]),
    st.sampled_from(ROUNDINGS),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
)
def test_resize_to_sizes(mode: str, coordinates: str, rounding: str, h: int, w: int, oh: int, ow: int, exclude: bool) -> None:
    if mode == "nearest" and coordinates == "half_pixel_symmetric":  # onnxruntime's own rounding decides between two neighbours
        places = [(i + 0.5) * n / out - 0.5 for n, out in ((h, oh), (w, ow)) for i in range(out)]
        assume(all(abs(2 * x - round(2 * x)) > 1e-4 for x in places))
    extra: dict[str, Any] = {"cubic_coeff_a": -0.5, "exclude_outside": int(exclude)} if mode == "cubic" else {}
    check_node(
        "Resize",
        {"x": normal(1, 2, h, w)},
        {"sizes": np.array([1, 2, oh, ow])},
        inputs=["x", "", "", "sizes"],
        tolerance=1e-4,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
        **extra,
    )


@settings(max_examples=30)
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(["half_pixel", "asymmetric", "pytorch_half_pixel"]),
    st.sampled_from([0.5, 0.6, 1.0, 1.5, 2.0, 2.4, 3.0]),
    st.sampled_from([0.5, 1.0, 1.7, 2.0, 4.0]),
    st.integers(2, 6),
)
def test_resize_by_scales(mode: str, coordinates: str, sy: float, sx: float, extent: int) -> None:
    x, scales = normal(1, 2, extent, extent + 1), {"scales": np.array([1, 1, sy, sx], F32)}
    check_node("Resize", {"x": x}, scales, inputs=["x", "", "scales"], tolerance=1e-4, mode=mode,
               coordinate_transformation_mode=coordinates)  # fmt: skip


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop_and_resize(mode: str) -> None:
    weights = {"roi": np.array([0, 0, 0.2, -0.1, 1, 1, 0.7, 1.2], F32), "sizes": np.array([1, 2, 5, 4])}
    check_node("Resize", {"x": normal(1, 2, 6, 7)}, weights, inputs=["x", "roi", "", "sizes"], tolerance=1e-4, mode=mode,
               coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0)  # fmt: skip


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_resize_of_chosen_axes(policy: str) -> None:
    graph = check_node("Resize", {"x": normal(1, 2, 4, 6)}, {"sizes": np.array([9, 8])}, inputs=["x", "", "", "sizes"],
                       axes=[3, 2], mode="linear", keep_aspect_ratio_policy=policy, opset=18)  # fmt: skip
    assert graph.types["y0"].shape[:2] == (1, 2)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_forms(mode: str) -> None:
    x, scales = normal(1, 2, 3, 4), {"scales": np.array([1, 1, 2, 2.5], F32)}
    check_node("Upsample", {"x": x}, opset=7, mode=mode, scales=[1.0, 1.0, 2.0, 2.5])
    check_node("Upsample", {"x": x}, scales, opset=9, mode=mode)
    check_node("Resize", {"x": x}, scales, opset=10, mode=mode)


def test_resize_of_bytes() -> None:
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4)).astype(np.uint8)
    check_node("Resize", {"x": x}, {"scales": np.array([1, 1, 2, 2], F32)}, inputs=["x", "", "scales"], mode="nearest")


@settings(max_examples=40)
@given(array_shapes(max_dims=4, min_side=3, max_side=6), st.sampled_from(["constant", "reflect", "edge", "wrap"]), st.data())
def test_pad(shape: tuple[int, ...], mode: str, data: st.DataObject) -> None:
    low = -1 if mode == "constant" else 0
    pads = [data.draw(st.integers(low, n - 1)) for n in shape * 2]
    weights: dict[str, Any] = {"pads": np.array(pads)}
    if mode == "constant":
        weights["value"] = np.array(1.5, F32)
    check_node("Pad", {"x": normal(*shape)}, weights, mode=mode)


def test_pad_of_chosen_axes_and_old_form() -> None:
    weights: dict[str, Any] = {"pads": np.array([1, 2, 0, 3]), "axes": np.array([-1, 1])}
    check_node("Pad", {"x": normal(2, 3, 4)}, weights, inputs=["x", "pads", "", "axes"])
    check_node("Pad", {"x": normal(2, 3)}, opset=2 + 5, pads=[0, 1, 2, 0], value=2.0)
    check_node("Pad", {"x": np.arange(6, dtype=np.int64).reshape(2, 3)}, {"pads": np.array([1, 0, 0, 1]), "v": np.array(-7)})


@settings(max_examples=20)
@given(array_shapes(min_dims=1, max_dims=4, max_side=4), st.integers(1, 4), st.data())
def test_concat(shape: tuple[int, ...], parts: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    feeds = {}
    for i in range(parts):
        extents = list(shape)
        extents[axis] = data.draw(st.integers(0 if i else 1, 4))
        feeds[f"x{i}"] = normal(*extents)
    assume(parts > 0)
    check_node("Concat", feeds, axis=axis)


@settings(max_examples=20)
@given(st.permutations(range(4)), st.sampled_from([F32, np.int8, np.int64, np.bool_]))
def test_transpose(perm: list[int], dtype: Any) -> None:
    check_node("Transpose", {"x": np.arange(120).reshape(2, 3, 4, 5).astype(dtype)}, perm=perm)


def test_transpose_reverses_by_default() -> None:
    check_node("Transpose", {"x": normal(2, 3, 4)})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_depth_to_space_and_back(mode: str, block: int) -> None:
    check_node("DepthToSpace", {"x": normal(2, 2 * block * block, 3, 2)}, mode=mode, blocksize=block)
    check_node("SpaceToDepth", {"x": normal(2, 3, 2 * block, 3 * block)}, blocksize=block)


@pytest.mark.parametrize(
    ("op", "shape", "weights", "attributes", "message"),
    [
        ("Pad", (2, 3), {"pads": np.array([1, 2])}, {}, "2 pads for 2 axes"),
        ("Pad", (2, 3), {"pads": np.array([2, 0, 0, 0])}, {"mode": "reflect"}, "reflect more than dimension 0"),
        ("Pad", (2, 3), {"pads": np.array([-3, 0, 0, 0])}, {}, "leave nothing of dimension 0"),
        ("Transpose", (2, 3), {}, {"perm": [0, 0]}, "does not permute"),
        ("DepthToSpace", (1, 6, 2, 2), {}, {"blocksize": 2}, "blocksize 2"),
        ("SpaceToDepth", (1, 6, 3, 2), {}, {"blocksize": 2}, "does not fit|do not fit"),
        ("Resize", (1, 1, 2, 2), {}, {}, "neither scales nor sizes"),
    ],
)
def test_refusals(op: str, shape: tuple[int, ...], weights: dict[str, Any], attributes: dict[str, Any], message: str) -> None:
    node = helper.make_node(op, ["x", *weights], ["y"], name="node", **attributes)
    with pytest.raises((ModelError, UnsupportedError), match=f"'node'.*({message})"):
        import_model(make_model([node], {"x": np.ones(shape, F32)}, ["y"], weights))


def test_concat_of_parts_that_do_not_fit() -> None:
    node = helper.make_node("Concat", ["a", "b"], ["y"], name="join", axis=1)
    with pytest.raises(ModelError, match=r"'join'.*cannot concatenate f32\[2,3\] and f32\[3,3\] along axis 1"):
        import_model(make_model([node], {"a": np.ones((2, 3), F32), "b": np.ones((3, 3), F32)}, ["y"]))


def test_more_dimensions_than_numpy_has_are_refused() -> None:
    node = helper.make_node("Expand", ["x", "shape"], ["y"], name="grow")
    with pytest.raises(ModelError, match=r"'grow'.*do not broadcast together"):
        import_model(make_model([node], {"x": np.ones(1, F32)}, ["y"], {"shape": np.ones(70, np.int64)}))
