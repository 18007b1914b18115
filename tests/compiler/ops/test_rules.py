"""What the operator matrix says (docs/operators.md, `sparsec ops`) refers to things that exist."""

from __future__ import annotations

import re

import pytest

from sparsec.compiler.onnx_rules import RULES, onnx_rule
from sparsec.compiler.ops.base import OPS
from sparsec.compiler.ops.registry import load_all

load_all()


def test_rules_become_ops_that_exist() -> None:
    """`becomes` is a list of IR ops, or in parentheses what stands in for one."""
    for info in RULES.values():
        for name in re.sub(r"\([^)]*\)", "", info.becomes).replace(" or ", ",").split(","):
            assert not name.strip() or name.strip() in OPS, info


def test_every_op_says_what_it_computes() -> None:
    assert all(op.summary for op in OPS.values())


def test_two_rules_for_one_operator_are_a_defect() -> None:
    with pytest.raises(ValueError, match="two import rules"):
        onnx_rule("Conv", becomes="Conv")(RULES["", "Conv"].rule)
