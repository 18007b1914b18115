"""Bytes that leave products: which of a sum's products takes it, and what is dequantised where it is made."""

from __future__ import annotations

import pytest

from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.passes.bytes_out import BytesOut
from sparsec.passes.fuse_epilogue import FuseEpilogue
from tests.passes.helpers import check, graph_of

CONSTANTS = """
w: i8[8, 4, 1, 1]
v: i8[8, 4, 1, 1]
"""
CONV = "{strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0)%s} -> %s[1,8,3,3]"
ROUNDED = "cast.f32(a0);mul(t0,0.25);round(t1);add(t2,4.0);relu(t3);min(t4,255.0);cast.u8(t5)"


@pytest.mark.parametrize("rounded_first", [True, False])
def test_a_sum_stands_in_the_product_that_is_not_rounded(rounded_first: bool) -> None:
    """Wherever it is: else what was rounded to bytes would be rounded again, and the other one leave as float32."""
    bytes_first = [
        f"%p = Conv(%x, %w) {CONV % (f', epilogue={ROUNDED!r}', 'u8')}",
        f"%q = Conv(%x, %v) {CONV % ('', 'i32')}",
    ]
    body = "\n".join(
        [
            "input %x: u8[1,4,3,3]",
            *(bytes_first if rounded_first else reversed(bytes_first)),
            "%y = Map(%p, %q) {program='cast.f32(a0);sub(t0,4.0);mul(t1,0.5);cast.f32(a1);mul(t3,0.125);add(t2,t4)'} "
            "-> f32[1,8,3,3]",
            'output "y" = %y',
        ]
    )
    after = check(FuseEpilogue(), graph_of(body, constants=CONSTANTS))
    assert [n.op.name for n in after.nodes] == ["Conv", "Conv"]
    first, last = after.nodes
    assert after.types[first.output].dtype is DType.U8 and last.inputs[1] == "v" and first.output in last.inputs


@pytest.mark.parametrize(
    ("behind", "split"),
    [
        ("cast.i32(t6);sub(t7,4);cast.f32(t8);mul(t9,0.5)", True),
        ("cast.f32(t6);mul(t7,0.5);tanh(t8)", True),
        ("cast.f32(t6);add(t7,a1)", False),
        ("", False),
    ],
)
def test_what_is_done_to_bytes_is_a_node_of_its_own(behind: str, split: bool) -> None:
    epilogue = f"{ROUNDED};{behind}".rstrip(";")
    operands = "%x, %w, %z" if "a1" in behind else "%x, %w"
    z = "input %z: f32[1,8,3,3]" if "a1" in behind else ""
    kind = "f32" if behind else "u8"
    body = "\n".join(
        ["input %x: u8[1,4,3,3]", z, f"%y = Conv({operands}) {CONV % (f', epilogue={epilogue!r}', kind)}", 'output "y" = %y']
    )
    after = check(BytesOut(), graph_of(body, constants=CONSTANTS))
    assert [type(n.op) for n in after.nodes] == ([Conv, Map] if split else [Conv])
    if split:
        assert after.types[after.nodes[0].output].dtype is DType.U8 and after.nodes[1].output == "y"
