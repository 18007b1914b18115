"""Elementwise work moves into epilogues, what remains into single Maps."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.text.printer import print_graph
from sparsec.passes.fuse_epilogue import FuseEpilogue
from sparsec.passes.fuse_map import FuseMap
from tests.passes.helpers import check, graph_of, lines, ops, rejections

CONV = "strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1)"


def test_residual_block(golden: Callable[[str, str], None]) -> None:
    """Both sides of the residual could take the sum: the later one does."""
    g = graph_of(
        f"""input %x: f32[1,4,5,5]
        %p = Conv(%x, %w1, %b1) {{{CONV}, epilogue='add(a0,a1)'}} -> f32[1,4,5,5] as "Conv_0" from "Conv_0"
        %q = Map(%p) {{program='relu(a0)'}} -> f32[1,4,5,5] as "Relu_1"
        %r = Conv(%q, %w2) {{{CONV}}} -> f32[1,4,5,5] as "Conv_2"
        %s = Conv(%x, %w3) {{{CONV}}} -> f32[1,4,5,5] as "Conv_3"
        %t = Map(%r, %b2) {{program='add(a0,a1)'}} -> f32[1,4,5,5] as "Add_4"
        %u = Map(%t, %s) {{program='add(a0,a1)'}} -> f32[1,4,5,5] as "Add_5"
        %y = Map(%u) {{program='relu(a0)'}} -> f32[1,4,5,5] as "Relu_6"
        output "y" = %y""",
        constants="w1: f32[4,4,3,3]\nw2: f32[4,4,3,3]\nw3: f32[4,4,3,3]\nb1: f32[4,1,1]\nb2: f32[4,1,1]",
    )
    after = check(FuseEpilogue(), g)
    golden("passes/residual_block.txt", "\n".join(lines(after)) + "\n")


ACTIVATIONS = [
    "relu(a0)",
    "max(a0,0.0);min(t0,6.0)",
    "leaky_relu(a0,0.1)",
    "sigmoid(a0);mul(a0,t0)",
    "hard_swish(a0)",
    "gelu(a0)",
]


@settings(max_examples=25)
@given(
    activation=st.sampled_from(ACTIVATIONS),
    operand=st.sampled_from(["f32[]", "f32[5]", "f32[4,1]", "f32[1,5]", "f32[2,4,5]"]),
    flipped=st.booleans(),
    function=st.sampled_from(["add", "mul", "sub", "max"]),
)
def test_matmul_takes_any_operand_and_activation(activation: str, operand: str, flipped: bool, function: str) -> None:
    order = "a1,a0" if flipped else "a0,a1"
    g = graph_of(
        f"""input %x: f32[2,4,3]
        input %e: {operand}
        %p = MatMul(%x, %w) -> f32[2,4,5]
        %q = Map(%p, %e) {{program='{function}({order})'}} -> f32[2,4,5]
        %y = Map(%q) {{program='{activation}'}} -> f32[2,4,5]
        output "y" = %y""",
        constants="w: f32[3,5]",
    )
    assert ops(check(FuseEpilogue(), g)) == ["MatMul"]


def test_one_operand_is_read_once() -> None:
    g = graph_of(
        """input %x: f32[4,4]
        input %e: f32[4]
        %p = MatMul(%x, %x, %e) {epilogue='add(a0,a1)'} -> f32[4,4]
        %y = Map(%p, %e, %p) {program='mul(a0,a1);sub(t0,a2)'} -> f32[4,4]
        output "y" = %y"""
    )
    after = check(FuseEpilogue(), g)
    assert after.nodes[0].inputs == ("x", "x", "e")
    assert "epilogue='add(a0,a1);mul(t0,a1);sub(t1,t0)'" in lines(after)[0]


@pytest.mark.parametrize(
    ("program", "extra", "shape", "options", "why"),
    [
        ("add(a0,a1)", "f32[3,4,4]", "f32[3,4,4]", {}, "it broadcasts the result of 'p' to [3, 4, 4]"),
        ("lt(a0,a1)", "f32[4]", "bool[4,4]", {}, "its operands or result are not of the type f32 of 'p'"),
        ("add(a0,a1)", "f32[4]", "f32[4,4]", {"max_extras": 0}, "the epilogue of 'p' would read 1 operands; max_extras is 0"),
        ("add(a0,a1)", "f32[4]", "f32[4,4]", {"max_steps": 0}, "the epilogue of 'p' would take 1 steps; max_steps is 0"),
    ],
)
def test_epilogue_rejections(program: str, extra: str, shape: str, options: dict[str, int], why: str) -> None:
    g = graph_of(
        f"""input %x: f32[4,4]
        input %e: {extra}
        %p = MatMul(%x, %x) -> f32[4,4]
        %y = Map(%p, %e) {{program='{program}'}} -> {shape}
        output "y" = %y"""
    )
    assert rejections(FuseEpilogue(**options), g) == [f"fuse_epilogue: y: {why}"]


def test_a_result_that_is_used_twice_keeps_its_map() -> None:
    g = graph_of(
        """input %x: f32[4,4]
        %p = MatMul(%x, %x) -> f32[4,4]
        %y = Map(%p) {program='relu(a0)'} -> f32[4,4]
        %z = MatMul(%p, %y) -> f32[4,4]
        output "z" = %z"""
    )
    assert rejections(FuseEpilogue(), g) == ["fuse_epilogue: y: the result of 'p' is used elsewhere, too"]


def test_a_tree_of_maps_becomes_one(golden: Callable[[str, str], None]) -> None:
    g = graph_of(
        """input %x: f32[4,3]
        input %b: f32[3]
        %p = Map(%x) {program='exp(a0)'} -> f32[4,3]
        %q = Map(%x, %b) {program='add(a0,a1)'} -> f32[4,3]
        %r = Map(%q) {program='relu(a0)'} -> f32[4,3]
        %s = Map(%p, %r) {program='mul(a0,a1)'} -> f32[4,3]
        %y = Map(%s, %p) {program='sub(a0,a1)'} -> f32[4,3]
        %z = Map(%y) {program='lt(a0,0.0)'} -> bool[4,3]
        output "z" = %z"""
    )
    after = check(FuseMap(), g)
    assert ops(after) == ["Map"]  # exp has two readers at first, then one
    golden("passes/map_tree.txt", print_graph(after))


def test_map_rejections() -> None:
    g = graph_of(
        """input %x: f32[4,3]
        input %b: f32[3]
        %p = Map(%b) {program='exp(a0)'} -> f32[3]
        %y = Map(%x, %p) {program='mul(a0,a1)'} -> f32[4,3]
        output "y" = %y"""
    )
    assert rejections(FuseMap(), g) == [
        "fuse_map: y: it broadcasts the result of 'p', which would be computed again for every element"
    ]


def test_map_limits() -> None:
    g = graph_of(
        """input %x: f32[4,3]
        input %b: f32[3]
        %p = Map(%x) {program='exp(a0)'} -> f32[4,3]
        %y = Map(%p, %b) {program='mul(a0,a1)'} -> f32[4,3]
        output "y" = %y"""
    )
    assert rejections(FuseMap(max_args=1), g) == ["fuse_map: y: with 'p' it would read 2 operands; max_args is 1"]
    assert rejections(FuseMap(max_steps=1), g) == ["fuse_map: y: with 'p' it would take 2 steps; max_steps is 1"]


def test_a_program_without_steps_fuses() -> None:
    g = graph_of(
        """input %x: f32[4,3]
        input %b: f32[4,3]
        %p = Map(%x) {program=''} -> f32[4,3]
        %y = Map(%b, %p) {program='sub(a0,a1)'} -> f32[4,3]
        output "y" = %y"""
    )
    assert ops(check(FuseMap(), g)) == ["Map"]
