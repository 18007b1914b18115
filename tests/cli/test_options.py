"""Text of options to values, with every mistake named."""

import pytest

from sparsec.compiler.cli.options import CompileOptions, parse_dims, parse_shapes, parse_size
from sparsec.compiler.errors import UsageError
from sparsec.compiler.limits import Limits


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("4096", 4096), ("512K", 512 << 10), ("8m", 8 << 20), ("1GiB", 1 << 30), ("2 TB", 2 << 40)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text, "--max-arena") == value


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5M", "8MM", "eight"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-arena takes a number such as 4096, 512K or 8M"):
        parse_size(text, "--max-arena")


def test_dims_and_shapes() -> None:
    assert parse_dims(["batch=2", "a=b=3"]) == {"batch": 2, "a=b": 3}
    assert parse_shapes(["x=1,3, 8,8", "scalar=", "a=b=4"]) == {"x": (1, 3, 8, 8), "scalar": (), "a=b": (4,)}
    assert (parse_dims(None), parse_shapes(None)) == ({}, {})


@pytest.mark.parametrize("text", ["batch", "batch=", "=3", "batch=-1", "batch=x"])
def test_bad_dims(text: str) -> None:
    with pytest.raises(UsageError, match="--dim takes NAME=N, as batch=1, not"):
        parse_dims([text])


@pytest.mark.parametrize("text", ["x", "=1,2", "x=1,,2", "x=1,a", "x=-1"])
def test_bad_shapes(text: str) -> None:
    with pytest.raises(UsageError, match="--input takes NAME=N,N,"):
        parse_shapes([text])


def test_arguments_are_the_drivers() -> None:
    found = CompileOptions("generic", 2, ["n=1"], ["x=1"], "fold", "gcc", "nodes=5", {"name": "m"}).arguments()
    limits = Limits(max_nodes=5)
    expected = {"target": "generic", "threads": 2, "dims": {"n": 1}, "input_shapes": {"x": (1,)}, "passes": "fold", "cc": "gcc"}
    assert found == {**expected, "limits": limits, "name": "m"}
