"""The orders of tiles in a model's metadata: compact, versioned, and never believed before they are checked.

JSON: {"version": 1, "orders": {SHA-256 of the order: {"u16": base64 of all its lists}}}, elements little-endian and as narrow as
their largest allows (u8, u16, u32).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.sparsity.base import narrow
from sparsec.compiler.sparsity.order import TileOrder

ORDER_KEY = "sparsec.order"
_VERSION = 1
_ELEMENTS = {"u8": "<u1", "u16": "<u2", "u32": "<u4"}


def orders_text(orders: Iterable[TileOrder]) -> str:
    """The metadata's value; empty for no orders."""
    found = {order.digest: _encoded(order) for order in orders}
    return json.dumps({"version": _VERSION, "orders": found}) if found else ""


class Orders:
    """The orders that a text holds, decoded when they are asked for. ModelError where the text cannot be read."""

    def __init__(self, text: str) -> None:
        """`text` is what `orders_text` wrote, or "" for none."""
        self._entries: Mapping[str, object] = _entries(text) if text else {}
        self._decoded: dict[str, TileOrder] = {}

    def get(self, digest: str) -> TileOrder:
        """The order of this digest. LookupError when the text has none, ModelError when it is another one or cannot be read."""
        if digest not in self._decoded:
            self._decoded[digest] = _decoded(self._entries[digest])
            if self._decoded[digest].digest != digest:
                raise _unreadable(f"the order {digest[:12]}... is another one than it was")
        return self._decoded[digest]


def _encoded(order: TileOrder) -> dict[str, str]:
    flat = narrow(order.flat)
    name = f"u{8 * flat.dtype.itemsize}"
    return {name: base64.b64encode(flat.astype(_ELEMENTS[name]).tobytes()).decode()}


def _entries(text: str) -> Mapping[str, object]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _unreadable(str(exc)[:120]) from None
    version = data.get("version") if isinstance(data, dict) else None
    if version != _VERSION:
        raise _unreadable(f"expected version {_VERSION}, found {str(version)[:20]}")
    if not isinstance(data.get("orders"), dict):
        raise _unreadable("expected orders by their digests")
    return dict(data["orders"])


def _decoded(entry: object) -> TileOrder:
    """No more memory than a few times the text."""
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise _unreadable("an order is not one list of elements")
    ((name, text),) = entry.items()
    if name not in _ELEMENTS or not isinstance(text, str):
        raise _unreadable("an order is not base64 of u8, u16 or u32")
    try:
        return TileOrder.of(np.frombuffer(base64.b64decode(text, validate=True), _ELEMENTS[name]))
    except ValueError as exc:
        raise _unreadable(str(exc)[:120]) from None


def _unreadable(why: str) -> ModelError:
    return ModelError(
        f"the model's metadata {ORDER_KEY!r} cannot be read ({why}): prune the model again, or remove that metadata"
    )
