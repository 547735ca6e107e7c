"""What two workers do for the tests: ``RANK=0 WORLD_SIZE=2 … python tests/harness/two_workers.py FOLDER``, and the same with ``RANK=1``.

Starting them takes longer than all their fits, so one pair does what every test asks of two workers, into a folder that the tests read.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import training
from harness.preemption import Preempted
from tests.harness.fitting import Faces, LearnedWeights, Told, fit, same

CASES: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 15},
    "augmented": {"augment": {"flip": 0.5, "rotate": 20, "scale": [0.8, 1.2], "brightness": 0.2, "erase": 0.5}, "resources": {"zero": 1}},
    "accumulated": {"accumulate": 2, "selection": "validation", "schedule": {"name": "plateau"}, "resources": {"zero": 2}},
    "clipped": {"clip": 0.1, "resources": {"zero": 3}},
}


class Two:
    """One of the two."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rank, self.world = folder, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def local(self, name: str) -> training.Local:
        return training.Local(self.folder / name, rank=self.rank, world=self.world)

    def learn(self) -> None:
        """Every case, and once more from the checkpoint of the last epoch but one."""
        told = {}
        for case, trainer in CASES.items():
            fitted = fit(Faces(), self.folder, LearnedWeights(), self.local(case), **trainer)
            told[case] = fitted.history
            training.save_weights(fitted.state, self.folder / f"{case}-{self.rank}.safetensors")
            again = fit(Faces(), self.folder, LearnedWeights(), self.local(case), **trainer)
            assert again.epochs == 4
            assert same(again, fitted), f"{case} resumed with two workers"
        (self.folder / f"history-{self.rank}.json").write_text(json.dumps(told), encoding="utf-8")

    def leave(self) -> None:
        """In the middle of an epoch, when rank 1 alone has been told to; then go on to where an undisturbed fit ends."""
        whole = fit(Faces(), self.folder, LearnedWeights(), self.local("whole"), resources={"zero": 2})
        told = Told(self.folder / "left", at=8 if self.rank == 1 else 1000, rank=self.rank, world=self.world)
        with pytest.raises(Preempted, match="left at epoch 2, step 2"):
            fit(Faces(), self.folder, LearnedWeights(), told, resources={"zero": 2})
        assert same(fit(Faces(), self.folder, LearnedWeights(), self.local("left"), resources={"zero": 2}), whole), "left and resumed"


if __name__ == "__main__":
    two = Two(Path(sys.argv[1]))
    two.learn()
    two.leave()
