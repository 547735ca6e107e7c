"""A whole sweep with real Ray and real DeepSpeed, disturbed in every way a night disturbs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from harness.store import Store
from tests.conftest import PLUGIN, Run, command, toy
from tests.wandb_file import read as read_wandb

pytestmark = pytest.mark.cluster
FITS, EVALUATIONS = 4, 16 + 8 + 6  # toy: 2 folds × 2 seeds × 4 sizes; mean_label: 2 × 4; last_label: 2 × 3, as it needs a support


def scores(output: Path) -> pl.DataFrame:
    return (
        Store(output / "store").records().select("arm", "fold", "seed", "setting", "score", "sha256").sort("arm", "fold", "seed", "setting")
    )


@pytest.fixture(scope="module")
def undisturbed(harness: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    done = harness(*toy(output))
    assert done.returncode == 0, done.stderr
    return output


def test_a_sweep_makes_every_evaluation_of_its_plan_and_fits_once(undisturbed: Path) -> None:
    store = Store(undisturbed / "store")
    assert store.records().height == EVALUATIONS
    assert len(store.fits()) == FITS
    assert store.failures() == {}
    for row in store.records().iter_rows(named=True):
        assert store.read_predictions(row["predictions"], row["sha256"]).height == 96 // 2


def test_the_toy_learns_and_beats_its_controls(undisturbed: Path) -> None:
    mean = scores(undisturbed).filter(pl.col("setting").str.contains('"size":2')).group_by("arm").agg(pl.col("score").mean())
    by_arm = dict(mean.iter_rows())
    assert by_arm["toy"] > 0.9 > max(by_arm["mean_label"], by_arm["last_label"]) + 0.3


def test_a_finished_sweep_is_read_without_ray_or_torch(undisturbed: Path) -> None:
    script = (
        f"import sys; sys.argv = ['harness', *{toy(undisturbed)!r}]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print('MODULES', end.code, sorted({'ray', 'torch', 'wandb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PLUGIN, capture_output=True, text=True, timeout=120, check=False)
    assert "MODULES 0 []" in done.stdout, done.stdout + done.stderr


def test_a_killed_driver_loses_nothing_and_the_same_command_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    arguments = command(*toy(tmp_path))
    # A group of its own, so that the kill reaches the driver alone and Ray's processes must notice by themselves.
    driver = subprocess.Popen(arguments, cwd=PLUGIN, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    records = tmp_path / "store" / "records"
    until = time.monotonic() + 300
    while len(list(records.glob("*.json"))) < 3 and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store" / "predictions").glob("*.parquet")}
    done = subprocess.run(arguments, cwd=PLUGIN, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path).equals(scores(undisturbed))
    recorded = set(Store(tmp_path / "store").records()["evaluation"])
    again = [name for name, when in kept.items() if (tmp_path / "store" / "predictions" / name).stat().st_mtime_ns != when]
    assert len(kept) >= 3
    assert {name.removesuffix(".parquet") for name in kept} <= recorded
    assert len(again) <= 2, "at most what each of two workers had in hand is done again"


def test_a_killed_worker_resumes_inside_its_fit(harness: Run, undisturbed: Path, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    done = harness(*toy(tmp_path / "out", "arms=toy", "fold=0", "seed=0", f"baseline.stages.brightness.die_once={marker}"))
    assert done.returncode == 0, done.stderr
    assert marker.exists()
    expected = scores(undisturbed).filter(arm="toy", fold=0, seed=0)
    assert scores(tmp_path / "out")["sha256"].to_list() == expected["sha256"].to_list()


def test_one_fit_that_fails_stops_no_other_and_says_why(harness: Run, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path, name="toy_nan"))
    assert done.returncode == 1, done.stdout + done.stderr
    made = Store(tmp_path / "store").records()
    assert set(made["arm"]) == {"toy"}
    assert made.height == 2
    assert "Traceback" not in done.stdout + done.stderr
    failures = [failure["error"] for failure in Store(tmp_path / "store").failures().values()]
    assert any("step" in error and "valence" in error for error in failures), failures
    assert any("not finite" in error for error in failures if "step" not in error), failures
    assert "broken" in done.stdout + done.stderr
    status = harness("status", "toy_nan", "--config-dir", "configs", f"output_dir={tmp_path}")
    assert status.returncode == 1
    assert "failed" in status.stdout


def test_a_tuned_sweep_runs_its_draws_then_its_refits_and_what_diverges_fails_alone(harness: Run, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path, name="toy_tuned"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "tuning: 9 fits" in done.stderr
    assert "refitting: 4 fits" in done.stderr
    assert "failed: broken: 2 evaluations: none of its 3 draws can be chosen" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    store = Store(tmp_path / "store")
    by_arm = {arm: (rows.height, *sorted(set(rows["seed"]))) for (arm,), rows in store.records().group_by("arm")}
    assert by_arm == {"toy": (5, 0, 1, 100), "flaky": (4, 0, 1, 100), "mean_label": (1, 0)}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "checked.parquet"}
    again = harness(*toy(tmp_path, name="toy_tuned"))
    assert (again.returncode, again.stdout) == (1, done.stdout)
    assert "to run" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "checked.parquet"} == files
    more = harness(*toy(tmp_path, "tune.draws=4", "arms=toy", name="toy_tuned"))
    assert more.returncode == 0, more.stderr
    assert "tuning: 1 fits and 1 evaluations to run" in more.stderr, "the first draws of four are those of three"


def test_a_search_with_early_stopping_ends_with_a_refit_and_is_read_without_ray_or_optuna(harness: Run, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path, "cluster.cpus=1", name="toy_searched"))  # one after the other, so that who is stopped is no chance
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("tuning: ") == 2
    assert "tuning: 2 fits" in done.stderr, "the second round is asked once the first is done"
    assert "refitting: 1 fits" in done.stderr
    assert "Budgets are equal: 20 epochs" in done.stdout + done.stderr
    store = Store(tmp_path / "store")
    assert store.failures() == {}
    notes = [json.loads(path.read_text()) for path in store.root.glob("fits/*/rungs.json")]
    assert len(notes) == 5
    assert all(set(note["losses"]) <= {"1", "2"} for note in notes)
    stopped = [note["stopped"] for note in notes if note["stopped"]]
    assert len(stopped) >= 2, "of three random learning rates, the first is by far the best"
    assert len(store.fits()) == 5 - len(stopped) + 1
    (tried,) = tmp_path.rglob("tried.csv")
    by_state = dict(pl.read_csv(tried).group_by("state").agg(pl.col("epochs_spent").sum()).iter_rows())
    assert by_state == {"stopped": sum(stopped), "done": 4 * (5 - len(stopped))}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "checked.parquet"}
    script = (
        f"import sys; sys.argv = ['harness', *{toy(tmp_path, 'cluster.cpus=1', name='toy_searched')!r}]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print('MODULES', end.code, sorted({'ray', 'torch', 'wandb', 'pandas', 'optuna'} & set(sys.modules)))"
    )
    again = subprocess.run([sys.executable, "-c", script], cwd=PLUGIN, capture_output=True, text=True, timeout=120, check=False)
    assert "MODULES 0 []" in again.stdout, again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "checked.parquet"} == files


def test_two_workers_score_as_one_within_tolerance(harness: Run, undisturbed: Path, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path, "arms=toy", "fold=0", "seed=0", "trainer.resources.workers=2"))
    assert done.returncode == 0, done.stderr
    expected = scores(undisturbed).filter(arm="toy", fold=0, seed=0)
    found = scores(tmp_path)
    assert found["setting"].to_list() == expected["setting"].to_list()
    assert found["score"].to_list() == pytest.approx(expected["score"].to_list(), abs=1e-3)
    assert {fit["world_size"] for fit in Store(tmp_path / "store").fits()} == {2}
    assert {fit["fit"] for fit in Store(tmp_path / "store").fits()} <= {fit["fit"] for fit in Store(undisturbed / "store").fits()}


def test_two_sweeps_at_once_on_one_store_train_each_fit_once(undisturbed: Path, tmp_path: Path) -> None:
    drivers = [
        subprocess.Popen(command(*toy(tmp_path, "fold=0", "seed=0")), cwd=PLUGIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for driver in drivers:
        _, errors = driver.communicate(timeout=400)
        assert driver.returncode == 0, errors
    wanted = scores(undisturbed).filter(fold=0, seed=0)
    assert scores(tmp_path).equals(wanted)
    fits = [run for run in map(read_wandb, tmp_path.glob("wandb/offline-run-*/*.wandb")) if run["run"]["type"] == "fit"]
    assert len(fits) == 1


@pytest.fixture
def read_only(undisturbed: Path) -> Iterator[Path]:
    """A finished output that cannot be written, as a disk with errors or a snapshot of a file server cannot."""
    if subprocess.run(["mount", "--bind", undisturbed, undisturbed], capture_output=True, check=False).returncode:
        pytest.skip("to mount something takes root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", undisturbed], check=True)
        yield undisturbed
    finally:
        subprocess.run(["umount", "-l", undisturbed], check=True)


def test_a_store_that_cannot_be_written_is_read_and_only_what_must_write_says_no(harness: Run, read_only: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "new").touch()
    reads = {
        "status": ("status", "toy", "--config-dir", "configs", f"output_dir={read_only}"),
        "store": ("status", "--output-dir", str(read_only)),
        "leaderboard": ("leaderboard", "--output-dir", str(read_only)),
        "compare": ("compare", "toy@support.size=2", "mean_label@support.size=2", "--task", "toy", "--output-dir", str(read_only)),
        "publish": ("publish", "--to", str(tmp_path / "site"), "--output-dir", str(read_only)),
        "finished": toy(read_only),
    }
    for what, arguments in reads.items():
        done = harness(*arguments)
        assert done.returncode == 0, (what, done.stderr)
        assert "Traceback" not in done.stderr, what
        assert ("files written" if what == "publish" else "toy") in done.stdout + done.stderr, what
    assert (tmp_path / "site" / "index.html").is_file()
    unfinished = harness(*toy(read_only, "seed=7"))
    assert unfinished.returncode == 2, unfinished.stderr
    (line,) = [line for line in unfinished.stderr.splitlines() if "read-only" in line]
    assert line.startswith(f"error: cannot write {read_only}"), line
    assert "Traceback" not in unfinished.stderr


def test_wandb_holds_one_run_a_fit_with_losses_by_name_and_the_table(undisturbed: Path) -> None:
    runs = [read_wandb(path) for path in undisturbed.glob("wandb/offline-run-*/*.wandb")]
    fits = [run for run in runs if run["run"]["type"] == "fit"]
    assert len(fits) == FITS
    assert {run["run"]["group"] for run in runs} == {"toy"}
    for run in fits:
        assert len(run["history"]) == 4
        assert {"train/valence", "train/arousal", "weight/valence"} <= set(run["history"][0])
        assert run["config"]["stage"]["width"] == 16
        assert any(name.endswith("ccc") for name in run["summary"])
    assert any(kind == "leaderboard" for run in runs for _, kind in run["artifacts"])


def test_no_key_is_written(undisturbed: Path) -> None:
    written = [path for path in undisturbed.rglob("*") if path.is_file() and path.suffix in {".json", ".md", ".html", ".yaml"}]
    assert written
    secrets = [value for name, value in os.environ.items() if name.endswith(("_KEY", "_TOKEN", "_PASSWORD")) and len(value) > 8]
    for path in written:
        text = path.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), path


def test_a_broken_request_is_one_line_and_exit_status_2(harness: Run, tmp_path: Path) -> None:
    for arguments, expected in [
        (toy(tmp_path, "trainer.epoch=3"), "did you mean 'trainer.epochs'?"),
        (toy(tmp_path, "arms=toi"), "did you mean 'toy'?"),
        (toy(tmp_path, "task.root=/nowhere"), "no such folder: /nowhere"),
        (toy(tmp_path, "fold=7"), "folds 0 to 1"),
        (toy(tmp_path, "evaluate.support.size=many"), "many"),
        (toy(tmp_path, name="toi"), "did you mean 'toy'?"),
        (["swep"], "did you mean 'sweep'?"),
        (toy(tmp_path, "hello"), "write it as key=value"),
    ]:
        done = harness(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("reading frames")]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        assert expected in done.stderr


def test_a_dry_run_shows_fits_and_evaluations_and_runs_nothing(harness: Run, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path, "--dry-run", "--format", "json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert sum(row["state"] == "pending" for row in rows) == EVALUATIONS
    assert {row["arm"]: row["why"] for row in rows if row["state"] == "impossible"} == {
        "last_label": "last_label needs at least 1 support frame"
    }
    assert Store(tmp_path / "store").records().is_empty()
