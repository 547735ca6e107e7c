"""What a site of 100,000 records costs: ranked, made, written; and what it costs when nothing changed."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.publish import folder, inventory, site
from tests.perf.measuring import Measure
from tests.stores import large


def _output(measure: Measure) -> Path:
    count = measure.sized(100_000, 500, 500)
    return measure.folder("large", lambda made: large(made, count))


def test_reading_and_ranking_a_store_of_a_hundred_thousand_records(measure: Measure) -> None:
    output = _output(measure)
    shelf = measure(
        lambda: inventory.read(output),
        setup=lambda: shutil.rmtree(output / "cache", ignore_errors=True),
        rounds=measure.sized(1, 2, 1),
    )
    assert sum(len(table.rows) for table in shelf.standings) == measure.sized(2000, 10, 10)


def test_making_its_site(measure: Measure, tmp_path: Path) -> None:
    output = _output(measure)
    shelf = inventory.read(output)
    most = measure.sized(site.PAGES, 4, 2)
    files = measure(lambda: site.pages(shelf, output, most=most), rounds=measure.sized(1, 2, 1))
    folder.replace(tmp_path / "site", files)
    assert sum(name.startswith("rows/") for name in files) == measure.sized(1600, 6, 3)  # of four tables, or two
    assert folder.replace(tmp_path / "site", files).same == len(files)
    measure.note(megabytes=round(sum(map(len, files.values())) / 1e6, 1))
