"""W&B as a mirror: one run a fit, grouped by sweep. Offline unless told otherwise; nothing is ever read back from it.

A tracker that cannot write costs a line in the log, never a fit.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.config import Config
from harness.plan import Job, StageSpec
from harness.store import Store

logger = logging.getLogger(__name__)


class Mirror:
    """One W&B run, or none."""

    def __init__(self, run: Any | None, store: Store | None = None) -> None:
        self._run, self._store = run, store

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Losses by name and whatever else an epoch reported."""
        self._try(lambda run: run.log(dict(metrics)))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """The metrics of one evaluation, under its arm and setting."""
        metrics = json.loads(record["metrics"])
        where = f"{record['arm']} {record['setting']}"
        self._try(lambda run: run.summary.update({f"{where}/{name}": value for name, value in metrics.items() if value is not None}))

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """A table as an artifact of the run."""

        def log(run: Any) -> None:
            import wandb

            columns: list[str | int] = list(rows[0]) if rows else []
            table = wandb.Table(columns=columns, data=[list(row.values()) for row in rows])
            artifact = wandb.Artifact(name, type="leaderboard")
            artifact.add(table, "leaderboard")
            run.log_artifact(artifact)
            run.log({name: table})

        self._try(log)

    def files(self, name: str, files: Mapping[str, bytes]) -> None:
        """Files as an artifact of the run; they are read before this returns."""

        def log(run: Any) -> None:
            import wandb

            with tempfile.TemporaryDirectory() as folder:
                artifact = wandb.Artifact(name, type="leaderboard-files")
                for file, data in files.items():
                    path = Path(folder) / file
                    path.write_bytes(data)
                    artifact.add_file(str(path), name=file, policy="mutable")
                run.log_artifact(artifact)

        self._try(log)

    def pictures(self, pictures: Mapping[str, bytes]) -> None:
        """PNGs, by name."""

        def log(run: Any) -> None:
            import wandb
            from PIL import Image

            run.log({name: wandb.Image(Image.open(io.BytesIO(data))) for name, data in pictures.items()})

        if pictures:
            self._try(log)

    def finish(self) -> None:
        """End the run; what it wrote is kept where the store is."""

        def end(run: Any) -> None:
            folder = Path(run.dir).parent
            run.finish()
            if self._store is not None and folder.is_relative_to(self._store.output):
                self._store.keep(folder)

        self._try(end)
        self._run = None

    def _try(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # a mirror that breaks must not break what it mirrors
            logger.warning("W&B: %s; this run is no longer mirrored", error)
            self._run = None


def open_run(
    tracker: Config, store: Store, *, name: str, group: str, kind: str, config: Mapping[str, Any], identity: str | None = None
) -> Mirror:
    """A W&B run under ``OUTPUT/wandb`` of a store, or an empty mirror where the tracker is disabled or cannot start."""
    if tracker["mode"] == "disabled":
        return Mirror(None)
    output = store.output
    try:
        for variable, folder in {
            "WANDB_DIR": "",
            "WANDB_DATA_DIR": "data",
            "WANDB_CACHE_DIR": "cache",
            "WANDB_CONFIG_DIR": "config",
        }.items():
            path = output / "wandb" / folder if folder else output
            path.mkdir(parents=True, exist_ok=True)
            os.environ.setdefault(variable, str(path))
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        run = wandb.init(
            mode=tracker["mode"],
            project=tracker["project"],
            entity=tracker["entity"],
            dir=str(output),
            id=identity,
            resume="allow" if identity and tracker["mode"] == "online" else None,
            name=name,
            group=group,
            job_type=kind,
            config=dict(config),
            reinit="finish_previous",
            settings=wandb.Settings(
                console="off", x_disable_stats=True, x_disable_meta=True, save_code=False, disable_git=True, disable_code=True, silent=True
            ),
        )
    except Exception as error:  # no tracker is no reason not to train
        logger.warning("W&B: %s; going on without it", error)
        return Mirror(None)
    return Mirror(run, store)


def start(job: Job, spec: StageSpec, store: Store) -> Mirror:
    """The run of a fit about to train."""
    config = {
        "stage": spec.config,
        "trainer": spec.trainer,
        "weighting": spec.weighting,
        "fold": job.fold,
        "seed": job.seed,
        "fit": spec.fit,
    }
    return open_run(
        job.tracker,
        store,
        name=f"{spec.name}-{spec.fit[:8]}",
        group=job.tracker.get("group", "run"),
        kind="fit",
        config=config,
        identity=spec.fit,
    )


def resume(job: Job, store: Store) -> Mirror:
    """The run its evaluations are written to: that of the fit just trained goes on; a control gets its own."""
    import sys

    wandb = sys.modules.get("wandb")
    current = wandb.run if wandb is not None and job.tracker["mode"] != "disabled" else None
    if current is not None and current.id == job.name:
        return Mirror(current, store)
    return open_run(
        job.tracker,
        store,
        name=f"evaluate-{job.name[:8]}",
        group=job.tracker.get("group", "run"),
        kind="evaluation",
        config={"fit": job.name, "fold": job.fold, "seed": job.seed, "arms": sorted({arm for _, arm, _ in job.entries})},
    )


def publish(
    tracker: Config,
    store: Store,
    tables: Mapping[str, list[dict[str, Any]]],
    files: Mapping[str, bytes],
    pictures: Mapping[str, bytes],
) -> None:
    """Tables, their files and their pictures as one run: a table and an artifact each.

    Args:
        tracker: Its config.
        store: Beside which the run is written.
        tables: Name → rows; names as W&B takes them (letters, digits, ``_``, ``-``, ``.``).
        files: ``NAME/FILE`` → bytes.
        pictures: Name → PNG.
    """
    mirror = open_run(tracker, store, name="leaderboards", group="publish", kind="leaderboards", config={"tables": sorted(tables)})
    for name, rows in tables.items():
        mirror.table(name, rows)
        mirror.files(f"{name}-files", {path.rpartition("/")[2]: data for path, data in files.items() if path.startswith(f"{name}/")})
    mirror.pictures(pictures)
    mirror.finish()
