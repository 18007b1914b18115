"""The benchmark's weights are those whose shares are published, and its tables print."""

from __future__ import annotations

import pytest

from benchmarks import saliency
from benchmarks.saliency import HINM, HINM_REFERENCE, bert_classes, distributions, kept, resnet50_classes, text_of
from sparsec.compiler.sparsity import Unstructured
from sparsec.compiler.sparsity.text import Goal


@pytest.mark.parametrize("name", HINM_REFERENCE)
def test_the_distributions_are_those_of_the_reference(name: str) -> None:
    w = distributions()[name]
    unstructured, none, *_ = HINM_REFERENCE[name]
    assert kept(Goal(Unstructured(), HINM.sparsity), w) == pytest.approx(unstructured, abs=0.01)
    assert kept(HINM, w) == pytest.approx(none, abs=0.01)


def test_assignment_never_keeps_less_than_greedy() -> None:
    rows = saliency.grouped_table()
    assert all(row["assigned"] >= row["greedy"] for row in rows)
    assert "nmg:1:4:16" in text_of(rows)


def test_the_networks_have_their_weights() -> None:
    resnet, bert = resnet50_classes(), bert_classes()
    assert sum(oc * taps * ic for oc, taps, ic in resnet.layers) == 23_445_504  # without the stem and the classifier
    assert len(resnet.layers) == 52 and len(resnet.found) == 36
    assert len(bert.found) == 1 + 12 + 144
    assert [len(parts()) for _, parts in bert.found[1:3]] == [1, 1]
