"""The text form parses back to an equal graph, whatever the names, attributes and constants."""

import dataclasses
import types
import typing

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.base import OPS, Op
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.registry import load_all
from sparsec.compiler.scalar import FUNCTIONS, Arg, Imm, Program, Step, Tmp
from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, TileOrder, Unstructured
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.text.store import ConstantStore
from sparsec.compiler.types import TensorType

load_all()

names = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_./]{0,6}", fullmatch=True),
    st.text(min_size=1, max_size=6),
    st.sampled_from(["_", "'", "0", "-"]),
)
dtypes = st.sampled_from(DType)
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)
blocked = st.builds(
    Blocked,
    st.integers(0, 3),
    st.integers(1, 16),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3).map(tuple),
)
layouts = st.one_of(st.just(ROW_MAJOR), blocked)

counts = st.integers(1, 40)
orders = st.builds(TileOrder.of, hnp.arrays(np.int64, st.integers(0, 9), elements=st.integers(0, 1 << 31)))
sparsities = st.one_of(
    st.just(DENSE),
    st.builds(Unstructured, st.none() | st.integers(0, 1 << 40)),
    st.builds(Block, counts, counts, st.sampled_from(["shared", "each"]), st.none() | counts),
    st.builds(lambda n, more, rows, nnz: NM(n, n + more, rows, nnz), counts, counts, counts, st.none() | counts),
    st.builds(NMG, st.just(2), st.integers(3, 12), counts, st.none() | counts),
    st.builds(HiNM, counts, st.just(1), st.integers(2, 9), st.none() | counts, st.none() | orders),
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    steps: list[Step] = []
    for i in range(draw(st.integers(0, 4))):
        fn = draw(st.sampled_from(sorted(FUNCTIONS)))
        operands = [st.builds(Arg, st.integers(0, 4)), st.builds(Imm, st.floats(allow_nan=False) | st.integers())]
        operands += [st.builds(Tmp, st.integers(0, i - 1))] if i else []
        args = tuple(draw(st.one_of(operands)) for _ in range(FUNCTIONS[fn].arity))
        steps.append(Step(fn, args, draw(dtypes) if fn == "cast" else None))
    return Program(tuple(steps))


def values_of(hint: object) -> st.SearchStrategy[object]:
    """A strategy for the type hint of an attribute."""
    simple = {bool: st.booleans(), int: st.integers(), str: st.text(max_size=5), DType: dtypes, Program: programs()}
    simple |= {float: st.floats(allow_nan=False), Layout: layouts, type(None): st.none()}
    if hint in simple:
        return simple[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, args))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values_of, args))
    if origin is typing.Literal:
        return st.sampled_from(args)
    raise AssertionError(f"attributes of type {hint} have no text form")


def op_of(cls: type[Op]) -> st.SearchStrategy[Op]:
    hints = typing.get_type_hints(cls)
    return st.fixed_dictionaries({f.name: values_of(hints[f.name]) for f in dataclasses.fields(cls)}).map(
        lambda kw: build(cls, kw)
    )


def build(cls: type[Op], attributes: dict[str, object]) -> Op:
    try:
        return cls(**attributes)
    except (ValueError, ModelError):  # the op checks its attributes
        assume(False)
        raise


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Well-formed in names and order only: the text form does not care whether nodes type."""
    found: dict[str, TensorType] = {}
    tensor = st.builds(TensorType, dtypes, shapes, layouts)

    def fresh(t: TensorType) -> str:
        name = draw(names.filter(lambda n: n not in found))
        found[name] = t
        return name

    inputs = tuple(fresh(draw(tensor)) for _ in range(draw(st.integers(0, 2))))
    constants = {}
    for _ in range(draw(st.integers(0, 3))):
        dtype, shape = draw(dtypes), draw(shapes)
        bits = draw(hnp.arrays(np.uint8, (*shape, dtype.itemsize)))
        array = bits.view(dtype.numpy).reshape(shape) if dtype is not DType.BOOL else (bits > 127).reshape(shape)
        constants[fresh(TensorType(dtype, shape, sparsity=draw(sparsities)))] = array
    nodes = []
    for i in range(draw(st.integers(0, 3))):
        operands = draw(st.lists(st.sampled_from([ABSENT, *found]), max_size=3))
        outputs = tuple(fresh(draw(tensor)) for _ in range(draw(st.integers(1, 2))))
        op = draw(op_of(OPS[draw(st.sampled_from(sorted(OPS)))]))
        name = draw(st.sampled_from([outputs[0], f"n{i}"]))
        nodes.append(Node(name, op, tuple(operands), outputs, tuple(draw(st.lists(names, max_size=2)))))
    outputs = tuple(Port(draw(names), v) for v in found if draw(st.booleans()))
    return Graph(draw(names), inputs, outputs, tuple(nodes), found, constants)


def assert_equal(a: Graph, b: Graph) -> None:
    assert (a.name, a.inputs, a.outputs, a.nodes) == (b.name, b.inputs, b.outputs, b.nodes)
    assert dict(a.types) == dict(b.types)
    assert list(a.constants) == list(b.constants)
    for name, array in a.constants.items():
        assert array.dtype == b.constants[name].dtype and array.shape == b.constants[name].shape
        assert array.tobytes() == b.constants[name].tobytes()


@settings(max_examples=60)
@given(graphs())
def test_any_graph_round_trips(graph: Graph) -> None:
    store = ConstantStore()
    text = print_graph(graph, store)
    assert_equal(parse_graph(text, store), graph)
    assert print_graph(parse_graph(text, store)) == text
    assert text.isascii() and "\r" not in text


@pytest.mark.parametrize("name", sorted(OPS))
def test_attributes_of_every_op_round_trip(name: str) -> None:
    @settings(max_examples=15)
    @given(op_of(OPS[name]))
    def check(op: Op) -> None:
        t = TensorType(DType.F32, (1,))
        graph = Graph("g", ("x",), (), (Node("y", op, ("x",), ("y",), ("y",)),), {"x": t, "y": t})
        assert_equal(parse_graph(print_graph(graph)), graph)

    check()


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_float])
def test_inline_floats_are_exact_and_short(dtype: DType) -> None:
    values = np.array([0.1, -0.0, 1, np.inf, -np.inf, np.nan, 3e-5], dtype=np.float64).astype(dtype.numpy)
    graph = Graph("g", (), (), (), {"c": TensorType(dtype, (7,))}, {"c": values})
    text = print_graph(graph)
    assert "sha256" not in text
    assert parse_graph(text).constants["c"].tobytes() == values.tobytes()
    if dtype in (DType.F32, DType.F64):
        assert "[0.1, -0.0, 1.0, inf, -inf, nan, 3e-05]" in text


def test_float_attributes_may_be_infinite() -> None:
    program = Program((Step("max", (Arg(0), Imm(float("-inf")))),))
    t = TensorType(DType.F32, ())
    graph = Graph("g", ("x",), (Port("o", "y"),), (Node("y", Map(program), ("x",), ("y",), ("y",)),), {"x": t, "y": t})
    assert_equal(parse_graph(print_graph(graph)), graph)


def example() -> Graph:
    rng = np.random.default_rng(0)
    f32 = DType.F32
    weights = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    found = {
        "data": TensorType(f32, (1, 3, 8, 8)),
        "conv1.w": TensorType(f32, weights.shape),
        "conv1.b": TensorType(f32, (8, 1, 1)),
        "y": TensorType(f32, (1, 8, 8, 8), Blocked(1, 8, ((0, 0), (1, 1), (1, 1)))),
        "onnx::z": TensorType(f32, (1, 8, 8, 8)),
    }
    conv = Conv((1, 1), (1, 1), (1, 1, 1, 1), 1, Program.parse("add(a0,a1);relu(t0)"))
    nodes = (
        Node("Conv_0", conv, ("data", "conv1.w", "conv1.b"), ("y",), ("Conv_0", "Relu_1")),
        Node("onnx::z", MatMul(trans_b=True), ("y", "y"), ("onnx::z",), ("onnx::z",)),
    )
    bias = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1, 1)
    return Graph("tiny", ("data",), (Port("prob", "onnx::z"),), nodes, found, {"conv1.w": weights, "conv1.b": bias})


def test_golden(golden: typing.Callable[[str, str], None]) -> None:
    golden("text/example.txt", print_graph(example()))


def test_comments_and_layout_are_free() -> None:
    text = print_graph(example())
    store = ConstantStore()
    print_graph(example(), store)
    loose = text.replace(" -> ", '\n   -> # a comment with "quotes" and %signs\n').replace(", ", ",\t")
    assert_equal(parse_graph(loose, store), example())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MatMul", "MatMool", "line 6: there is no operator 'MatMool'"),
        ("trans_b", "trans_c", "MatMul does not take"),
        ("f32[8,1,1] =", "f33[8,1,1] =", "line 4: 'f33' is not an element type"),
        ("f32[8,1,1] =", "f32[9,1,1] =", "does not hold the 9 elements"),
        ("input %data", "input %y", "value %y is defined twice"),
        ("output", "outputs", "line 7: expected input, const, output, a node"),
        ("}\n", "", "expected input, const, output, a node"),
        ("sha256:", "sha256:00", "expected '\\[', found 'sha256'"),
        ("relu(t0)", "rely(t0)", "cannot read the attribute"),
        ("@c8a1", "@d8a1", "cannot read"),
    ],
)
def test_mistakes_name_their_line(old: str, new: str, message: str) -> None:
    store = ConstantStore()
    text = print_graph(example(), store)
    assert old in text
    with pytest.raises(ModelError, match=message):
        parse_graph(text.replace(old, new) if old != "}\n" else text[: -len(old)], store)


def test_store_on_disk_is_shared_and_checked(tmp_path: typing.Any) -> None:
    graph = example()
    text = print_graph(graph, ConstantStore(tmp_path / "constants"))
    files = list((tmp_path / "constants").iterdir())
    assert len(files) == 1  # the bias is inline
    assert_equal(parse_graph(text, ConstantStore(tmp_path / "constants")), graph)
    files[0].write_bytes(b"short")
    with pytest.raises(ModelError, match="has 5 bytes"):
        parse_graph(text, ConstantStore(tmp_path / "constants"))
    files[0].unlink()
    with pytest.raises(ModelError, match="keep the sidecar folder"):
        parse_graph(text, ConstantStore(tmp_path / "constants"))
