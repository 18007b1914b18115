"""Hierarchical N:M: whole columns of a tile of outputs first, then n:m in what is left (Yu et al., arXiv 2407.20496)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsec.compiler.sparsity.base import (
    Array,
    Packed,
    Pattern,
    kept_positions,
    narrow,
    pack_bits,
    padded,
    unpack_bits,
)
from sparsec.compiler.sparsity.order import TileOrder, order_fault


@dataclass(frozen=True, slots=True)
class HiNM(Pattern):
    """Tiles of `v` outputs read a list of input channels a tap; in every m entries of it each output keeps at most n.

    Lists are equally long: those of the `order`; without one, ascending but for channels that fill a group up. The order belongs
    to the pattern, because weights have the pattern in it only, and to find it again from them is as hard as packing bins.
    """

    v: int
    n_keep: int
    m_group: int
    nnz: int | None = None
    order: TileOrder | None = None

    def __post_init__(self) -> None:
        if not 0 < self.n_keep < self.m_group or self.v < 1:
            raise ValueError(f"hierarchical n:m needs 0 < n < m and tiles of 1 or more outputs, not {self.spec}")

    @property
    def spec(self) -> str:
        """`hinm:32:2:4`."""
        return f"hinm:{self.v}:{self.n_keep}:{self.m_group}"

    def __str__(self) -> str:
        """As types print it: `~hinm:32:2:4/order=DIGEST/nnz=18432`."""
        order = f"/order={self.order.digest}" if self.order is not None else ""
        return f"~{self.spec}{order}" + (f"/nnz={self.nnz}" if self.nnz is not None else "")

    def ordered(self, lists: Array, w: Array) -> HiNM:
        """This pattern with an order if the filters w have it in the order of `lists` [tiles, taps, channels of a list].

        Without one where ascending lists do as well, and where w does not have it in that order.
        """
        known = replace(self, order=TileOrder.of(lists))
        if self.lists(w).shape[2] <= -(-lists.shape[2] // self.m_group) * self.m_group or not known.holds(w):
            return replace(self, order=None)
        return known

    def of_outputs(self, first: int, last: int, outputs: int) -> HiNM | None:
        """The pattern of outputs `first` to `last` - 1, of `outputs` that have this one; None when these are not whole tiles."""
        if first % self.v or (last % self.v and last != outputs):
            return None
        if self.order is None:
            return replace(self, nnz=None)
        tiles = np.reshape(self.order.flat, (-(-outputs // self.v), -1))
        return replace(self, nnz=None, order=TileOrder.of(tiles[first // self.v : -(-last // self.v)]))

    def lists(self, w: Array) -> Array:
        """Channels that each tile reads at each tap, [tiles, taps, groups * m]; one list for all is as long as the longest.

        Those of the order are filled up with channels that are not in them. Without an order:
        A group takes the next channels with a nonzero weight while no output exceeds n (as few groups as ascending order
        allows: part of a group that fits fits too), and is filled up with channels that have none.
        """
        m, channels = self.m_group, -(-w.shape[2] // self.m_group) * self.m_group
        if self.order is not None:
            return self._filled(self.order.lists(-(-w.shape[0] // self.v), w.shape[1]), channels)
        used, slot = self._slots(w)
        length = max(1, int(slot.max(initial=-1)) // m + 1) * m
        lists = np.full((len(used), length), -1)
        case, channel = np.nonzero(used)
        lists[case, slot[case, channel]] = channel
        spare = np.argsort(used, axis=1, kind="stable")  # unused channels first
        if length > channels:  # cannot be stored; `violation` says so
            spare = np.pad(spare, ((0, 0), (0, length - channels)))
        case, free = np.nonzero(lists < 0)
        nth = np.arange(len(case)) - np.searchsorted(case, case)
        lists[case, free] = spare[case, nth]
        return lists.reshape(-1, w.shape[1], length)

    def _filled(self, lists: Array, channels: int) -> Array:
        """Lists with other channels, of which there are `channels`, up to a multiple of m."""
        missing = -lists.shape[2] % self.m_group
        if not missing:
            return lists
        listed = np.zeros((*lists.shape[:2], channels), bool)
        np.put_along_axis(listed, lists, True, axis=-1)
        return np.concatenate([lists, np.argsort(listed, axis=-1, kind="stable")[..., :missing]], axis=-1)

    def regular(self, w: Array) -> float:
        """Share of the lists that need no channel without weights inside: next to all of weights pruned to this pattern."""
        mask = self._cases(w)
        return float(self._fits(mask, np.asarray(mask.any(axis=-1))).mean())

    def _cases(self, w: Array) -> Array:
        """Which weights are not zero, [tiles * taps, channels, v], padded."""
        full = padded(padded(np.asarray(w != 0), 0, self.v), 2, self.m_group)
        parts = full.reshape(-1, self.v, w.shape[1], full.shape[2])
        return parts.transpose(0, 2, 3, 1).reshape(-1, full.shape[2], self.v)

    def _fits(self, mask: Array, used: Array) -> Array:
        """[cases]: whether the used channels, m by m in their order, leave every output at most n."""
        packed = np.take_along_axis(mask, np.argsort(~used, axis=1, kind="stable")[..., None], axis=1)
        counts = packed.reshape(len(mask), -1, self.m_group, self.v).sum(axis=2, dtype=np.uint16)
        return np.asarray((counts <= self.n_keep).all(axis=(1, 2)))

    def _slots(self, w: Array) -> tuple[Array, Array]:
        """Which channels are used, and the place of each in its list: [tiles * taps, channels]."""
        mask = self._cases(w)
        used = np.asarray(mask.any(axis=-1))
        slot = np.where(used, used.cumsum(axis=1) - 1, -1)
        hard = np.flatnonzero(~self._fits(mask, used))
        slot[hard] = self._first_fit(mask[hard], used[hard])
        return used, slot

    def _first_fit(self, mask: Array, used: Array) -> Array:
        """Places of the used channels, a new group begun where an output would exceed n."""
        slot = np.full(used.shape, -1)
        group, size = np.zeros(len(used), np.int64), np.zeros(len(used), np.int64)
        count = np.zeros((len(used), self.v), np.int64)
        for channel in np.flatnonzero(used.any(axis=0)):
            active, more = used[:, channel], mask[:, channel]
            full = active & ((size == self.m_group) | (count + more > self.n_keep).any(axis=1))
            group += full
            size[full], count[full] = 0, 0
            slot[active, channel] = (group * self.m_group + size)[active]
            size += active
            count += more
        return slot

    def compact(self, w: Array, lists: Array) -> Array:
        """The weights of the listed channels: [OC, taps, groups, m]."""
        each = np.repeat(lists, self.v, axis=0)[: w.shape[0]]
        return np.take_along_axis(padded(w, 2, self.m_group), each, axis=-1).reshape(*w.shape[:2], -1, self.m_group)

    def violation(self, w: Array) -> str:
        """When a tile needs longer lists than there are channels, or the weights do not have the order."""
        if self.order is not None:
            fault = order_fault(self.order, -(-w.shape[0] // self.v), w.shape[1], w.shape[2])
            return fault or self._violation_of_order(w)
        have = -(-w.shape[2] // self.m_group)
        need = self.lists(w).shape[2] // self.m_group
        what = f"a tile of {self.v} outputs needs {need} groups of {self.m_group} channels"
        return f"{what} of which each output keeps {self.n_keep}, and has {have}" if need > have else ""

    def _violation_of_order(self, w: Array) -> str:
        inside = self.compact(w, self.lists(w))
        outside = np.count_nonzero(w, axis=2) - np.count_nonzero(inside, axis=(2, 3))
        if outside.any():
            output, tap = np.argwhere(outside)[0]
            return f"output {output} keeps an input channel at tap {tap} that its tile's list does not have"
        counts = np.count_nonzero(inside, axis=3)
        if (counts > self.n_keep).any():
            output, tap, group = np.argwhere(counts > self.n_keep)[0]
            kept = f"{counts[output, tap, group]} of the {self.m_group} input channels"
            return f"output {output} keeps {kept} in group {group} of its tile's list at tap {tap}"
        return ""

    def pack(self, w: Array) -> Packed:
        """Values [OC, taps, groups, n]; `vector` [tiles, taps, groups * m]; `position` in the group of each value, as bits."""
        self.require(w)
        lists = self.lists(w)
        groups = self.compact(w, lists)
        position = kept_positions(groups != 0, self.n_keep)
        indices = {"vector": narrow(lists), "position": pack_bits(position, self.m_group)}
        return Packed((w.shape[0], w.shape[1], w.shape[2]), np.take_along_axis(groups, position, axis=-1), indices)

    def unpack(self, packed: Packed) -> Array:
        """Scatter the values into their groups, then those into the channels."""
        oc, taps, ic = packed.shape
        groups = packed.values.shape[2]
        position = unpack_bits(packed.indices["position"], self.m_group, packed.values.shape)
        compact = np.zeros((oc, taps, groups, self.m_group), packed.values.dtype)
        np.put_along_axis(compact, position, packed.values, axis=-1)
        each = np.repeat(packed.indices["vector"].astype(np.int64), self.v, axis=0)[:oc]
        w = np.zeros((oc, taps, -(-ic // self.m_group) * self.m_group), packed.values.dtype)
        np.put_along_axis(w, each, compact.reshape(oc, taps, -1), axis=-1)
        return np.ascontiguousarray(w[:, :, :ic])
