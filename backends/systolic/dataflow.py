"""The dataflows: which operand stays in the PEs, and which zeros of the weights are left out."""

from __future__ import annotations

from enum import Enum

from sparsec.backends.systolic.isa import Stationary


class Dataflow(Enum):
    """The seven of FlexiSAGA; dOS and dWS are SAT's dense ones, nmOS and nmWS its n:m ones. The value is the papers' name.

    Of W[M, K] X[K, N] an output-stationary array holds R rows of W by C columns of X, a weight-stationary one R reduced
    elements by C rows of W, an input-stationary one R reduced elements by C columns of X.
    """

    DOS = "dOS"
    DWS = "dWS"
    DIS = "dIS"
    SOS = "sOS"  # columns of W that are zero in all R rows of a strip are left out
    CSOS = "csOS"  # and columns without a common nonzero row are merged
    SWS = "sWS"  # columns of W that are zero in all C rows of a strip are left out
    SIS = "sIS"  # rows of W that are zero in all R reduced elements of a strip are left out
    NMOS = "nmOS"  # of every m reduced elements n are multiplied
    NMWS = "nmWS"  # the same with n of m weights resident

    @property
    def stationary(self) -> Stationary:
        """What stays in the PEs."""
        return _STATIONARY[self.value[-2:]]

    @property
    def sparse(self) -> bool:
        """Whether it leaves zeros out."""
        return self.value[0] != "d"

    @property
    def grouped(self) -> bool:
        """Whether weights have to be n:m."""
        return self.value.startswith("nm")


_STATIONARY = {"OS": Stationary.OS, "WS": Stationary.WS, "IS": Stationary.IS}
DENSE = (Dataflow.DOS, Dataflow.DWS, Dataflow.DIS)
SEVEN = (*DENSE, Dataflow.SOS, Dataflow.SWS, Dataflow.SIS, Dataflow.CSOS)
SAT = (Dataflow.DOS, Dataflow.DWS, Dataflow.NMOS, Dataflow.NMWS)
