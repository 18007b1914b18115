"""The text of patterns: as types print them (`~2:4/rows=32/nnz=18432`) and as users ask for them (`block:8x8@50%`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, Sparsity, TileOrder, Unstructured

_NUMBER = r"(\d{1,6})"
_FORMS = (
    "2:4, 2:4/rows=32, block:8x8@50%, block:8x8@50%/taps=each, block:8x8/2:4, nmg:1:4:16, hinm:32:2:4@75%, unstructured@90%, "
    "flexisaga:16x16:sWS@75%, dense"
)
_ALIASES = {"block4": "block:1x4"}  # SparseML's mask_structure; its "2:4" and "unstructured" are the same words here


@dataclass(frozen=True, slots=True)
class Goal:
    """What a user asks for: a pattern, and the share of weights to drop (0 to 1)."""

    pattern: Sparsity
    sparsity: float

    def __str__(self) -> str:
        """Parses back."""
        fixed = self.pattern == DENSE or implied_sparsity(self.pattern) is not None
        return self.pattern.spec if fixed else f"{self.pattern.spec}@{100 * self.sparsity:.6g}%"


def implied_sparsity(pattern: Sparsity) -> float | None:
    """The share of weights that a pattern drops by its form: n:m, of weights or of blocks, and n:m:g. None for the others."""
    if isinstance(pattern, NM | NMG) or (isinstance(pattern, Block) and pattern.m_group):
        return 1 - pattern.n_keep / pattern.m_group
    return None


def no_order(digest: str) -> TileOrder:
    """Of a text by itself. LookupError always."""
    raise LookupError(f"the order {digest[:12]}... of its tiles is not in the text")


def parse_sparsity(text: str, order_of: Callable[[str], TileOrder] = no_order) -> Sparsity:
    """`~block:8x8/nnz=64` -> Block(8, 8, nnz=64). ValueError when it is not what a type prints.

    `order_of` gives the order of tiles that a text names by its digest; what it raises passes through.
    """
    words = text.removeprefix("~").split("/")
    given = {name: value for name, _, value in (w.partition("=") for w in words) if name in ("nnz", "order")}
    pattern = _pattern("/".join(w for w in words if w.partition("=")[0] not in given))
    if "nnz" in given:
        pattern = replace(pattern, nnz=int(given["nnz"]))
    if isinstance(pattern, HiNM) and re.fullmatch("[0-9a-f]{64}", given.get("order", "")):
        pattern = replace(pattern, order=order_of(given["order"]))
    if not text.startswith("~") or "-" in text or str(pattern) != text:
        raise ValueError(f"{text!r} is not a sparsity pattern")
    return pattern


def parse_goal(text: str) -> Goal:
    """A pattern as users write it; `@75%` is the share of weights to drop. UsageError with the known forms."""
    words = text.strip().split("/")
    amounts = [w.partition("@")[2] for w in words if "@" in w]
    bare = "/".join(w.partition("@")[0] for w in words)
    if len(amounts) > 1:
        raise UsageError(f"pattern {text!r} gives its sparsity twice")
    try:
        pattern = _pattern(_ALIASES.get(bare) or _vectors(bare) or bare)
    except ValueError as exc:
        why = "" if str(exc).startswith("not a pattern") else f" ({exc})"
        raise UsageError(f"pattern {text!r} is not known{why}: expected one such as {_FORMS}") from None
    return goal(pattern, _share(text, amounts[0]) if amounts else None, text)


def _vectors(text: str) -> str:
    """The pattern whose zeros a dataflow of a systolic array leaves out, of `flexisaga:16x8:sWS`; "" for other text."""
    found = re.fullmatch(rf"flexisaga:{_NUMBER}x{_NUMBER}:(s|cs)(OS|WS|IS)", text)
    if found is None or found[3] + found[4] not in ("sOS", "csOS", "sWS", "sIS"):
        return ""
    rows, cols = found[1], found[2]
    extents = {"OS": f"{rows}x1", "WS": f"{cols}x1", "IS": f"1x{rows}"}
    return f"block:{extents[found[4]]}/taps=each"


def goal(pattern: Sparsity, sparsity: float | None, text: str) -> Goal:
    """A pattern with its amount, which n:m, n:m of blocks and n:m:g imply and the others need; UsageError when these disagree."""
    if pattern == DENSE:
        if sparsity:
            raise UsageError(f"pattern {text!r}: dense layers drop nothing")
        return Goal(pattern, 0.0)
    implied = implied_sparsity(pattern)
    if implied is not None:
        if sparsity is not None and abs(sparsity - implied) > 1e-6:
            raise UsageError(f"pattern {text!r} drops {100 * implied:.6g} % by its form, not {100 * sparsity:.6g} %: leave @ out")
        return Goal(pattern, implied)
    if sparsity is None:
        raise UsageError(f"pattern {text!r} does not say how much to drop: write {pattern.spec}@75%, for example")
    if isinstance(pattern, HiNM) and sparsity < (least := 1 - pattern.n_keep / pattern.m_group) - 1e-9:
        raise UsageError(f"pattern {text!r} drops {100 * least:.6g} % by its n:m alone: ask for that or more")
    return Goal(pattern, sparsity)


def _share(text: str, amount: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", amount.strip())
    if found is None or not 0 < float(found[1]) < 100:
        raise UsageError(f"pattern {text!r}: the sparsity after @ is a share between 0% and 100%, as 75%, not {amount!r}")
    return float(found[1]) / 100


def _pattern(text: str) -> Sparsity:
    """The pattern of `text`, which holds no amount. ValueError when there is none."""
    if text == "dense":
        return DENSE
    if text == "unstructured":
        return Unstructured()
    if found := re.fullmatch(rf"{_NUMBER}:{_NUMBER}(?:/rows={_NUMBER})?", text):
        return NM(int(found[1]), int(found[2]), int(found[3] or 1))
    if found := re.fullmatch(rf"block:{_NUMBER}x{_NUMBER}(/{_NUMBER}:{_NUMBER})?(?:/taps=(shared|each))?", text):
        n, m = (int(found[4]), int(found[5])) if found[3] else (0, 0)
        if found[3] and not n:
            raise ValueError(f"n:m of blocks needs 0 < n < m, not {text}")
        return Block(int(found[1]), int(found[2]), found[6] or "shared", n_keep=n, m_group=m)
    if found := re.fullmatch(rf"nmg:{_NUMBER}:{_NUMBER}:{_NUMBER}", text):
        return NMG(int(found[1]), int(found[2]), int(found[3]))
    if found := re.fullmatch(rf"hinm:{_NUMBER}:{_NUMBER}:{_NUMBER}", text):
        return HiNM(int(found[1]), int(found[2]), int(found[3]))
    raise ValueError("not a pattern")
