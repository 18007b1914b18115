"""Systolic arrays: FlexiSAGA's dataflows and SAT's n:m engine, as micro-op streams in bytes that a simulator executes."""

from sparsec.backends.systolic.closed_forms import dense_cycles, grouped_cycles, roofline, sparse_cycles
from sparsec.backends.systolic.dataflow import SEVEN, Dataflow
from sparsec.backends.systolic.gemm import Gemm, product
from sparsec.backends.systolic.lower import Lowered, Mapping, lower
from sparsec.backends.systolic.machine import Machine, parse_machine
from sparsec.backends.systolic.simulate.counts import Counts, Run
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.stream import decode, encode
from sparsec.backends.systolic.text import assemble, disassemble

__all__ = [
    "SEVEN",
    "Counts",
    "Dataflow",
    "Gemm",
    "Level",
    "Lowered",
    "Machine",
    "Mapping",
    "Run",
    "assemble",
    "decode",
    "dense_cycles",
    "disassemble",
    "encode",
    "grouped_cycles",
    "lower",
    "parse_machine",
    "product",
    "roofline",
    "simulate",
    "sparse_cycles",
]
