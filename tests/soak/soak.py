"""A long sweep, watched: does the last evaluation cost what the first did, and does anything pile up?

    python tests/soak/soak.py --to /tmp/soak                # 100 fits, 5,000 evaluations: some minutes on two cores
    python tests/soak/soak.py --to /tmp/soak --scale full   # 2,000 fits, 100,000 evaluations

It runs `harness sweep toy_soak` in a process of its own, and prints what an evaluation took around some of them (from when the records say
they were written, so the fits between them are in it), and, from one look every few seconds, what the driver, the workers and the rest of
Ray held and how many files lay in the store. `soak.csv` in that folder has every look. The numbers are of this machine and of what else
it does; nothing is asserted. What follows `--` are more overrides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import polars as pl
import psutil

from harness.store import Store

PLUGIN = Path(__file__).resolve().parent.parent / "plugin"
FOLDERS = ("records", "predictions", "fits", "locks", "provenance", "failures")
MARKS = (1_000, 2_500, 4_000, 10_000, 25_000, 50_000, 75_000, 98_000)


def files(folder: Path) -> int:
    """Files below a folder; what is renamed or removed meanwhile may be counted or not."""
    return sum(len(names) for _, _, names in os.walk(folder))


def memory(driver: psutil.Process) -> dict[str, float]:
    """MiB (proportional set size) of the driver, of the processes that fit and evaluate, and of the rest of Ray."""
    held = dict.fromkeys(("driver", "workers", "largest worker", "ray"), 0.0)
    for process in [driver, *driver.children(recursive=True)]:
        try:
            title, size = " ".join(process.cmdline()), process.memory_full_info().pss / 2**20
        except psutil.Error:
            continue
        kind = "driver" if process == driver else "workers" if title.startswith("ray::ImplicitFunc") else "ray"
        held[kind] += size
        if kind == "workers":
            held["largest worker"] = max(held["largest worker"], size)
    return held


def watch(command: list[str], store: Path, *, every: float) -> pl.DataFrame:
    """Run it, and look now and then: one row a look."""
    looks: list[dict[str, float]] = []
    process = subprocess.Popen(command, cwd=PLUGIN)
    driver, began = psutil.Process(process.pid), time.monotonic()
    while process.poll() is None:
        time.sleep(every)
        try:
            held = memory(driver)
        except psutil.Error:
            break
        counted = {name: files(store / name) for name in FOLDERS}
        looks.append({"seconds": time.monotonic() - began, **held, **counted, "load": os.getloadavg()[0]})
    if process.wait():
        sys.exit(process.returncode)
    return pl.DataFrame(looks)


def paces(records: pl.DataFrame) -> pl.DataFrame:
    """Around each of :data:`MARKS`: milliseconds between two evaluations, and those that one of them itself took."""
    written = records.with_columns(pl.col("written").map_elements(lambda text: datetime.fromisoformat(text).timestamp(), pl.Float64))
    ordered = written.sort("written").select("written", "seconds")
    rows = []
    for mark in [mark for mark in MARKS if mark * 1.02 <= ordered.height or mark * 1.25 <= ordered.height]:
        around = max(500, mark // 50)
        near = ordered[max(0, mark - around) : mark + around]
        between = (near["written"][-1] - near["written"][0]) / (near.height - 1)
        rows.append({"evaluation": mark, "ms between two": between * 1e3, "ms of one (median)": (near["seconds"].median() or 0) * 1e3})
    return pl.DataFrame(rows)


def main() -> None:
    """Run, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="a new or half-finished output folder")
    parser.add_argument("--scale", default="small", choices=("small", "full"))
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    output = given.to.resolve()
    program = [sys.executable, "-c", "from harness.cli import main; main()"]
    command = [*program, "sweep", "toy_soak", "--config-dir", "configs", f"output_dir={output}", f"scale={given.scale}", *given.overrides]
    looks = watch(command, output / "store", every=given.every)
    looks.write_csv(output / "soak.csv")
    places = sorted({*(round(share * (looks.height - 1)) for share in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0))})
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        pl.Config.set_float_precision(1)
        print(paces(Store(output / "store").records()), looks[places], sep="\n")


if __name__ == "__main__":
    main()
