"""Files of a network, read back, and the table of dataflows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import models
from sparsec.backends.systolic import SEVEN, assemble, parse_machine
from sparsec.backends.systolic.emit import emit, read_folder
from sparsec.backends.systolic.explain import columns, rows, totals
from sparsec.backends.systolic.network import Network, plan_network, run_network
from sparsec.backends.systolic.stream_error import StreamError
from sparsec.compiler.errors import UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.passes.pruning.prune import prune_graph, with_weights
from sparsec.passes.pruning.recipe import make_recipe


def planned(name: str) -> Network:
    graph = import_model(models.build(name))
    done = prune_graph(graph, make_recipe({"pattern": "block:8x1@75%/taps=each"}))
    return plan_network(with_weights(graph, done), parse_machine("flexisaga:8x8"))


def written(network: Network, folder: Path) -> dict[str, bytes]:
    files = emit(network)
    (folder / "constants").mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_transformer"])
def test_files_hold_all_that_the_simulator_needs(name: str, tmp_path: Path) -> None:
    network = planned(name)
    files = written(network, tmp_path)
    assert emit(network) == files  # to the byte
    read = read_folder(tmp_path)
    assert [(e.node, e.mapping, e.joined) for e in read.layers] == [
        (c.layer.node.name, c.mapping, c.joined) for c in network.choices
    ]
    assert [e.timed().total.cycles for e in read.layers] == [c.cycles for c in network.choices]
    assert read.network().cycles == network.cycles
    feeds = models.inputs(models.build(name))
    direct, from_files = run_network(network, feeds), read.run(feeds)
    for output, expected in direct.outputs.items():
        np.testing.assert_array_equal(from_files.outputs[output], expected)
    for file, data in files.items():
        if file.endswith(".txt") and file != "graph.txt":
            assert assemble(data.decode()) == files[file.replace(".txt", ".stream")]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no systolic program"):
        read_folder(tmp_path)
    written(planned("tiny_cnn"), tmp_path)
    (tmp_path / "001.stream").write_bytes(b"SPSA")
    with pytest.raises(StreamError, match="ends in its header"):
        [layer.timed() for layer in read_folder(tmp_path).layers]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(UsageError, match="has the format 2"):
        read_folder(tmp_path)


def test_values_come_from_the_files_of_weights(tmp_path: Path) -> None:
    network = planned("tiny_cnn")
    files = written(network, tmp_path)
    dense = next(i for i, c in enumerate(network.choices) if not c.mapping.dataflow.sparse)
    (tmp_path / f"{dense:03d}.weights").write_bytes(bytes(len(files[f"{dense:03d}.weights"])))
    run = read_folder(tmp_path).run(models.inputs(models.build("tiny_cnn")))
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
