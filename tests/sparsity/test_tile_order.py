"""Orders of the tiles of hierarchical n:m: exact in packing, metadata and text, and refused where weights do not have them."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.errors import ModelError
from sparsec.compiler.importer.claims import METADATA_KEY, claims_metadata, read_claims
from sparsec.compiler.importer.orders import ORDER_KEY, Orders, orders_text
from sparsec.compiler.sparsity import NM, HiNM, TileOrder
from sparsec.compiler.sparsity.base import Array
from sparsec.compiler.sparsity.detect import detect
from sparsec.compiler.sparsity.text import Goal, parse_sparsity
from sparsec.passes.permutation.search.tiles import tile_mask
from sparsec.passes.pruning.masks import vector_count

SHAPES = st.tuples(st.integers(1, 20), st.sampled_from([1, 4]), st.integers(1, 24))
FORMS = st.sampled_from([(4, 2, 4), (8, 1, 4), (3, 1, 2), (32, 2, 4), (5, 2, 3)])


def shuffled(pattern: HiNM, shape: tuple[int, int, int], vectors: float, seed: int) -> tuple[HiNM, Array]:
    """Gaussian weights that have the pattern with the order it is given: channels drawn at random, in no order."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(shape).astype(np.float32)
    count = max(1, vector_count(pattern, 1 - (1 - vectors) * pattern.n_keep / pattern.m_group, shape[2]))
    cases = -(-shape[0] // pattern.v), shape[1]
    lists = rng.permuted(np.broadcast_to(np.arange(shape[2]), (*cases, shape[2])), axis=-1)[..., :count]
    return replace(pattern, order=TileOrder.of(lists)), np.where(tile_mask(pattern, np.abs(w), lists), w, 0)


@settings(max_examples=150, deadline=None)
@given(FORMS, SHAPES, st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 999))
def test_ordered_weights_pack_exactly_into_what_the_form_takes(
    form: tuple[int, int, int], shape: tuple[int, int, int], vectors: float, seed: int
) -> None:
    pattern, w = shuffled(HiNM(*form), shape, vectors, seed)
    assert pattern.order is not None and pattern.violation(w) == ""
    packed = pattern.pack(w)
    assert pattern.unpack(packed).tobytes() == w.tobytes()
    count = pattern.order.flat.size // (-(-shape[0] // pattern.v) * shape[1])
    groups = -(-count // pattern.m_group)
    assert packed.values.shape == (*shape[:2], groups, pattern.n_keep)
    lists = packed.indices["vector"]
    assert np.array_equal(lists[..., :count].reshape(-1), pattern.order.flat)
    assert (np.diff(np.sort(lists, axis=-1), axis=-1) > 0).all()


@settings(max_examples=100, deadline=None)
@given(FORMS, SHAPES, st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 999))
def test_metadata_and_text_give_the_order_back(
    form: tuple[int, int, int], shape: tuple[int, int, int], vectors: float, seed: int
) -> None:
    pattern, w = shuffled(HiNM(*form), shape, vectors, seed)
    pattern = pattern.of(w)
    metadata = claims_metadata({"a": pattern, "b": NM(2, 4), "c": pattern})
    assert read_claims(metadata) == {"a": pattern, "b": NM(2, 4), "c": pattern}
    assert claims_metadata(read_claims(metadata)) == metadata
    assert len(json.loads(metadata[ORDER_KEY])["orders"]) == 1  # equal ones are stored once
    assert pattern.order is not None
    assert parse_sparsity(str(pattern), {pattern.order.digest: pattern.order}.__getitem__) == pattern
    assert str(pattern).startswith(f"~{pattern.spec}/order={pattern.order.digest}/nnz=")
    assert read_claims({METADATA_KEY: metadata[METADATA_KEY]}) == {"b": NM(2, 4)}  # the order is lost


def test_metadata_is_as_narrow_as_channels_allow() -> None:
    for top, name, width in ((255, "u8", 1), (65535, "u16", 2), (65536, "u32", 4)):
        order = TileOrder.of(np.array([0, top]))
        (entry,) = json.loads(orders_text([order]))["orders"].values()
        assert len(base64.b64decode(entry[name])) == 2 * width
        assert Orders(orders_text([order])).get(order.digest) == order
    assert claims_metadata({"w": NM(2, 4)})[ORDER_KEY] == "" and set(claims_metadata({}).values()) == {""}


LISTS = np.array([[[3, 0, 5, 6]], [[1, 7, 2, 4]]])
ORDERED = HiNM(2, 2, 4, order=TileOrder.of(LISTS))


def zeros_but(*kept: tuple[int, int]) -> Array:
    w = np.zeros((4, 1, 8), np.float32)
    for output, channel in kept:
        w[output, 0, channel] = 1
    return w


def with_order(*flat: int) -> HiNM:
    return replace(ORDERED, order=TileOrder.of(np.array(flat)))


@pytest.mark.parametrize(
    ("pattern", "w", "why"),
    [
        (ORDERED, zeros_but((0, 3), (1, 0), (1, 6), (3, 4)), ""),
        (ORDERED, zeros_but((2, 3)), "output 2 keeps an input channel at tap 0 that its tile's list does not have"),
        (
            ORDERED,
            zeros_but((1, 0), (1, 5), (1, 6)),
            "output 1 keeps 3 of the 4 input channels in group 0 of its tile's list at tap 0",
        ),
        (with_order(0, 1, 2, 3, 4), zeros_but(), "its order has 5 channels, not 2 x 1 lists of equally many up to 8"),
        (with_order(), zeros_but(), "its order has 0 channels, not 2 x 1 lists of equally many up to 8"),
        (with_order(*range(9), *range(9)), zeros_but(), "its order has 18 channels, not 2 x 1 lists of equally many up to 8"),
        (with_order(0, 1, 2, 8), zeros_but(), "its order takes input channel 8 of 8 in tile 1 at tap 0"),
        (with_order(5, 1, 5, 8), zeros_but(), "its order takes input channel 8 of 8 in tile 1 at tap 0"),
        (with_order(5, 5, 5, 7), zeros_but(), "its order takes input channel 5 twice in tile 0 at tap 0"),
        (replace(ORDERED, order=TileOrder(b"\0" * 7)), zeros_but(), "its order has 1 channels, not 2 x 1 lists"),
    ],
)
def test_what_weights_do_not_have_is_told(pattern: HiNM, w: Array, why: str) -> None:
    found = pattern.violation(w)
    assert found.startswith(why) if why else found == ""
    if why:
        with pytest.raises(ValueError, match="the weights are not hinm:2:2:4: "):
            pattern.pack(w)


@settings(max_examples=80, deadline=None)
@given(FORMS, SHAPES, st.binary(max_size=64), st.integers(0, 9))
def test_any_order_is_either_had_or_refused_in_words(
    form: tuple[int, int, int], shape: tuple[int, int, int], data: bytes, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pattern, w = HiNM(*form, order=TileOrder(data)), rng.standard_normal(shape) * (rng.random(shape) < 0.2)
    why = pattern.violation(w)
    assert "\n" not in why
    if not why:
        np.testing.assert_array_equal(pattern.unpack(pattern.pack(w)), w)


def entry(**more: object) -> str:
    return json.dumps({"version": 1, "orders": {ORDERED.order.digest: more}})  # type: ignore[union-attr]


GOOD = base64.b64encode(LISTS.astype("u1").tobytes()).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[1]", "expected version 1, found None"),
        ('{"version": 2, "orders": {}}', "expected version 1, found 2"),
        ('{"version": 1, "orders": []}', "expected orders by their digests"),
        (entry(), "an order is not one list of elements"),
        (entry(u8=GOOD, u16=GOOD), "an order is not one list of elements"),
        (entry(u64=GOOD), "an order is not base64 of u8, u16 or u32"),
        (entry(u8=[1, 2]), "an order is not base64 of u8, u16 or u32"),
        (entry(u8=GOOD[:-2]), "padding"),
        (entry(u8="\u00fc" + GOOD), "ASCII"),
        (entry(u8="*" + GOOD), "base64|Only base64"),
        (entry(u32=GOOD[:4]), "buffer size must be a multiple"),
        (entry(u8=GOOD[:-4]), "the order [0-9a-f]{12}... is another one than it was"),
        (entry(u16=GOOD), "is another one than it was"),
    ],
)
def test_orders_that_cannot_be_read_are_bad_models(text: str, why: str) -> None:
    metadata = claims_metadata({"w": ORDERED})
    assert read_claims(metadata) == {"w": ORDERED}
    with pytest.raises(ModelError, match=rf"metadata 'sparsec.order' cannot be read \(.*{why}.*\): prune the model again, or"):
        read_claims({**metadata, ORDER_KEY: text})


@pytest.mark.parametrize("text", ["~2:4/order=" + "0" * 64, "~hinm:8:2:4/order=12", "~hinm:8:2:4/nnz=3/order=" + "0" * 64])
def test_orders_stand_where_types_print_them(text: str) -> None:
    with pytest.raises(ValueError, match="is not a sparsity pattern"):
        parse_sparsity(text, lambda _: TileOrder(b""))


def test_a_text_alone_does_not_have_the_order() -> None:
    with pytest.raises(LookupError, match="is not in the text"):
        parse_sparsity(str(ORDERED))


def test_orders_that_do_not_matter_are_left_out() -> None:
    """Where lists ascend, and where weights do not have the order: a plain pattern says as much."""
    pattern, w = shuffled(HiNM(8, 2, 4), (16, 1, 32), 0.5, 0)
    assert pattern.order is not None
    lists = pattern.order.lists(2, 1)
    assert HiNM(8, 2, 4).ordered(lists, w) == pattern
    assert HiNM(8, 2, 4).ordered(np.roll(lists, 1, axis=-1), w) == HiNM(8, 2, 4)
    ascending = np.where(tile_mask(HiNM(8, 2, 4), np.abs(w), np.sort(lists, axis=-1)), w, 0)
    assert HiNM(8, 2, 4).ordered(np.sort(lists, axis=-1), ascending) == HiNM(8, 2, 4)


def test_a_recorded_order_is_believed_and_one_that_stores_zeros_is_not() -> None:
    """Detection takes a claim whose packed form holds at most a quarter more than the weights, and searches otherwise."""
    pattern, w = shuffled(HiNM(16, 2, 4), (64, 1, 128), 0.5, 0)
    assert detect(w, pattern) == (pattern.of(w),)
    loose = detect(w)
    assert pattern.of(w) not in loose and all(p.pack(w).nbytes > pattern.pack(w).nbytes for p in loose)
    w[np.random.default_rng(1).random(w.shape) < 0.3] = 0
    assert pattern.holds(w) and detect(w, pattern) == detect(w)


def test_packed_bytes_are_those_of_ascending_lists() -> None:
    pattern, w = shuffled(HiNM(32, 2, 4), (128, 9, 128), 0.5, 1)
    plain = Goal(HiNM(32, 2, 4), 0.75).pattern
    ascending = np.where(tile_mask(HiNM(32, 2, 4), np.abs(w), np.sort(pattern.order.lists(4, 9), axis=-1)), w, 0)  # type: ignore[union-attr]
    assert pattern.pack(w).nbytes == plain.pack(ascending).nbytes
