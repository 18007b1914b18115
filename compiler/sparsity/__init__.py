"""What is known of a weight tensor's zeros: a property of its type, as in taco (Kjolstad et al., OOPSLA 2017)."""

from __future__ import annotations

from sparsec.compiler.sparsity.base import Packed, Pattern
from sparsec.compiler.sparsity.block import Block
from sparsec.compiler.sparsity.hinm import HiNM
from sparsec.compiler.sparsity.nm import NM
from sparsec.compiler.sparsity.nmg import NMG
from sparsec.compiler.sparsity.order import TileOrder
from sparsec.compiler.sparsity.plain import DENSE, Dense, Unstructured

Sparsity = Dense | Block | NM | NMG | HiNM | Unstructured

__all__ = ["DENSE", "NM", "NMG", "Block", "Dense", "HiNM", "Packed", "Pattern", "Sparsity", "TileOrder", "Unstructured"]
