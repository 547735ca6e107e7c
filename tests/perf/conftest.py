"""The fixture ``measure`` of every benchmark, and how large they are: ``--perf-size``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.perf.measuring import SIZES, TURNS, Measure


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--perf-size", choices=SIZES, help="of benchmarks; tiny, or full with --benchmark-enable")
    parser.addoption("--perf-folder", type=Path, help="where files that are costly to make are kept")


@pytest.fixture(scope="session")
def perf_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given: Path | None = request.config.getoption("--perf-folder")
    return given or tmp_path_factory.mktemp("perf")


@pytest.fixture
def measure(benchmark: BenchmarkFixture, request: pytest.FixtureRequest, perf_folder: Path) -> Measure:
    size = request.config.getoption("--perf-size") or ("modest" if TURNS in os.environ else "full" if benchmark.enabled else "tiny")

    def cache(name: str) -> Path:
        folder = perf_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    return Measure(benchmark, size, request.node.nodeid, cache)
