"""ShuffleNet, 4 groups (Zhang et al., 2017, arXiv:1707.01083), the caffe2 export from the onnx package."""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo

# A unit's second grouped convolution follows a linear depthwise one, so the ReLU's gain is too much for it. Where a unit
# ends in a sum (a concatenation starts each stage), its normalisation is small to keep the sums in range.
_SECOND = range(1, 32, 2)
_STAGE_STARTS = (1, 9, 25)
_GAINS = {
    **{f"gconv1_{index}_w_0": 0.6 for index in _SECOND},
    **{f"gconv1_{index}_bn_s_0": 0.3 for index in _SECOND if index not in _STAGE_STARTS},
}


def _shufflenet(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("shufflenet", seed=seed, batch=batch, gains=_GAINS)


MODELS = {
    "shufflenet": Entry(
        ModelInfo(
            "shufflenet",
            "ShuffleNet with grouped convolutions and channel shuffles, softmax, opset 9 caffe2 export",
            "arXiv:1707.01083; onnx package, light_shufflenet.onnx",
            (("gpu_0/data_0", (1, 3, 224, 224)),),
        ),
        _shufflenet,
    )
}
