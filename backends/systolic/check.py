"""Which micro-ops may follow which, and fields that contradict each other or the array.

stream = { configure { windows output { strip } } } halt
strip  = (load.weights | decompress) repeat body end
body   = load.data mac drain            OS
       | move load.data mac drain       WS
       | load.data move mac drain       IS
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsec.backends.systolic.isa import (
    Configure,
    Decompress,
    Drain,
    End,
    Format,
    Halt,
    LoadData,
    LoadWeights,
    Mac,
    MicroOp,
    Mode,
    Move,
    Number,
    Output,
    Repeat,
    Stationary,
    Windows,
)
from sparsec.backends.systolic.stream_error import StreamError

_BODY: dict[Stationary, tuple[type[MicroOp], ...]] = {
    Stationary.OS: (Repeat, LoadData, Mac, Drain, End),
    Stationary.WS: (Repeat, Move, LoadData, Mac, Drain, End),
    Stationary.IS: (Repeat, LoadData, Move, Mac, Drain, End),
}
_BETWEEN = (LoadWeights, Decompress, Windows, Configure, Halt)


@dataclass
class Grammar:
    """Checks micro-ops in their order; `take` and `finish` raise StreamError."""

    rows: int
    cols: int
    expected: tuple[type[MicroOp], ...] = (Configure,)
    configured: Configure | None = None
    strip: LoadWeights | Decompress | None = None
    windows: Windows | None = None
    output: Output | None = None
    move: Move | None = None
    load: LoadData | None = None
    body: list[type[MicroOp]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.rows <= 256 and 0 < self.cols <= 256):
            raise StreamError(6, f"the array is {self.rows}x{self.cols}, and rows and columns are 1 to 256")

    def take(self, offset: int, op: MicroOp) -> None:
        """The next micro-op."""
        if not isinstance(op, self.expected):
            wanted = ", ".join(e.name for e in self.expected) or "nothing"
            raise StreamError(offset, f"{op.name} where {wanted} is expected")
        if reason := self._reason(op):
            raise StreamError(offset, f"{op.name}: {reason}")
        match op:
            case Configure():
                self.configured, self.expected = op, (Windows,)
            case Windows():
                self.windows, self.expected = op, (Output,)
            case Output():
                self.output, self.expected = op, _BETWEEN
            case LoadWeights() | Decompress():
                self.strip = op
                assert self.configured is not None
                self.body = list(_BODY[self.configured.stationary])
                self.expected = (self.body.pop(0),)
            case Halt():
                self.expected = ()
            case _:
                if isinstance(op, Repeat):
                    self.count = op.count
                if isinstance(op, Move):
                    self.move = op
                if isinstance(op, LoadData):
                    self.load = op
                self.expected = (self.body.pop(0),) if self.body else _BETWEEN

    def finish(self, offset: int) -> None:
        """The end of the bytes."""
        if self.expected:
            raise StreamError(offset, f"the stream ends where {', '.join(e.name for e in self.expected)} is expected")

    def _reason(self, op: MicroOp) -> str:
        """What contradicts the array or earlier micro-ops; "" when nothing does."""
        match op:
            case Configure():
                return _configure(op)
            case Windows():
                return _windows(op)
            case LoadWeights() | Decompress():
                return self._strip(op)
            case Repeat():
                return "it runs its body no times" if op.count == 0 else ""
            case Move():
                return self._move(op)
            case Mac():
                return self._mac(op)
            case LoadData():
                return self._data(op)
            case Drain():
                return self._drain(op)
            case _:
                return ""

    @property
    def stationary(self) -> Stationary:
        """Of the last `configure`."""
        assert self.configured is not None
        return self.configured.stationary

    @property
    def positions(self) -> int:
        """Columns of X."""
        assert self.windows is not None
        return self.windows.images * self.windows.out_h * self.windows.out_w

    def _strip(self, op: LoadWeights | Decompress) -> str:
        assert self.configured is not None
        side = self.cols if self.stationary is Stationary.WS else self.rows
        if not 0 < op.rows <= side:
            return f"it has {op.rows} weights a step, and the array takes 1 to {side}"
        if op.steps == 0:
            return "it has no steps: an empty strip is left out"
        if isinstance(op, LoadWeights):
            return ""
        if op.format in (Format.PACKED, Format.NM) and self.stationary is Stationary.IS:
            return f"{op.format.name} chooses among data that move, and the data of IS stay"
        if op.format is Format.NM:
            groups = -(-op.extent // op.group) if op.group else 0
            if not 0 < op.keep < op.group <= self.configured.lanes or op.steps != groups * op.keep:
                return f"{op.steps} steps of {op.keep}:{op.group} in {op.extent} columns, on {self.configured.lanes} lanes"
        elif op.keep or op.group:
            return f"{op.format.name} has no groups, and keep and group are {op.keep} and {op.group}"
        return ""

    def _move(self, op: Move) -> str:
        if op.count != self.rows:
            return f"it shifts {op.count} rows into an array of {self.rows}"
        if self.stationary is Stationary.IS and (op.first or op.stride):
            return "it chooses steps, and the data that load.data takes are resident"
        return ""

    def _mac(self, op: Mac) -> str:
        assert self.strip is not None
        wanted = self.positions if self.stationary is Stationary.WS else self.strip.steps
        return f"{op.steps} operands stream by, and there are {wanted}" if op.steps != wanted else ""

    def _data(self, op: LoadData) -> str:
        assert self.strip is not None
        if self.stationary is Stationary.WS and self.move and (op.first, op.stride) != (self.move.first, self.move.stride):
            return f"the weights of other steps are resident, from {self.move.first} by {self.move.stride}"
        if op.row and self.stationary is not Stationary.IS:
            return f"it begins at row {op.row}, and the steps name the rows"
        if op.columns != self.positions:
            return f"it takes columns of {op.columns}, and X has {self.positions}"
        limit = self.strip.steps if self.stationary is Stationary.WS else self.positions
        if self.count > 1 and not op.stride:
            return f"it takes the same in each of {self.count} iterations"
        last = op.first + (self.count - 1) * op.stride
        return f"its last iteration takes what begins at {last} of {limit}" if last >= limit else ""

    def _drain(self, op: Drain) -> str:
        assert self.strip is not None
        wanted = 0 if self.stationary is Stationary.IS else self.strip.rows
        if op.rows != wanted:
            return f"it takes {op.rows} rows from PEs that hold {wanted}"
        if self.stationary is Stationary.WS:
            return "WS drains all columns in every iteration" if op.first or op.stride else ""
        if self.load and (op.first, op.stride) != (self.load.first, self.load.stride):
            return f"it drains other columns than those that load.data takes, from {self.load.first} by {self.load.stride}"
        return "only WS comes to the same sums again" if op.mode is Mode.RESUME else ""


def _configure(op: Configure) -> str:
    if not 1 <= op.lanes <= 64:
        return f"links of {op.lanes} values, and there are 1 to 64"
    if (op.weights is Number.F32) != (op.data is Number.F32) or op.weights is Number.U8:
        return f"weights {op.weights.name} do not go with data {op.data.name}"
    low, high = {Number.F32: (0, 0), Number.I8: (-128, 127), Number.U8: (0, 255)}[op.data]
    return f"{op.zero} cannot stand for 0 in {op.data.name}" if not low <= op.zero <= high else ""


def _windows(op: Windows) -> str:
    positive = ("images", "channels", "height", "width", "kernel_h", "kernel_w", "stride_h", "stride_w")
    for name in (*positive, "dilation_h", "dilation_w", "out_h", "out_w"):
        if getattr(op, name) == 0:
            return f"{name} is 0"
    return ""
