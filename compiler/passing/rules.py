"""Pattern, check, rewrite: rules that passes apply to every node until nothing matches any more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.errors import InternalError
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Op
from sparsec.compiler.passing.base import Notes, Rejected

M = TypeVar("M")
_ROUNDS = 200


class Rule(ABC, Generic[M]):
    """One rewriting. `match` only reads; `apply` replaces the match and makes sure that it cannot match again."""

    ops: ClassVar[tuple[type[Op], ...]] = ()  # operators that the pattern's root may be; empty means any

    @abstractmethod
    def match(self, editor: GraphEditor, node: Node) -> M | Rejected | None:
        """What `apply` needs; None when the pattern is not here; Rejected when it is, but a precondition fails."""

    @abstractmethod
    def apply(self, editor: GraphEditor, node: Node, match: M) -> None:
        """Replace the matched nodes; `origin` of what replaces them is the union of theirs."""


def apply_rules(graph: Graph, rules: Sequence[Rule[Any]], notes: Notes) -> Graph:
    """Try the rules in order on every node, in rounds, until a whole round changes nothing.

    Rejections of the last round are kept: a node that was rejected first and rewritten later has no reason left.
    """
    editor = GraphEditor(graph)
    for _ in range(_ROUNDS):
        rejected: list[tuple[Node, Rejected]] = []
        changed = False
        for node in editor.nodes:
            for rule in rules:
                if not editor.has(node):
                    break
                if rule.ops and not isinstance(node.op, rule.ops):
                    continue
                notes.at = node
                found = rule.match(editor, node)
                if isinstance(found, Rejected):
                    rejected.append((node, found))
                elif found is not None:
                    rule.apply(editor, node, found)
                    editor.sweep()
                    changed = True
        if not changed:
            for node, why in rejected:
                notes.reject(node, why)
            notes.at = None
            return editor.finish()
    raise InternalError(f"the rules {', '.join(type(r).__name__ for r in rules)} do not settle in {_ROUNDS} rounds")


def merged_origin(*nodes: Node) -> tuple[str, ...]:
    """The ONNX nodes that several nodes come from, each once, in order."""
    return tuple(dict.fromkeys(o for n in nodes for o in n.origin))
