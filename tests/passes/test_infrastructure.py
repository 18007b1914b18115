"""Rules, runner, dumps and pipelines as text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.errors import InternalError, UnsupportedError, UsageError
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, Rejected
from sparsec.compiler.passing.dump import Dumper
from sparsec.compiler.passing.pipeline import parse_pipeline, print_pipeline
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.passing.runner import PassTiming, run_pipeline
from sparsec.compiler.scalar import Program
from sparsec.compiler.text.diff import same_graph
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.store import ConstantStore
from sparsec.compiler.types import TensorType
from sparsec.passes.pipelines import PIPELINES
from sparsec.passes.registry import load_all

RELU, EXP = Program.parse("relu(a0)"), Program.parse("exp(a0)")


def chain() -> Graph:
    t = TensorType(DType.F32, (40,))
    add = Node("bias", Map(Program.parse("add(a0,a1)")), ("x", "c"), ("s",), ("Add_0",))
    nodes = (
        add,
        Node("r1", Map(RELU), ("s",), ("y",), ("Relu_0",)),
        Node("r2", Map(RELU), ("y",), ("z",), ("Relu_1",)),
        Node("e", Map(EXP), ("z",), ("w",), ("Exp_2",)),
    )
    constants = {"c": np.arange(40, dtype=np.float32)}
    return Graph("g", ("x",), (Port("out", "w"),), nodes, dict.fromkeys("xcsyzw", t), constants)


class ReluTwice(Rule[Node]):
    """relu(relu(x)) -> relu(x)."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> Node | Rejected | None:
        below = editor.producer(node.inputs[0])
        if node.op != Map(RELU) or below is None:
            return None
        return below if below.op == Map(RELU) else Rejected(f"its operand is made by {below.op.name}, not by a relu")

    def apply(self, editor: GraphEditor, node: Node, match: Node) -> None:
        editor.replace(node, Map(RELU), match.inputs, origin=match.origin)


@dataclass(frozen=True)
class Once(Pass):
    name = "once"
    summary = "test"
    times: int = 1
    rate: float = 0.5
    loud: bool = False

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [ReluTwice()], notes)


@dataclass(frozen=True)
class Break(Pass):
    name = "break"
    summary = "breaks the graph in one of three ways"
    how: str = "type"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        notes.at = graph.nodes[1]
        if self.how == "crash":
            raise KeyError("lost")
        if self.how == "user":
            raise UnsupportedError("too new", node="r1")
        types = dict(graph.types) | {"s": TensorType(DType.F32, (41,))}
        return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, types, graph.constants)


KNOWN = {"once": Once, "break": Break}


def test_rules_settle_and_say_why_not() -> None:
    notes = Notes()
    after = run_pipeline(chain(), [Once()], notes=notes)
    assert [n.name for n in after.nodes] == ["bias", "r2", "e"]
    assert after.nodes[1].origin == ("Relu_1", "Relu_0")
    assert [str(n) for n in notes.entries] == ["once: r2: its operand is made by Map, not by a relu"]
    assert notes.of(after.nodes[1]) == notes.entries and not notes.of(after.nodes[2])


def test_rules_that_do_not_settle_are_a_defect() -> None:
    class Flip(ReluTwice):
        def match(self, editor: GraphEditor, node: Node) -> Node | Rejected | None:
            return node

        def apply(self, editor: GraphEditor, node: Node, match: Node) -> None:
            editor.replace(node, node.op, node.inputs)

    with pytest.raises(InternalError, match="Flip do not settle"):
        apply_rules(chain(), [Flip()], Notes())


def test_timings_and_progress() -> None:
    timings: list[PassTiming] = []
    seen: list[str] = []
    run_pipeline(chain(), [Once(), Once()], timings=timings, progress=seen.append)
    assert [(t.name, t.changed, t.nodes_before, t.nodes_after) for t in timings] == [("once", True, 4, 3), ("once", False, 3, 3)]
    assert seen == ["once", "once"] and all(t.seconds >= 0 for t in timings)


def test_an_error_names_pass_node_and_what_ran() -> None:
    with pytest.raises(InternalError, match=r"pass 'break' broke the graph: .*'bias'.*already run: once$"):
        run_pipeline(chain(), [Once(), Break()])
    with pytest.raises(
        InternalError, match=r"pass 'break' failed at node 'r1' \(Map; from 'Relu_0'\): KeyError: 'lost'.*run: none"
    ):
        run_pipeline(chain(), [Break("crash")])
    with pytest.raises(UnsupportedError, match="pass break: too new") as caught:
        run_pipeline(chain(), [Break("user")])
    assert caught.value.node == "r1"


def test_an_invalid_graph_is_refused_before_any_pass() -> None:
    with pytest.raises(InternalError, match="'bias'"):
        run_pipeline(Break().run(chain()), [Once()])


@pytest.mark.parametrize(
    ("which", "files"),
    [
        ("all", ["00-import.txt", "01-once.txt", "02-once.txt", "03-dce.txt"]),
        ("changed", ["00-import.txt", "01-once.txt"]),
        ("dce", ["02-once.txt", "03-dce.txt"]),
        ("import", ["00-import.txt"]),
    ],
)
def test_dumps(tmp_path: Path, which: str, files: list[str]) -> None:
    after = run_pipeline(chain(), [Once(), Once(), load_all()["dce"]()], dumper=Dumper(tmp_path / "ir", which))
    folder = tmp_path / "ir"
    assert sorted(p.name for p in folder.glob("*.txt")) == files
    assert len(list((folder / "constants").iterdir())) == 1
    last = parse_graph((folder / files[-1]).read_text(), ConstantStore(folder / "constants"))
    assert same_graph(last, after if which != "import" else chain()) or which == "changed"


def test_pipeline_text() -> None:
    parsed = parse_pipeline(" once, once{times=3, loud=true,rate=1e-3},both ", KNOWN, {"both": (Once(), Break())})
    assert parsed == (Once(), Once(times=3, loud=True, rate=1e-3), Once(), Break())
    assert parse_pipeline(print_pipeline(parsed), KNOWN) == parsed
    assert parse_pipeline("", KNOWN) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fuzz", "there is no pass 'fuzz'; passes: break, once; pipelines: both"),
        ("once{speed=1}", "pass once has no option 'speed'; it has: times, rate, loud"),
        ("once{times=many}", "option times of pass once takes int, not 'many'"),
        ("once{loud=maybe}", "option loud of pass once takes bool, not 'maybe'"),
        ("once{times}", "option 'times' of pass once has no value"),
        ("once{times=1", "cannot read the pipeline at"),
        ("both{times=1}", "there is no pass 'both'"),
    ],
)
def test_pipeline_text_mistakes(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("{", r"\{")):
        parse_pipeline(text, KNOWN, {"both": (Once(),)})


def test_every_named_pipeline_can_be_written() -> None:
    known = load_all()
    for name, passes in PIPELINES.items():
        assert parse_pipeline(print_pipeline(passes), known) == passes, name
    assert all(cls.summary and cls.__doc__ for cls in known.values())
