"""Random convolutional graphs: values shared, concatenated, sliced, padded and resized in every order, to test storage."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.backends.cpu.op_cases import Case
from tests.reference import make_model

Array = np.ndarray[Any, Any]


class _Builder:
    """A graph under construction over values [N, C, H, W]; every step reads values made before."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        batch, channels = int(self.rng.choice([1, 1, 2])), int(self.rng.choice([3, 16, 20, 32]))
        self.x = self.rng.standard_normal((batch, channels, *self.rng.integers(4, 10, 2))).astype(np.float32)
        self.shapes: dict[str, tuple[int, ...]] = {"x": self.x.shape}

    def weight(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def emit(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.shapes[name] = shape

    def pick(self) -> str:
        """A value made before, most often one of the last."""
        names = list(self.shapes)
        return names[max(0, len(names) - 1 - int(self.rng.geometric(0.4)) + 1)]

    def alike(self, value: str, but: int | None = None) -> list[str]:
        """Values of the same extents, but for dimension `but`."""
        want = [n for i, n in enumerate(self.shapes[value]) if i != but]
        return [v for v, s in self.shapes.items() if [n for i, n in enumerate(s) if i != but] == want]

    # steps
    def conv(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        out, k = int(self.rng.choice([4, 16, 17, 32, 48])), int(self.rng.choice([1, 3]))
        weights = self.rng.standard_normal((out, c, k, k)).astype(np.float32) / np.float32(np.sqrt(c * k * k))
        self.emit("Conv", [x, self.weight(weights)], (n, out, h, w), pads=[k // 2] * 4)

    def depthwise(self) -> None:
        x = self.pick()
        c = self.shapes[x][1]
        weights = self.rng.standard_normal((c, 1, 3, 3)).astype(np.float32) / 3
        self.emit("Conv", [x, self.weight(weights)], self.shapes[x], pads=[1] * 4, group=c)

    def unary(self) -> None:
        x = self.pick()
        self.emit(str(self.rng.choice(["Relu", "Sigmoid", "Cos", "Neg"])), [x], self.shapes[x])

    def add(self) -> None:
        x = self.pick()
        self.emit("Add", [x, str(self.rng.choice(self.alike(x)))], self.shapes[x])

    def concat(self) -> None:
        x = self.pick()
        axis = int(self.rng.choice([1, 1, 1, 2, 3]))
        parts = [x, *(str(v) for v in self.rng.choice(self.alike(x, axis), int(self.rng.integers(1, 4))))]
        self.rng.shuffle(parts)
        shape = list(self.shapes[x])
        shape[axis] = sum(self.shapes[p][axis] for p in parts)
        self.emit("Concat", parts, tuple(shape), axis=axis)

    def part(self) -> None:
        x = self.pick()
        axis = int(self.rng.choice([1, 1, 2, 3]))
        shape = list(self.shapes[x])
        n = shape[axis]
        if n < 4:
            return
        start = int(self.rng.choice([0, n // 2, 16 if axis == 1 and n > 16 else 1]))
        end = int(self.rng.choice([n, n - 1, min(n, start + 16)]))
        if end <= start:
            return
        shape[axis] = end - start
        bounds = [self.weight(np.asarray([v], np.int64)) for v in (start, end, axis)]
        self.emit("Slice", [x, *bounds], tuple(shape))

    def pad(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        mode = str(self.rng.choice(["constant", "edge", "reflect"]))
        pads = self.weight(np.asarray([0, 0, 1, 0, 0, 0, 0, 2], np.int64))
        if w > 2 and h > 2:
            self.emit("Pad", [x, pads], (n, c, h + 1, w + 2), mode=mode)

    def pool(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        if h >= 4 and w >= 4:
            shape = (n, c, (h + 2 - 3) // 2 + 1, (w + 2 - 3) // 2 + 1)
            self.emit(
                str(self.rng.choice(["MaxPool", "AveragePool"])), [x], shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
            )

    def resize(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        if h * w <= 100:
            mode = str(self.rng.choice(["nearest", "linear"]))
            self.emit("Resize", [x, "", self.weight(np.asarray([1, 1, 2, 2], np.float32))], (n, c, 2 * h, 2 * w), mode=mode)

    def flip(self) -> None:
        """Transpose the positions, and back and forth through a view."""
        x = self.pick()
        n, c, h, w = self.shapes[x]
        self.emit("Transpose", [x], (n, c, w, h), perm=[0, 1, 3, 2])

    def view(self) -> None:
        x = self.pick()
        n, c, h, w = self.shapes[x]
        self.emit("Reshape", [x, self.weight(np.asarray([n, c, h * w, 1], np.int64))], (n, c, h * w, 1))

    def mean(self) -> None:
        x = self.pick()
        self.emit("GlobalAveragePool", [x], (*self.shapes[x][:2], 1, 1))
        y = list(self.shapes)[-1]
        self.emit("Mul", [x, y], self.shapes[x])


STEPS = (
    *("conv", "conv", "depthwise", "unary", "add", "concat", "concat", "part", "part"),
    *("pad", "pool", "resize", "flip", "view", "mean"),
)


def random_case(seed: int, steps: int = 10) -> Case:
    """A graph of about `steps` nodes; every value that nothing reads leaves it, and a few others."""
    b = _Builder(seed)
    while len(b.nodes) < steps:
        getattr(b, str(b.rng.choice(STEPS)))()
    read = {v for n in b.nodes for v in n.input}
    outputs = [v for v in b.shapes if v != "x" and (v not in read or b.rng.random() < 0.1)]
    return Case(f"graph{seed}", make_model(b.nodes, {"x": b.x}, outputs, b.weights), {"x": b.x})
