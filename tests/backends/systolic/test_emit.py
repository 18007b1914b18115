"""Files of a network, read back, and the table of dataflows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from sparsec.backends.systolic import SEVEN, assemble, parse_machine
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.emit import Emission, emit
from sparsec.backends.systolic.explain import columns, rows, totals
from sparsec.backends.systolic.folder import Emitted, read_folder
from sparsec.backends.systolic.network import Network, NetworkRun
from sparsec.backends.systolic.stream_error import StreamError
from sparsec.compiler.errors import UsageError, VerificationError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.passes.pruning.prune import prune_graph, with_weights
from sparsec.passes.pruning.recipe import make_recipe
from tests.backends.systolic.networks import plan_network, run_network


def planned(name: str) -> Network:
    graph = import_model(models.build(name))
    done = prune_graph(graph, make_recipe({"pattern": "block:8x1@75%/taps=each"}))
    return plan_network(with_weights(graph, done), parse_machine("flexisaga:8x8"))


def written(network: Network, folder: Path) -> Emission:
    made = emit(network)
    (folder / "constants").mkdir(exist_ok=True)
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    return made


def interpreted(emitted: Emitted, made: Emission, feeds: dict[str, np.ndarray]) -> NetworkRun:
    """The run of a folder, with the host's parts in the interpreter."""
    return emitted.run(feeds, lambda entry: lambda values: interpret(made.host[entry["folder"]], values))


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_transformer"])
def test_files_hold_all_that_the_simulator_needs(name: str, tmp_path: Path) -> None:
    network = planned(name)
    made = written(network, tmp_path)
    assert emit(network).files == made.files  # to the byte
    read = read_folder(tmp_path)
    assert [(e.node, e.mapping, e.joined) for e in read.layers] == [
        (c.layer.node.name, c.mapping, c.joined) for c in network.choices
    ]
    assert [e.timed().total.cycles for e in read.layers] == [c.cycles for c in network.choices]
    feeds = models.inputs(models.build(name))
    direct, from_files = run_network(network, feeds), interpreted(read, made, feeds)
    for output, expected in direct.outputs.items():
        np.testing.assert_array_equal(from_files.outputs[output], expected)
    assert {n: run.total for n, run in from_files.layers.items()} == {n: run.total for n, run in direct.layers.items()}
    for file, data in made.files.items():
        if file.endswith(".txt") and file != "graph.txt":
            assert assemble(data.decode()) == made.files[file.replace(".txt", ".stream")]


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_transformer"])
def test_weights_are_stored_once(name: str, tmp_path: Path) -> None:
    network = planned(name)
    made = written(network, tmp_path)
    again = read_folder(tmp_path).network()
    assert again.cycles == network.cycles
    for value, expected in network.graph.constants.items():
        np.testing.assert_array_equal(again.graph.constants[value], expected)
    layers = [c.layer for c in network.choices if c.layer.constant]
    others = {v for v in network.graph.constants if v not in {layer.weights for layer in layers}}
    plain = sum(len(data) for file, data in made.files.items() if file.startswith("constants/"))
    assert layers and plain <= sum(network.graph.constants[v].nbytes for v in others)


def test_weights_that_are_not_the_graphs_are_noticed(tmp_path: Path) -> None:
    network = planned("tiny_cnn")
    written(network, tmp_path)
    dense = next(i for i, c in enumerate(network.choices) if not c.mapping.dataflow.sparse)
    image = bytearray((tmp_path / f"{dense:03d}.weights").read_bytes())
    image[2] ^= 1
    (tmp_path / f"{dense:03d}.weights").write_bytes(bytes(image))
    with pytest.raises(VerificationError, match=f"the weights of '{network.choices[dense].layer.node.name}' in its file are not"):
        read_folder(tmp_path).network()


def test_negative_zeros_become_zeros() -> None:
    graph = import_model(models.build("tiny_cnn"))
    constants = {v: np.where(a > 0, np.float32(-0.0), a) if a.dtype == np.float32 else a for v, a in graph.constants.items()}
    network = plan_network(replace(graph, constants=constants), parse_machine("flexisaga:8x8"))
    weights = [network.graph.constants[c.layer.weights] for c in network.choices]
    assert all((w == 0).any() and not np.signbit(w[w == 0]).any() for w in weights)


def test_dataflows_that_computed_weights_cannot_take() -> None:
    network = plan_network(import_model(models.build("tiny_transformer")), parse_machine("flexisaga:8x8"), (Dataflow.SOS,))
    with pytest.raises(UsageError, match="sOS leaves out zeros that are known before; allow a dense dataflow"):
        emit(network)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no systolic program"):
        read_folder(tmp_path)
    written(planned("tiny_cnn"), tmp_path)
    (tmp_path / "001.stream").write_bytes(b"SPSA")
    with pytest.raises(StreamError, match="ends in its header"):
        [layer.timed() for layer in read_folder(tmp_path).layers]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(UsageError, match="has the format 1"):
        read_folder(tmp_path)


def test_values_come_from_the_files_of_weights(tmp_path: Path) -> None:
    network = planned("tiny_cnn")
    made = written(network, tmp_path)
    dense = next(i for i, c in enumerate(network.choices) if not c.mapping.dataflow.sparse)
    (tmp_path / f"{dense:03d}.weights").write_bytes(bytes(len(made.files[f"{dense:03d}.weights"])))
    run = interpreted(read_folder(tmp_path), made, models.inputs(models.build("tiny_cnn")))
    assert not run.layers[network.choices[dense].layer.node.name].output.any()


def test_the_table_of_seven() -> None:
    network = planned("tiny_cnn")
    table = list(rows(network))
    assert columns(network)[6:13] == tuple(f">{d.value}" for d in SEVEN)
    assert len(table) == len(network.choices)
    for row, choice in zip(table, network.choices, strict=True):
        cycles = [int(c) for c in row[6:13]]
        assert cycles == [choice.table[d] for d in SEVEN] and row[13] == SEVEN[cycles.index(min(cycles))].value
        assert 0 < int(row[14].removesuffix("%")) <= 100
    assert totals(network)[0].startswith(
        f"flexisaga:8x8: {network.cycles} cycles with the best dataflow a layer; one for all: dOS "
    )
    assert "stays with the host" in totals(network)[-1]
