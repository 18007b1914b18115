"""`--dump-ir`: numbered text files of the graph after passes, with one constant sidecar for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sparsec.compiler.graph import Graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.text.store import ConstantStore


@dataclass
class Dumper:
    """Writes `NN-PASS.txt` into `folder`, where 00 is the imported graph, and constants into `folder/constants`.

    `which` is `all`, `changed` (passes that changed the graph) or a pass's name (the graph before it and after it).
    """

    folder: Path
    which: str = "all"
    written: list[Path] = field(default_factory=list)
    _store: ConstantStore | None = None
    _before: tuple[int, str, Graph] | None = None

    def dump(self, index: int, label: str, graph: Graph, *, changed: bool) -> None:
        """Called with the imported graph (index 0) and with the graph after every pass."""
        if self.which == label and self._before is not None:
            self._write(*self._before)
        if self.which in ("all", label) or (self.which == "changed" and (changed or index == 0)):
            self._write(index, label, graph)
        self._before = (index, label, graph)

    def _write(self, index: int, label: str, graph: Graph) -> None:
        if self._store is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._store = ConstantStore(self.folder / "constants")
        path = self.folder / f"{index:02d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', label)}.txt"
        if path not in self.written:
            path.write_text(print_graph(graph, self._store), encoding="ascii")
            self.written.append(path)
