"""The errors a user can meet, each with the exit code that the command line ends with."""

from __future__ import annotations


class SparsecError(Exception):
    """Base of every error that sparsec raises on purpose.

    The message is one sentence: it names the node and the tensor, says what was expected, and what to do.
    """

    exit_code = 70

    def __init__(self, message: str, *, node: str | None = None, tensor: str | None = None) -> None:
        """`node` and `tensor` are the ONNX names that the message speaks of (kept for programs that catch it)."""
        super().__init__(message)
        self.node = node
        self.tensor = tensor


class UsageError(SparsecError):
    """An option or argument that cannot be right, whatever the model."""

    exit_code = 2


class ModelError(SparsecError):
    """The model is malformed: truncated, cyclic, inconsistent, or not bound to static shapes."""

    exit_code = 3


class UnsupportedError(SparsecError):
    """The model is well formed, but uses an operator, attribute or dtype that sparsec does not have."""

    exit_code = 4


class VerificationError(SparsecError):
    """The compiled library and the reference disagree by more than the tolerance."""

    exit_code = 5


class ToolchainError(SparsecError):
    """The C compiler, the linker or make failed or is missing."""

    exit_code = 6


class LimitError(SparsecError):
    """A stated budget or limit (arena, time, tensor size) is not met."""

    exit_code = 7


class FitError(LimitError):
    """Something does not fit a machine: what it demands, the bound, and what would make it fit."""

    def __init__(
        self, what: str, *, demand: str, bound: str, remedy: str, node: str | None = None, tensor: str | None = None
    ) -> None:
        """`what` names the thing, `demand` and `bound` are amounts with units, `remedy` is an imperative."""
        super().__init__(f"{what} does not fit: it is {demand}, the bound is {bound}; {remedy}", node=node, tensor=tensor)
        self.demand = demand
        self.bound = bound
        self.remedy = remedy


class StreamError(SparsecError):
    """An instruction stream, or the text of one, is malformed: truncated, of an unknown operation, or of a wrong size."""

    exit_code = 3


class InternalError(SparsecError):
    """A defect of sparsec itself; `reproducer` names the files that show it."""

    exit_code = 70


class IRError(InternalError):
    """The graph breaks an invariant of the IR: a pass has a defect."""
