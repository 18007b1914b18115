"""Conversions between storage orders, each made once and shared by its readers."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Node, Port
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.relayout import Relayout


class Converter:
    """Makes each (value, layout) conversion once."""

    def __init__(self, editor: GraphEditor) -> None:
        self.editor = editor
        self.made: dict[tuple[str, Layout], str] = {}

    def get(self, value: str, layout: Layout) -> str:
        """The name under which `value` is to be had in `layout`; two channel axes convert through row-major."""
        if self.editor.types[value].layout == layout:
            return value
        now = self.editor.types[value].layout
        if isinstance(now, Blocked) and isinstance(layout, Blocked) and now.axis != layout.axis:
            return self.get(self.get(value, ROW_MAJOR), layout)
        key = (value, layout)
        if key not in self.made:
            origin = (p.origin if (p := self.editor.producer(value)) else ()) or (value,)
            hint = f"{value}{layout}" if str(layout) else f"{value}@row"
            self.made[key] = self.editor.add(Relayout(layout), [value], hint=hint, origin=origin).output
        return self.made[key]

    def rewire(self, node: Node, inputs: Sequence[str]) -> None:
        """Give a node other operands; its results keep their layouts."""
        if tuple(inputs) != node.inputs:
            layouts = [self.editor.types[v].layout for v in node.outputs]
            self.editor.replace(node, node.op, inputs)
            for v, layout in zip(node.outputs, layouts, strict=True):
                self.editor.set_layout(v, layout)

    def rewire_output(self, port: str, value: str) -> None:
        """Let an output port carry another value."""
        self.editor.outputs = [Port(p.name, value) if p.name == port else p for p in self.editor.outputs]
