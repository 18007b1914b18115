"""Whole networks on a simulated AI-Engine array: what of them is on the array, its cycles, and that values are exact.

    python benchmarks/aie_networks.py                          SqueezeNet and MobileNetV2 at 224 x 224 on aie2:npu1
    python benchmarks/aie_networks.py squeezenet --size 64     one of them, smaller
    python benchmarks/aie_networks.py resnet50 --layers --densities 1 0.5 0.25
    python benchmarks/aie_networks.py mobilenet_v2 --precision bf16
    python benchmarks/aie_networks.py resnet50 --densities 0.5 --even

`--layers` adds a table of the convolutions beside one another by density, and their sum: cycles from the end of the layer before
to the end of each, and the roofline, which is what the busiest resource took at its full rate in that time.

Each is quantised with scales that are powers of two, dense and with half of the 8 x 8 blocks of products of 16 channels and more,
random ones (`--even`: 2 of every 4 in each row of blocks, as the pattern `block:8x8/2:4` keeps), compiled, and executed from the
emitted streams; what is left to the host is interpreted. Every output has to equal the interpreter's to the last bit. Of bfloat16
every layer has to be within the bound of its sums for the data that it had (see `backends/aie/tolerance.py`). Weights are seeded,
and cycles are a model's estimates.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
from onnx import numpy_helper

import models
from benchmarks.aie_convolutions import LayerRow, layers_table, measured, share_of_blocks
from benchmarks.aie_layers import Shape
from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.network import lower
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.part import peak as peak_of
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, HostPart
from sparsec.backends.aie.simulate.model import ArrayModel
from sparsec.backends.aie.simulate.report import RunCycles
from sparsec.backends.aie.tolerance import compare
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.errors import InternalError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.segments import Part
from sparsec.passes.bfloat16 import Bfloat16
from sparsec.passes.bfloat16_means import Bfloat16Means
from sparsec.passes.bfloat16_out import Bfloat16Out
from sparsec.passes.pipelines import ARRAY, DEFAULT
from sparsec.passes.pruning.even import even_blocks
from sparsec.passes.quantisation.model import quantise
from sparsec.passes.quantisation.settings import Settings
from sparsec.passes.space_to_depth import SpaceToDepth

NAMES = ("squeezenet", "mobilenet_v2")
DENSITIES = (1.0, 0.5)
_TOGETHER = 4  # blocks of which `--even` keeps a share
BFLOAT16 = (Bfloat16(), Bfloat16Out(), Bfloat16Means(), SpaceToDepth())
_HEAD = ("network", ">blocks", ">layers", ">views", ">on host", ">parts", ">MMAC", ">of all", ">cycles", ">of peak", ">seconds")


@dataclass(frozen=True)
class Row:
    """A network with a share of its blocks: nodes by place, products of its layers when dense, cycles, seconds to find out."""

    network: str
    density: float
    layers: int
    views: int
    on_host: int
    parts: int
    macs: int
    all_macs: int
    cycles: int
    peak_share: float
    seconds: float
    convolutions: tuple[LayerRow, ...] = ()
    even: bool = False

    def shown(self) -> list[str]:
        """As people read it."""
        counts = [str(n) for n in (self.layers, self.views, self.on_host, self.parts)]
        macs = [f"{self.macs / 1e6:.1f}", f"{100 * self.macs / self.all_macs:.2f} %"]
        ends = [f"{self.cycles:,}", f"{100 * self.peak_share:.0f} %", f"{self.seconds:.0f}"]
        return [self.network, share_of_blocks(self.density, even=self.even), *counts, *macs, *ends]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NAMES, metavar="NETWORK", help="of `python -m models list`")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of the image (default: 224)")
    parser.add_argument("--target", default="aie2:npu1", help="the array (default: aie2:npu1)")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES, help="shares of blocks (default: 1 0.5)")
    parser.add_argument("--even", action="store_true", help="of every 4 blocks in a row equally many, instead of random ones")
    parser.add_argument("--precision", choices=("int8", "bf16"), default="int8", help="what is multiplied (default: int8)")
    parser.add_argument("--layers", action="store_true", help="print the convolutions, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.networks:
        for density in options.densities:
            bfloat16, even = options.precision == "bf16", options.even and density < 1
            rows.append(measure(name, options.size, options.target, density, bfloat16=bfloat16, even=even))
            print(" ".join(rows[-1].shown()), file=sys.stderr)
    print(plain_table(_HEAD, [r.shown() for r in rows]))
    peak = peak_of(machine_named(options.target), "int8")
    for name in options.networks if options.layers else ():
        found = [r for r in rows if r.network == name]
        dense = next((r.convolutions for r in found if r.density == 1), ())
        print(f"\n{name}\n{layers_table([measured(r.density, r.convolutions, dense, peak, even=r.even) for r in found])}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def measure(name: str, size: int, target: str, density: float, *, bfloat16: bool = False, even: bool = False) -> Row:
    """Compile and run one, with random blocks or `even` rows of them. InternalError where an output is not the interpreter's, or
    a layer of bfloat16 beyond its bound."""
    start, machine = time.process_time(), machine_named(target)
    if bfloat16:
        proto, feeds = pruned(models.build(name), size, density, even=even)
        graph = run_pipeline(import_model(proto), (*ARRAY, *BFLOAT16))
    else:
        proto, feeds = quantised(models.build(name), size, density, even=even)
        graph = run_pipeline(import_model(proto), ARRAY)
    program = lower(graph, machine)
    with tempfile.TemporaryDirectory() as folder:
        run = execute(program, Path(folder), feeds)
    if bfloat16:
        _check_layers(graph, run)
    for output, expected in {} if bfloat16 else interpret(run_pipeline(import_model(proto), DEFAULT), feeds).items():
        if not np.array_equal(run.outputs[output], expected):
            raise InternalError(f"output {output!r} of {name} differs from the interpreter's")
    arrays = [p for p in program.parts if isinstance(p, ArrayPart)]
    macs = sum(plan.layer.macs(program.graph) for part in arrays for plan in part.plans)
    most = run.cycles * peak_of(machine, "bf16" if bfloat16 else "int8")
    return Row(
        name,
        density,
        sum(len(p.plans) for p in arrays),
        sum(len(p.views) for p in arrays),
        len(program.reasons),
        len(program.parts),
        macs,
        sum(n.op.macs(graph.in_types(n)) for n in graph),
        run.cycles,
        macs / most,
        time.process_time() - start,
        tuple(_layers(graph, program.graph, arrays, [part.cycles(machine) for part in run.parts])),
        even,
    )


def _check_layers(graph: Graph, run: Any) -> None:
    """InternalError where what a layer made of its data is further from the interpreter's than two orders of sums are."""
    nodes = {n.name: n for n in graph}
    for layer in (layer for part in run.parts for layer in part.entry["layers"]):
        found = compare(graph, nodes[layer["node"]], run.values, run.values[nodes[layer["node"]].output])
        if not found.close:
            raise InternalError(f"layer {layer['node']!r} is off by {found.difference:.3g}, more than two orders of its sums are")


def _layers(graph: Graph, lowered: Graph, arrays: Sequence[ArrayPart], cycles: Sequence[RunCycles]) -> Iterator[LayerRow]:
    """The convolutions of all parts on the array, as they are in the graph before strides became values of their own."""
    for part, ran in zip(arrays, cycles, strict=True):
        for plan, layer in zip(part.plans, ran.layers, strict=True):
            made, macs = plan.layer, plan.layer.macs(lowered)
            node = next(n for n in graph if n.name == made.node)
            if isinstance(node.op, Conv) and macs and made.shifts.scaling is None:  # scaled sums are means
                rows, columns = graph.types[node.inputs[0]].shape[2:]
                pads = node.op.pads
                name = str(
                    Shape(
                        made.channels,
                        (rows, columns),
                        made.window.kernel,
                        node.op.strides[0],
                        (pads[0], pads[1], pads[2], pads[3]),
                        made.residual is not None,
                    )
                )
                yield LayerRow(name, macs, layer.cycles, layer.bound)


def quantised(proto: onnx.ModelProto, size: int, density: float, *, even: bool = False) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A network for an image of `size` with a share of the blocks in int8, and an input. Changes `proto`."""
    made, data = pruned(proto, size, density, images=4, even=even)
    whole = quantise(made, data, Settings(power_of_two=True, per_channel=False))
    return whole.proto, {name: images[:1] for name, images in data.items()}


def pruned(
    proto: onnx.ModelProto, size: int, density: float, images: int = 1, *, even: bool = False
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A network for an image of `size` with a share of the blocks, random ones, or that of every 4 in each row of blocks where
    these are `even`; and inputs. Changes `proto`."""
    rng = np.random.default_rng(0)
    weights = {t.name for t in proto.graph.initializer}
    (image,) = (v for v in proto.graph.input if v.name not in weights)
    for dim in image.type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    for t in proto.graph.initializer if density < 1 else ():
        if len(t.dims) == 4 and t.dims[1] >= 16:
            w = numpy_helper.to_array(t)
            worth = rng.random((-(-w.shape[0] // 8), -(-w.shape[1] // 8)))
            keep = even_blocks(worth[:, None], round(_TOGETHER * density), _TOGETHER).kept[:, 0] if even else worth < density
            mask = np.kron(keep, np.ones((8, 8), w.dtype))[: w.shape[0], : w.shape[1], None, None]
            t.CopyFrom(numpy_helper.from_array(np.asarray(w * mask, w.dtype), t.name))
    return proto, {image.name: rng.standard_normal((images, 3, size, size)).astype(np.float32)}


def execute(program: ArrayProgram, folder: Path, feeds: Mapping[str, Any]) -> Any:
    """Write the files, then run nothing but them; host parts are interpreted."""
    for file, data in emit(program).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)

    def host(entry: Mapping[str, Any]) -> Part:
        part = program.parts[int(entry["folder"].removeprefix("part"))]
        assert isinstance(part, HostPart)
        return lambda values: interpret(part.graph, values)

    return ArrayModel(folder).run(feeds, host)


if __name__ == "__main__":
    sys.exit(main())
