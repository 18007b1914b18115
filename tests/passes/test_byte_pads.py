"""Padding of bytes with zero points: a convolution's own for arrays, a node of its own for C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsec.compiler import array_driver
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.conv import Conv
from sparsec.passes.byte_pads import BytePads
from sparsec.passes.pads_apart import PadsApart
from tests.passes.helpers import check, graph_of, rejections
from tests.quantised import QdqBuilder

MAXIMUM = '%m = Pool({}) {{kind="max", kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads={}}} -> u8[1,{},{},{}]'


def _graph(fill: int = 3, pads: str = "0, 0, 1, 2, 0, 0, 2, 0", size: str = "8,7", others: str = "") -> Graph:
    """A convolution 3x3 of a padded image of 5 x 5 bytes with the zero point 3."""
    lines = [
        "input %x: u8[1,8,5,5]",
        others,
        f"%p = Pad(%x) {{pads=({pads}), fill={float(fill)}}} -> u8[1,8,{size}]",
        "%y = Conv(%p, %w) {strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), zero=3} "
        f"-> i32[1,4,{','.join(str(int(n) - 2) for n in size.split(','))}]",
        'output "y" = %y',
    ]
    return graph_of("\n".join(filter(None, lines)), constants="w: i8[4,8,3,3]")


def test_padding_is_the_convolutions_and_comes_out_again() -> None:
    whole = check(BytePads(), _graph(), tolerance=0)
    (conv,) = whole.nodes
    assert isinstance(conv.op, Conv) and conv.op.pads == (1, 2, 2, 0)
    again = check(PadsApart(), whole, tolerance=0)
    assert [n.op.name for n in again.nodes] == ["Pad", "Conv"]


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (_graph(fill=0), "'p' does not pad with the zero point 3"),
        (_graph(pads="0, 0, 3, 0, 0, 0, 0, 0", size="8,5"), "some windows would lie in the padding of 'p' alone"),
        (_graph(pads="0, 0, -1, 0, 0, 0, 0, 0", size="4,5"), "'p' pads more than rows and columns"),
        (
            _graph(others=MAXIMUM.format("%x", "(1, 1, 1, 1)", 8, 5, 5) + '\noutput "m" = %m'),
            "'m' takes maxima of the same image, which want the least byte around it",
        ),
        (
            _graph(
                others="%c = Concat(%x, %x) {axis=1} -> u8[1,16,5,5]\n"
                + MAXIMUM.format("%c", "(1, 1, 1, 1)", 16, 5, 5)
                + '\noutput "m" = %m'
            ),
            "'m' takes maxima of the same image, which want the least byte around it",
        ),
    ],
)
def test_what_stays(graph: Graph, reason: str) -> None:
    assert rejections(BytePads(), graph) == [f"byte_pads: y: {reason}"]


def test_a_maximum_within_the_image_does_not_mind() -> None:
    within = MAXIMUM.format("%x", "(0, 0, 0, 0)", 8, 3, 3) + '\noutput "m" = %m'
    assert [n.op.name for n in check(BytePads(), _graph(others=within), tolerance=0).nodes] == ["Pool", "Conv"]


def test_no_padding_between_layers_of_symmetric_bytes(tmp_path: Path) -> None:
    """int8 with the zero point 0, as many quantisers have activations: uint8 with 128. The last layer is the host's."""
    b = QdqBuilder(3, data=np.int8)
    x = b.quantised("x", 0.03, 128)
    first = b.quantised(b.conv(x, "first", (16, 8, 3, 3)), 0.03, 128)
    second = b.quantised(b.conv(first, "second", (8, 16, 3, 3)), 0.03, 128)
    last = b.node("Conv", [second, *b.weights("last", (8, 8, 3, 3), 0, second)], "last", pads=[2] * 4, dilations=[2, 2])
    model = array_driver.compile_array(b.model({"x": (1, 8, 9, 7)}, [last]), tmp_path / "out", target="aie2:2x2")
    assert not [node for node in model.manifest["on_host"] if "padded" in node]
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 8, 9, 7)).astype(np.float32)}
    run = array_driver.simulate(tmp_path / "out", feeds)
    (found,), (wanted,) = run.outputs.values(), array_driver.expected(tmp_path / "out", feeds).values()
    np.testing.assert_array_equal(found, wanted)
