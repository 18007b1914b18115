"""Fold batch normalisation into the convolution before it, in an ONNX model."""

from __future__ import annotations

import numpy as np
import onnx

from sparsec.compiler.exporter.nodes import NodeEditor, attribute


def fold_batchnorm(editor: NodeEditor) -> int:
    """Conv -> BatchNormalization becomes Conv with other weights and a bias; how many did.

    1. The normalisation alone reads the convolution, which has constant float weights and bias.
    2. Its parameters are constants, and it does not train.
    Zeros of the weights stay zeros. Arithmetic is in float64, rounded once.
    """
    count = 0
    for node in list(editor.nodes):
        if node.op_type != "BatchNormalization" or any(node.output[1:]) or attribute(node, "training_mode", 0):
            continue
        conv = editor.producers.get(node.input[0])
        if conv is None or conv.op_type != "Conv" or editor.only_reader(node.input[0]) is not node:  # 1
            continue
        weights = editor.array(conv.input[1])
        bias = editor.array(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(1, np.float32)
        parameters = [editor.array(name) for name in node.input[1:5]]
        if weights is None or bias is None or weights.dtype != np.float32 or any(p is None for p in parameters):  # 2
            continue
        gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        folded = (weights * factor.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.float32)
        shift = ((bias - mean) * factor + beta).astype(np.float32)
        names = editor.constant(folded, f"{conv.input[1]}_folded"), editor.constant(shift, f"{conv.input[1]}_bias")
        _replace(editor, conv, node, names)
        count += 1
    if count:
        editor.index()
    return count


def _replace(editor: NodeEditor, conv: onnx.NodeProto, norm: onnx.NodeProto, names: tuple[str, str]) -> None:
    """The convolution with weights and bias `names` makes what the normalisation made."""
    x = conv.input[0]
    del conv.input[:]
    conv.input.extend([x, *names])
    conv.output[0] = norm.output[0]
    editor.remove(norm)
