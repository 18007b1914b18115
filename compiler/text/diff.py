"""A readable diff of two graphs: what was added, removed and changed, node by node."""

from __future__ import annotations

from collections import Counter

from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.text.printer import attribute_texts, print_graph, print_node, quoted, value_name
from sparsec.compiler.text.store import content_hash


def same_graph(a: Graph, b: Graph) -> bool:
    """Whether two graphs are equal: names, types, nodes in order, and constants by content."""
    return print_graph(a) == print_graph(b)


def diff_graphs(a: Graph, b: Graph) -> str:
    """Lines `- node` (only in a), `+ node` (only in b), `~ name: what changed`, then a count by operator.

    Nodes are matched by name. Empty when the graphs are equal but for the order of independent nodes.
    """
    old, new = {n.name: n for n in a.nodes}, {n.name: n for n in b.nodes}
    lines = _signature(a, b)
    for name, node in old.items():
        if name not in new:
            lines.append(f"- {print_node(node, a)}")
    for name, node in new.items():
        if name not in old:
            lines.append(f"+ {print_node(node, b)}")
        elif changes := _node_changes(old[name], node, a, b):
            lines.append(f"~ {quoted(name)} {node.op.name}: {'; '.join(changes)}")
    lines += _constants(a, b)
    if lines:
        lines += _summary(a, b)
    return "".join(f"{line}\n" for line in lines)


def _signature(a: Graph, b: Graph) -> list[str]:
    lines = [] if a.name == b.name else [f"~ graph: {quoted(a.name)} -> {quoted(b.name)}"]
    old = {v: str(a.types[v]) for v in a.inputs}
    new = {v: str(b.types[v]) for v in b.inputs}
    lines += [f"- input {value_name(v)}: {t}" for v, t in old.items() if new.get(v) != t]
    lines += [f"+ input {value_name(v)}: {t}" for v, t in new.items() if old.get(v) != t]
    before, after = {p.name: p.value for p in a.outputs}, {p.name: p.value for p in b.outputs}
    lines += [f"- output {quoted(n)} = {value_name(v)}" for n, v in before.items() if after.get(n) != v]
    lines += [f"+ output {quoted(n)} = {value_name(v)}" for n, v in after.items() if before.get(n) != v]
    return lines


def _node_changes(old: Node, new: Node, a: Graph, b: Graph) -> list[str]:
    changes = [] if old.op.name == new.op.name else [f"op {old.op.name} -> {new.op.name}"]
    before, after = attribute_texts(old.op), attribute_texts(new.op)
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            changes.append(f"{key} {before.get(key, 'default')} -> {after.get(key, 'default')}")
    for what, x, y in (("inputs", old.inputs, new.inputs), ("outputs", old.outputs, new.outputs)):
        if x != y:
            changes.append(f"{what} ({_values(x)}) -> ({_values(y)})")
    types = [", ".join(str(t) for t in g.out_types(n)) for n, g in ((old, a), (new, b))]
    if types[0] != types[1]:
        changes.append(f"type {types[0]} -> {types[1]}")
    if old.origin != new.origin:
        changes.append(f"from {', '.join(map(quoted, new.origin)) or 'nothing'}")
    return changes


def _values(values: tuple[str, ...]) -> str:
    return ", ".join(value_name(v) if v else "_" for v in values)


def _constants(a: Graph, b: Graph) -> list[str]:
    lines = [f"- const {value_name(v)}: {a.types[v]}" for v in a.constants if v not in b.constants]
    lines += [f"+ const {value_name(v)}: {b.types[v]}" for v in b.constants if v not in a.constants]
    for v in a.constants:
        if v in b.constants and a.constants[v] is not b.constants[v]:
            if a.types[v] != b.types[v]:
                lines.append(f"~ const {value_name(v)}: {a.types[v]} -> {b.types[v]}")
            elif content_hash(a.constants[v]) != content_hash(b.constants[v]):
                lines.append(f"~ const {value_name(v)}: {b.types[v]} with other data")
    return lines


def _summary(a: Graph, b: Graph) -> list[str]:
    old, new = Counter(n.op.name for n in a.nodes), Counter(n.op.name for n in b.nodes)
    parts = [f"{op} {old[op]} -> {new[op]}" for op in sorted(old | new) if old[op] != new[op]]
    return [f"= {len(a.nodes)} -> {len(b.nodes)} nodes{': ' if parts else ''}{', '.join(parts)}"]
