"""Channel shuffles fold into weights where groups allow."""

import pytest

from sparsec.passes.channel_shuffle import ChannelShuffle
from tests.passes.helpers import check, graph_of, ops, rejections

ONE = "strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0)"
SHUFFLE = """%a = Reshape(%s) {shape=(2, 2, 3, 4, 4)} -> f32[2,2,3,4,4]
%b = Transpose(%a) {perm=(0, 2, 1, 3, 4)} -> f32[2,3,2,4,4]
%c = Reshape(%b) {shape=(2, 6, 4, 4)} -> f32[2,6,4,4]
"""
CONSTANTS = "w: f32[6,6,1,1]\nk: f32[6,1,1,1]\nb1: f32[6,1,1]\nvar: f32[6]\ng: f32[6,3,1,1]"


@pytest.mark.parametrize(
    "between",
    [
        "%s = Map(%m) {program='relu(a0)'} -> f32[2,6,4,4]",
        "%s = Map(%m, %b1) {program='add(a0,a1)'} -> f32[2,6,4,4]",
        f"%s = Conv(%m, %k, %b1) {{{ONE}, groups=6, epilogue='add(a0,a1)'}} -> f32[2,6,4,4]",
        "%s = BatchNorm(%m, %var, %var, %var, %var) {epsilon=0.1} -> f32[2,6,4,4]",
    ],
)
def test_into_the_convolution_before(between: str) -> None:
    g = graph_of(
        f"""input %x: f32[2,6,4,4]
        %m = Conv(%x, %w, %b1) {{{ONE}, epilogue='add(a0,a1)'}} -> f32[2,6,4,4]
        {between}
        {SHUFFLE}
        %y = Conv(%c, %g) {{{ONE}, groups=2}} -> f32[2,6,4,4]
        output "y" = %y""",
        constants=CONSTANTS,
    )
    after = check(ChannelShuffle(), g)
    assert not {"Reshape", "Transpose"} & set(ops(after))


def test_into_the_convolution_after() -> None:
    g = graph_of(
        f"""input %x: f32[2,6,4,4]
        %s = Conv(%x, %g) {{{ONE}, groups=2}} -> f32[2,6,4,4]
        {SHUFFLE}
        %d = Conv(%c, %k, %b1) {{{ONE}, groups=6, epilogue='add(a0,a1)'}} -> f32[2,6,4,4]
        %p = Pool(%d) {{kind="max", kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1)}} -> f32[2,6,4,4]
        %y = Conv(%p, %w) {{{ONE}}} -> f32[2,6,4,4]
        output "y" = %y""",
        constants=CONSTANTS,
    )
    assert ops(check(ChannelShuffle(), g)) == ["Conv", "Conv", "Pool", "Conv"]


def test_between_grouped_convolutions_it_stays() -> None:
    g = graph_of(
        f"""input %x: f32[2,6,4,4]
        %s = Conv(%x, %g) {{{ONE}, groups=2}} -> f32[2,6,4,4]
        {SHUFFLE}
        %y = Conv(%c, %g) {{{ONE}, groups=2}} -> f32[2,6,4,4]
        output "y" = %y""",
        constants=CONSTANTS,
    )
    assert rejections(ChannelShuffle(), g) == [
        "channel_shuffle: c: neither side leads to a convolution without groups: stopped at 's' and 'y'"
    ]


def test_a_transposition_of_positions_is_no_shuffle() -> None:
    g = graph_of(
        f"""input %x: f32[2,6,4,4]
        %s = Conv(%x, %w) {{{ONE}}} -> f32[2,6,4,4]
        %t = Transpose(%s) {{perm=(0, 1, 3, 2)}} -> f32[2,6,4,4]
        %u = Reshape(%t) {{shape=(2, 6, 16)}} -> f32[2,6,16]
        %y = Reshape(%u) {{shape=(2, 6, 4, 4)}} -> f32[2,6,4,4]
        output "y" = %y""",
        constants=CONSTANTS,
    )
    assert rejections(ChannelShuffle(), g) == []
