"""Folding, common subexpressions and identities."""

import numpy as np

from sparsec.compiler.passing.base import Notes
from sparsec.passes.cse import CommonSubexpressions
from sparsec.passes.fold import Fold
from sparsec.passes.identity import Identity
from tests.passes.helpers import check, graph_of, ops, rejections


def test_fold_evaluates_a_chain_of_constants() -> None:
    g = graph_of(
        """input %x: f32[4,3]
        %a = Map(%c) {program='mul(a0,2.0)'} -> f32[3]
        %b = Reshape(%a) {shape=(1, 3)} -> f32[1,3]
        %y = Map(%x, %b) {program='add(a0,a1)'} -> f32[4,3]
        output "y" = %y""",
        constants="c: f32[3]",
    )
    after = check(Fold(), g)
    assert ops(after) == ["Map"] and list(after.constants) == ["b"]
    assert np.array_equal(after.constants["b"], 2 * g.constants["c"].reshape(1, 3))


def test_fold_of_a_scalar_keeps_rank_zero() -> None:
    g = graph_of("const %c: f32[] = [2.0]\n%y = Map(%c) {program='exp(a0)'} -> f32[]\noutput \"y\" = %y")
    after = check(Fold(), g)
    assert after.constants["y"].shape == () and not after.nodes


def test_fold_refuses_to_swell_and_says_so() -> None:
    body = """%y = Map(%a, %b) {program='add(a0,a1)'} -> f32[64,64]
    output "y" = %y"""
    g = graph_of(body, constants="a: f32[64,1]\nb: f32[64]")
    assert rejections(Fold(max_growth=1024), g) == [
        "fold: y: folding would turn 512 bytes of constants into 16,384; max_growth is 1,024"
    ]
    notes = Notes()
    several = body.replace("output", "%z = Map(%a, %b) {program='sub(a0,a1)'} -> f32[64,64]\noutput \"z\" = %z\noutput")
    Fold(max_growth=20_000).run(graph_of(several, constants="a: f32[64,1]\nb: f32[64]"), notes)
    assert [str(n) for n in notes.entries] == ["fold: constants grew by 32,256 bytes to 32,768"]


def test_fold_refuses_what_takes_far_more_memory_than_its_result() -> None:
    """A window of one element that steps over a gibibyte of padding: three elements of result, 8 GiB on the way."""
    body = """%y = Conv(%a, %b) {strides=(1073741824,), dilations=(1,), pads=(1073741824, 1073741824)} -> f32[1,1,3]
    output "y" = %y"""
    g = graph_of(body, constants="a: f32[1,1,1]\nb: f32[1,1,1]")
    assert rejections(Fold(), g) == ["fold: y: evaluating it takes 8,589,934,608 bytes; max_growth is 33,554,432"]


def test_cse_merges_nodes_and_constants_in_one_sweep() -> None:
    g = graph_of(
        """input %x: f32[3]
        const %c: f32[3] = [1.0, 2.0, 3.0]
        const %d: f32[3] = [1.0, 2.0, 3.0]
        const %i: i32[1] = [0]
        const %f: f32[1] = [0.0]
        %a = Map(%x, %c) {program='add(a0,a1)'} -> f32[3] from "A"
        %b = Map(%x, %d) {program='add(a0,a1)'} -> f32[3] from "B"
        %p = Map(%a) {program='exp(a0)'} -> f32[3]
        %q = Map(%b) {program='exp(a0)'} -> f32[3]
        %y = Map(%p, %q, %f, %i) {program='add(a0,a1);add(t0,a2);cast.f32(a3);add(t1,t2)'} -> f32[3]
        output "y" = %y
        output "q" = %q"""
    )
    after = check(CommonSubexpressions(), g)
    assert ops(after) == ["Map", "Map", "Map"]
    assert set(after.constants) == {"c", "i", "f"}  # same bits, another type
    assert after.nodes[0].origin == ("A", "B")


def test_cse_tells_zeros_apart() -> None:
    g = graph_of(
        """input %x: f32[3]
        const %c: f32[1] = [0.0]
        const %d: f32[1] = [-0.0]
        %a = Map(%x) {program='div(a0,0.0)'} -> f32[3]
        %b = Map(%x) {program='div(a0,-0.0)'} -> f32[3]
        %p = Map(%x, %c) {program='div(a0,a1)'} -> f32[3]
        %q = Map(%x, %d) {program='div(a0,a1)'} -> f32[3]
        output "a" = %a
        output "b" = %b
        output "p" = %p
        output "q" = %q"""
    )
    assert rejections(CommonSubexpressions(), g) == []


def test_identities_go() -> None:
    g = graph_of(
        """input %x: f32[1,2,3,1]
        const %none: f32[1,0,3,1] = []
        %a = Map(%x) {program='identity(a0)'} -> f32[1,2,3,1]
        %b = Map(%a) {program='cast.f32(a0)'} -> f32[1,2,3,1]
        %c = Reshape(%b) {shape=(1, 2, 3, 1)} -> f32[1,2,3,1]
        %d = Transpose(%c) {perm=(0, 1, 2, 3)} -> f32[1,2,3,1]
        %e = Pad(%d) {pads=(0, 0, 0, 0, 0, 0, 0, 0)} -> f32[1,2,3,1]
        %f = Concat(%e, %none) {axis=1} -> f32[1,2,3,1]
        %g = Pool(%f) {kind="max", kernel=(1, 1), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0)} -> f32[1,2,3,1]
        %h = Reduce(%g) {kind="mean", over=(0, 3)} -> f32[1,2,3,1]
        %y = Map(%h) {program='exp(a0)'} -> f32[1,2,3,1]
        output "y" = %y
        output "same" = %h"""
    )
    after = check(Identity(), g)
    assert ops(after) == ["Map"] and after.nodes[0].inputs == ("x",)
    assert [p.value for p in after.outputs] == ["y", "x"]


def test_what_only_looks_like_an_identity_stays() -> None:
    g = graph_of(
        """input %x: f32[2,2]
        %a = Transpose(%x) {perm=(1, 0)} -> f32[2,2]
        %b = Map(%a, %x) {program='identity(a1)'} -> f32[2,2]
        %c = Map(%b) {program='cast.i32(a0);cast.f32(t0)'} -> f32[2,2]
        %d = Pad(%c) {pads=(1, 0, -1, 0)} -> f32[2,2]
        %e = Concat(%d, %a) {axis=0} -> f32[4,2]
        output "e" = %e"""
    )
    assert rejections(Identity(), g) == []
