"""What is known of a weight tensor's zeros: a property of its type, as in taco (Kjolstad et al., OOPSLA 2017)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dense:
    """Nothing is known of zeros: every element is stored."""

    def __str__(self) -> str:
        return ""


Sparsity = Dense
DENSE = Dense()
