"""Attention recognised in the forms that exporters write, with its head split and merge."""

import math

import pytest

from sparsec.compiler.ops.attention import Attention
from sparsec.passes.algebra import Algebra
from sparsec.passes.attention import RecogniseAttention
from sparsec.passes.reshapes import Reshapes
from sparsec.passes.split import Split
from tests.passes.helpers import check, graph_of, ops, rejections

SPLIT = """input %xq: f32[2,5,12]
input %xk: f32[2,7,12]
input %xv: f32[2,7,12]
%rq = Reshape(%xq) {shape=(2, 5, 3, 4)} -> f32[2,5,3,4]
%rk = Reshape(%xk) {shape=(2, 7, 3, 4)} -> f32[2,7,3,4]
%rv = Reshape(%xv) {shape=(2, 7, 3, 4)} -> f32[2,7,3,4]
%q = Transpose(%rq) {perm=(0, 2, 1, 3)} -> f32[2,3,5,4]
%k = Transpose(%rk) {perm=(0, 2, 3, 1)} -> f32[2,3,4,7]
%v = Transpose(%rv) {perm=(0, 2, 1, 3)} -> f32[2,3,7,4]
"""
MERGE = """
%p = Softmax(%s) {axis=3} -> f32[2,3,5,7]
%o = MatMul(%p, %v) -> f32[2,3,5,4]
%to = Transpose(%o) {perm=(0, 2, 1, 3)} -> f32[2,5,3,4]
%y = Reshape(%to) {shape=(2, 5, 12)} -> f32[2,5,12]
output "y" = %y"""
SCORES = {
    "after, by division": ("%c = MatMul(%q, %k) -> f32[2,3,5,7]\n%s = Map(%c) {program='div(a0,2.0)'} -> f32[2,3,5,7]", 0.5),
    "after, by a factor": ("%c = MatMul(%q, %k) -> f32[2,3,5,7]\n%s = Map(%c) {program='mul(0.5,a0)'} -> f32[2,3,5,7]", 0.5),
    "before, on queries": ("%c = Map(%q) {program='mul(a0,0.5)'} -> f32[2,3,5,4]\n%s = MatMul(%c, %k) -> f32[2,3,5,7]", 0.5),
    "before, on both": (
        """%c = Map(%q) {program='mul(a0,0.8408964152537146)'} -> f32[2,3,5,4]
        %d = Map(%k) {program='mul(a0,0.8408964152537146)'} -> f32[2,3,4,7]
        %s = MatMul(%c, %d) -> f32[2,3,5,7]""",
        math.sqrt(0.5),
    ),
    "none": ("%s = MatMul(%q, %k) -> f32[2,3,5,7]", 1.0),
}


@pytest.mark.parametrize(("scores", "scale"), SCORES.values(), ids=SCORES)
def test_scales(scores: str, scale: float) -> None:
    after = check(RecogniseAttention(), graph_of(SPLIT + scores + MERGE))
    after = check(Reshapes(), after)
    (node,) = after.nodes
    assert isinstance(node.op, Attention) and (node.op.heads, node.op.kv_heads) == (3, 3)
    assert math.isclose(node.op.scale, scale) and node.inputs == ("xq", "xk", "xv")


@pytest.mark.parametrize("mask", ["f32[2,1,1,7]", "f32[5,7]", "f32[2,3,5,7]"])
@pytest.mark.parametrize("program", ["mul(a0,0.5);add(t0,a1)", "div(a0,2.0);add(a1,t0)"])
def test_masks_that_add(mask: str, program: str) -> None:
    scores = f"""input %m: {mask}
    %c = MatMul(%q, %k) -> f32[2,3,5,7]
    %s = Map(%c, %m) {{program='{program}'}} -> f32[2,3,5,7]"""
    after = check(RecogniseAttention(), graph_of(SPLIT + scores + MERGE))
    attention = next(n for n in after.nodes if isinstance(n.op, Attention))
    assert attention.inputs[3] == "m" and "Softmax" not in ops(after)


def test_a_mask_that_is_computed_by_a_map() -> None:
    scores = """input %keep: f32[2,1,1,7]
    %c = MatMul(%q, %k) -> f32[2,3,5,7]
    %d = Map(%c) {program='div(a0,2.0)'} -> f32[2,3,5,7]
    %n = Map(%keep) {program='sub(1.0,a0)'} -> f32[2,1,1,7]
    %m = Map(%n) {program='mul(a0,-10000.0)'} -> f32[2,1,1,7]
    %s = Map(%d, %m) {program='add(a0,a1)'} -> f32[2,3,5,7]"""
    after = check(RecogniseAttention(), check(Algebra(), graph_of(SPLIT + scores + MERGE)), tolerance=1e-4)
    attention = next(n for n in after.nodes if isinstance(n.op, Attention))
    assert after.types[attention.inputs[3]].shape == (2, 1, 1, 7)


@pytest.mark.parametrize(("program", "low"), [("where(a0,a1,a2)", "-inf"), ("where(a0,a2,a1)", "-3.4e38")])
def test_masks_that_choose(program: str, low: str) -> None:
    operands = "%keep, %d, %low" if program == "where(a0,a1,a2)" else "%keep, %low, %d"
    scores = f"""const %keep: bool[5,7] = [{", ".join(["true"] * 10)}]
    const %low: f32[] = [{low}]
    %c = MatMul(%q, %k) -> f32[2,3,5,7]
    %d = Map(%c) {{program='div(a0,2.0)'}} -> f32[2,3,5,7]
    %s = Map({operands}) {{program='where(a0,a1,a2)'}} -> f32[2,3,5,7]"""
    scores = scores.replace("const %keep: bool[5,7] = [" + ", ".join(["true"] * 10) + "]", "")
    sign = "ge" if program == "where(a0,a1,a2)" else "lt"
    scores = f"%keep = Map(%grid) {{program='{sign}(a0,-1.5)'}} -> bool[5,7]\n" + scores
    g = graph_of(SPLIT + scores + MERGE, constants="grid: f32[5,7]")
    assert "Attention" in ops(check(RecogniseAttention(), g))


def test_rank_three_is_one_batch() -> None:
    g = graph_of(
        """input %q: f32[3,5,4]
        input %k: f32[3,7,4]
        input %v: f32[3,7,6]
        %s = MatMul(%q, %k) {trans_b=true} -> f32[3,5,7]
        %p = Softmax(%s) {axis=2} -> f32[3,5,7]
        %y = MatMul(%p, %v) -> f32[3,5,6]
        output "y" = %y"""
    )
    after = check(RecogniseAttention(), g)
    assert ops(after).count("Attention") == 1 and "MatMul" not in ops(after)


def test_heads_split_by_transposing_a_line_first() -> None:
    """[S, B, E] -> [S, B * H, D] -> [B * H, S, D], as torch's multi-head attention writes it for a batch of one."""
    split = "\n".join(
        f"""input %x{c}: f32[5,1,12]
        %r{c} = Reshape(%x{c}) {{shape=(5, 3, 4)}} -> f32[5,3,4]
        %{c} = Transpose(%r{c}) {{perm=(1, 0, 2)}} -> f32[3,5,4]"""
        for c in "qkv"
    )
    g = graph_of(
        split
        + """
        %kt = Transpose(%k) {perm=(0, 2, 1)} -> f32[3,4,5]
        %s = MatMul(%q, %kt) -> f32[3,5,5]
        %p = Softmax(%s) {axis=2} -> f32[3,5,5]
        %o = MatMul(%p, %v) -> f32[3,5,4]
        %to = Transpose(%o) {perm=(1, 0, 2)} -> f32[5,3,4]
        %y = Reshape(%to) {shape=(5, 1, 12)} -> f32[5,1,12]
        output "y" = %y"""
    )
    after = check(Reshapes(), check(RecogniseAttention(), g))
    assert "Transpose" not in ops(after) and next(n.op for n in after.nodes if isinstance(n.op, Attention)).heads == 3


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("%p = Softmax(%s)", 'output "s" = %s\n%p = Softmax(%s)', None),
        ("%s = MatMul(%q, %k)", "input %e: f32[7]\n%s = MatMul(%q, %k, %e) {epilogue='add(a0,a1)'}", "has an epilogue"),
    ],
)
def test_rejections(old: str, new: str, why: str | None) -> None:
    found = rejections(RecogniseAttention(), graph_of((SPLIT + SCORES["none"][0] + MERGE).replace(old, new)))
    assert len(found) == (why is not None) and all(why is not None and why in f for f in found)


def test_a_low_score_that_is_not_low_enough() -> None:
    scores = """input %keep: bool[5,7]
    const %low: f32[] = [-100.0]
    %c = MatMul(%q, %k) -> f32[2,3,5,7]
    %s = Map(%keep, %c, %low) {program='where(a0,a1,a2)'} -> f32[2,3,5,7]"""
    (found,) = rejections(RecogniseAttention(), graph_of(SPLIT + scores + MERGE))
    assert "replaces masked scores by -100.0" in found


def test_two_masks() -> None:
    scores = """input %m: f32[5,7]
    input %n: f32[7]
    %c = MatMul(%q, %k) -> f32[2,3,5,7]
    %s = Map(%c, %m, %n) {program='add(a0,a1);add(t0,a2)'} -> f32[2,3,5,7]"""
    (found,) = rejections(RecogniseAttention(), graph_of(SPLIT + scores + MERGE))
    assert "sum with 2 other values" in found


def test_heads_that_are_not_merged_stay_outside() -> None:
    g = graph_of(SPLIT + SCORES["none"][0] + MERGE.replace('output "y" = %y', 'output "o" = %o'))
    after = check(RecogniseAttention(), g)
    attention = next(n for n in after.nodes if isinstance(n.op, Attention))
    assert after.types[attention.output].rank == 4


@pytest.mark.parametrize("bias", ["map", "epilogue", "none"])
@pytest.mark.parametrize("trans_b", [True, False])
def test_a_fused_projection_is_split(bias: str, trans_b: bool) -> None:
    """One product gives [B, N, 3, H, D]; vision transformers slice it after a transposition to [3, B, H, N, D]."""
    attributes = [*(["trans_b=true"] if trans_b else []), *(["epilogue='add(a0,a1)'"] if bias == "epilogue" else [])]
    extra = ", %b" if bias == "epilogue" else ""
    text = f"""input %x: f32[2,5,8]
    %m = MatMul(%x, %w{extra}) {{{", ".join(attributes)}}} -> f32[2,5,36]
    %n = Map(%m{", %b" if bias == "map" else ""}) {{program='{"add(a0,a1)" if bias == "map" else "mul(a0,2.0)"}'}} -> f32[2,5,36]
    %r = Reshape(%n) {{shape=(2, 5, 3, 3, 4)}} -> f32[2,5,3,3,4]
    %t = Transpose(%r) {{perm=(2, 0, 3, 1, 4)}} -> f32[3,2,3,5,4]
    """
    for i, c in enumerate("qkv"):
        text += f"""%s{c} = Slice(%t) {{starts=({i}, 0, 0, 0, 0), steps=(1, 1, 1, 1, 1), sizes=(1, 2, 3, 5, 4)}} -> f32[1,2,3,5,4]
        %{c} = Reshape(%s{c}) {{shape=(2, 3, 5, 4)}} -> f32[2,3,5,4]
        """
    text += """%kt = Transpose(%k) {perm=(0, 1, 3, 2)} -> f32[2,3,4,5]
    %s = MatMul(%q, %kt) -> f32[2,3,5,5]
    %p = Softmax(%s) {axis=3} -> f32[2,3,5,5]
    %o = MatMul(%p, %v) -> f32[2,3,5,4]
    %to = Transpose(%o) {perm=(0, 2, 1, 3)} -> f32[2,5,3,4]
    %y = Reshape(%to) {shape=(2, 5, 12)} -> f32[2,5,12]
    output "y" = %y"""
    g = graph_of(text, constants=("w: f32[36,8]" if trans_b else "w: f32[8,36]") + "\nb: f32[36]")
    after = check(Reshapes(), check(RecogniseAttention(), check(Split(), g)))
    assert ops(after).count("MatMul") == 3 and not {"Slice", "Transpose", "Reshape"} & set(ops(after))


def test_overlapping_slices_stay() -> None:
    g = graph_of(
        """input %x: f32[5,8]
        %m = MatMul(%x, %w) -> f32[5,6]
        %a = Slice(%m) {starts=(0, 0), steps=(1, 1), sizes=(5, 4)} -> f32[5,4]
        %b = Slice(%m) {starts=(0, 2), steps=(1, 1), sizes=(5, 4)} -> f32[5,4]
        %y = Map(%a, %b) {program='add(a0,a1)'} -> f32[5,4]
        output "y" = %y""",
        constants="w: f32[8,6]",
    )
    assert rejections(Split(), g) == [f"split: {v}: the slices of 'm' overlap" for v in "ab"]


def test_a_product_that_is_read_as_a_whole_stays() -> None:
    g = graph_of(
        """input %x: f32[5,8]
        %m = MatMul(%x, %w) -> f32[5,6]
        %a = Slice(%m) {starts=(0, 0), steps=(1, 1), sizes=(5, 4)} -> f32[5,4]
        output "a" = %a
        output "m" = %m""",
        constants="w: f32[8,6]",
    )
    assert rejections(Split(), g) == ["split: a: the result of 'm' is also read as a whole"]


def test_keys_that_groups_of_queries_share() -> None:
    """Four query heads over two key heads, repeated as transformers' `repeat_kv` does."""
    text = "input %xq: f32[2,5,16]\n%rq = Reshape(%xq) {shape=(2, 5, 4, 4)} -> f32[2,5,4,4]\n"
    text += "%q = Transpose(%rq) {perm=(0, 2, 1, 3)} -> f32[2,4,5,4]\n"
    for c in "kv":
        text += f"""input %x{c}: f32[2,7,8]
        %r{c} = Reshape(%x{c}) {{shape=(2, 7, 2, 4)}} -> f32[2,7,2,4]
        %t{c} = Transpose(%r{c}) {{perm=(0, 2, 1, 3)}} -> f32[2,2,7,4]
        %u{c} = Reshape(%t{c}) {{shape=(2, 2, 1, 7, 4)}} -> f32[2,2,1,7,4]
        %e{c} = Expand(%u{c}) {{shape=(2, 2, 2, 7, 4)}} -> f32[2,2,2,7,4]
        %{c} = Reshape(%e{c}) {{shape=(2, 4, 7, 4)}} -> f32[2,4,7,4]
        """
    text += """%kt = Transpose(%k) {perm=(0, 1, 3, 2)} -> f32[2,4,4,7]
    %s = MatMul(%q, %kt) -> f32[2,4,5,7]
    %p = Softmax(%s) {axis=3} -> f32[2,4,5,7]
    %o = MatMul(%p, %v) -> f32[2,4,5,4]
    %to = Transpose(%o) {perm=(0, 2, 1, 3)} -> f32[2,5,4,4]
    %y = Reshape(%to) {shape=(2, 5, 16)} -> f32[2,5,16]
    output "y" = %y"""
    after = check(Reshapes(), check(RecogniseAttention(), graph_of(text)))
    (node,) = after.nodes
    assert isinstance(node.op, Attention) and (node.op.heads, node.op.kv_heads) == (4, 2)


def test_a_mask_that_is_the_same_for_all_keys() -> None:
    scores = """input %m: f32[5,1]
    %c = MatMul(%q, %k) -> f32[2,3,5,7]
    %s = Map(%c, %m) {program='add(a0,a1)'} -> f32[2,3,5,7]"""
    (found,) = rejections(RecogniseAttention(), graph_of(SPLIT + scores + MERGE))
    assert "the mask 'm' is the same for all keys" in found
