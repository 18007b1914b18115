"""Patterns, recipes and rules as users write them, with every mistake named."""

from dataclasses import replace
from pathlib import Path

import pytest

from sparsec.compiler.cli.options import parse_recipe
from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, Sparsity, Unstructured
from sparsec.compiler.sparsity.text import parse_goal, parse_sparsity
from sparsec.passes.pruning.recipe import make_recipe, read_recipe
from sparsec.passes.pruning.scores import Criterion


@pytest.mark.parametrize(
    ("text", "pattern", "sparsity"),
    [
        ("2:4", NM(2, 4), 0.5),
        ("2:4@50%", NM(2, 4), 0.5),
        ("1:4/rows=32", NM(1, 4, 32), 0.75),
        ("block:8x8@50%", Block(8, 8), 0.5),
        ("block:32x1@87.5%", Block(32, 1), 0.875),
        ("block:8x8@75%/taps=each", Block(8, 8, "each"), 0.75),
        ("block:8x8/taps=each@75%", Block(8, 8, "each"), 0.75),
        ("block:8x8/2:4", Block(8, 8, n_keep=2, m_group=4), 0.5),
        ("block:16x4/1:4/taps=each", Block(16, 4, "each", n_keep=1, m_group=4), 0.75),
        ("block:8x8/4:8@50%", Block(8, 8, n_keep=4, m_group=8), 0.5),
        ("block4@50%", Block(1, 4), 0.5),
        ("nmg:1:4:16", NMG(1, 4, 16), 0.75),
        ("hinm:32:2:4@75%", HiNM(32, 2, 4), 0.75),
        (" unstructured@90% ", Unstructured(), 0.9),
        ("dense", DENSE, 0.0),
    ],
)
def test_patterns(text: str, pattern: Sparsity, sparsity: float) -> None:
    found = parse_goal(text)
    assert (found.pattern, found.sparsity) == (pattern, pytest.approx(sparsity))
    assert parse_goal(str(found)) == found
    assert pattern == DENSE or parse_sparsity(f"~{pattern.spec}/nnz=64") == replace(pattern, nnz=64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2to4", "pattern '2to4' is not known: expected one such as 2:4, 2:4/rows=32, block:8x8@50%"),
        ("", "pattern '' is not known"),
        ("4:4", r"pattern '4:4' is not known \(n:m needs 0 < n < m and rows of 1 or more, not 4:4\)"),
        ("2:4@75%", "pattern '2:4@75%' drops 50 % by its form, not 75 %: leave @ out"),
        ("2:4@50%@50%", "the sparsity after @ is a share between 0% and 100%, as 75%, not '50%@50%'"),
        ("block:8x8@50%/taps=each@50%", "gives its sparsity twice"),
        ("block:8x8/2:4@75%", "pattern 'block:8x8/2:4@75%' drops 50 % by its form, not 75 %: leave @ out"),
        ("block:8x8/4:4", r"is not known \(n:m of blocks needs 0 < n < m, not block:8x8/4:4\)"),
        ("block:8x8/0:0", r"is not known \(n:m of blocks needs 0 < n < m, not block:8x8/0:0\)"),
        ("block:8x8/2:4/rows=8", "is not known: expected one such as"),
        ("block:8x8/taps=each/2:4", "is not known: expected one such as"),
        ("block:8x8", "does not say how much to drop: write block:8x8@75%, for example"),
        ("unstructured@0.9", "the sparsity after @ is a share between 0% and 100%, as 75%, not '0.9'"),
        ("unstructured@100%", "is a share between 0% and 100%"),
        ("hinm:32:2:4@25%", "pattern 'hinm:32:2:4@25%' drops 50 % by its n:m alone: ask for that or more"),
        ("dense@50%", "dense layers drop nothing"),
        ("block:8x8@50%/taps=none", "is not known"),
        ("nmg:1:99:1", "n:m:g takes m up to 12, not 99"),
    ],
)
def test_patterns_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_goal(text)


@pytest.mark.parametrize(
    "text",
    ["2:4", "~2:4/rows=1", "~2:4/nnz=", "~nothing", "~2:4/nnz=-1", "~2:4/nnz=1/nnz=2", "~dense", "~block:8x8/02:4"],
)
def test_what_types_do_not_print_is_no_sparsity(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|invalid literal"):
        parse_sparsity(text)


TOML = """
pattern = "block:8x8@75%"
criterion = "l2"
preserve_norm = true
steps = 4
spare = ["first"]

[[layer]]
match = "/layer4/*"
pattern = "2:4"

[[layer]]
match = "/layer4/special"
pattern = "dense"
"""


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TOML)
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe.pattern == parse_goal("block:8x8@75%")
    assert (recipe.criterion, recipe.preserve_norm, recipe.steps, recipe.spare) == (Criterion.l2, True, 4, ("first",))
    names = [("/layer1/a",), ("/layer4/a", "/layer4/a'"), ("/layer4/special",)]
    assert recipe.goals(names) == [(recipe.pattern, False), (parse_goal("2:4"), True), (parse_goal("dense"), True)]


@pytest.mark.parametrize(
    ("options", "same_as"),
    [
        ({"mask_structure": "2:4"}, {"pattern": "2:4"}),
        ({"mask_structure": "2:4", "sparsity": 0.5}, {"pattern": "2:4"}),
        ({"mask_structure": "unstructured", "sparsity": 0.9}, {"pattern": "unstructured@90%"}),
        ({"mask_structure": "0:0", "sparsity": 0.8}, {"pattern": "unstructured@80%"}),
        ({"mask_structure": "block4", "sparsity": 0.5}, {"pattern": "block:1x4@50%"}),
        ({"sparse_block_shape": [8, 8], "sparsity_level": 0.75}, {"pattern": "block:8x8@75%"}),
        ({"sparse_block_shape": [1, 1], "sparsity_level": 0.9, "norm": "L2"}, {"pattern": "unstructured@90%", "criterion": "l2"}),
        ({"sparsity_level": 0.5}, {"pattern": "block:1x4@50%"}),
        ({"sparsity_level": 1.0, "sparse_block_shape": [1, 4], "zeros_per_block": 2, "norm": 1}, {"pattern": "2:4"}),
        ({"sparsity_level": 1, "sparse_block_shape": [1, 8], "zeros_per_block": 6}, {"pattern": "2:8"}),
    ],
)
def test_the_words_of_torch_and_sparseml(options: dict[str, object], same_as: dict[str, object]) -> None:
    assert make_recipe(options) == make_recipe(same_as)
    rule = {k: v for k, v in options.items() if k != "norm"}
    (found,) = make_recipe({"layer": [{"match": "*", **rule}]}).layer
    assert found.pattern == make_recipe(same_as).pattern


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to prune: give a pattern, as --pattern 2:4, or rules for layers"),
        ({"pattern": "2:4", "patern": "x"}, "patern: extra inputs are not permitted"),
        ({"pattern": 24}, "pattern: "),
        ({"pattern": "2:4", "steps": 0}, "steps: input should be greater than or equal to 1"),
        ({"pattern": "2:4", "criterion": "l3"}, "criterion: input should be 'l1', 'l2' or 'variance'"),
        ({"pattern": "2:4", "criterion": "variance"}, "the criterion variance compares blocks, and 2:4 has none: use l1 or l2"),
        ({"pattern": "2:4", "spare": ["last"]}, "spare.0: input should be 'first', 'depthwise' or 'classifier'"),
        ({"pattern": "2:4", "mask_structure": "2:4"}, "the pattern is given twice"),
        ({"mask_structure": "unstructured", "sparsity": 90}, "sparsity is 90: expected a number from 0 to 1"),
        ({"mask_structure": "tetris", "sparsity": 0.5}, "pattern 'tetris@50%' is not known"),
        ({"sparse_block_shape": [8], "sparsity_level": 0.5}, r"sparse_block_shape is \[8\]: expected two positive numbers"),
        ({"sparsity_level": 0.5, "sparse_block_shape": [1, 4], "zeros_per_block": 2}, "has no pattern here: whole blocks"),
        ({"sparsity_level": 1.0, "sparse_block_shape": [8, 8]}, "drops all weights or none"),
        ({"pattern": "2:4", "norm": "L7"}, "norm is 'L7': give L1 or L2"),
        ({"layer": [{"match": "*"}]}, "layer.0.pattern: field required"),
    ],
)
def test_recipes_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_recipe(options)


def test_recipe_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read recipe .*no.toml'"):
        read_recipe(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("pattern = 2:4")
    with pytest.raises(UsageError, match=r"bad.toml' is not TOML"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "odd.toml").write_text("steps = 0\npattern = '2:4'")
    with pytest.raises(UsageError, match=r"recipe '.*odd.toml': steps: input should be"):
        read_recipe(tmp_path / "odd.toml")


def rules(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"layer": [{"match": m, "pattern": p} for m, p in pairs]}


def test_a_rule_that_names_no_layer_is_an_error() -> None:
    message = "the rule for '/layer9/conv' matches no layer with weights .there are '/layer1/conv'"
    with pytest.raises(UsageError, match=message):
        make_recipe(rules(("/layer9/conv", "2:4"))).goals([("/layer1/conv",), ("/fc",)])


def test_rules_that_contradict_each_other_are_an_error() -> None:
    recipe = make_recipe(rules(("/layer*", "2:4"), ("*/conv", "dense"), ("/fc", "1:4"), ("/f*", "2:4")))
    assert recipe.goals([("/fc",), ("/layer1/a",), ("/b/conv",), ("/fd",)])[0] == (parse_goal("1:4"), True)
    message = "rules disagree about layer '/layer1/conv': '/layer.' asks for 2:4, './conv' for dense"
    with pytest.raises(UsageError, match=message):
        recipe.goals([("/fc",), ("/layer1/conv",), ("/fd",)])


def test_names_with_brackets_can_be_spelled() -> None:
    recipe = make_recipe(rules(("layer[0]", "2:4")))
    assert recipe.goals([("layer[0]",), ("layer0",)]) == [(parse_goal("2:4"), True), (parse_goal("2:4"), True)]


def test_options_become_a_recipe(tmp_path: Path) -> None:
    found = parse_recipe("2:4", ["/a=b/*=2:4/rows=32", "c=dense"], None, {"steps": 2, "criterion": None})
    assert found is not None and found.steps == 2
    assert [(r.match, str(r.pattern)) for r in found.layer] == [("/a=b/*", "2:4/rows=32"), ("c", "dense")]
    assert parse_recipe(None, None, None, {"criterion": None}) is None
    (tmp_path / "r.toml").write_text("pattern = '2:4'")
    assert parse_recipe(None, None, tmp_path / "r.toml") == make_recipe({"pattern": "2:4"})
    with pytest.raises(UsageError, match="says all: leave --pattern, --layer and the other pruning options out"):
        parse_recipe("2:4", None, tmp_path / "r.toml")
    for entry in ("=2:4", "conv"):
        with pytest.raises(UsageError, match=r"--layer takes GLOB=PATTERN, as '/layer4/.=2:4', not"):
            parse_recipe(None, [entry], None)
    with pytest.raises(UsageError, match="pattern '9x9' is not known"):
        parse_recipe(None, ["conv=9x9"], None)
