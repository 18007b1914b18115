"""The names of arrays."""

from __future__ import annotations

import pytest

from sparsec.backends.systolic import Machine, parse_machine
from sparsec.compiler.errors import UsageError


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        ("flexisaga:16x8", Machine("flexisaga", 16, 8, 4)),
        ("flexisaga:16x8/lanes=2", Machine("flexisaga", 16, 8, 2)),
        ("sat:32x32", Machine("sat", 32, 32, 16)),
        ("sat:256x1/lanes=64", Machine("sat", 256, 1, 64)),
    ],
)
def test_names_parse_back(text: str, machine: Machine) -> None:
    assert parse_machine(text) == machine and machine.name == text


@pytest.mark.parametrize("text", ["flexisaga", "flexisaga:16", "tpu:16x16", "sat:16x16x16", "sat:16x16/lane=2"])
def test_what_is_no_array(text: str) -> None:
    with pytest.raises(UsageError, match="is not a systolic array: expected flexisaga:RxC or sat:RxC"):
        parse_machine(text)


@pytest.mark.parametrize("text", ["flexisaga:0x16", "sat:16x257", "sat:16x16/lanes=65"])
def test_arrays_of_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="too large or empty: rows and columns are 1 to 256, lanes 1 to 64"):
        parse_machine(text)
