"""`import_model`: the one way from ONNX to a Graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.bind import bind_dims
from sparsec.compiler.importer.build import build_graph
from sparsec.compiler.importer.claims import read_claims, with_claims
from sparsec.compiler.importer.load import Source, load_model
from sparsec.compiler.importer.prepare import prepare
from sparsec.compiler.limits import Limits
from sparsec.compiler.verify import verify

_NO_DIMS: Mapping[str, int] = {}
_NO_SHAPES: Mapping[str, Sequence[int]] = {}


def import_model(
    source: Source,
    *,
    dims: Mapping[str, int] = _NO_DIMS,
    input_shapes: Mapping[str, Sequence[int]] = _NO_SHAPES,
    limits: Limits | None = None,
    as_stored: bool = False,
) -> Graph:
    """Import an ONNX model with static shapes.

    `source` is a path, serialized bytes, a ModelProto or an onnx-ir Model; none is changed. `dims` binds dynamic dimensions by
    their symbol ("batch"), `input_shapes` by input. Opset 7 and newer. The graph is verified, every value typed;
    patterns that `sparsec prune` recorded are checked against the weights, and in the weights' types. Small arithmetic on
    constants is folded; `as_stored` leaves it to nodes, so that constants are those of the model, by their names there.

    Raises UsageError (no such file, input or dimension), ModelError (malformed, or a dimension left unbound), UnsupportedError
    (an operator, form or element type that sparsec does not have), LimitError (`limits` exceeded).
    """
    limits = limits or Limits()
    try:
        model = load_model(source, limits)
        bind_dims(model, dims, input_shapes)
        prepare(model, limits)
        graph = with_claims(build_graph(model, limits, as_stored=as_stored), read_claims(model.metadata_props))
    except RecursionError:
        raise ModelError("the model's subgraphs or functions are nested too deeply") from None
    verify(graph)
    return graph
