"""Products of flattened images become convolutions of the same values."""

from __future__ import annotations

import pytest

from sparsec.compiler.ops.conv import Conv
from sparsec.passes.flat_products import FlatProducts
from tests.passes.helpers import check, graph_of

ROUNDED = "add(a0,a1);cast.f32(t0);mul(t1,0.25);round(t2);relu(t3);min(t4,255.0);cast.u8(t5)"


def _lines(weights: str, options: str, image: str = "1,6,3,2") -> str:
    flat = 6 * 6
    return "\n".join(
        [
            f"input %x: u8[{image}]",
            f"%f = Reshape(%x) {{shape=(1, {flat})}} -> u8[1,{flat}]",
            f"%y = MatMul(%f, {weights}) {{{options}epilogue='{ROUNDED}', zero=3}} -> u8[1,5]",
            'output "y" = %y',
        ]
    )


CONSTANTS = "w: i8[5, 36]\nv: i8[36, 5]\nb: i32[5]\ns: i32[1]"


@pytest.mark.parametrize(("weights", "options"), [("%w, %b", "trans_b=true, "), ("%v, %b", ""), ("%v, %s", "")])
def test_the_window_is_the_image(weights: str, options: str) -> None:
    after = check(FlatProducts(), graph_of(_lines(weights, options), constants=CONSTANTS), tolerance=0)
    assert [n.op.name for n in after.nodes] == ["Conv", "Reshape"]
    conv = after.nodes[0]
    assert isinstance(conv.op, Conv) and conv.op.zero == 3 and after.types[conv.inputs[1]].shape == (5, 6, 3, 2)


def test_single_positions_and_residuals_stay() -> None:
    one = graph_of(_lines("%w, %b", "trans_b=true, ", image="1,36,1,1"), constants=CONSTANTS)
    assert [n.op.name for n in check(FlatProducts(), one, tolerance=0).nodes] == ["Reshape", "MatMul"]
    moving = _lines("%w, %r", "trans_b=true, ").replace("input %x", "input %r: i32[1,5]\ninput %x")
    assert [n.op.name for n in check(FlatProducts(), graph_of(moving, constants=CONSTANTS), tolerance=0).nodes] == [
        "Reshape",
        "MatMul",
    ]
