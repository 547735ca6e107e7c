"""Which draws are not worth their last epochs: Ray Tune's successive halving, one bracket for each arm and cell of a sweep.

Arms do not crowd out each other, and all have the same rungs. A bracket knows fits and not trials, so that what the store remembers
of fits that ended before this process began can be told to it first: a killed sweep goes on with the same standards.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.plan import Job
    from harness.store import Store


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


class Stopped(Exception):
    """A fit ends here: others do better."""


@dataclass(frozen=True)
class Note:
    """What is remembered of a fit that may be stopped: ``fits/FIT/rungs.json``.

    Attributes:
        losses: Rung → the loss on the validation part that it was reached with.
        stopped: The rung at which the fit was stopped, and the loss there; None where it goes on.
    """

    losses: Mapping[int, float]
    stopped: tuple[int, float] | None = None


def read(store: Store, fit: str, rule: Halving) -> Note:
    """The note of a fit; an empty one where there is none, or another rule wrote it."""
    known = store.rungs(fit)
    if known is None or known["rule"] != asdict(rule):
        return Note({})
    losses = {int(rung): float(loss) for rung, loss in known["losses"].items()}
    stopped = known["stopped"]
    return Note(losses, None if stopped is None else (stopped, losses[stopped]))


def write(store: Store, fit: str, rule: Halving, note: Note) -> None:
    """Remember a note."""
    store.keep_rungs(fit, {"rule": asdict(rule), "losses": dict(note.losses), "stopped": note.stopped and note.stopped[0]})


def loss_of(metrics: Mapping[str, Any]) -> float | None:
    """The mean over the validation losses of an epoch, as a trainer selects epochs by; None where it has none."""
    losses = [float(value) for name, value in metrics.items() if name.startswith("validation/")]
    return sum(losses) / len(losses) if losses else None


class Brackets:
    """What each fit has reached, and who is to stop."""

    def __init__(self, rule: Halving) -> None:
        self._rule = rule
        self._brackets: dict[str, Any] = {}

    def recall(self, bracket: str, fit: str, epochs: int, losses: Mapping[int, float]) -> None:
        """Tell what a fit reached before, by epoch."""
        for epoch, loss in sorted(losses.items()):
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


class Referee:
    """Hears of every rung that a draw reaches, and writes down whether it is to stop, before the draw may go on."""

    def __init__(self, jobs: Iterable[Job], store: Store) -> None:
        """What all draws of a plan reached before is recalled, whoever ran them.

        Args:
            jobs: Of the whole plan; those that may not be stopped are none of its business.
            store: Where it is remembered.
        """
        self._store = store
        self._brackets: dict[Halving, Brackets] = {}
        for job in jobs:
            if job.stop is not None:
                self._of(job.stop).recall(job.bracket, job.name, epochs_of(job), self._reached(job, job.stop))

    def hears(self, job: Job, epoch: int, loss: float) -> None:
        """A draw has come to a rung."""
        assert job.stop is not None
        stops = self._of(job.stop).stops(job.bracket, job.name, epochs_of(job), epoch, loss)
        losses = {**read(self._store, job.name, job.stop).losses, epoch: loss}
        write(self._store, job.name, job.stop, Note(losses, (epoch, loss) if stops else None))

    def _of(self, rule: Halving) -> Brackets:
        return self._brackets.setdefault(rule, Brackets(rule))

    def _reached(self, job: Job, rule: Halving) -> Mapping[int, float]:
        """Rung → loss; of a fit that was finished when nothing was to be stopped, from its history."""
        note = read(self._store, job.name, rule)
        if note.losses or self._store.fit(job.name) is None:
            return note.losses
        losses = {int(entry["epoch"]): loss_of(entry) for entry in self._store.history(job.name)}
        return {rung: loss for rung in rule.rungs(epochs_of(job)) if (loss := losses.get(rung)) is not None}


def epochs_of(job: Job) -> int:
    """How many the last stage of a job may have."""
    return int(job.stages[-1].trainer["epochs"])
