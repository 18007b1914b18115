"""With calibration data, an order of channels in which a trial loses more is not used."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import models
from sparsec.compiler.importer.api import import_model
from sparsec.passes.pruning import model as module
from sparsec.passes.pruning.calibrated.data import model_inputs, read_samples
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.model import editor_of, prune
from sparsec.passes.pruning.order_trial import Candidate, losses
from sparsec.passes.pruning.recipe import make_recipe

Array = np.ndarray[Any, Any]
RECIPE = {"pattern": "block:8x8@50%", "permute": "gyro"}


def images(count: int) -> dict[str, Array]:
    return {"input": np.random.default_rng(0).normal(size=(count, 3, 16, 16)).astype(np.float32)}


def trial(model: onnx.ModelProto, feeds: dict[str, Array], **options: object) -> tuple[float, ...]:
    samples = read_samples(feeds, model_inputs(model), 5)
    candidate = Candidate(model, import_model(model, input_shapes=samples.shapes()))
    recipe = make_recipe({**RECIPE, **options})
    return losses([candidate, candidate], recipe, samples, Settings.of(recipe), lambda _: None)


def test_both_losses_are_reported_and_the_smaller_one_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = models.build("tiny_cnn"), images(20)
    plain = prune(model, "block:8x8@50%", data=feeds).proto.SerializeToString(deterministic=True)
    for found, used in (((0.2, 0.1), True), ((0.1, 0.1), True), ((0.1, 0.2), False)):
        monkeypatch.setattr(module, "losses", lambda *_, found=found: found)
        done = prune(model, make_recipe(RECIPE), data=feeds)
        report = done.report.permutation
        assert report is not None and (report.loss_in_place, report.loss) == found and report.used is used
        assert (done.proto.SerializeToString(deterministic=True) == plain) is not used


def test_a_trial_is_repeatable_and_in_the_order_of_the_candidates() -> None:
    model, feeds = models.build("tiny_cnn"), images(20)
    first, second = trial(model, feeds)
    assert first == second > 0
    assert trial(model, feeds) == (first, second)
    assert trial(model, feeds, pattern="block:8x8@25%")[0] < first


def test_one_sample_serves_both() -> None:
    (loss, _) = trial(models.build("tiny_cnn"), images(1))
    assert np.isfinite(loss)


def test_values_are_compared_by_their_differences() -> None:
    model, feeds = models.build("tiny_cnn"), images(20)
    softmax, values = (trial(model, feeds, outputs=outputs)[0] for outputs in ("softmax", "values"))
    assert softmax != values


def test_without_data_orders_are_used_as_they_are_found() -> None:
    report = prune(models.build("tiny_cnn"), make_recipe(RECIPE)).report.permutation
    assert report is not None and report.used and report.loss is None


def test_the_original_is_not_touched() -> None:
    model = models.build("tiny_cnn")
    before = editor_of(model).proto.SerializeToString(deterministic=True)
    prune(model, make_recipe(RECIPE), data=images(10))
    assert model.SerializeToString(deterministic=True) == before
