"""What a pass is: a frozen dataclass whose fields are its options, from a valid graph to a valid graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from sparsec.compiler.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a rule that begins to match a node does not apply to it. One sentence, for `sparsec explain`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """What a pass says of a node that it left as it was (or, without a node, of the whole graph)."""

    by: str
    reason: str
    node: str = ""
    origin: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{self.by}: {where}{self.reason}"


@dataclass
class Notes:
    """Collects what passes say. `at` is the node in work, so that an error can name it."""

    entries: list[Note] = field(default_factory=list)
    running: str = ""
    at: Node | None = None

    def reject(self, node: Node, why: Rejected) -> None:
        """Keep the reason why the running pass left `node` alone."""
        self.entries.append(Note(self.running, why.reason, node.name, node.origin))

    def say(self, text: str) -> None:
        """Keep a remark on the whole graph."""
        self.entries.append(Note(self.running, text))

    def of(self, node: Node) -> list[Note]:
        """The notes on a node: by its name, or by an ONNX node that both come from."""
        origins = set(node.origin)
        return [n for n in self.entries if n.node and (n.node == node.name or origins & set(n.origin))]


@dataclass(frozen=True)
class Pass(ABC):
    """Base of all passes. Subclasses are frozen dataclasses; every field is an option with a default."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        """The rewritten graph (the same object when nothing changed); reasons for not rewriting go to `notes`."""

    def run(self, graph: Graph, notes: Notes | None = None) -> Graph:
        """Apply the pass once, without verifying; the runner does more."""
        notes = notes if notes is not None else Notes()
        notes.running, notes.at = self.name, None
        return self.rewrite(graph, notes)


PASSES: dict[str, type[Pass]] = {}
P = TypeVar("P", bound=type[Pass])


def register_pass(cls: P) -> P:
    """Class decorator: make the pass known by its name (used by `--passes` and `sparsec passes`)."""
    if cls.name in PASSES:
        raise ValueError(f"two passes are called {cls.name}")
    PASSES[cls.name] = cls
    return cls
