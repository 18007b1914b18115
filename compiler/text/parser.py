"""Parse the text form of a graph.

    graph      = "graph" STRING "{" { line } "}"
    line       = "input" value ":" type
               | "const" value ":" type "=" ( "[" elements "]" | "sha256:" HEX )
               | value { "," value } "=" OP "(" operands ")" [ "{" NAME "=" attr, ... "}" ] "->" type { "," type }
                 [ "as" STRING ] [ "from" ( STRING { "," STRING } | "nothing" ) ]
               | "output" STRING "=" value
    value      = "%" ( NAME | STRING )          operand = value | "_"
    type       = DTYPE "[" extents "]" [ layout ] [ sparsity ]
    layout     = "@c" BLOCK "a" AXIS [ "+" BEFORE ":" AFTER { "," BEFORE ":" AFTER } ]
    sparsity   = "~" PATTERN [ "/order=" HEX ] [ "/nnz=" COUNT ], as ~2:4/rows=32/nnz=18432
    attr       = "true" | "false" | "none" | number | STRING | "'" program "'" | DTYPE | layout | "@row" | "(" attr, ... ")"

STRING is JSON's. HEX is the SHA-256 of data in the sidecar: a constant's, or the order of the tiles of hierarchical n:m. A `#`
outside of strings starts a comment that ends with the line. A node's name defaults to its first output's, its origin to its name.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.base import OPS, Op
from sparsec.compiler.ops.registry import load_all
from sparsec.compiler.scalar import Program
from sparsec.compiler.sparsity import DENSE, Sparsity, TileOrder
from sparsec.compiler.sparsity.text import parse_sparsity
from sparsec.compiler.text.printer import elements_from_text
from sparsec.compiler.text.store import ConstantStore
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n]+|\#[^\n]*)
      | (?P<hash>sha256:[0-9a-f]{64}\b)
      | (?P<value>%(?:[A-Za-z0-9_./'-]+|"(?:[^"\\\n]|\\.)*"))
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<program>'[^'\n]*')
      | (?P<layout>@row|@c\d+a\d+(?:\+\d+:\d+(?:,\d+:\d+)*)?)
      | (?P<sparsity>~[A-Za-z0-9:=/]+)
      | (?P<arrow>->)
      | (?P<number>[+-]?(?:inf\b|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<mark>[{}()\[\],:=])""",
    re.VERBOSE,
)
_LAYOUT = re.compile(r"@c(\d+)a(\d+)(?:\+(.*))?")
_DTYPES = {d.value: d for d in DType}


def parse_graph(text: str, store: ConstantStore | None = None) -> Graph:
    """The graph that `text` writes; constants named by hash come from `store`. ModelError with the line on any mistake.

    The graph is not verified here, so that an invalid one can be read and reported by `verify`.
    """
    load_all()
    return _Parser(text, store or ConstantStore()).graph()


def parse_layout(text: str) -> Layout:
    """`@row`, `@c16a1`, `@c16a1+0:0,1:1` -> Layout. ValueError when it is none of these."""
    if text == "@row":
        return ROW_MAJOR
    found = _LAYOUT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a layout")
    pairs = [p.split(":") for p in found[3].split(",")] if found[3] else []
    return Blocked(int(found[2]), int(found[1]), tuple((int(lo), int(hi)) for lo, hi in pairs))


class _Parser:
    """Recursive descent over tokens; builds the graph's parts as it goes."""

    def __init__(self, text: str, store: ConstantStore) -> None:
        self.text, self.store = text, store
        self.at = 0
        self.kind, self.token, self.start = "", "", 0
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.inputs: list[str] = []
        self.nodes: list[Node] = []
        self.outputs: list[Port] = []
        self.advance()

    # ---- tokens
    def advance(self) -> str:
        """Step to the next token; returns the one passed."""
        passed = self.token
        while self.at < len(self.text):
            found = _TOKEN.match(self.text, self.at)
            if found is None:
                self.start = self.at
                raise self.error(f"cannot read {self.text[self.at : self.at + 20]!r}")
            self.start, self.at = found.start(), found.end()
            self.kind, self.token = found.lastgroup or "", found.group()
            if self.kind != "skip":
                return passed
        self.kind, self.token, self.start = "end", "", self.at
        return passed

    def error(self, what: str) -> ModelError:
        line = self.text.count("\n", 0, self.start) + 1
        return ModelError(f"line {line}: {what}")

    def expect(self, token: str) -> None:
        if self.token != token or self.kind == "string":
            raise self.error(f"expected {token!r}, found {self.token!r}")
        self.advance()

    def accept(self, token: str) -> bool:
        if self.token == token and self.kind != "string":
            self.advance()
            return True
        return False

    def take(self, kind: str) -> str:
        if self.kind != kind:
            raise self.error(f"expected a {kind}, found {self.token!r}")
        return self.advance()

    def string(self) -> str:
        return str(json.loads(self.take("string")))

    def integer(self) -> int:
        token = self.take("number")
        if not token.isdigit():
            raise self.error(f"expected a whole number, found {token!r}")
        return int(token)

    def value(self) -> str:
        token = self.take("value")[1:]
        return str(json.loads(token)) if token.startswith('"') else token

    # ---- grammar
    def graph(self) -> Graph:
        self.expect("graph")
        name = self.string()
        self.expect("{")
        while not self.accept("}"):
            if self.kind == "value":
                self.node()
            elif self.accept("input"):
                v = self.value()
                self.expect(":")
                self.define(v, self.type())
                self.inputs.append(v)
            elif self.accept("const"):
                self.constant()
            elif self.accept("output"):
                public = self.string()
                self.expect("=")
                self.outputs.append(Port(public, self.value()))
            else:
                raise self.error(f"expected input, const, output, a node or '}}', found {self.token!r}")
        if self.kind != "end":
            raise self.error(f"expected the end after '}}', found {self.token!r}")
        return Graph(name, tuple(self.inputs), tuple(self.outputs), tuple(self.nodes), self.types, self.constants)

    def define(self, value: str, t: TensorType) -> None:
        if value in self.types:
            raise self.error(f"value %{value} is defined twice")
        self.types[value] = t

    def constant(self) -> None:
        name = self.value()
        self.expect(":")
        t = self.type()
        self.expect("=")
        self.define(name, t)
        if self.kind == "hash":
            self.constants[name] = self.store.get(self.token.removeprefix("sha256:"), t)
            self.advance()
            return
        begin = self.start
        self.expect("[")
        while not self.accept("]"):
            if self.kind == "end":
                raise self.error(f"the elements of %{name} do not end")
            self.advance()
        text = self.text[begin : self.text.index("]", begin) + 1]
        try:
            self.constants[name] = elements_from_text(text, t.dtype).reshape(t.shape)
        except (ValueError, OverflowError) as exc:
            raise self.error(f"{text} does not hold the {t.elements} elements of {t}: {exc}") from None

    def type(self) -> TensorType:
        word = self.take("word")
        if word not in _DTYPES:
            raise self.error(f"{word!r} is not an element type: {', '.join(_DTYPES)}")
        self.expect("[")
        shape: list[int] = []
        while not self.accept("]"):
            shape.append(self.integer())
            if self.token != "]":
                self.expect(",")
        layout = parse_layout(self.advance()) if self.kind == "layout" else ROW_MAJOR
        return TensorType(_DTYPES[word], tuple(shape), layout, self.sparsity())

    def sparsity(self) -> Sparsity:
        if self.kind != "sparsity":
            return DENSE
        try:
            return parse_sparsity(self.token, lambda digest: TileOrder(self.store.raw(digest)))
        except ValueError as exc:
            raise self.error(str(exc)) from None
        finally:
            self.advance()

    def node(self) -> None:
        outputs = [self.value()]
        while self.accept(","):
            outputs.append(self.value())
        self.expect("=")
        op_name = self.take("word")
        inputs = self.operands()
        op = self.op(op_name)
        self.expect("->")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        if len(types) != len(outputs):
            raise self.error(f"{len(outputs)} outputs have {len(types)} types")
        for v, t in zip(outputs, types, strict=True):
            self.define(v, t)
        name = self.string() if self.accept("as") else outputs[0]
        origin: list[str] = [name]
        if self.accept("from"):
            origin = [] if self.accept("nothing") else [self.string()]
            while origin and self.accept(","):
                origin.append(self.string())
        self.nodes.append(Node(name, op, tuple(inputs), tuple(outputs), tuple(origin)))

    def operands(self) -> list[str]:
        self.expect("(")
        found: list[str] = []
        while not self.accept(")"):
            found.append(ABSENT if self.accept("_") else self.value())
            if self.token != ")":
                self.expect(",")
        return found

    def op(self, name: str) -> Op:
        cls = OPS.get(name)
        if cls is None:
            raise self.error(f"there is no operator {name!r}")
        attributes: dict[str, Any] = {}
        if self.accept("{"):
            while not self.accept("}"):
                key = self.take("word")
                self.expect("=")
                attributes[key] = self.attribute()
                if self.token != "}":
                    self.expect(",")
        try:
            return cls(**attributes)
        except TypeError as exc:
            raise self.error(f"{name} does not take {sorted(attributes)}: {exc}") from None

    def attribute(self) -> Any:
        kind, token = self.kind, self.token
        if self.accept("("):
            items: list[Any] = []
            while not self.accept(")"):
                items.append(self.attribute())
                if self.token != ")":
                    self.expect(",")
            return tuple(items)
        self.advance()
        words: dict[str, Any] = {"true": True, "false": False, "none": None, "nan": float("nan"), "inf": float("inf")}
        if kind == "word" and token in words | _DTYPES:
            return (words | _DTYPES)[token]
        try:
            if kind == "number":
                return int(token) if token.lstrip("+-").isdigit() else float(token)
            if kind == "string":
                return json.loads(token)
            if kind == "program":
                return Program.parse(token[1:-1])
            if kind == "layout":
                return parse_layout(token)
        except (ValueError, KeyError) as exc:
            raise self.error(f"cannot read the attribute {token}: {exc}") from None
        raise self.error(f"{token!r} is not an attribute value")
