import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.norm import blocked_norm, group_norm, row_norm
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.group_norm import GroupNorm
from sparsec.compiler.ops.layer_norm import LayerNorm
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, channel_vector, f32, fetch, store

CASES = [((2, 13, 48), False, True, True), ((1, 6, 37), False, True, True), ((2, 5, 19), True, True, False)]
CASES += [((3, 7, 21), False, False, False), ((9, 40), False, True, False), ((4, 33), True, False, True)]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_layer_norm_on_blocked_tokens_and_on_rows(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    prepared = []
    for shape, rms, scale, bias in CASES:
        x = (3 * rng.standard_normal(shape) + 5).astype(np.float32)
        w, b = (rng.standard_normal(shape[-1:]).astype(np.float32) for _ in range(2))
        expected = LayerNorm(len(shape) - 1, 1e-3, rms).evaluate([x, w if scale else None, b if bias else None])[0]
        t = f32(shape, Blocked(len(shape) - 1, isa.lanes))
        extras = [channel_vector(v, isa.lanes) for v, there in ((w, scale), (b, bias)) if there]
        prepared.append((*blocked_norm(t, t, 1e-3, isa, rms=rms, scale=scale, bias=bias), [store(x, t), *extras], t, expected))
        plain = f32(shape)
        spec = row_norm(shape, len(shape) - 1, 1e-3, rms=rms, scale=scale, bias=bias)
        prepared.append((*spec, [x, *([w] if scale else []), *([b] if bias else [])], plain, expected))
    x = rng.standard_normal((2, 6, 5, 7)).astype(np.float32)
    w, b = (rng.standard_normal(6).astype(np.float32) for _ in range(2))
    for groups in (1, 3, 6):
        prepared.append(
            (*group_norm(x.shape, groups, 1e-4), [x, w, b], f32(x.shape), GroupNorm(groups, 1e-4).evaluate([x, w, b])[0])
        )
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, t, expected) in enumerate(prepared):
        y = buffer(t)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(fetch(y, t), expected, rtol=1e-4, atol=1e-5, err_msg=str(spec))


def test_row_major_tensors_are_refused_by_the_blocked_kernel() -> None:
    with pytest.raises(ValueError, match="blocks of"):
        blocked_norm(f32((2, 8)), f32((2, 8)), 1e-5, HERE[0])
