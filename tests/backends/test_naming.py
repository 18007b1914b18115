"""Names in C: always identifiers, always distinct, never able to leave a comment or a string."""

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.naming import comment, identifier, identifiers, string_literal
from tests.machine import needs


@given(st.text())
def test_identifier_is_one(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", identifier(name))


@given(st.lists(st.text(alphabet="aA_b*/ \n1"), max_size=30))
def test_identifiers_are_distinct(names: list[str]) -> None:
    made = identifiers(names)
    assert len(made) == len(names)
    assert len({m.lower() for m in made}) == len(names)


@pytest.mark.parametrize("word", ["int", "register", "while", "class", "INT", "errno", "", "9", "_", "__x__"])
def test_reserved_words_are_avoided(word: str) -> None:
    made = identifier(word)
    assert made.lower() != word.lower() or (word.isidentifier() and not word.startswith("_") and word not in ("int", "INT"))
    assert not made.startswith("_")


@given(st.text())
def test_a_comment_stays_one(text: str) -> None:
    made = comment(text)
    assert "*/" not in made and "/*" not in made and "\n" not in made and "??" not in made and "\\" not in made
    assert len(made) <= 100


@needs("gcc")
@settings(max_examples=5)
@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_a_string_literal_keeps_its_bytes(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("c")
    body = "".join(f"fwrite({string_literal(t)}, 1, {len(t.encode())}, stdout);putchar(0);" for t in texts)
    (folder / "s.c").write_text(f"#include <stdio.h>\nint main(void){{{body}return 0;}}\n")
    subprocess.run(["gcc", "-std=c11", "-trigraphs", "-o", folder / "s", folder / "s.c"], check=True)
    out = subprocess.run([folder / "s"], capture_output=True, check=True).stdout
    assert out == b"".join(t.encode() + b"\0" for t in texts)
