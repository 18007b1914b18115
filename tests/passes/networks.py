"""Random networks of the operators that passes rewrite, always well typed."""

import numpy as np
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph, Port
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType

_UNARY = ["relu(a0)", "sigmoid(a0)", "tanh(a0)", "neg(a0)", "abs(a0)", "mul(a0,0.5)", "add(a0,3.0)", "max(a0,0.0)", "min(a0,6.0)"]
_UNARY += ["div(a0,2.0)", "mul(a0,1.0)", "erf(a0)", "sub(a0,1.0)", "identity(a0)", "mul(a0,a0)", "add(a0,a0)"]
_BINARY = ["add(a0,a1)", "sub(a0,a1)", "mul(a0,a1)", "max(a0,a1)", "add(a1,a0);relu(t0)"]


class _Builder:
    """Adds random nodes to a graph; `values` are those that may be read."""

    def __init__(self, draw: st.DrawFn, shape: tuple[int, ...]) -> None:
        self.draw = draw
        empty = Graph("random", ("x",), (), (), {"x": TensorType(DType.F32, shape)})
        self.editor = GraphEditor(empty)
        self.values = ["x"]
        self.rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def pick(self) -> str:
        recent = self.values[-3:]
        return self.draw(st.sampled_from(recent if self.draw(st.booleans()) else self.values))

    def constant(self, shape: tuple[int, ...], *, positive: bool = False) -> str:
        array = self.rng.uniform(0.5, 1.5, shape) if positive else self.rng.uniform(-1, 1, shape)
        return self.editor.add_constant(array.astype(np.float32), "c")

    def add(self, op: Op, *inputs: str) -> None:
        try:
            node = self.editor.add(op, inputs, hint=f"v{len(self.values)}")
        except ModelError:
            return
        if 0 < self.editor.types[node.output].elements <= 4000:
            self.values.append(node.output)

    def step(self) -> None:
        v = self.pick()
        kind = self.draw(st.sampled_from(sorted(_STEPS)))
        _STEPS[kind](self, v, self.editor.types[v].shape)


def _conv(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 4:
        return
    groups = b.draw(st.sampled_from([1, shape[1]]))
    oc, k, pad = 4 * groups if groups < 4 else groups, b.draw(st.sampled_from([1, 3])), b.draw(st.integers(0, 1))
    op = Conv((b.draw(st.integers(1, 2)),) * 2, (1, 1), (pad,) * 4, groups)
    b.add(op, v, b.constant((oc, shape[1] // groups, k, k)))


def _matmul(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    if len(shape) >= 2:
        trans = b.draw(st.booleans())
        b.add(MatMul(False, trans), v, b.constant((5, shape[-1]) if trans else (shape[-1], 5)))


def _norm(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    if len(shape) >= 2:
        c = (shape[1],)
        b.add(BatchNorm(1e-3), v, b.constant(c), b.constant(c), b.constant(c), b.constant(c, positive=True))


def _binary(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    how = b.draw(st.sampled_from(["value", "channel", "tail", "full"]))
    column = tuple(n if i == 1 else 1 for i, n in enumerate(shape))
    other = b.pick() if how == "value" else b.constant({"channel": column, "tail": shape[-1:], "full": shape}[how])
    pair = (v, other) if b.draw(st.booleans()) else (other, v)
    b.add(Map(Program.parse(b.draw(st.sampled_from(_BINARY)))), *pair)


def _reshape(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    how = b.draw(st.sampled_from(["flat", "merge", "unit", "split"]))
    i = b.draw(st.integers(0, max(len(shape) - 2, 0)))
    if how == "flat" and shape:
        b.add(Reshape((shape[0], int(np.prod(shape[1:])))), v)
    elif how == "merge" and len(shape) > 1:
        b.add(Reshape((*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :])), v)
    elif how == "unit":
        b.add(Reshape((*shape[:i], 1, *shape[i:])), v)
    elif shape and shape[i] % 2 == 0 and len(shape) < 5:
        b.add(Reshape((*shape[:i], 2, shape[i] // 2, *shape[i + 1 :])), v)


def _slice(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    starts = tuple(b.draw(st.integers(0, 1)) if n > 1 else 0 for n in shape)
    b.add(Slice(starts, (1,) * len(shape), tuple(n - s for n, s in zip(shape, starts, strict=True))), v)


def _pad(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    pads = [b.draw(st.integers(0, 1)) if i % max(len(shape), 1) >= 2 else 0 for i in range(2 * len(shape))]
    if shape:
        b.add(Pad(tuple(pads)), v)


def _pool(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    kind, k = b.draw(st.sampled_from(["max", "avg"])), b.draw(st.integers(1, 3))
    n = max(len(shape) - 2, 1)
    b.add(Pool(kind, (k,) * n, (b.draw(st.integers(1, 2)),) * n, (1,) * n, (0,) * (2 * n)), v)


def _reduce(b: _Builder, v: str, shape: tuple[int, ...]) -> None:
    if shape:
        over = tuple(sorted(b.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=2))))
        b.add(Reduce(b.draw(st.sampled_from(["mean", "sum", "max"])), over, b.draw(st.booleans())), v)


_STEPS = {
    "binary": _binary,
    "binary again": _binary,
    "concat": lambda b, v, s: b.add(Concat(b.draw(st.integers(0, max(len(s) - 1, 0)))), v, b.pick()),
    "conv": _conv,
    "conv again": _conv,
    "matmul": _matmul,
    "norm": _norm,
    "pad": _pad,
    "pool": _pool,
    "reduce": _reduce,
    "reshape": _reshape,
    "slice": _slice,
    "softmax": lambda b, v, s: b.add(Softmax(b.draw(st.integers(0, max(len(s) - 1, 0)))), v),
    "transpose": lambda b, v, s: b.add(Transpose(tuple(b.draw(st.permutations(range(len(s)))))), v),
    "transpose again": lambda b, v, s: b.add(Transpose((0, *range(2, len(s)), 1)), v) if len(s) > 1 else None,
    "unary": lambda b, v, s: b.add(Map(Program.parse(b.draw(st.sampled_from(_UNARY)))), v),
    "unary again": lambda b, v, s: b.add(Map(Program.parse(b.draw(st.sampled_from(_UNARY)))), v),
}


@st.composite
def networks(draw: st.DrawFn, *, steps: int = 14) -> Graph:
    """A network of up to `steps` nodes from one input; its last value and perhaps another one are outputs."""
    b = _Builder(draw, draw(st.sampled_from([(1, 4, 5, 5), (2, 4, 6), (2, 3, 4, 4), (3, 8)])))
    for _ in range(draw(st.integers(2, steps))):
        b.step()
    outputs = dict.fromkeys([b.values[-1], b.pick()])
    b.editor.outputs = [Port(f"out{i}", v) for i, v in enumerate(outputs)]
    b.editor.changed = True
    return b.editor.finish()
