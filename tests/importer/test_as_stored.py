"""Importing a model as stored: constants are those of the file, and the values are the same."""

import numpy as np
import pytest

import models
from sparsec.compiler.feeds import random_feeds, table_rows
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.report import tensor_info


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer", "squeezenet"])
def test_the_graph_computes_what_the_import_folds(name: str) -> None:
    model = models.build(name)
    folded, stored = import_model(model), import_model(model, as_stored=True)
    feeds = random_feeds([tensor_info(v, folded.types[v]) for v in folded.inputs], 0, table_rows(model))
    expected, found = interpret(folded, feeds), interpret(stored, feeds)
    for output, array in expected.items():
        np.testing.assert_array_equal(found[output], array)
    assert len({n.name for n in stored.nodes}) == len(stored.nodes)


@pytest.mark.parametrize("name", ["tiny_cnn", "squeezenet"])
def test_every_initializer_that_a_layer_uses_is_a_constant(name: str) -> None:
    model = models.build(name)
    weights = {t.name for t in model.graph.initializer if t.data_type == 1}
    assert weights <= import_model(model, as_stored=True).constants.keys()
    assert not weights <= import_model(model).constants.keys()  # biases are given a shape
