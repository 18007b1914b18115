import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa, isa_named
from sparsec.backends.cpu.kernels.depthwise import depthwise, pack_depthwise
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from tests.backends.cpu.harness import HERE, by_name, compile_kernels
from tests.backends.cpu.tensors import buffer, channel_vector, f32, fetch, store

RELU6 = Program.parse("add(a0,a1);max(t0,0.0);min(t1,6.0)")
SHIFTED = Program.parse("add(a0,a1);add(t0,a2);mul(t1,a3);sigmoid(t2)")
CASES = [  # input, kernel, strides, dilations, pads, epilogue, kinds
    ((1, 32, 12, 14), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), RELU6, ("channel",)),
    ((2, 19, 9, 13), (3, 3), (2, 2), (1, 1), (0, 1, 1, 1), RELU6, ("channel",)),
    ((1, 5, 11, 17), (5, 3), (1, 2), (2, 3), (2, 3, 4, 1), Program(), ()),
    ((1, 24, 10, 7), (7, 7), (1, 1), (1, 1), (3, 3, 3, 3), SHIFTED, ("channel", "full", "scalar")),
    ((2, 21, 23), (4,), (1,), (2,), (3, 3), SHIFTED, ("channel", "full", "scalar")),
]


@pytest.mark.parametrize("isa", HERE, ids=by_name)
def test_depthwise_is_the_grouped_convolution(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    prepared = []
    for shape, kernel, strides, dilations, pads, epilogue, kinds in CASES:
        c, n = shape[1], len(kernel)
        w = rng.standard_normal((c, 1, *kernel)).astype(np.float32)
        op = Conv(strides, dilations, pads, c, epilogue)
        out = Conv(strides, dilations, pads, c).infer([f32(shape), f32(w.shape)])[0].shape
        values = {"channel": (c, *[1] * n), "full": out, "scalar": ()}
        extras = [rng.standard_normal(values[k]).astype(np.float32) for k in kinds]
        x = rng.standard_normal(shape).astype(np.float32)
        halo = ((0, 0), *((pads[i] + 1, pads[n + i]) for i in range(n)))
        xt, yt = f32(shape, Blocked(1, isa.lanes, halo)), f32(out, Blocked(1, isa.lanes, ((0, 0), *[(1, 2)] * n)))
        full = tuple(f32(out, Blocked(1, isa.lanes)) for k in kinds if k == "full")
        spec, geometry = depthwise(xt, yt, kernel, strides, dilations, pads, isa, epilogue, kinds, full)
        arrays = [store(x, xt), pack_depthwise(w, isa.lanes)]
        for kind, e in zip(kinds, extras, strict=True):
            arrays.append(store(e, full[0]) if kind == "full" else channel_vector(e, isa.lanes))
        prepared.append((spec, geometry, arrays, yt, op.evaluate([x, w, *extras])[0]))
    lib = compile_kernels(isa, [p[0] for p in prepared])
    for i, (spec, geometry, arrays, yt, expected) in enumerate(prepared):
        y = buffer(yt)
        lib.run(spec, geometry, [*arrays, y], threads=1 + i % 3)
        np.testing.assert_allclose(fetch(y, yt), expected, rtol=2e-5, atol=2e-5)


def test_a_halo_smaller_than_the_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="halo"):
        depthwise(
            f32((1, 8, 5, 5), Blocked(1, 16)),
            f32((1, 8, 5, 5), Blocked(1, 16)),
            (3, 3),
            (1, 1),
            (1, 1),
            (1, 1, 1, 1),
            isa_named("x86_64+avx512f"),
        )
