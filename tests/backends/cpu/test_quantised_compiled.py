"""Quantised ONNX operators as C, against onnxruntime: zero points at the ends of their range, dynamic quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa
from sparsec.compiler.dtypes import DType
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from tests.backends.cpu.compiled import compile_graph, merged, run_graph, split
from tests.backends.cpu.harness import RUNNABLE, by_name
from tests.machine import needs
from tests.passes.test_quantised import ENDS, at_the_ends, by_onnxruntime, dynamic, dynamic_conv

Array = np.ndarray[Any, Any]


@needs("gcc")
@pytest.mark.parametrize("isa", RUNNABLE, ids=by_name)
def test_zero_points_at_the_ends_of_their_range(isa: Isa, tmp_path: Path) -> None:
    made = {f"{op}{np.dtype(data).name}{a}{b}": at_the_ends(op, data, a, b) for op, data, a, b in ENDS}
    library = compile_graph(merged({n: import_model(m) for n, (m, _) in made.items()}), isa.name, tmp_path)
    got = run_graph(library, tmp_path, split({n: {"x": x} for n, (_, x) in made.items()}))
    for name, (model, x) in made.items():
        np.testing.assert_array_equal(got[f"{name}/y"], by_onnxruntime(model, {"x": x})["y"], err_msg=name)


@needs("gcc")
@pytest.mark.parametrize("isa", RUNNABLE, ids=by_name)
def test_dynamic_quantisation_is_one_call_of_a_kernel(isa: Isa, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    models = {f"{scales}{bias}": dynamic(rng, scales, bias=bias) for scales in (1, 20) for bias in (False, True)}
    models |= {f"conv{groups}": dynamic_conv(groups, 1) for groups in (1, 2, 16)}
    library = compile_graph(merged({n: import_model(m) for n, m in models.items()}), isa.name, tmp_path)
    sums = [c for c in library.program.calls if getattr(getattr(c.kernel, "types", None), "data", None) is DType.U8]
    if isa.lanes > 1:
        assert {c.node for c in sums} == {f"{name}/product" for name in models}
    for low, high in ((-3, 3), (0, 2), (-4, 0), (0, 0)):
        x, r = rng.uniform(low, high, (2, 13, 64)).astype(np.float32), rng.normal(size=(2, 13, 20)).astype(np.float32)
        image = rng.uniform(low, high, (1, 16, 7, 6)).astype(np.float32)
        feeds = {n: {"x": x, "r": r} if n.endswith("True") else {"x": image if "conv" in n else x} for n in models}
        got = run_graph(library, tmp_path, split(feeds))
        for name, model in models.items():
            want = interpret(import_model(model), feeds[name])["y"]
            np.testing.assert_array_equal(got[f"{name}/y"], want, err_msg=name)
            np.testing.assert_allclose(want, by_onnxruntime(model, feeds[name])["y"], rtol=1e-5, atol=1e-5)
