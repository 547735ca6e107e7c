"""What is under way, as a file that any process or machine can read: written by the worker now and then, and gone when it ends."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.plan import Job
    from harness.store import Store

EVERY = 1.0
"""Seconds between two writings; where each is a request to an object store, as many times more as :data:`RARER`."""
RARER = 20.0


class Progress:
    """Tells how far a job is. What cannot be written is not: a fit does not fail because nobody can watch it."""

    def __init__(self, job: Job, store: Store) -> None:
        self._path = store.root / "progress" / f"{job.name}.json"
        self._store, self._next, self._began = store, 0.0, time.time()
        self._every = EVERY * (RARER if store.elsewhere else 1.0)
        arms = sorted({arm for _, arm, _ in job.entries})
        self._facts = {"job": job.name, "task": job.task["name"], "arms": arms, "fold": job.fold, "seed": job.seed}

    def tell(self, **facts: Any) -> None:
        """What is new; written if the last writing is long enough ago."""
        self._facts |= facts
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + self._every
        whole = json.dumps(self._facts | {"began": self._began, "told": time.time()}).encode()
        with contextlib.suppress(Exception):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._store.elsewhere:
                self._store.write(self._path, whole)
            else:  # not flushed to the disk as what is kept is
                coming = self._path.with_suffix(".coming")
                coming.write_bytes(whole)
                coming.replace(self._path)

    def epoch(self, stage: str, epochs: int, metrics: Mapping[str, float]) -> None:
        """An epoch of a stage has ended."""
        losses = [value for name, value in metrics.items() if name.startswith("train/")]
        self.tell(stage=stage, epoch=int(metrics["epoch"]), epochs=epochs, loss=sum(losses) / len(losses) if losses else None)

    def end(self) -> None:
        """Nothing is under way any more."""
        with contextlib.suppress(Exception):
            self._store.remove(self._path)


def under_way(store: Store) -> list[dict[str, Any]]:
    """What the jobs that somebody works on last told, the longest under way first; of one whose worker died nothing."""
    found = []
    for path in store.progress():
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if store.running(path.stem):
            found.append(told)
    return sorted(found, key=lambda told: float(told.get("began", 0)))
