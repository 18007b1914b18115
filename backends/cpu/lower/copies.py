"""Plain copies that several lowerings need: bytes, strided blocks, regions of a stored tensor, outputs of the graph."""

from __future__ import annotations
