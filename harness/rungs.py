"""Which draws are not worth their last epochs: Ray Tune's successive halving, one bracket for each arm and cell of a sweep.

Arms do not crowd out each other, and all have the same rungs. A bracket knows fits and not trials, so that what the store remembers
of fits that ended before this process began can be told to it first: a killed sweep goes on with the same standards.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Halving:
    """``tune.stop: {name: asha, …}``.

    Attributes:
        grace: Epochs that every draw has; the first rung.
        factor: Of the draws that reach a rung, about one in so many goes on; each rung is so many times higher than the one below.
    """

    grace: int = 1
    factor: int = 3

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs after which a fit of ``epochs`` may be stopped.

        >>> Halving(1, 3).rungs(15), Halving(2, 2).rungs(8), Halving(1, 3).rungs(9)
        ((1, 3, 9), (2, 4), (1, 3))
        """
        found, rung = [], self.grace
        while rung < epochs:
            found.append(rung)
            rung *= self.factor
        return tuple(found)


def loss_of(metrics: Mapping[str, Any]) -> float | None:
    """The mean over the validation losses of an epoch, as a trainer selects epochs by; None where it has none."""
    losses = [float(value) for name, value in metrics.items() if name.startswith("validation/")]
    return sum(losses) / len(losses) if losses else None


class Brackets:
    """What each fit has reached, and who is to stop."""

    def __init__(self, rule: Halving) -> None:
        self._rule = rule
        self._brackets: dict[str, Any] = {}

    def recall(self, bracket: str, fit: str, epochs: int, losses: Sequence[float]) -> None:
        """Tell what a fit that has ended reached, epoch after epoch from the first."""
        for epoch, loss in enumerate(losses, start=1):
            self.stops(bracket, fit, epochs, epoch, loss)

    def stops(self, bracket: str, fit: str, epochs: int, epoch: int, loss: float) -> bool:
        """Whether a fit is to stop here.

        Args:
            bracket: Arm and cell, whose fits compete.
            fit: Which.
            epochs: How many it may have, the same for all in the bracket.
            epoch: After which it is, from 1.
            loss: On the validation part; one that is not finite is worse than any other.
        """
        if not self._rule.rungs(epochs) or epoch >= epochs:
            return False
        from ray.tune.schedulers import ASHAScheduler, TrialScheduler

        if bracket not in self._brackets:
            limits = {"grace_period": self._rule.grace, "reduction_factor": self._rule.factor, "max_t": epochs}
            self._brackets[bracket] = ASHAScheduler("epoch", "loss", "min", **limits, stop_last_trials=False)
        scheduler, trial = self._brackets[bracket], SimpleNamespace(trial_id=fit)
        if fit not in scheduler._trial_info:
            scheduler.on_trial_add(None, trial)
        worst = sys.float_info.max / 4  # its percentiles are interpolated, which infinity does not survive
        finite = loss if math.isfinite(loss) else worst
        return bool(scheduler.on_trial_result(None, trial, {"epoch": epoch, "loss": finite}) == TrialScheduler.STOP)
