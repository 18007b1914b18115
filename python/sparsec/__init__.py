"""Compile ONNX models to fast C: the public API, each name imported when it is first used."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsec.compiler.array_driver import compile_array, simulate
    from sparsec.compiler.driver import compile, load
    from sparsec.compiler.errors import SparsecError
    from sparsec.compiler.preparing import prune
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.quantisation.model import quantise

    __version__: str

__all__ = ["Budget", "SparsecError", "__version__", "compile", "compile_array", "load", "prune", "quantise", "simulate"]

_HOMES = {
    "compile": "sparsec.compiler.driver",
    "compile_array": "sparsec.compiler.array_driver",
    "load": "sparsec.compiler.driver",
    "prune": "sparsec.compiler.preparing",
    "simulate": "sparsec.compiler.array_driver",
    "Budget": "sparsec.passes.pruning.budget",
    "quantise": "sparsec.passes.quantisation.model",
    "SparsecError": "sparsec.compiler.errors",
}


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from importlib.metadata import version

        value = version("sparsec")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
