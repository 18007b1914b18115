"""Storage sharing: parts of a concatenation, views, and the cases in which a copy is needed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.cpu.storage import Alias, StorageGroups, group_extents, strides_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType


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
    storage = np.zeros(layout.storage_shape(shape), np.int64)
    flat = storage.reshape(-1)
    s = strides_of(t)
    assert s.total == flat.size
    for number, index in enumerate(np.ndindex(*shape), start=1):
        channel = index[axis]
        at = s.origin + channel // block * s.block + channel % block
        at += sum(i * d for k, (i, d) in enumerate(zip(index, s.dims, strict=True)) if k != axis)
        assert flat[at] == 0
        flat[at] = number
    interior = tuple(slice(lo, lo + n) for (lo, _), n in zip(layout.halo_of(len(shape)), np.delete(shape, axis), strict=True))
    assert np.count_nonzero(storage[(slice(None), *interior)]) == np.prod(shape)
