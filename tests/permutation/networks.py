"""Random networks of the structures that tie channels: each block takes a value and gives one."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Port
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.group_norm import GroupNorm
from sparsec.compiler.ops.layer_norm import LayerNorm
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

PRELU = "max(a0,0.0);min(a0,0.0);mul(t1,a1);add(t0,t2)"


class Network:
    """Adds blocks to a graph with the input "x"; images are [N, C, H, W], tokens [N, T, C]."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.editor = GraphEditor(Graph("g", ("x",), (), (), {"x": TensorType(DType.F32, shape)}))
        self.rng = np.random.default_rng(seed)

    def shape(self, v: str) -> tuple[int, ...]:
        return self.editor.types[v].shape

    def weights(self, *shape: int) -> str:
        scale = np.sqrt(2 / max(np.prod(shape[1:]), 1))
        return self.editor.add_constant((self.rng.standard_normal(shape) * scale).astype(np.float32), "w")

    def add(self, op: Op, *inputs: str) -> str:
        return self.editor.add(op, inputs, hint=op.name).output

    def map(self, program: str, *inputs: str) -> str:
        return self.add(Map(Program.parse(program)), *inputs)

    def add_concat(self, *parts: str) -> str:
        return self.add(Concat(1), *parts)

    def conv(self, v: str, oc: int, k: int = 3, groups: int = 1, weights: str = "") -> str:
        w = weights or self.weights(oc, self.shape(v)[1] // groups, k, k)
        return self.add(Conv((1, 1), (1, 1), (k // 2,) * 4, groups), v, w)

    def biased(self, v: str) -> str:
        return self.map("add(a0,a1);relu(t0)", v, self.weights(self.shape(v)[1], 1, 1))

    def norm(self, v: str) -> str:
        c = self.shape(v)[1]
        var = self.editor.add_constant(self.rng.uniform(0.5, 2, c).astype(np.float32), "var")
        return self.add(BatchNorm(1e-3), v, self.weights(c), self.weights(c), self.weights(c), var)

    def slice(self, v: str, axis: int, start: int, size: int) -> str:
        shape = self.shape(v)
        starts = tuple(start if i == axis else 0 for i in range(len(shape)))
        return self.add(Slice(starts, (1,) * len(shape), tuple(size if i == axis else n for i, n in enumerate(shape))), v)

    def shuffle(self, v: str, groups: int) -> str:
        n, c, h, w = self.shape(v)
        split = self.add(Reshape((n, groups, c // groups, h, w)), v)
        return self.add(Reshape((n, c, h, w)), self.add(Transpose((0, 2, 1, 3, 4)), split))

    def tokens(self, v: str) -> str:
        n, c, h, w = self.shape(v)
        return self.add(Transpose((0, 2, 1)), self.add(Reshape((n, c, h * w)), v))

    def folded(self, v: str, count: int) -> str:
        """`count` tokens behind one another."""
        n, t, c = self.shape(v)
        return self.add(Reshape((n, t // count, count * c)), v)

    def linear(self, v: str, width: int, flipped: bool = False) -> str:
        k = self.shape(v)[-1]
        w = self.weights(width, k) if flipped else self.weights(k, width)
        return self.map("add(a0,a1)", self.add(MatMul(False, flipped), v, w), self.weights(width))

    def layer_norm(self, v: str) -> str:
        c = self.shape(v)[-1]
        return self.add(LayerNorm(len(self.shape(v)) - 1, 1e-5), v, self.weights(c), self.weights(c))

    def heads(self, v: str, heads: int, rotary: bool = False) -> str:
        n, t, width = self.shape(v)
        v = self.add(Transpose((0, 2, 1, 3)), self.add(Reshape((n, t, heads, width // heads)), v))
        half = width // heads // 2
        if not rotary or half * 2 != width // heads:
            return v
        turned = self.add(Concat(3), self.map("neg(a0)", self.slice(v, 3, half, half)), self.slice(v, 3, 0, half))
        angle = self.rng.uniform(0, 3, (t, half))
        cos, sin = (self.editor.add_constant(np.tile(f(angle), 2).astype(np.float32), "turn") for f in (np.cos, np.sin))
        return self.map("mul(a0,a1);mul(a2,a3);add(t0,t1)", v, cos, turned, sin)

    def attention(self, v: str, heads: int, dim: int, *, packed: bool = False, rotary: bool = False) -> str:
        n, t, width = self.shape(v)
        inner = heads * dim
        if packed:
            joint = self.linear(v, 3 * inner)
            parts = [self.slice(joint, 2, i * inner, inner) for i in range(3)]
        else:
            parts = [self.linear(v, inner) for _ in range(3)]
        q, k, x = (self.heads(p, heads, rotary and i < 2) for i, p in enumerate(parts))
        scores = self.add(Softmax(3), self.add(MatMul(), q, self.add(Transpose((0, 1, 3, 2)), k)))
        mixed = self.add(Transpose((0, 2, 1, 3)), self.add(MatMul(), scores, x))
        return self.map("add(a0,a1)", v, self.linear(self.add(Reshape((n, t, inner)), mixed), width))

    def finish(self, v: str, classes: int = 5) -> Graph:
        """Flatten, a classifier, and the output "y"."""
        shape = self.shape(v)
        logits = self.linear(self.add(Reshape((shape[0], int(np.prod(shape[1:])))), v), classes, True)
        self.editor.outputs = [Port("y", logits)]
        self.editor.changed = True
        return self.editor.finish()


def _residual(b: Network, v: str, draw: st.DrawFn) -> str:
    inner = b.norm(b.biased(b.conv(v, draw(st.integers(2, 7)))))
    return b.map("add(a0,a1);relu(t0)", v, b.conv(inner, b.shape(v)[1]))


def _dense(b: Network, v: str, draw: st.DrawFn) -> str:
    return b.add(Concat(1), *draw(st.permutations([v, b.biased(b.conv(v, draw(st.integers(1, 5))))])))


def _split(b: Network, v: str, draw: st.DrawFn) -> str:
    c = b.shape(v)[1]
    at = draw(st.integers(1, c - 1))
    left, right = b.slice(v, 1, 0, at), b.slice(v, 1, at, c - at)
    if draw(st.booleans()):
        return b.add(Concat(1), right, left)
    return b.map("add(a0,a1)", b.conv(left, c), b.add(Concat(1), right, b.biased(left)))


def _grouped(b: Network, v: str, draw: st.DrawFn) -> str:
    c = b.shape(v)[1]
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    return b.biased(b.conv(v, groups * draw(st.integers(1, 3)), groups=groups))


def _shuffled(b: Network, v: str, draw: st.DrawFn) -> str:
    c = b.shape(v)[1]
    v = b.shuffle(v, draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0])))
    return b.conv(v, c, groups=draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0])))


def _gated(b: Network, v: str, draw: st.DrawFn) -> str:
    mean = b.add(Reduce("mean", (2, 3), True), v)
    return b.map("sigmoid(a1);mul(a0,t0)", v, b.conv(b.biased(b.conv(mean, draw(st.integers(1, 4)), 1)), b.shape(v)[1], 1))


def _shared(b: Network, v: str, draw: st.DrawFn) -> str:
    c = b.shape(v)[1]
    w = b.weights(c, c, 3, 3)
    return b.map("add(a0,a1)", b.conv(b.norm(b.conv(v, c, weights=w)), c, weights=w), v)


def _last_channels(b: Network, v: str, draw: st.DrawFn) -> str:
    moved = b.add(Transpose((0, 2, 3, 1)), v)
    moved = b.layer_norm(moved) if draw(st.booleans()) else b.linear(moved, draw(st.integers(2, 6)))
    return b.add(Transpose((0, 3, 1, 2)), moved)


def _group_norm(b: Network, v: str, draw: st.DrawFn) -> str:
    c = b.shape(v)[1]
    groups = draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    return b.add(GroupNorm(groups, 1e-3), v, b.weights(c), b.weights(c))


def _picked(b: Network, v: str, draw: st.DrawFn) -> str:
    index = np.array(draw(st.lists(st.integers(0, b.shape(v)[1] - 1), min_size=1, max_size=6)))
    return b.add(Gather(1), v, b.editor.add_constant(index, "index"))


def _folded(b: Network, v: str, draw: st.DrawFn) -> str:
    t = b.shape(v)[1]
    return b.linear(b.folded(v, draw(st.sampled_from([k for k in range(1, t + 1) if t % k == 0]))), draw(st.integers(2, 9)))


IMAGE_BLOCKS = {
    "conv": lambda b, v, draw: b.biased(b.conv(v, draw(st.integers(1, 8)))),
    "residual": _residual,
    "dense": _dense,
    "split": lambda b, v, draw: _split(b, v, draw) if b.shape(v)[1] > 1 else v,
    "grouped": _grouped,
    "depthwise": lambda b, v, draw: b.norm(b.conv(v, b.shape(v)[1] * draw(st.integers(1, 2)), groups=b.shape(v)[1])),
    "shuffled": _shuffled,
    "prelu": lambda b, v, draw: b.map(PRELU, v, b.weights(b.shape(v)[1], 1, 1)),
    "gated": _gated,
    "shared": _shared,
    "last channels": _last_channels,
    "group norm": _group_norm,
    "pad": lambda b, v, draw: b.add(Pad((0, draw(st.integers(0, 2)), 0, 0, 0, draw(st.integers(0, 2)), 0, 0)), v),
    "pool": lambda b, v, draw: b.add(Pool("max", (2, 2), (1, 1), (1, 1), (0, 0, 1, 1)), v),
    "picked": _picked,
}
TOKEN_BLOCKS = {
    "attention": lambda b, v, draw: b.attention(
        v, draw(st.integers(1, 3)), draw(st.integers(1, 4)), packed=draw(st.booleans()), rotary=draw(st.booleans())
    ),
    "feed forward": lambda b, v, draw: b.map(
        "add(a0,a1)", v, b.linear(b.map("tanh(a0)", b.linear(v, draw(st.integers(2, 9)))), b.shape(v)[2], True)
    ),
    "folded": _folded,
    "layer norm": lambda b, v, draw: b.layer_norm(v),
    "square": lambda b, v, draw: b.add(MatMul(), b.add(MatMul(False, True), v, v), v),
}


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """A network of up to six blocks, images first, then perhaps tokens, and a classifier."""
    b = Network((draw(st.integers(1, 2)), draw(st.sampled_from([2, 3])), 3, 2), draw(st.integers(0, 99)))
    v = b.conv("x", draw(st.integers(2, 12)))
    for name in draw(st.lists(st.sampled_from(sorted(IMAGE_BLOCKS)), max_size=4)):
        made = IMAGE_BLOCKS[name](b, v, draw)
        v = made if np.prod(b.shape(made)) <= 600 else v
    if draw(st.booleans()):
        v = b.tokens(v)
        for name in draw(st.lists(st.sampled_from(sorted(TOKEN_BLOCKS)), min_size=1, max_size=3)):
            v = TOKEN_BLOCKS[name](b, v, draw)
    return b.finish(v)
