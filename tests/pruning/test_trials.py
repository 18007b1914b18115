"""Trials give what pruning gives, whatever was tried before, and work on no layer twice whose input and goal are the same."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsec.compiler.importer.api import import_model
from sparsec.passes.pruning.calibrated.data import model_inputs, read_samples
from sparsec.passes.pruning.calibrated.memory import Fitted, Memory
from sparsec.passes.pruning.calibrated.reconstruct import Reconstructor, Settings
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from sparsec.passes.pruning.trials import Trials
from tests.reference import make_model

QUICK = Settings(threads=1)
ROWS = np.random.default_rng(1).standard_normal((90, 24)).astype(np.float32)


def residual() -> onnx.ModelProto:
    """A product, two branches whose results are added, one of them two products long, and a classifier."""
    rng = np.random.default_rng(0)
    arrays = {n: (rng.standard_normal((24, 24)) / 4).astype(np.float32) for n in ("stem", "left", "inner", "right", "head")}
    arrays |= {f"b{n}": rng.standard_normal(24).astype(np.float32) for n in list(arrays)}
    product = [
        helper.make_node("Gemm", [x, n, f"b{n}"], [y], name=n)
        for x, n, y in (("x", "stem", "s"), ("r", "left", "l"), ("r", "inner", "i"), ("j", "right", "t"), ("u", "head", "y"))
    ]
    between = {
        1: helper.make_node("Relu", ["s"], ["r"]),
        4: helper.make_node("Relu", ["i"], ["j"]),
        6: helper.make_node("Add", ["l", "t"], ["u"]),
    }
    for place, node in between.items():
        product.insert(place, node)
    return make_model(product, {"x": (TensorProto.FLOAT, ["n", 24])}, ["y"], arrays, opset=17)


def recipe(**goals: str) -> Any:
    """Goals by node; a layer that is left out is 2:4."""
    return make_recipe({"pattern": "2:4", "layer": [{"match": n, "pattern": g} for n, g in goals.items()]})


def weights(proto: onnx.ModelProto) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_trials_are_prunings_and_take_over_what_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = residual()
    graph = import_model(model, input_shapes={"x": (1, 24)})
    samples = read_samples({"x": ROWS}, model_inputs(model), 30)
    trials, fitted, worked = Trials(model, graph, samples, QUICK), Reconstructor._fitted, []

    def counted(self: Reconstructor, task: Any, *more: Any) -> Fitted:
        worked.append(task.layer.value)
        return fitted(self, task, *more)

    monkeypatch.setattr(Reconstructor, "_fitted", counted)
    expected = [
        (recipe(), {"stem", "left", "inner", "right", "head"}),
        (recipe(right="1:4"), {"right", "head"}),  # head is refitted
        (recipe(inner="1:4"), {"inner", "right", "head"}),
        (recipe(right="1:4"), set()),
        (recipe(left="dense"), {"left", "right", "head"}),  # right makes up for what left lacks
        (recipe(stem="dense"), {"left", "inner", "right", "head"}),
    ]
    for wanted, again in expected:
        worked.clear()
        found = weights(trials.prune(wanted))
        assert set(worked) == again and len(worked) == len(again)
        fresh = weights(prune(model, wanted, data=samples, settings=QUICK).proto)
        for name, array in fresh.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_least_recently_used_variants_are_forgotten() -> None:
    memory, fits = Memory(variants=2), [Fitted(np.full(1, i), None, ()) for i in range(3)]
    numbers = [memory.number(("layer", i)) for i in range(3)]
    assert numbers == [memory.number(("layer", i)) for i in range(3)] and len(set(numbers)) == 3
    for i in (0, 1):
        memory.keep("layer", numbers[i], fits[i])
    assert memory.find("layer", numbers[0]) is fits[0] and memory.find("other", numbers[0]) is None
    memory.keep("layer", numbers[2], fits[2])
    assert [memory.find("layer", n) for n in numbers] == [fits[0], None, fits[2]]
    nothing = Memory(variants=0)
    nothing.keep("layer", 1, fits[0])
    assert nothing.find("layer", 1) is None
