"""On a GPU: what is learned is right in every precision, and a fit goes on to the same bits. A small part of it runs on the CPU, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness import training
from harness.preemption import Preempted
from tests.gpu import table
from tests.harness.fitting import Told, same

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
LIMITS = {"fp32": (1e-3, 1e-2), "bf16": (0.05, 0.3), "fp16": (0.01, 0.05)}
"""Of the losses and of the gradient; convolutions of a GPU are in TF32."""


def _right(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        most = LIMITS[row["precision"]]
        assert row["losses off by"] < most[0], row
        assert row["gradient off by"] < most[1], row


def test_the_tables_can_be_made_on_a_cpu() -> None:
    rows = table.correctness(torch.device("cpu"), ["fp32"], ["mt_clar_sl", "mtt"])
    assert [row["stage"] for row in rows] == ["mt_clar_sl pairs", "mt_clar_sl sl", "mtt tokens"]
    assert all(0 < row["gradient off by"] < 1e-4 for row in rows), "float32 against float64"
    (row,) = table.speed(table.SMALL, torch.device("cpu"), ["bf16, ZeRO 3, all offloaded"])
    assert all(value > 0 for value in row.values() if not isinstance(value, str))
    lines = table.table(rows).splitlines()
    assert lines[0].split("  ")[0] == "stage"
    assert len(lines) == 4


@pytest.mark.parametrize("baseline", [pytest.param(name, marks=ON_GPU) for name in table.BASELINES])
@pytest.mark.parametrize("precision", list(table.PRECISIONS))
def test_losses_and_gradients_are_those_of_float64(baseline: str, precision: str) -> None:
    _right(table.correctness(torch.device("cuda"), [precision], [baseline]))


@pytest.mark.parametrize("name", [pytest.param(name, marks=ON_GPU) for name in table.CONFIGURATIONS])
def test_a_fit_that_left_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    data, device = table.faces(table.SMALL.frames, table.SMALL.side), torch.device("cuda")
    arguments = (table.SMALL, data, device, table.CONFIGURATIONS[name])
    whole = table.fitted(*arguments, tmp_path / "whole")
    with pytest.raises(Preempted):
        table.fitted(*arguments, tmp_path / "cut", context=Told(tmp_path / "cut", at=4))
    assert same(table.fitted(*arguments, tmp_path / "cut"), whole)


@pytest.mark.parametrize("name", [pytest.param(name, marks=ON_GPU) for name in table.CONFIGURATIONS])
def test_a_fit_learns_what_it_learns_on_the_cpu(name: str, tmp_path: Path) -> None:
    data = table.faces(table.SMALL.frames, table.SMALL.side)
    here = table.fitted(table.SMALL, data, torch.device("cpu"), {}, tmp_path / "cpu")
    there = table.fitted(table.SMALL, data, torch.device("cuda"), table.CONFIGURATIONS[name], tmp_path / "gpu")
    for key in here.history[0]:
        if key.startswith("train/"):
            assert there.history[0][key] == pytest.approx(here.history[0][key], rel=0.1, abs=0.05), key


@pytest.mark.parametrize("precision", [pytest.param(name, marks=ON_GPU) for name in ("fp32", "bf16")])
def test_what_is_recomputed_takes_less_memory(precision: str, tmp_path: Path) -> None:
    size = table.Size(256, 112, 128, (32, 64, 128, 256), 2)
    data = table.faces(size.frames, size.side)
    peaks = []
    for again in (False, True):
        settings = {"precision": precision, "resources": {"activation_checkpointing": again}}
        made: training.Fitted = table.fitted(size, data, torch.device("cuda"), settings, tmp_path / str(again))
        peaks.append(made.working_memory)
    assert peaks[1] < 0.8 * peaks[0]
