"""Make tests/golden/systolic/scalesim.csv again, or cycles for other products, with SCALE-Sim in an environment of its own.

    python -m venv scalesim-env && scalesim-env/bin/pip install scalesim==3.0.0 "numpy<2.3" "pandas<3"
    scalesim-env/bin/python benchmarks/systolic_scalesim.py > cycles.csv      the squares of the goldens
    scalesim-env/bin/python benchmarks/systolic_scalesim.py 40x30x20@8x4 ...      MxKxN@ROWSxCOLS, M positions, N output channels

SCALE-Sim's totals are one less than the cycles. It makes whole traces in memory: large products take minutes. This file needs
nothing of sparsec.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import sys
import tempfile
from pathlib import Path

PRODUCTS = [f"{shape}@{side}x{side}" for shape in ("196x1024x256", "3136x64x64", "128x768x3072") for side in (16, 32)]
COLUMNS = ("m", "k", "n", "rows", "cols", "os_cycles", "ws_cycles", "is_cycles")
CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: 2048
FilterSramSzkB: 2048
OfmapSramSzkB: 2048
IfmapOffset: 0
FilterOffset: 100000000
OfmapOffset: 200000000
Dataflow: {dataflow}
Bandwidth: 1000
ReadRequestBuffer: 512
WriteRequestBuffer: 512
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def cycles(m: int, k: int, n: int, rows: int, cols: int, dataflow: str) -> int:
    """What SCALE-Sim reports for a product as a 1x1 convolution of m positions, k channels and n filters."""
    from scalesim.scale_sim import scalesim  # type: ignore[import-not-found]  # only in the environment above

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            Path("array.cfg").write_text(CONFIG.format(rows=rows, cols=cols, dataflow=dataflow))
            Path("topology.csv").write_text(f"Layer, M, N, K,\nproduct, {m}, {n}, {k},\n")
            Path("layout.csv").write_text("Layer name," + "x," * 20 + "\nproduct," + "1," * 20 + "\n")
            run = scalesim(
                save_disk_space=True,
                verbose=False,
                config="array.cfg",
                topology="topology.csv",
                layout="layout.csv",
                input_type_gemm=True,
            )
            run.run_scale(top_path=".")
            report = next(Path(".").rglob("COMPUTE_REPORT.csv"))
            with report.open() as file:
                row = {key.strip(): value for key, value in next(csv.DictReader(file, skipinitialspace=True)).items() if key}
        finally:
            os.chdir(here)
    return int(float(row["Total Cycles"]))


def main() -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    for text in sys.argv[1:] or PRODUCTS:
        found = re.fullmatch(r"(\d+)x(\d+)x(\d+)@(\d+)x(\d+)", text)
        if found is None:
            sys.exit(f"{text!r} is not MxKxN@ROWSxCOLS")
        m, k, n, rows, cols = map(int, found.groups())
        out.writerow([m, k, n, rows, cols, *(cycles(m, k, n, rows, cols, flow) for flow in ("os", "ws", "is"))])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
