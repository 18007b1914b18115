"""Sliding-window arithmetic that convolutions and pools share."""

from __future__ import annotations

from sparsec.compiler.errors import ModelError


def window_extent(extent: int, kernel: int, stride: int, dilation: int, before: int, after: int, *, ceil: bool = False) -> int:
    """Number of window positions along one dimension (ONNX rule; with `ceil` the last window must start inside the data)."""
    span = (kernel - 1) * dilation + 1
    room = extent + before + after - span
    if stride < 1 or dilation < 1:
        raise ModelError(f"stride {stride} and dilation {dilation} must be positive")
    if room < 0:
        raise ModelError(
            f"a window of {span} (kernel {kernel}, dilation {dilation}) does not fit {extent} + padding {before} + {after}"
        )
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= extent + before:
        count -= 1
    return count


def auto_pads(
    mode: str, extents: list[int], kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]
) -> list[int]:
    """Explicit pads (befores then afters) for ONNX's `auto_pad` mode."""
    if mode in ("", "NOTSET"):
        return pads
    if mode == "VALID":
        return [0] * (2 * len(extents))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"auto_pad {mode!r} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    before, after = [], []
    for n, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before + after
