import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa, isa_named
from sparsec.backends.cpu.kernels.attention import attention
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.attention import Attention
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, f32, fetch, store

BLOCKED = [  # batch, heads, key/value heads, queries, keys, depth, mask shape
    (2, 3, 3, 29, 29, 32, None),
    (1, 2, 2, 13, 50, 16, (1, 1, 1, 50)),
    (2, 4, 2, 31, 17, 32, (2, 1, 31, 17)),
    (2, 2, 1, 1, 64, 48, (2, 2, 1, 64)),
]
PLAIN = [  # the same with the depth of values and the rank
    (2, 3, 3, 19, 19, 20, 20, (19, 19), 4),
    (1, 4, 2, 14, 33, 16, 24, (1, 1, 1, 33), 4),
    (2, 2, 2, 7, 7, 5, 3, None, 3),
    (1, 6, 6, 49, 49, 32, 32, (6, 49, 49), 4),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_attention_is_the_attention_op_in_both_layouts(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    prepared = []
    cases = [(*case[:6], case[5], case[6], 3, True) for case in BLOCKED] + [(*case, False) for case in PLAIN]
    for b, h, g, s, t, d, dv, mask_shape, rank, blocked in cases:
        op = Attention(h, g, 0.3)
        shapes = [(b, s, h * d), (b, t, g * d), (b, t, g * dv)] if rank == 3 else [(b, h, s, d), (b, g, t, d), (b, g, t, dv)]
        values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        mask = None if mask_shape is None else np.where(rng.random(mask_shape) < 0.3, -np.inf, rng.random(mask_shape))
        mask = None if mask is None else mask.astype(np.float32)
        expected = op.evaluate([*values, mask])[0]
        types = [f32(shape, Blocked(2, isa.lanes)) if blocked else f32(shape) for shape in (*shapes, expected.shape)]
        spec, geometry = attention(op, *types[:3], None if mask is None else f32(mask.shape), types[3], isa)
        arrays = [store(v, ty) for v, ty in zip(values, types, strict=False)] + ([] if mask is None else [mask])
        prepared.append((spec, geometry, arrays, types[3], expected))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, yt, expected) in enumerate(prepared):
        y = buffer(yt)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(fetch(y, yt), expected, rtol=1e-5, atol=2e-6, err_msg=str(cases[i]))


def test_heads_that_are_not_whole_blocks_are_refused() -> None:
    t = f32((1, 8, 24), Blocked(2, 8))
    with pytest.raises(ValueError, match="whole blocks"):
        attention(Attention(2, 2, 1.0), t, t, t, None, t, isa_named("x86_64+avx2+fma"))
