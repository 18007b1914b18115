"""Storage sharing: parts of a concatenation, views, and the cases in which a copy is needed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsec.backends.cpu.storage import Alias, StorageGroups, group_extents, storage_groups, strides_of, unite_in_place
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.layout import Blocked, storage_elements
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.types import TensorType
from sparsec.passes.layout import AssignLayouts
from sparsec.passes.pipelines import DEFAULT
from tests.backends.cpu.tensors import planes


def blocked(channels: int, *, block: int = 4, halo: tuple[tuple[int, int], ...] = ()) -> TensorType:
    return TensorType(DType.F32, (1, channels, 3, 5), Blocked(1, block, halo))


def part(name: str, whole: str, block: int) -> Alias:
    return Alias(name, whole, block, same_order=True, fills=True)


def test_parts_of_a_concatenation_follow_each_other() -> None:
    types = {"a": blocked(8), "b": blocked(4), "y": blocked(12)}
    groups = StorageGroups({"a": 2, "b": 1, "y": 3})
    assert groups.unite(part("a", "y", 0))
    assert groups.unite(part("b", "y", 2))
    assert groups.find("b") == ("y", 2)
    assert group_extents(types, groups) == {"y": (0, types["y"].nbytes)}


def test_nested_concatenations_share_one_buffer() -> None:
    groups = StorageGroups({"y": 3, "z": 4, "b": 1, "c": 1})
    for alias in (part("y", "z", 0), part("c", "z", 3), part("b", "y", 2)):
        assert groups.unite(alias)
    assert groups.find("b") == ("z", 2)


def test_a_value_cannot_be_in_two_places() -> None:
    groups = StorageGroups({"a": 1, "y": 2})
    assert groups.unite(part("a", "y", 0))
    assert not groups.unite(part("a", "y", 1))


def test_two_values_computed_apart_never_share_a_block() -> None:
    groups = StorageGroups({"a": 1, "b": 1, "y": 2})
    assert groups.unite(part("a", "y", 0))
    assert not groups.unite(part("b", "y", 0))


def test_what_the_caller_holds_cannot_become_a_part() -> None:
    groups = StorageGroups({"x": 1, "view": 1, "y": 2}, pinned=["x"])
    assert groups.unite(Alias("view", "x"))
    assert not groups.unite(part("x", "y", 0))
    assert not groups.unite(part("view", "y", 0))


def test_a_view_of_another_order_rules_a_halo_out() -> None:
    groups = StorageGroups({"a": 1, "y": 2, "tokens": 2})
    groups.unite(part("a", "y", 0))
    assert not groups.is_bare("y")
    groups.unite(Alias("tokens", "y"))
    assert groups.is_bare("y")


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.integers(1, 8),
    st.data(),
)
def test_strides_address_the_stored_elements(shape: list[int], block: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    halo = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape[1:])
    layout = Blocked(axis, block, halo)
    t = TensorType(DType.F32, tuple(shape), layout)
    s = strides_of(t)
    flat = np.zeros(storage_elements(shape, layout, 4), np.int64)
    storage = planes(flat, t)
    assert s.total == flat.size
    for number, index in enumerate(np.ndindex(*shape), start=1):
        channel = index[axis]
        at = s.origin + channel // block * s.block + channel % block
        at += sum(i * d for k, (i, d) in enumerate(zip(index, s.dims, strict=True)) if k != axis)
        assert flat[at] == 0
        flat[at] = number
    interior = tuple(slice(lo, lo + n) for (lo, _), n in zip(layout.halo_of(len(shape)), np.delete(shape, axis), strict=True))
    assert np.count_nonzero(storage[(slice(None), *interior)]) == np.prod(shape)


def test_planes_of_an_even_number_of_lines_are_set_apart() -> None:
    """16 blocks of 56 x 56 positions would begin in the same set of a cache with 64 sets."""
    layout = Blocked(1, 16)
    assert layout.block_stride((1, 256, 56, 56), 4) == 56 * 56 * 16 + 16
    assert layout.block_stride((1, 256, 57, 57), 4) == 57 * 57 * 16
    assert layout.block_stride((1, 256, 7, 7), 4) == 49 * 16
    assert layout.block_stride((1, 256, 7, 7), 1) == 13 * 64
    assert layout.block_stride((1, 256, 56, 56), 1) == 56 * 56 * 16 + 64
    assert storage_elements((1, 256, 56, 56), layout, 4) == 16 * (56 * 56 * 16 + 16)


def in_place(graph: Graph, target: CpuTarget) -> set[tuple[str, str]]:
    """(operand, result) pairs that share a buffer."""
    groups = storage_groups(graph, [])
    unite_in_place(graph, groups, target._overwrites(graph))
    return {(v, n.output) for n in graph.nodes for v in n.inputs if v and groups.find(v) == groups.find(n.output)}


def residual(twice: bool, read_later: bool) -> Graph:
    """x -> a -> b = conv(a) + a (or + x, with x = another conv), laid out; `read_later`: the residual leaves the graph too."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((32, 32, 1, 1)).astype(np.float32), n) for n in ("w0", "w1", "w2")]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Conv", ["a", "w1"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("Add", ["c", "b" if twice else "a"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["y"]),
    ]
    names = ["y", *(["a"] if read_later else [])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 32, 8, 8))
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names]
    graph = helper.make_graph(nodes, "residual", [x], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return run_pipeline(import_model(model), (*DEFAULT, AssignLayouts(CpuTarget.named("x86_64+avx512f"))))


def test_a_sum_is_written_over_its_residual_where_nothing_else_needs_it() -> None:
    target = CpuTarget.named("x86_64+avx512f")
    assert in_place(residual(False, False), target) == {("a", "s")}
    assert in_place(residual(True, False), target) == set()  # what the convolution reads elsewhere is no place to write to
    assert ("a", "s") not in in_place(residual(False, True), target)
