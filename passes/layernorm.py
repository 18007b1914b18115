"""Recognition of layer and RMS normalisation from the operators that exporters decompose them into."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.passes.common.expr import Call, Leaf
from sparsec.passes.common.simplify import Simplifier
from sparsec.passes.gelu import close, without

_REACH = 6  # Maps between the variance and the normalised value


@dataclass(frozen=True)
class _Core:
    """What is normalised: `x`, its mean (absent for RMS), and the mean square of the difference."""

    x: str
    mean: str | None
    spread: str
    axis: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class _Match:
    root: Node
    core: _Core
    epsilon: float
    scale: Array | None
    bias: Array | None
    nodes: tuple[Node, ...]


def _mean(editor: GraphEditor, value: str) -> Node | None:
    node = editor.producer(value)
    return node if node is not None and isinstance(node.op, Reduce) and node.op.kind == "mean" and node.op.keepdims else None


def _difference(editor: GraphEditor, value: str) -> tuple[str, str, tuple[Node, ...]] | None:
    """(x, mean of x, the nodes) where `value` = x - mean of x."""
    node = editor.producer(value)
    if node is None or not isinstance(node.op, Map) or str(node.op.program) != "sub(a0,a1)":
        return None
    mean = _mean(editor, node.inputs[1])
    return (node.inputs[0], node.inputs[1], (mean, node)) if mean is not None and mean.inputs[0] == node.inputs[0] else None


def _core(editor: GraphEditor, spread: Node) -> _Core | Rejected | None:
    """The core around a Reduce that may be the mean square."""
    assert isinstance(spread.op, Reduce)
    square = editor.producer(spread.inputs[0])
    if square is None or not isinstance(square.op, Map) or str(square.op.program) != "mul(a0,a0)":  # 1
        return None
    found = _difference(editor, square.inputs[0])
    x, mean, nodes = found if found is not None else (square.inputs[0], None, ())
    over, rank = spread.op.over, editor.types[x].rank
    if found is not None:
        other = nodes[0].op
        assert isinstance(other, Reduce)
        if other.over != over:  # 2
            return Rejected(f"mean and variance are taken over different dimensions, {list(other.over)} and {list(over)}")
    if over != tuple(range(rank - len(over), rank)):  # 3
        return Rejected(f"it normalises dimensions {list(over)} of {rank}, which are not the last") if found is not None else None
    return _Core(x, mean, spread.output, over[0], (*nodes, square, spread))


class _Recognise(Rule[_Match]):
    ops = (Reduce,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        if _mean(editor, node.output) is None:
            return None
        core = _core(editor, node)
        if not isinstance(core, _Core):
            return core
        best: _Match | None = None
        open_: list[tuple[Node, tuple[Node, ...]]] = [(u, ()) for u in editor.users(core.spread)]
        for _ in range(4 * _REACH):
            if not open_:
                break
            root, path = open_.pop(0)
            if not isinstance(root.op, Map) or len(path) > _REACH:
                continue
            found = _normalised(editor, core, root, (*path, root))
            if found is not None:
                best, open_ = found, []  # 6: from here on, only what alone reads the result may join
                following = editor.only_user(root.output)
                if following is not None:
                    open_.append((following, (*path, root)))
            elif best is None:
                open_ += [(u, (*path, root)) for u in editor.users(root.output)]
        if best is None and core.mean is not None:
            return Rejected("no reader of the variance divides the centred value by its root")
        return best

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        inputs = [match.core.x]
        if match.scale is not None or match.bias is not None:
            inputs.append(editor.add_constant(match.scale, f"{match.root.name}.scale") if match.scale is not None else ABSENT)
        if match.bias is not None:
            inputs.append(editor.add_constant(match.bias, f"{match.root.name}.bias"))
        op = LayerNorm(match.core.axis, match.epsilon, match.core.mean is None)
        editor.replace(match.root, op, inputs, origin=merged_origin(*match.core.nodes, *match.nodes))


def _normalised(editor: GraphEditor, core: _Core, root: Node, path: tuple[Node, ...]) -> _Match | None:
    """`root` as normalised x, times a scale, plus a bias."""
    s = Simplifier()
    stop = {core.x, core.spread} | ({core.mean} if core.mean else set())
    e = s.of_value(editor, root.output, depth=_REACH, shared=True, stop=stop)
    x = s.leaf(core.x, editor.types[core.x].dtype)
    mean = s.leaf(core.mean, editor.types[core.mean].dtype) if core.mean else None
    if editor.types[root.output] != editor.types[core.x]:
        return None
    constant, terms = s.terms(e)
    if constant != 0 or not all(abs(sign) == 1 for sign, _ in terms):
        return None
    bias: Array | None = None
    products: list[tuple[float, list[int], float]] = []  # sign, the other factors, epsilon
    for sign, term in terms:
        c, factors = s.factors(term)
        inverse = next(((f, eps) for f in factors if (eps := _inverse_root(s, f, core.spread)) is not None), None)
        if inverse is not None and close(c, 1):
            rest = without(factors, [inverse[0]])
            assert rest is not None
            products.append((sign, rest, inverse[1]))
        elif sign == 1 and bias is None and (found := _parameter(editor, s, [term], core)) is not None:
            bias = found
        else:
            return None
    scale_factors = _scale(s, products, x, mean)
    if scale_factors is None:
        return None
    scale = _parameter(editor, s, scale_factors, core) if scale_factors else None
    if scale_factors and scale is None:
        return None
    return _Match(root, core, products[0][2], scale, bias, path)


def _inverse_root(s: Simplifier, f: int, spread: str) -> float | None:
    """Epsilon, when f = 1 / sqrt(spread + epsilon)."""
    call = s.is_call(f, "rsqrt")
    if call is None:
        return None
    epsilon, terms = s.terms(call.args[0])
    ok = len(terms) == 1 and terms[0][0] == 1 and s[terms[0][1]] == Leaf(spread) and epsilon >= 0
    return epsilon if ok else None


def _scale(s: Simplifier, products: list[tuple[float, list[int], float]], x: int, mean: int | None) -> list[int] | None:
    """The factors of the scale, when the products are (x - mean) * scale, taken apart or not; None when they are not."""
    if len(products) == 1 and products[0][0] == 1:  # 4
        centred = x if mean is None else s.call("sub", x, mean)
        return without(products[0][1], [centred])
    if len(products) == 2 and mean is not None and products[0][2] == products[1][2]:  # 5
        plus, minus = sorted(products, key=lambda p: -p[0])
        a, b = without(plus[1], [x]), without(minus[1], [mean])
        return a if (plus[0], minus[0]) == (1, -1) and a is not None and a == b else None
    return None


def _parameter(editor: GraphEditor, s: Simplifier, factors: list[int], core: _Core) -> Array | None:
    """The constant that a scale or bias is, in the shape of the normalised dimensions' tail; None when it is none."""
    node = s[factors[0]]
    array = editor.constant_of(node.value) if len(factors) == 1 and isinstance(node, Leaf) else None
    if array is None or isinstance(node, Call):
        return None
    tail = editor.types[core.x].shape[core.axis :]
    shape = list(array.shape)
    while len(shape) > len(tail) and shape[0] == 1:
        shape.pop(0)
    fits = len(shape) <= len(tail) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(tail), strict=False))
    return array.reshape(shape) if fits else None


@register_pass
@dataclass(frozen=True)
class RecogniseLayerNorm(Pass):
    """Recognise (x - mean) / sqrt(variance + epsilon) * scale + bias, and the RMS form without a mean, as LayerNorm.

    1. A mean is taken of a square, of x - mean(x) or (RMS) of x itself; dimensions of extent 1 are kept.
    2. Mean and variance are taken over the same dimensions,
    3. the last ones.
    4. A Map computes centred * 1 / sqrt(variance + epsilon), as a quotient or a product, in one node or several,
    5. or x * (r * scale) + (bias - mean * (r * scale)), as TensorFlow writes it.
    6. Constant scale and bias that fit the normalised dimensions join, as long as nothing else reads what is in between.
    """

    name = "layernorm"
    summary = "recognise layer and RMS normalisation"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Recognise()], notes)
