import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.relayout import relayout, zero_halo
from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, f32, fetch, halo_of, store


def _pairs(lanes: int) -> list[tuple[TensorType, TensorType]]:
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(8):
        n, c, h, w = (int(v) for v in rng.integers(1, (4, 40, 12, 40)))
        halo = ((0, 0), *(tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(2)))
        image, plain, padded = (n, c, h, w), Blocked(1, lanes), Blocked(1, lanes, halo)
        planar = Blocked(1, 1, halo)
        pairs += [(f32(image), f32(image, padded)), (f32(image, padded), f32(image)), (f32(image), f32(image, planar))]
        pairs += [(f32(image, plain), f32(image, padded)), (f32(image, planar), f32(image))]
        if lanes > 1:
            pairs += [(f32(image, planar), f32(image, padded)), (f32(image, padded), f32(image, Blocked(1, 1)))]
        tokens = (n, h, c)
        pairs += [(f32(tokens), f32(tokens, Blocked(2, lanes))), (f32(tokens, Blocked(2, lanes)), f32(tokens))]
        volume = (n, c, 3, h, w)
        deep = Blocked(1, lanes, ((0, 0), (1, 0), *halo[1:]))
        pairs += [(f32(volume), f32(volume, deep)), (f32(volume, deep), f32(volume))]
        pairs += [(f32((h, c, 1, 2)), f32((h, c, 1, 2), Blocked(0, lanes)))]
    pairs += [(f32((2, 3, 7, 7)), f32((2, 3, 7, 7), Blocked(1, lanes))), (f32((1, 64)), f32((1, 64), Blocked(1, lanes)))]
    return pairs


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_relayout_keeps_values_and_zeroes_halo_and_padded_lanes(isa: Isa) -> None:
    pairs = _pairs(isa.lanes)
    lib = compile_kernels(isa, [relayout(a, b)[0] for a, b in pairs])
    rng = np.random.default_rng(2)
    for threads, (source, target) in enumerate(pairs):
        value = rng.standard_normal(source.shape).astype(np.float32)
        x, y = store(value, source, halo=5.0), buffer(target)
        lib.run(*relayout(source, target), [x, y], threads=1 + threads % 3)
        np.testing.assert_array_equal(fetch(y, target), value, err_msg=f"{source} -> {target}")
        if isinstance(target.layout, Blocked):
            assert not halo_of(y, target).any(), f"{source} -> {target}"


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_zero_halo_touches_only_the_halo(isa: Isa) -> None:
    types = [f32((2, 20, 5, 6), Blocked(1, isa.lanes, h)) for h in (((0, 0), (1, 2), (3, 0)), ((1, 0), (0, 0), (0, 2)))]
    types.append(f32((2, 3, 5, 6), Blocked(1, 1, ((0, 0), (1, 1), (2, 2)))))
    lib = compile_kernels(isa, [zero_halo(t)[0] for t in types])
    for t in types:
        value = np.random.default_rng(3).standard_normal(t.shape).astype(np.float32)
        y = store(value, t, halo=5.0)
        lib.run(*zero_halo(t), [y], threads=2)
        assert not halo_of(y, t).any()
        np.testing.assert_array_equal(fetch(y, t), value)


def test_relayout_between_different_channel_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="through row-major"):
        relayout(f32((2, 8, 8), Blocked(1, 8)), f32((2, 8, 8), Blocked(2, 8)))
