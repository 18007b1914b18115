"""Train the ResNet-8 of `accuracy.py` on Fashion-MNIST and write it as ONNX, BatchNormalization nodes kept.

Needs torch, which nothing else here does: `pip install torch onnx numpy` in an environment of its own, and the Debian package
dataset-fashion-mnist. One thread and fixed seeds: the same torch on the same kind of CPU gives the same file. The model is one
of the image classification family of He et al. (arXiv 1512.03385, section 4.2) with one basic block a stage: stem of 16
channels, stages of 16, 32, 64, 77,754 parameters, inputs [batch, 1, 28, 28] in [0, 1].

    python benchmarks/train_fashion.py [--epochs 12] [-o FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.fashion import CLASSES, load  # noqa: E402

OUTPUT = ROOT / "benchmarks" / "data" / "resnet8_fashion.onnx"
BATCH, PEAK_RATE, DECAY, SMOOTHING, SHIFT = 128, 0.2, 5e-4, 0.05, 2


class Block(nn.Module):
    """Basic residual block: conv, BN, ReLU, conv, BN, plus the input (through 1x1 conv and BN where the shape changes)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.changes = stride != 1 or channels_in != channels
        if self.changes:
            self.conv3 = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (self.bn3(self.conv3(x)) if self.changes else x)).relu()


class ResNet8(nn.Module):
    """Stem, three blocks, global mean, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.blocks(self.bn(self.conv(x)).relu()).mean(dim=(2, 3)))


def train(model: ResNet8, epochs: int) -> None:
    """SGD with Nesterov momentum, one cycle of the learning rate, flips and shifts of up to two pixels."""
    images, labels = (torch.from_numpy(a) for a in load("train"))
    images = images.to(memory_format=torch.channels_last)
    steps = len(images) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * steps, pct_start=0.2)
    loss_of = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    for epoch in range(epochs):
        begin, total = time.perf_counter(), 0.0
        model.train()
        for index in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(model(augmented(images[index])), labels[index])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        took = time.perf_counter() - begin
        print(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}, top-1 {accuracy(model):.4f}, {took:.0f} s", flush=True)


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Each image flipped with probability 1/2; the whole batch shifted by up to SHIFT pixels."""
    flip = torch.rand(len(x)) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    down, right = (int(torch.randint(-SHIFT, SHIFT + 1, ())) for _ in range(2))
    padded = nn.functional.pad(x, (SHIFT,) * 4)
    return padded[:, :, SHIFT + down : SHIFT + down + 28, SHIFT + right : SHIFT + right + 28].contiguous(
        memory_format=torch.channels_last
    )


@torch.no_grad()
def accuracy(model: ResNet8) -> float:
    """Top-1 on the 10,000 test images."""
    model.eval()
    images, labels = (torch.from_numpy(a) for a in load("t10k"))
    hits = [(model(x).argmax(1) == y).sum() for x, y in zip(images.split(1000), labels.split(1000), strict=True)]
    return int(sum(hits)) / len(labels)


class _Writer:
    """ONNX nodes and initializers by the module's own names."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {k: v.detach().numpy() for k, v in model.state_dict().items()}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node, called as its output."""
        for name in inputs:
            if name in self.state and all(t.name != name for t in self.initializers):
                self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(self.state[name]), name))
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, conv: str, bn: str, stride: int = 1) -> str:
        """Convolution and its BatchNormalization."""
        size = self.state[f"{conv}.weight"].shape[2]
        y = self.add("Conv", [x, f"{conv}.weight"], conv, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)
        parts = [f"{bn}.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
        return self.add("BatchNormalization", [y, *parts], bn, epsilon=1e-5)


def to_onnx(model: ResNet8) -> onnx.ModelProto:
    """The model in evaluation mode, input "image" [batch, 1, 28, 28], output "logits" [batch, 10]."""
    w = _Writer(model)
    x = w.add("Relu", [w.conv("image", "conv", "bn")], "relu")
    for i, stride in enumerate((1, 2, 2)):
        at = f"blocks.{i}."
        y = w.add("Relu", [w.conv(x, at + "conv1", at + "bn1", stride)], at + "relu1")
        y = w.conv(y, at + "conv2", at + "bn2")
        shortcut = w.conv(x, at + "conv3", at + "bn3", stride) if at + "conv3.weight" in w.state else x
        x = w.add("Relu", [w.add("Add", [y, shortcut], at + "add")], at + "relu2")
    x = w.add("Flatten", [w.add("GlobalAveragePool", [x], "pool")], "flatten", axis=1)
    w.add("Gemm", [x, "classifier.weight", "classifier.bias"], "logits", transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(w.nodes, "resnet8_fashion", [image], [logits], w.initializers)
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="sparsec benchmarks"
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = ResNet8().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, args.epochs)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_bytes(to_onnx(model.eval()).SerializeToString(deterministic=True))
    print(f"{args.output}: {args.output.stat().st_size} bytes, top-1 {accuracy(model):.4f}")


if __name__ == "__main__":
    main()
