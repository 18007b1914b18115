"""What whole pipelines make of a network, as checks on the graph's text that leave names and the rest open."""

from __future__ import annotations

from pathlib import Path

import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser

import models
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.text.printer import print_graph
from sparsec.passes.layout import AssignLayouts
from sparsec.passes.pipelines import DEFAULT

TRANSFORMER = """
// CHECK-COUNT-2: = Gather(
// CHECK: = LayerNorm(
// CHECK-COUNT-3: = MatMul({{.*}}epilogue='add(a0,a1)'
// CHECK: = Attention(
// CHECK: = MatMul({{.*}}epilogue='add(a0,a1);add(t0,a2)'
// CHECK-NEXT: = LayerNorm(
// CHECK-NEXT: = MatMul({{.*}}gelu(t0)'
// CHECK-NOT: = Softmax(
// CHECK: output "last_hidden_state"
"""
LAID_OUT = """
// CHECK: = Relayout(%{{.*}}@c1a1
// CHECK-NOT: = Relayout(
// CHECK: = Reduce(
"""


def matches(text: str, checks: str, folder: Path) -> bool:
    """Whether `text` satisfies the FileCheck lines `checks`."""
    path = folder / "checks.txt"
    path.write_text(checks)
    options = Options(match_filename=str(path))
    return Matcher(options, FInput("graph", text), Parser.from_opts(options)).run() == 0


def test_a_transformer_becomes_fused_operators(tmp_path: Path) -> None:
    graph = run_pipeline(import_model(models.build("tiny_transformer")), DEFAULT)
    assert matches(print_graph(graph), TRANSFORMER, tmp_path)


def test_a_convolutional_network_stays_in_blocks(tmp_path: Path) -> None:
    target = CpuTarget.named("x86_64+avx2+fma")
    graph = run_pipeline(import_model(models.build("tiny_cnn")), (*DEFAULT, AssignLayouts(target)))
    assert matches(print_graph(graph), LAID_OUT, tmp_path)


def test_the_check_itself_can_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not matches("%y = Softmax(%x)\n", TRANSFORMER, tmp_path)
