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
from tests.harness.fitting import Faces, LearnedWeights, Odd, Told, Uneven, fit, same

CASES: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 15},
    "augmented": {"augment": {"flip": 0.5, "rotate": 20, "scale": [0.8, 1.2], "brightness": 0.2, "erase": 0.5}, "resources": {"zero": 1}},
    "accumulated": {"accumulate": 2, "selection": "validation", "schedule": {"name": "plateau"}, "resources": {"zero": 2}},
    "clipped": {"clip": 0.1, "resources": {"zero": 3}},
}

SLOW = {"lr": 0.003}  # at 0.01, Adam makes 1e-4 of a rounding error in four epochs
MOVES: dict[str, dict[str, Any]] = {
    "zero0": {**SLOW, "optimizer": "sgd", "resources": {"zero": 0}},
    "zero1": {**SLOW, "clip": 0.5, "resources": {"zero": 1}},
    "zero2": {**SLOW, "accumulate": 2, "schedule": {"name": "cosine", "warmup": 1}, "resources": {"zero": 2}},
    "zero3": {**SLOW, "selection": "validation", "resources": {"zero": 3}},
}
"""Fits that begin with one number of workers, leave in the middle of an epoch, and go on with another."""

CLIPPED: dict[str, Any] = {"epochs": 1, "batch_size": 64, "optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "clip": 0.01}
"""One step, as long as the clipped gradient."""


class Two:
    """One of the two."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rank, self.world = folder, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def local(self, name: str) -> training.Local:
        return training.Local(self.folder / name, rank=self.rank, world=self.world)

    def learn(self) -> None:
        """Every case, and two of them once more from the checkpoint of the last epoch but one."""
        told = {}
        for case, trainer in CASES.items():
            fitted = fit(Faces(), self.folder, LearnedWeights(), self.local(case), **trainer)
            told[case] = fitted.history
            training.save_weights(fitted.state, self.folder / f"{case}-{self.rank}.safetensors")
            if case in ("accumulated", "clipped"):
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

    def move(self) -> None:
        """Go on with what one worker has left, and leave what one worker goes on with."""
        for name, trainer in MOVES.items():
            fitted = fit(Odd(), self.folder, LearnedWeights(), self.local(f"of-one-{name}"), **trainer)
            training.save_weights(fitted.state, self.folder / f"of-one-{name}-{self.rank}.safetensors")
            told = Told(self.folder / f"of-two-{name}", at=8, rank=self.rank, world=self.world)
            with pytest.raises(Preempted):
                fit(Odd(), self.folder, LearnedWeights(), told, **trainer)

    def clip(self) -> None:
        """One step at every stage of ZeRO."""
        for zero in range(4):
            resources = {"zero": zero, "checkpoint_every": 0}
            fitted = fit(Faces(), self.folder, Uneven(), self.local("clip"), resources=resources, **CLIPPED)
            training.save_weights(fitted.state, self.folder / f"clip-{zero}-{self.rank}.safetensors")


if __name__ == "__main__":
    two = Two(Path(sys.argv[1]))
    two.learn()
    two.leave()
    two.move()
    two.clip()
