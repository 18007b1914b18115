"""Small models on every target and thread count, through Python and through C, against onnxruntime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import models
from sparsec.compiler.feeds import random_feeds
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.verify_model import relative_error, verify_model
from tests.end_to_end.program import WARNINGS, build, check, link, outputs_of, small_graph, tiny
from tests.machine import needs, needs_cpu
from tests.quantised import residual_network

Array = np.ndarray[Any, Any]
MODELS = ["tiny_cnn", "tiny_nhwc", "tiny_transformer"]
TARGETS = [
    pytest.param("x86_64+avx512f", 1, marks=needs_cpu("avx512f", "avx512bw", "avx512dq", "avx512vl")),
    pytest.param("x86_64+avx512f", 2, marks=needs_cpu("avx512f", "avx512bw", "avx512dq", "avx512vl")),
    pytest.param("x86_64+avx2+fma", 2, marks=needs_cpu("avx2", "fma")),
    ("generic", 1),
]


@pytest.mark.parametrize(("target", "threads"), TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_python_runs_what_onnxruntime_runs(name: str, target: str, threads: int, tmp_path: Path) -> None:
    model = tiny(name)
    library = build(model, tmp_path / "net", target=target, threads=threads)
    feeds = [models.inputs(model, seed=seed) for seed in range(3)]
    found = verify_model(library.run, OnnxRuntime(model).run, feeds)
    found.require()
    outputs = [found.reference for found in found.checks]
    assert len({round(o, 12) for o in outputs}) > 1, "the outputs do not depend on the inputs"


@needs("aarch64-linux-gnu-gcc", "qemu-aarch64")
@pytest.mark.parametrize("name", MODELS)
def test_neon_under_qemu(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    library = build(model, tmp_path / "net", target="aarch64+neon", cc="aarch64-linux-gnu-gcc")
    program = link(library, "aarch64-linux-gnu-gcc", "-std=c11", "-static", *WARNINGS)
    check(library, model, ["qemu-aarch64", program], library.directory)


@pytest.mark.parametrize("shape", [(1, 3, 5, 6), (3, 3, 8, 1)])
def test_dynamic_dimensions_are_bound(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(small_graph())
    for value in (*model.graph.input, *model.graph.output):
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}{i}" if i != 1 else ""
            if i == 1:
                dim.dim_value = {"x": 3, "y": 5, "z": 6}[value.name]
    library = build(model, tmp_path / "net", dims={"x0": shape[0]}, input_shapes={"x": shape})
    assert library.inputs[0].shape == shape
    verify_model(library.run, OnnxRuntime(model).run, [random_feeds(library.inputs)]).require()


@needs("clang")
@pytest.mark.parametrize("threads", [1, 2])
def test_clang_computes_the_same(threads: int, tmp_path: Path) -> None:
    model = tiny("tiny_cnn")
    library = build(model, tmp_path / "net", target="host", threads=threads, cc="clang")
    feeds = [models.inputs(model, seed=5)]
    verify_model(library.run, OnnxRuntime(model).run, feeds).require()


def test_more_threads_than_work(tmp_path: Path) -> None:
    model = small_graph()
    one, many = build(model, tmp_path / "one"), build(model, tmp_path / "many", threads=9)
    feeds = random_feeds(one.inputs)
    a, b = one.run(feeds), many.run(feeds)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert many.report.memory.arena_bytes >= one.report.memory.arena_bytes


@needs("aarch64-linux-gnu-gcc", "qemu-aarch64")
@pytest.mark.parametrize("target", ["aarch64+neon", "aarch64+neon+dotprod"])
@pytest.mark.parametrize("sparse", [0.0, 0.6])
def test_integers_on_neon_under_qemu(target: str, sparse: float, tmp_path: Path) -> None:
    model = residual_network(3, sparse=sparse)
    library = build(model, tmp_path / "net", target=target, cc="aarch64-linux-gnu-gcc")
    program = link(library, "aarch64-linux-gnu-gcc", "-std=c11", "-static", *WARNINGS)
    here = build(model, tmp_path / "here", target="generic")
    feeds = models.inputs(model, seed=1)
    found = outputs_of(library, feeds, ["qemu-aarch64", program], library.directory)
    np.testing.assert_array_equal(found["y"], here.run(feeds)["y"])


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_networks_are_near_onnxruntime_s(name: str, tmp_path: Path) -> None:
    model, feeds = tiny(name), models.inputs(tiny(name), seed=1)
    expected = OnnxRuntime(model).run(feeds)
    library = build(model, tmp_path / "net", target="generic", bfloat16=True)
    near(library.run(feeds), expected)


@needs("aarch64-linux-gnu-gcc", "qemu-aarch64")
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_networks_on_neon_under_qemu(name: str, tmp_path: Path) -> None:
    model, feeds = tiny(name), models.inputs(tiny(name), seed=1)
    library = build(model, tmp_path / "net", target="aarch64+neon+bf16", cc="aarch64-linux-gnu-gcc", bfloat16=True)
    program = link(library, "aarch64-linux-gnu-gcc", "-std=c11", "-static", *WARNINGS)
    near(outputs_of(library, feeds, ["qemu-aarch64", program], library.directory), OnnxRuntime(model).run(feeds))


def near(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Whether outputs differ by what rounding to 8 bits in a few layers comes to, and by more than float32 would."""
    for name, array in expected.items():
        assert 1e-5 < relative_error(found[name], array) <= 0.03, name
