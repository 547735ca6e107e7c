"""What failed: how it is remembered, and whether it is worth another try. Imports no torch.

What would go wrong again is not tried by every sweep command for ever. A fit that says so itself (``FitError``: a loss that is not
finite) is given up at once, any other after as many runs as ``trainer.resources.attempts`` says; a change of its source or of its
config makes it new, and `harness retry` forgets it. What lies outside of a fit, a full disk say, never counts.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import provenance, trainer
from harness.errors import FitError, RequestError
from harness.provenance import now

if TYPE_CHECKING:
    from harness.plan import Job

Failure = Mapping[str, Any]

KEPT = 4000
"""Characters of a log that are remembered: its end."""

_MEANINGS = (
    ("OutOfMemoryError: CUDA", "the GPU ran out of memory; a smaller trainer.batch_size with a larger trainer.accumulate needs less"),
    ("ray.exceptions.OutOfMemoryError", "the machine ran out of memory and Ray ended the worker; trainer.resources.cpus: fewer at once"),
    ("low on memory", "the machine ran out of memory and Ray ended the worker; trainer.resources.cpus: fewer at once"),
    ("NodeDiedError", "the node of the worker died"),
    ("node has died", "the node of the worker died"),
    ("worker process has died", "the worker died"),
    ("ActorDiedError", "the worker died"),
    ("ActorUnavailableError", "the worker died"),
)
"""What stands in the log of a trial that Tune gave up, and what it means."""


def of(job: Job, error: BaseException) -> dict[str, Any]:
    """What is remembered of an error that a job met; called where it is handled."""
    told = str(error) if isinstance(error, (FitError, RequestError)) else f"{type(error).__name__}: {error}"
    outside = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
    log = traceback.format_exc()[-KEPT:]
    return _of(job) | {"error": " ".join(told.split()), "log": log, "final": isinstance(error, FitError), "outside": outside}


def of_death(job: Job, log: str, tries: int) -> dict[str, Any]:
    """The same of a job whose worker died, or met an error it could not handle, as often as was allowed in one run.

    Args:
        job: It.
        log: What is known of its end.
        tries: How often it was tried in this run.
    """
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "the worker died")
    told = next((meaning for sign, meaning in _MEANINGS if sign in log), last)
    return _of(job) | {"error": f"{told} ({tries} tries)" if tries > 1 else told, "log": log[-KEPT:], "final": False, "outside": False}


def last_words(log: str, folder: Path) -> str:
    """The end of what a worker wrote to its standard error, where the log of its death names its process and it ran on this machine.

    Args:
        log: Ray's account of the death.
        folder: Of Ray's logs.
    """
    process = re.search(r"\bpid[=:]\s*(\d+)", log)
    if process is None or not folder.is_dir():
        return ""
    files = sorted(folder.glob(f"worker-*-{process[1]}.err"))
    text = files[-1].read_text(errors="replace") if files else ""
    return "\n".join(line for line in text[-KEPT:].splitlines() if not line.startswith(":"))  # Ray's own marks begin so


def given_up(failure: Failure) -> bool:
    """Whether a sweep leaves it alone: it would fail again, and nothing has changed since."""
    sources = failure.get("sources") or {}
    final = failure.get("final", bool(sources))  # what older revisions wrote has sources where it was final
    if failure.get("outside") or not (final or attempts(failure) >= int(failure.get("allowed", trainer.Resources.attempts))):
        return False
    today = provenance.sources(*sources)
    return all(today.get(target) == digest for target, digest in sources.items())


def again(failure: Failure, before: Failure | None) -> dict[str, Any]:
    """A failure as it is remembered where the same has failed before: the runs are counted, unless its source has changed meanwhile."""
    same = before is not None and before.get("sources") == failure.get("sources")
    return {**failure, "attempts": attempts(before) + 1 if before is not None and same else 1}


def attempts(failure: Failure) -> int:
    """In how many runs it failed."""
    return int(failure.get("attempts", 1))


def of_draw(failure: Failure) -> bool:
    """Whether it is of a draw while arms are tuned: such a draw is left out of the choice, and nothing of the sweep has failed."""
    return failure.get("phase") == "tuning"


def described(failure: Failure) -> str:
    """Why, and what comes of it, in a line.

    >>> described({"error": "the worker died", "attempts": 2})
    'the worker died; in 2 runs, tried again by the next'
    >>> described({"error": "loss valence is not finite", "final": True})
    'loss valence is not finite; given up: harness retry'
    """
    runs = f"in {attempts(failure)} runs, " if attempts(failure) > 1 else ""
    return f"{failure.get('error', '')}; {runs}{'given up: harness retry' if given_up(failure) else 'tried again by the next'}"


def _of(job: Job) -> dict[str, Any]:
    """What is remembered of any failure: whose it is, and the hashes of what was run."""
    parts = [baseline for baseline, _, _ in job.entries]
    for spec in job.stages:
        parts += [spec.config, *([spec.weighting] if spec.weighting else [])]
    return {
        "sources": provenance.sources(*(part["_target_"] for part in parts)),
        "allowed": int(job.resources.get("attempts", trainer.Resources.attempts)),
        "job": job.name,
        "task": job.task["name"],
        "arms": sorted({arm for _, arm, _ in job.entries}),
        "fold": job.fold,
        "seed": job.seed,
        "written": now(),
        "process": os.getpid(),
        **({"phase": "tuning"} if job.tuning else {}),
    }
