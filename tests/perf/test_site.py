"""What a site of 100,000 records costs: ranked, made, written; and what it costs when nothing changed."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from harness.publish import folder, inventory, site
from tests.stores import large


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    if request.config.getoption("benchmark_disable"):
        pytest.skip("measured by `make bench`")
    made = tmp_path_factory.mktemp("large")
    large(made, 100_000)
    return made


def test_reading_and_ranking_a_store_of_a_hundred_thousand_records(benchmark: Any, output: Path) -> None:
    shelf = benchmark.pedantic(inventory.read, args=(output,), rounds=1)
    assert sum(len(table.rows) for table in shelf.standings) == 2000
    benchmark.extra_info["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_making_its_site(benchmark: Any, output: Path) -> None:
    files = benchmark.pedantic(site.pages, args=(inventory.read(output), output), rounds=1)
    folder.replace(output / "site", files)
    assert sum(name.startswith("rows/") for name in files) == 4 * site.PAGES
    assert folder.replace(output / "site", files).same == len(files)
    benchmark.extra_info["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    benchmark.extra_info["megabytes"] = sum(map(len, files.values())) / 1e6
