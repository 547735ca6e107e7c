"""One job, in this process and without Ray: train if need be, predict, write down, and let nobody see what they may not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import evaluation, identity, plan, snapshot
from harness.baseline import Baseline, Query
from harness.plan import Plan, Sweep
from harness.preemption import Preempted
from harness.samples import label_columns
from harness.store import Store
from tests.conftest import PLUGIN

Planned = Callable[..., Plan]
SIZES: dict[str, list[Any]] = {"evaluate.support.size": [1, 2]}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    cache = tmp_path_factory.mktemp("cache")

    def build(arms: dict[str, list[str]], axes: dict[str, list[Any]] | None = None, *more: str) -> Plan:
        sweep = Sweep("s", "", arms, SIZES if axes is None else axes, ["task=toy", "tracker=none", *more])
        return plan.build(sweep, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, cache))

    return build


@pytest.fixture(scope="module")
def toy(planned: Planned) -> Plan:
    return planned({"toy": ["baseline=toy"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def fitted(toy: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the toy was fitted and evaluated."""
    store = Store(tmp_path_factory.mktemp("fitted") / "store")
    assert run(toy, store) == evaluation.Outcome(made=2)
    return store


def run(made: Plan, store: Store) -> evaluation.Outcome:
    whole = evaluation.Outcome()
    for job in made.jobs.values():
        outcome = evaluation.run(job, store)
        whole.made += outcome.made
        whole.failed += outcome.failed
    return whole


def here(name: str) -> list[str]:
    """The overrides that enter a baseline of this file."""
    return ["baseline=hostile", f"baseline._target_={__name__}.{name}", f"baseline.name={name}"]


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_fits_once_and_makes_every_evaluation(toy: Plan, fitted: Store) -> None:
    assert set(fitted.records()["evaluation"]) == set(toy.rows["evaluation"])
    (known,) = fitted.fits()
    assert known["fit"] == toy.rows["fit"][0]
    assert known["weights"] == identity.address_of_file(fitted.fit_folder(known["fit"]) / "weights.safetensors")
    assert len(json.loads((fitted.fit_folder(known["fit"]) / "history.json").read_text())) == 4
    assert fitted.failures() == {}


def test_a_record_names_predictions_that_are_what_was_scored(toy: Plan, fitted: Store) -> None:
    task = next(iter(toy.tasks.values()))
    for record in fitted.records().iter_rows(named=True):
        predictions = fitted.read_predictions(record["predictions"], record["sha256"])
        assert predictions.columns == [
            "sample",
            "clip",
            "subject",
            "frame",
            "support",
            "valence",
            "arousal",
            "valence_pred",
            "arousal_pred",
        ]
        score = task.score(predictions)
        assert score.metrics["ccc"] == record["score"]
        assert json.loads(record["metrics"]) == pytest.approx(score.metrics, nan_ok=True)
        units = fitted.units([record["evaluation"]]).drop("evaluation")
        assert units.select(score.units.columns).equals(score.units)
        assert record["labels_used"] == predictions["support"].sum() == 6 * json.loads(record["setting"])["support"]["size"]
        assert (record["n_samples"], record["n_clips"], record["n_subjects"]) == (48, 6, 3)


def test_predictions_are_written_before_the_record_that_names_them(toy: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    named = []

    def write_record(self: Store, record: dict[str, Any], units: pl.DataFrame) -> None:
        named.append(record["sha256"] == identity.address_of_file(self.root / record["predictions"]))

    monkeypatch.setattr(Store, "write_record", write_record)
    run(toy, store)
    assert named == [True, True]


def test_a_death_between_predictions_and_record_costs_one_evaluation(toy: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_record", die)
        with pytest.raises(Killed):
            run(toy, store)
    assert store.done() == set()
    assert run(toy, store).made == 2
    for record in store.records().iter_rows(named=True):
        store.read_predictions(record["predictions"], record["sha256"])


def test_the_guards_proof_and_where_it_all_came_from_stand_in_the_provenance(fitted: Store) -> None:
    (name,) = set(fitted.records()["provenance"])
    known = fitted.provenance(name)
    parts = known["guard"]["parts"]
    assert (parts["train"]["groups"] + parts["validation"]["groups"], parts["test"]["groups"]) == (3, 3)
    assert sum(part["samples"] for part in parts.values()) == 96
    assert len({part["sha256"] for part in parts.values()}) == 3
    assert known["sources"]["toy.Toy"] == identity.address_of_file(PLUGIN / "toy.py")
    assert {"tasks.few_shot.FewShotVideo", "toy.Brightness"} <= set(known["sources"])
    assert known["fits"] == [fitted.fits()[0]["fit"]]
    assert known["environment"]["packages"]["torch"]
    assert "root" not in known["task"]
    assert str(Path.home()) not in json.dumps(known) or str(Path.home()) == "/"


def test_the_same_seed_gives_the_same_bytes_in_another_store(toy: Plan, fitted: Store, store: Store) -> None:
    run(toy, store)
    facts = ["evaluation", "fit", "score", "metrics", "sha256"]
    assert store.records().select(facts).equals(fitted.records().select(facts))
    assert store.fits()[0]["weights"] == fitted.fits()[0]["weights"]


def test_another_seed_gives_other_weights(planned: Planned, fitted: Store, store: Store) -> None:
    run(planned({"toy": ["baseline=toy"]}, {"seed": [1]}), store)
    assert store.fits()[0]["weights"] != fitted.fits()[0]["weights"]


# ── what is not done again ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_done_is_not_done_again(toy: Plan, fitted: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "train_here", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(evaluation.Ready, "predict", lambda *_: pytest.fail("predicted again"))
    assert run(toy, fitted) == evaluation.Outcome()


def test_a_further_setting_of_a_fitted_baseline_encodes_nothing(planned: Planned, fitted: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy  # type: ignore[import-not-found]

    monkeypatch.setattr(toy.Brightness, "encode", lambda *_: pytest.fail("encoded again"))
    monkeypatch.setattr(evaluation, "train_here", lambda *_, **__: pytest.fail("trained again"))
    further = planned({"toy": ["baseline=toy"]}, {"evaluate.support.size": [3, 4, "50%"]})
    assert run(further, fitted) == evaluation.Outcome(made=3)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: _flip(path), Path.unlink])
def test_embeddings_that_are_damaged_are_made_again(toy: Plan, fitted: Store, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    import shutil

    store = Store(Path(shutil.copytree(fitted.root, tmp_path / "store")))
    shutil.rmtree(store.root / "records")
    (kept,) = store.fit_folder(toy.rows["fit"][0]).glob("embeddings-*.npy")
    damage(kept)
    assert run(toy, store).made == 2
    assert np.load(kept, allow_pickle=False).shape == (48, 2)
    known = dict(fitted.records().select("evaluation", "sha256").iter_rows())
    assert {name: known[name] for name in store.done()} == dict(store.records().select("evaluation", "sha256").iter_rows())


def test_a_job_is_the_same_in_another_process(toy: Plan, fitted: Store, tmp_path: Path) -> None:
    import pickle

    (tmp_path / "job").write_bytes(pickle.dumps(next(iter(toy.jobs.values()))))
    script = (
        f"import pickle, pathlib, sys; sys.path.insert(0, {str(PLUGIN)!r})\n"
        "from harness import evaluation; from harness.store import Store\n"
        f"job = pickle.loads(pathlib.Path({str(tmp_path / 'job')!r}).read_bytes())\n"
        f"print(evaluation.run(job, Store(pathlib.Path({str(tmp_path / 'store')!r}))), 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "Outcome(made=2, failed=0) False\n"
    known = fitted.records().filter(pl.col("evaluation").is_in(toy.rows["evaluation"].to_list()))
    assert Store(tmp_path / "store").records()["sha256"].to_list() == known["sha256"].to_list()


def test_two_methods_and_two_protocols_on_one_stage_train_it_once(planned: Planned, store: Store) -> None:
    arms = {
        "toy": ["baseline=toy"],
        "twin": ["baseline=toy", "baseline.name=twin"],
        "flattered": ["+task.score_support=true", "task.protocol=f"],
    }
    made = planned(arms)
    assert run(made, store) == evaluation.Outcome(made=6)
    assert len(store.fits()) == 1
    records = store.records().filter(pl.col("setting").str.contains('"size":2'))
    by_arm = {row["arm"]: row for row in records.iter_rows(named=True)}
    assert by_arm["toy"]["metrics"] == by_arm["twin"]["metrics"]
    scored = {arm: json.loads(row["metrics"])["frames_scored"] for arm, row in by_arm.items()}
    assert scored == {"toy": 36, "twin": 36, "flattered": 48}
    assert by_arm["flattered"]["protocol"].startswith("f-")


@pytest.mark.parametrize("when", ["before the fit", "in the middle of it", "between two evaluations"])
def test_a_job_that_is_told_to_leave_fails_nothing_and_goes_on_later(toy: Plan, fitted: Store, store: Store, when: str) -> None:
    (job,) = toy.jobs.values()
    looks = 0

    def leaving() -> bool:
        nonlocal looks
        looks += 1
        return len(store.records()) == 1 if when == "between two evaluations" else looks > (when == "in the middle of it") * 2

    with pytest.raises(Preempted):
        evaluation.run(job, store, leaving=leaving)
    assert store.failures() == {}
    done = int(when == "between two evaluations")
    assert (len(store.fits()), len(store.records())) == (done, done)
    assert len(list(store.root.rglob("epoch-*-step-*"))) == (when == "in the middle of it")
    assert evaluation.run(job, store) == evaluation.Outcome(made=2 - done)
    facts = ["evaluation", "fit", "sha256"]
    expected = fitted.records().filter(pl.col("evaluation").is_in(toy.rows["evaluation"].to_list()))  # other tests add further settings
    assert store.records().select(facts).equals(expected.select(facts))


# ── who sees what ────────────────────────────────────────────────────────────────────────────────────────────────────────────

SEEN: list[Query] = []


class Spy(Baseline):
    """Remembers all it was shown."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        SEEN.append(query)
        return {target: np.zeros(query.test.samples.height) for target in query.targets}


def test_of_the_test_clips_a_baseline_sees_support_labels_alone(planned: Planned, store: Store) -> None:
    SEEN.clear()
    made = planned({"spy": here("Spy")}, {"evaluate.support.size": [0, 2]})
    assert run(made, store).made == 2
    whole = next(iter(made.snapshots.values())).samples
    for query, size in zip(SEEN, (0, 2), strict=True):
        test = query.test.samples
        assert not {"valence", "arousal", "expression", "activity"} & set(test.columns)
        assert query.support.sum() == 6 * size
        truth = whole.join(test.select("sample"), on="sample", how="semi").sort("clip", "frame").filter(pl.Series(query.support))
        for target in ("valence", "arousal"):
            np.testing.assert_array_equal(query.labels[target], truth[target].to_numpy().astype(np.float32))
        assert set(query.labels) == {"valence", "arousal"}
        assert not set(test["subject"]) & set(query.train.samples["subject"])
        assert query.train.samples["valence"].is_not_null().all()
        assert test.select("clip", "frame").equals(test.select("clip", "frame").sort("clip", "frame"))
        pixels = query.test.frames[np.arange(test.height)].mean(axis=(1, 2, 3)) / 127.5 - 1
        np.testing.assert_allclose(pixels[query.support], query.labels["valence"], atol=1e-3)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Wrong(Baseline):
    """Returns something wrong, of the kind it is told, for every support but one of two frames."""

    def __init__(self, *, fault: str) -> None:
        if fault == "constructor":
            raise ValueError("no such file")
        self.fault = fault

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        good = {target: np.zeros(query.test.samples.height) for target in query.targets}
        if query.setting["support"]["size"] == 2:
            return good
        match self.fault:
            case "missing":
                del good["arousal"]
            case "shape":
                good["arousal"] = np.zeros(3)
            case "infinite":
                good["arousal"][7] = np.inf
            case "text":
                return good | {"arousal": np.array(["x"] * query.test.samples.height)}
            case _:
                raise KeyError("lost")
        return good


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "no prediction of arousal (predict); return valence, arousal"),
        ("shape", "predictions of arousal have shape (3,) (predict); return (48,)"),
        ("infinite", "1 predictions of arousal are not finite (predict)"),
        ("text", "ValueError: could not convert string to float"),
        ("raise", "KeyError: 'lost'"),
    ],
)
def test_a_bad_prediction_fails_that_evaluation_alone_and_says_why(planned: Planned, store: Store, fault: str, message: str) -> None:
    made = planned({"wrong": [*here("Wrong"), f"+baseline.fault={fault}"], "mean_label": ["baseline=mean_label"]})
    assert run(made, store) == evaluation.Outcome(made=3, failed=1)
    (failure,) = store.failures().values()
    assert message in failure["error"]
    assert failure["arm"] == "wrong"
    assert "Traceback" in failure["log"]
    assert run(made, store).failed == 1, "and is tried again"


def test_a_baseline_that_cannot_be_made_stops_no_other_on_the_same_fit(planned: Planned, store: Store) -> None:
    broken = {"broken": [*here("Wrong"), "+baseline.fault=constructor"], "unknown": ["baseline=hostile", "baseline._target_=no.such.Thing"]}
    made = planned({**broken, "mean_label": ["baseline=mean_label"]})
    assert len(made.jobs) == 1
    assert run(made, store) == evaluation.Outcome(made=2, failed=4)
    errors = {failure["arm"]: failure["error"] for failure in store.failures().values()}
    assert errors["broken"] == "ValueError: no such file"
    assert "cannot import no.such.Thing" in errors["unknown"]


def test_a_loss_that_is_no_number_fails_the_fit_with_step_and_name_and_is_forgotten_once_it_works(planned: Planned, store: Store) -> None:
    made = planned({"toy": ["baseline=toy", "baseline.stages.brightness.nan_in_epoch=2"]})
    assert run(made, store) == evaluation.Outcome(failed=2)
    (name, failure), *none = store.failures().items()
    assert none == []
    assert name == made.rows["fit"][0]
    assert "valence" in failure["error"]
    assert "step" in failure["error"]
    assert store.fits() == []
    assert store.records().is_empty()


def test_a_failure_is_forgotten_when_the_evaluation_works_at_last(toy: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy as plugin

    with monkeypatch.context() as patch:
        patch.setattr(plugin.Toy, "predict", lambda *_: {})
        assert run(toy, store).failed == 2
    assert len(store.failures()) == 2
    assert run(toy, store).made == 2
    assert store.failures() == {}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.safetensors", "history.json", "fit.json"])
@pytest.mark.parametrize("damage", [_flip, Path.unlink])
def test_a_fit_of_which_a_file_is_damaged_or_gone_is_fitted_again(
    toy: Plan, fitted: Store, tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    store = Store(Path(shutil.copytree(fitted.root, tmp_path / "store")))
    shutil.rmtree(store.root / "records")
    path = store.fit_folder(toy.rows["fit"][0]) / name
    damage(path)
    assert run(toy, store).made == 2
    assert store.fits()[0]["weights"] == fitted.fits()[0]["weights"]
    facts = ["evaluation", "score", "metrics", "sha256"]
    assert (
        store.records()
        .select(facts)
        .equals(fitted.records().filter(pl.col("evaluation").is_in(toy.rows["evaluation"].to_list())).select(facts))
    )
    assert path.with_name(f"{name}.corrupt").is_file() == (damage is _flip)
    assert str(path) in caplog.text or (name, damage) == ("fit.json", Path.unlink)


# ── thresholds ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Timid(Baseline):
    """Orders the frames rightly and calls none of them present; says what it was asked for, and sees no label."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        assert not set(label_columns(query.test.samples))
        assert not query.support.any()
        ASKED.append(query.part)
        grey = query.test.frames[np.arange(query.test.samples.height)].mean(axis=(1, 2, 3))
        return {"au1": grey / 255 * 0.4}


ASKED: list[str] = []
TIMID = ["task=toy_units", "baseline=hostile", f"baseline._target_={__name__}.Timid", "baseline.name=timid", "baseline.targets=[au1]"]


def test_a_threshold_chosen_on_validation_moves_what_is_written_and_never_sees_the_test_labels(planned: Planned, store: Store) -> None:
    made = planned({"timid": TIMID}, {"evaluate.threshold": ["0.5", "validation"]})
    ASKED.clear()
    assert run(made, store) == evaluation.Outcome(made=2)
    records = {record["setting"]: record for record in store.records().iter_rows(named=True)}
    plain, chosen = (records[setting] for setting in ('{"threshold":"0.5"}', '{"threshold":"validation"}'))
    assert plain["score"] == 0
    assert chosen["score"] > 0.9, "the order is right, so the right threshold finds nearly all"
    assert ASKED == ["test", "test", "validation"]
    before, after = (store.read_predictions(record["predictions"], record["sha256"]) for record in (plain, chosen))
    assert before["au1"].equals(after["au1"])
    assert before["au1_pred"].rank().equals(after["au1_pred"].rank())
    assert json.loads(plain["metrics"])["auc_au1"] == json.loads(chosen["metrics"])["auc_au1"] == 1


def test_without_a_validation_part_there_is_no_threshold_to_choose(planned: Planned, store: Store) -> None:
    made = planned({"timid": [*TIMID, "task.validation=0"]}, {"evaluate.threshold": ["validation"]})
    assert run(made, store) == evaluation.Outcome(failed=1)
    (failure,) = store.failures().values()
    assert "no validation part to choose thresholds on (evaluate.threshold); set task.validation" in failure["error"]


# ── other labels taught than tested ──────────────────────────────────────────────────────────────────────────────────────────


class Curious(Baseline):
    """Says which labels it finds on training samples."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        samples = query.train.samples
        FOUND.append({name for name in label_columns(samples) if samples[name].is_not_null().any()})
        return {"au1": np.zeros(query.test.samples.height)}


FOUND: list[set[str]] = []


def test_where_other_labels_are_taught_than_tested_no_others_are_on_training_samples(planned: Planned, store: Store) -> None:
    curious = [
        "task=toy_units",
        "baseline=hostile",
        f"baseline._target_={__name__}.Curious",
        "baseline.name=curious",
        "baseline.targets=[au1]",
    ]
    FOUND.clear()
    for more in ([], ["+task.taught=[valence]"]):
        assert run(planned({"curious": [*curious, *more]}, {}), store) == evaluation.Outcome(made=1)
    assert [{"valence", "arousal", "au1"}, {"valence"}] == FOUND
    protocols = set(store.records()["protocol"])
    assert len(protocols) == 2, "zero-shot never shares a table with what was taught"


def test_the_subject_of_the_nearest_frame_is_written_where_a_task_asks_and_a_method_has_embeddings(planned: Planned, store: Store) -> None:
    ridge = ["task=toy_units", "baseline=ridge", "+task.retrieval=true"]
    made = run(planned({"ridge": ridge, "mean": ["task=toy_units", "baseline=mean_label", "+task.retrieval=true"]}, {}), store)
    assert made.made == 2, [failure["log"] for failure in store.failures().values()]
    known = {record["baseline"]: record for record in store.records().iter_rows(named=True)}
    frames = {name: store.read_predictions(record["predictions"], record["sha256"]) for name, record in known.items()}
    assert set(frames["ridge"]["nearest_subject"]) <= set(frames["ridge"]["subject"])
    assert frames["mean_label"]["nearest_subject"].is_null().all()
    assert 0 <= json.loads(known["ridge"]["metrics"])["retrieval_subject"] <= 1
    assert json.loads(known["mean_label"]["metrics"])["retrieval_subject"] is None
