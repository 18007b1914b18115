"""Products of bytes in C against numpy where two properties meet: every pattern with every stride, tail and epilogue."""

from __future__ import annotations

from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.cpu.compiled import compile_graph, merged, run_graph, split
from tests.backends.cpu.harness import BYTES
from tests.backends.cpu.test_integers import Layer, case, reference
from tests.machine import needs

PATTERNS = ("dense", "8x8", "32x4", "16x4", "32x4/taps", "2:4/32", "2:4", "free")
ENDS = ("bytes", "shifted", "residual", "twice", "signed", "clipped", "real residual", "sums")


def layers() -> dict[str, Layer]:
    """Each pattern at stride 1 and 2, with outputs that fill their vectors and that do not, and with each epilogue once."""
    made = {}
    for i, pattern in enumerate(PATTERNS):
        kernels, whole = cycle((3, 1)), pattern in ("32x4", "16x4", "32x4/taps", "2:4/32")
        for j, (stride, ragged) in enumerate(product((1, 2), (False, True))):
            for end in (ENDS[(i + 2 * j) % 8], ENDS[(i + 2 * j + 1) % 8]):
                outputs, inputs = (64 if whole else 40, 32) if not ragged else (96 if whole else 37, 48 if whole else 44)
                made[f"{pattern} by {stride} {end} {outputs}"] = Layer(
                    inputs, outputs, next(kernels), 7 + i % 3, stride=stride, pattern=pattern, epilogue=end
                )
    return made


def test_every_pair_is_there() -> None:
    found = layers().values()
    assert {(la.pattern, la.epilogue) for la in found} == set(product(PATTERNS, ENDS))
    assert {(la.pattern, la.stride) for la in found} == set(product(PATTERNS, (1, 2)))


@needs("gcc")
@pytest.mark.parametrize("isa", BYTES, ids=lambda isa: isa.symbol)
def test_every_pair_computes_numpy_s_integers(isa: Any, tmp_path: Path) -> None:
    cases = {name: (layer, *case(layer, 100 + i)) for i, (name, layer) in enumerate(layers().items())}
    made = compile_graph(merged({n: g for n, (_, g, _) in cases.items()}), isa.name, tmp_path)
    got = run_graph(made, tmp_path, split({n: f for n, (_, _, f) in cases.items()}))
    for name, (layer, graph, feeds) in cases.items():
        np.testing.assert_array_equal(got[f"{name}/y"], reference(layer, graph, feeds), err_msg=name)
