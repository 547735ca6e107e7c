"""Pictures of weights over training and of score against cost; what they look like was looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness import metrics
from harness.errors import RequestError
from harness.leaderboard import leaderboard
from harness.publish.report import Board, Study
from harness.publish.weights import COST, GAINS, against_cost, over_training, report
from harness.store import Store


def weights() -> pl.DataFrame:
    rows = [
        (arm, fit, epoch, loss, weight * (1 + 0.1 * epoch * fit))
        for arm, losses in {"equal <b>$x$": {"va": 1.0, "au": 1.0}, "imtl_g": {"va": -0.5, "au": 2.0, "au1": 1e-4, "au2": 300.0}}.items()
        for fit in (0, 1)
        for epoch in (1, 2, 3)
        for loss, weight in losses.items()
    ]
    return pl.DataFrame(rows, schema=["arm", "fit", "epoch", "loss", "weight"], orient="row")


def points(**more: list[object]) -> pl.DataFrame:
    columns = {"arm": ["equal", "mgda", "none"], "score": [1.0, 1.1, None], "lo": [0.9, None, None], "hi": [1.1, None, None]}
    return pl.DataFrame({**columns, "cost": [1.0, 2.5, 1.0], "reference": [True, False, False], **more})


def test_the_same_weights_give_the_same_bytes_of_both_kinds() -> None:
    first, second = (over_training(weights(), title="t <i>", note="n") for _ in range(2))
    assert first == second
    assert first["svg"].startswith(b"<?xml")
    assert first["png"].startswith(b"\x89PNG")
    assert b"<b>" not in first["svg"], "a name is drawn, not obeyed"


def test_the_same_costs_give_the_same_bytes_of_both_kinds() -> None:
    first, second = (against_cost(points(), title="t", score="p_mtl", cost="time") for _ in range(2))
    assert first == second
    assert first["png"].startswith(b"\x89PNG")


def test_where_all_cost_the_same_there_is_a_picture_all_the_same() -> None:
    assert against_cost(points(cost=[1.0, 1.0, 1.0]), title="t", score="s", cost="c")["svg"]


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(RequestError, match="no arm has weights"):
        over_training(weights().clear(), title="t")
    with pytest.raises(RequestError, match="no arm has both"):
        against_cost(points(score=[None, None, None]), title="t", score="s", cost="c")


# ── the report of a sweep ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def study(tmp_path: Path) -> tuple[Board, Study]:
    """Three arms that train and a control: one gains in valence what it pays in arousal, one trains twice as long an epoch."""
    store = Store(tmp_path)
    records, units = [], []
    errors = {"equal a": (0.3, 0.3), "equal b": (0.31, 0.3), "trade <i>": (0.05, 0.9), "slow": (0.28, 0.28), "mean": (1.5, 1.5)}
    for arm, error in errors.items():
        for seed in (0, 1):
            name = f"{arm}-{seed}"
            labels, noise = np.random.default_rng(0), np.random.default_rng([seed, *map(ord, arm)])
            y = labels.normal(0, 0.5, (240, 2))
            p = y + noise.normal(0, 1, y.shape) * error
            frame = pl.DataFrame({"clip": [str(i // 10) for i in range(240)], "subject": [str(i // 20) for i in range(240)]})
            frame = frame.with_columns(valence=y[:, 0], arousal=y[:, 1], valence_pred=p[:, 0], arousal_pred=p[:, 1])
            sums = metrics.units(frame, targets=("valence", "arousal"))
            units.append(sums.with_columns(evaluation=pl.lit(name)))
            known = {"evaluation": name, "fit": f"fit-{name}", "arm": arm, "baseline": arm, "baseline_version": 1, "control": arm == "mean"}
            known |= {
                "task": "t",
                "task_version": 1,
                "protocol": "p",
                "dataset": "d",
                "data": "f",
                "synthetic": True,
                "fold": 0,
                "seed": seed,
            }
            known |= {
                "fold": 0,
                "seed": seed,
                "score": metrics.metrics(sums)["ccc"],
                "metrics": "{}",
                "labels_used": 0,
                "n_samples": 240,
                "selection": "last",
            }
            records.append(known | {"n_clips": 24, "n_subjects": 12})
            if arm != "mean":
                seconds = 8.0 if arm == "slow" else 4.0
                trainer = {"resources": {"gpus": 0}}
                store.finish_fit(f"fit-{name}", {"trainer": trainer, "working_memory": 2**20})
                spent = {"seconds": 9.0, "processor_seconds": (seconds + seed / 10) / 4}
                history = [spent | {"epoch": e, "weight/a": 1.0, "weight/b": float(e), "train/a": 1.0} for e in (1, 2, 3, 4)]
                (store.fit_folder(f"fit-{name}") / "history.json").write_text(json.dumps(history))
    tuning = pl.DataFrame(
        {
            "arm": ["equal a", "equal a", "equal b"],
            "score": [0.9, 0.5, 0.8],
            "chosen": [False, True, True],
            "fit": ["gone", "fit-equal a-0", "fit-equal b-0"],
        }
    )
    frame, sums = pl.DataFrame(records), pl.concat(units)
    table = leaderboard(frame, sums, primary="ccc", draws=200)
    return Board("t", table, "ccc", ("note",), {}), Study(frame, sums, tuning, store)


def test_the_plain_sum_that_was_best_on_validation_is_the_one_to_beat(study: tuple[Board, Study]) -> None:
    board, looked_into = study
    made = report(board, looked_into, reference="equal", parts=["ccc_valence", "ccc_arousal"])
    gains = {row["method"]: row for row in made.tables[GAINS].to_dicts()}
    assert gains["equal b"]["gain"] == "the plain sum", "of what was chosen, not of what was tried"
    assert set(gains) == {"equal a", "equal b", "trade <i>", "slow"}, "a control has no weights"
    assert gains["trade <i>"]["trade"] == "+ ccc_valence, - ccc_arousal"
    assert gains["equal a"]["trade"] == ""
    wanted = board.table.filter(arm="slow")["score"][0] - board.table.filter(arm="equal b")["score"][0]
    assert gains["slow"]["gain"].startswith(f"{wanted:+.3f} [")


def test_costs_are_over_those_of_the_plain_sum(study: tuple[Board, Study]) -> None:
    cost = {row["arm"]: row for row in report(*study).tables[COST].to_dicts()}
    assert cost["equal b"]["time"] == 1
    assert cost["slow"]["time"] == pytest.approx(8.05 / 4.05)
    assert (cost["slow"]["memory"], cost["slow"]["seconds"], cost["slow"]["fits"]) == (1, pytest.approx(8.05 / 4), 2)


def test_the_report_draws_weights_and_costs_the_same_each_time(study: tuple[Board, Study]) -> None:
    first, second = report(*study), report(*study)
    assert first.figures == second.figures
    assert set(first.figures) == {f"{n}.{k}" for n in ("weights_over_training", "score_against_cost") for k in ("svg", "png")}
    assert set(first.headings) == {"weights_over_training.svg", "score_against_cost.svg"}


def test_a_reference_that_is_no_arm_is_told(study: tuple[Board, Study]) -> None:
    with pytest.raises(RequestError, match="no arm is called 'sum'"):
        report(*study, reference="sum")
