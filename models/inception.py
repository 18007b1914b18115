"""Inception v1, v2 (the onnx package's caffe2 exports) and v3 (Szegedy et al., 2015, arXiv:1512.00567).

Inception v3 follows torchvision's module without its auxiliary head, exported with batch normalisation left unfolded.
"""

from __future__ import annotations

from typing import Any

import onnx

from models import _light
from models._registry import Entry, ModelInfo
from models._writer import Writer, batch_dim


def _inception_v1(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("inception_v1", seed=seed, batch=batch)


def _inception_v2(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("inception_v2", seed=seed, batch=batch, gains={"classifier_w_0": 0.5})


class _V3:
    """Writes the blocks of Inception v3, and keeps track of channel counts."""

    def __init__(self, w: Writer) -> None:
        self.w = w
        self.channels = {"input": 3}

    def conv(self, scope: str, x: str, out: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, pad: bool = True) -> str:
        """Write convolution, normalisation and ReLU, padded to keep the extent unless ``pad`` is off."""
        above, left = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2) if pad else (0, 0)
        shape = (out, self.channels[x], *kernel)
        y = self.w.conv(f"{scope}/conv", x, shape, pads=[above, left, above, left], stride=stride, bias=False)
        y = self.w.batch_norm(f"{scope}/bn", y, out, epsilon=1e-3)
        return self._keep(self.w.op(f"{scope}/relu", "Relu", y), out)

    def max_pool(self, scope: str, x: str) -> str:
        """Write a 3x3 max pooling of stride 2."""
        y = self.w.op(scope, "MaxPool", x, ceil_mode=0, kernel_shape=[3, 3], pads=[0] * 4, strides=[2, 2])
        return self._keep(y, self.channels[x])

    def average_pool(self, scope: str, x: str) -> str:
        """Write a 3x3 average pooling of stride 1 that counts its padding."""
        attrs: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1]}
        return self._keep(self.w.op(scope, "AveragePool", x, ceil_mode=0, count_include_pad=1, **attrs), self.channels[x])

    def concat(self, scope: str, *xs: str) -> str:
        """Join the branches' channels."""
        return self._keep(self.w.op(scope, "Concat", *xs, axis=1), sum(self.channels[x] for x in xs))

    def block_a(self, scope: str, x: str, pool: int) -> str:
        """Figure 5 of the paper: 1x1, 5x5, double 3x3 and pooling branches."""
        one = self.conv(f"{scope}/branch1x1", x, 64)
        five = self.conv(f"{scope}/branch5x5_2", self.conv(f"{scope}/branch5x5_1", x, 48), 64, (5, 5))
        three = self.conv(f"{scope}/branch3x3dbl_1", x, 64)
        for step in (2, 3):
            three = self.conv(f"{scope}/branch3x3dbl_{step}", three, 96, (3, 3))
        pooled = self.conv(f"{scope}/branch_pool", self.average_pool(scope, x), pool)
        return self.concat(scope, one, five, three, pooled)

    def block_b(self, scope: str, x: str) -> str:
        """Figure 10: reduction from 35x35 to 17x17."""
        three = self.conv(f"{scope}/branch3x3", x, 384, (3, 3), 2, pad=False)
        double = self.conv(f"{scope}/branch3x3dbl_2", self.conv(f"{scope}/branch3x3dbl_1", x, 64), 96, (3, 3))
        double = self.conv(f"{scope}/branch3x3dbl_3", double, 96, (3, 3), 2, pad=False)
        return self.concat(scope, three, double, self.max_pool(scope, x))

    def block_c(self, scope: str, x: str, inner: int) -> str:
        """Figure 6: 7x7 convolutions as 1x7 and 7x1."""
        one = self.conv(f"{scope}/branch1x1", x, 192)
        seven = self.conv(f"{scope}/branch7x7_1", x, inner)
        for step, (out, kernel) in enumerate(((inner, (1, 7)), (192, (7, 1))), 2):
            seven = self.conv(f"{scope}/branch7x7_{step}", seven, out, kernel)
        double = self.conv(f"{scope}/branch7x7dbl_1", x, inner)
        for step, (out, kernel) in enumerate(((inner, (7, 1)), (inner, (1, 7)), (inner, (7, 1)), (192, (1, 7))), 2):
            double = self.conv(f"{scope}/branch7x7dbl_{step}", double, out, kernel)
        pooled = self.conv(f"{scope}/branch_pool", self.average_pool(scope, x), 192)
        return self.concat(scope, one, seven, double, pooled)

    def block_d(self, scope: str, x: str) -> str:
        """Reduce from 17x17 to 8x8."""
        three = self.conv(f"{scope}/branch3x3_1", x, 192)
        three = self.conv(f"{scope}/branch3x3_2", three, 320, (3, 3), 2, pad=False)
        seven = self.conv(f"{scope}/branch7x7x3_1", x, 192)
        for step, kernel in enumerate(((1, 7), (7, 1)), 2):
            seven = self.conv(f"{scope}/branch7x7x3_{step}", seven, 192, kernel)
        seven = self.conv(f"{scope}/branch7x7x3_4", seven, 192, (3, 3), 2, pad=False)
        return self.concat(scope, three, seven, self.max_pool(scope, x))

    def block_e(self, scope: str, x: str) -> str:
        """Figure 7: branches that end in a 1x3 beside a 3x1."""

        def fork(stem: str, y: str) -> str:
            ends = (self.conv(f"{scope}/{stem}a", y, 384, (1, 3)), self.conv(f"{scope}/{stem}b", y, 384, (3, 1)))
            return self.concat(scope, *ends)

        one = self.conv(f"{scope}/branch1x1", x, 320)
        three = fork("branch3x3_2", self.conv(f"{scope}/branch3x3_1", x, 384))
        double = self.conv(f"{scope}/branch3x3dbl_2", self.conv(f"{scope}/branch3x3dbl_1", x, 448), 384, (3, 3))
        double = fork("branch3x3dbl_3", double)
        pooled = self.conv(f"{scope}/branch_pool", self.average_pool(scope, x), 192)
        return self.concat(scope, one, three, double, pooled)

    def _keep(self, x: str, channels: int) -> str:
        self.channels[x] = channels
        return x


def _inception_v3(*, seed: int, batch: int, dynamic_batch: bool = False) -> onnx.ModelProto:
    w = Writer("main_graph", seed=seed, opset=13, ir_version=7)
    n = batch_dim(batch, dynamic_batch)
    v3 = _V3(w)
    x = v3.conv("/Conv2d_1a_3x3", w.input("input", (n, 3, 299, 299)), 32, (3, 3), 2, pad=False)
    x = v3.conv("/Conv2d_2a_3x3", x, 32, (3, 3), pad=False)
    x = v3.max_pool("/maxpool1", v3.conv("/Conv2d_2b_3x3", x, 64, (3, 3)))
    x = v3.conv("/Conv2d_3b_1x1", x, 80)
    x = v3.max_pool("/maxpool2", v3.conv("/Conv2d_4a_3x3", x, 192, (3, 3), pad=False))
    for block, pool in (("b", 32), ("c", 64), ("d", 64)):
        x = v3.block_a(f"/Mixed_5{block}", x, pool)
    x = v3.block_b("/Mixed_6a", x)
    for block, inner in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        x = v3.block_c(f"/Mixed_6{block}", x, inner)
    x = v3.block_d("/Mixed_7a", x)
    for block in "bc":
        x = v3.block_e(f"/Mixed_7{block}", x)
    x = w.op("", "Flatten", w.op("/avgpool", "GlobalAveragePool", x), axis=1)
    w.output("output", (n, 1000))
    w.gemm("/fc", x, (1000, 2048), out="output")
    return w.model


def _info(name: str, description: str, source: str, value: str, size: int = 224) -> ModelInfo:
    options = {"dynamic_batch": False} if name == "inception_v3" else {}
    return ModelInfo(name, description, source, ((value, (1, 3, size, size)),), options)


MODELS = {
    "inception_v1": Entry(
        _info(
            "inception_v1",
            "GoogLeNet with LRN, softmax, a reshaped classifier weight, opset 9 caffe2 export",
            "arXiv:1409.4842; onnx package, light_inception_v1.onnx",
            "data_0",
        ),
        _inception_v1,
    ),
    "inception_v2": Entry(
        _info(
            "inception_v2",
            "BN-Inception, normalisation as BatchNormalization + Mul + Add, softmax, opset 9 caffe2 export",
            "arXiv:1502.03167; onnx package, light_inception_v2.onnx",
            "data_0",
        ),
        _inception_v2,
    ),
    "inception_v3": Entry(
        _info(
            "inception_v3",
            "Inception v3 classifier (logits) with unfolded normalisation, opset 13 in the TorchScript exporter's form",
            "arXiv:1512.00567; layout of torchvision.models.inception_v3",
            "input",
            299,
        ),
        _inception_v3,
    ),
}
