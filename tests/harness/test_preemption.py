"""A notice is a file that appears; a fit that sees one leaves, and ends later where it would have ended undisturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import training
from harness.preemption import Notice, Preempted
from tests.harness.fitting import Faces, LearnedWeights, Told, fit, same


def test_a_notice_is_given_by_any_of_its_files_and_stays_given(tmp_path: Path) -> None:
    notice = Notice([tmp_path / "one", tmp_path / "later" / "two"], every=0)
    assert not notice.given()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "two").touch()
    assert notice.given()
    (tmp_path / "later" / "two").unlink()
    assert notice.given()


def test_the_disk_is_asked_now_and_then(tmp_path: Path) -> None:
    notice = Notice([tmp_path / "one"], every=3600)
    assert not notice.given()
    (tmp_path / "one").touch()
    assert not notice.given()
    assert Notice([tmp_path / "one"], every=3600).given(), "a new one looks at once"


# Of the four steps and two batches of validation of an epoch: in the middle, after the last step, while validating, in another epoch
@pytest.mark.parametrize(
    ("at", "where", "trainer"),
    [
        (1, "epoch 1, step 1", {"schedule": {"name": "plateau", "patience": 0, "factor": 0.5}, "selection": "validation"}),
        (4, "epoch 1, step 4", {"clip": 0.1, "resources": {"zero": 3}}),
        (6, "epoch 1, step 4", {"schedule": {"name": "cosine", "warmup": 2}, "optimizer": "sgd", "resources": {"zero": 1}}),
        (9, "epoch 2, step 3", {"precision": "bf16", "resources": {"zero": 2, "checkpoint_every": 0}}),
        (4 + 3, "epoch 2, step 4", {"accumulate": 3, "augment": {"flip": 0.5}}),  # looks where gradients are applied: steps 3 and 4
    ],
)
def test_a_fit_that_left_ends_where_an_undisturbed_one_ends(tmp_path: Path, at: int, where: str, trainer: dict[str, Any]) -> None:
    whole = fit(Faces(), tmp_path / "whole", LearnedWeights(), **trainer)
    for _ in range(2):  # told again at the same place of what is left
        with pytest.raises(Preempted, match=f"left at {where}" if not _ else "left at"):
            fit(Faces(), tmp_path / "cut", LearnedWeights(), Told(tmp_path / "cut", at), **trainer)
    resumed = fit(Faces(), tmp_path / "cut", LearnedWeights(), **trainer)
    assert same(resumed, whole)
    assert (resumed.steps, resumed.selected_epoch) == (whole.steps, whole.selected_epoch)


def test_two_workers_leave_when_one_is_told(two_workers: Path) -> None:
    """They have checked themselves that they end where undisturbed ones do."""
    assert [path.name for path in (two_workers / "left").glob("epoch-*")] == ["epoch-000003"]


def test_a_long_epoch_is_kept_in_the_middle(tmp_path: Path) -> None:
    names: list[str] = []

    class Watched(training.Local):
        def keep(self, name: str, write: Any) -> None:
            names.append(name)
            super().keep(name, write)

    often = fit(Faces(), tmp_path / "often", context=Watched(tmp_path / "often"), epochs=2, resources={"checkpoint_minutes": 1e-9})
    middle = [f"epoch-{epoch:06d}-step-{step:09d}" for epoch in (0, 1) for step in (1, 2, 3, 4, 4, 4)]
    assert names == [*middle[:6], "epoch-000001", *middle[6:]]
    assert same(often, fit(Faces(), tmp_path / "whole", epochs=2))
