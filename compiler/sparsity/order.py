"""The order in which tiles of hierarchical N:M take their input channels: a value that a pattern holds, compares and names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from sparsec.compiler.sparsity.base import Array


@dataclass(frozen=True, slots=True)
class TileOrder:
    """Lists of input channels for every tile and tap, one after the other, equally long; `data` are little-endian u32.

    Channels that follow each other, m at a time, are the groups of n:m. How long lists are follows from the weights.
    """

    data: bytes = field(repr=False)
    digest: str = field(init=False, compare=False)  # SHA-256 of the data, 64 hex digits: its name in texts and metadata

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.data).hexdigest())

    @staticmethod
    def of(lists: Array) -> TileOrder:
        """The order that lists [tiles, taps, channels of a list] are."""
        return TileOrder(np.ascontiguousarray(lists, "<u4").tobytes())

    @property
    def flat(self) -> Array:
        """All lists in a row, u32 (read-only)."""
        return np.frombuffer(self.data, "<u4")

    def lists(self, tiles: int, taps: int) -> Array:
        """int64 [tiles, taps, channels of a list]. ValueError when the data is not so many lists."""
        flat = self.flat
        return flat.astype(np.int64).reshape(tiles, taps, flat.size // max(tiles * taps, 1))


def order_fault(order: TileOrder, tiles: int, taps: int, channels: int) -> str:
    """Why an order is not one of `tiles` tiles that choose among `channels` input channels at `taps` taps; "" when it is."""
    size, cases = len(order.data) // 4, tiles * taps
    if len(order.data) % 4 or not size or not cases or size % cases or size // cases > channels:
        return f"its order has {size:,} channels, not {tiles} x {taps} lists of equally many up to {channels}"
    lists = np.sort(order.lists(tiles, taps), axis=-1)
    if lists[..., -1].max() >= channels:
        tile, tap = np.argwhere(lists[..., -1] >= channels)[0]
        return f"its order takes input channel {lists[tile, tap, -1]} of {channels} in tile {tile} at tap {tap}"
    twice = np.argwhere(np.diff(lists, axis=-1) == 0)
    if len(twice):
        tile, tap, at = twice[0]
        return f"its order takes input channel {lists[tile, tap, at]} twice in tile {tile} at tap {tap}"
    return ""
