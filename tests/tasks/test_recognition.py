"""Single images: the classes told apart, the official split, and what is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, f1_score

from harness.config import available, compose
from harness.errors import RequestError
from harness.plan import make_task
from harness.samples import EXPRESSIONS, conform
from tasks.recognition import Recognition


def task(**changed: Any) -> Recognition:
    given: dict[str, Any] = {
        "name": "t",
        "version": 1,
        "protocol": "official",
        "dataset": {"name": "d"},
        "targets": ["expression"],
        "primary": "accuracy_expression",
    }
    return Recognition(**given | changed)


def images(n: int = 200) -> pl.DataFrame:
    """Every expression and some images without one, in AffectNet's two parts; valence and arousal on every other image."""
    draw = np.random.default_rng(3)
    half = np.arange(n) % 2 == 0
    return conform(
        pl.DataFrame(
            {
                "sample": [f"{i:03d}.jpg" for i in range(n)],
                "image": [f"{i:03d}.jpg" for i in range(n)],
                "clip": [f"{i:03d}.jpg" for i in range(n)],
                "frame": [0] * n,
                "split": ["train" if i % 4 else "validation" for i in range(n)],
                "expression": [(*EXPRESSIONS[:8], None)[i % 9] for i in range(n)],
                "valence": pl.Series(draw.uniform(-1, 1, n)).set(pl.Series(half), None),
                "arousal": pl.Series(draw.uniform(-1, 1, n)).set(pl.Series(half), None),
            }
        )
    )


def predicted(samples: pl.DataFrame, classes: tuple[str, ...]) -> pl.DataFrame:
    guess = np.random.default_rng(5).choice(classes, size=samples.height)
    columns = {
        "support": np.zeros(samples.height, bool),
        "expression_pred": np.where(np.arange(samples.height) % 3 == 0, guess, samples["expression"]),
    }
    return samples.select("sample", "clip", "subject", "frame", "expression").with_columns(**{k: pl.Series(v) for k, v in columns.items()})


class TestClasses:
    @pytest.mark.parametrize(("classes", "left_out"), [(8, set()), (7, {"contempt"}), (["neutral", "happy"], set(EXPRESSIONS[2:8]))])
    def test_images_of_other_classes_are_left_out(self, classes: Any, left_out: set[str]) -> None:
        chosen = task(classes=classes).select(images())
        assert set(chosen["expression"]) == set(EXPRESSIONS[:8]) - left_out
        assert chosen.height == images().filter(pl.col("expression").is_in(set(EXPRESSIONS[:8]) - left_out)).height

    def test_with_valence_an_image_of_another_class_stays_without_an_expression(self) -> None:
        both = task(targets=["expression", "valence", "arousal"], classes=7)
        chosen = both.select(images())
        assert "contempt" not in set(chosen["expression"])
        assert chosen["valence"].count() == 100
        assert chosen.height < 200

    def test_the_classes_are_part_of_the_protocol(self) -> None:
        names = [task(classes=classes).info.protocol for classes in (8, 7, ["neutral", "sad"])]
        assert names == ["official-8-classes", "official-7-classes", "official-neutral-sad"]

    @pytest.mark.parametrize("classes", [8, 7])
    def test_classes_the_data_lack_cost_nothing(self, classes: int) -> None:
        five = ["neutral", "happy", "sad", "surprise", "anger"]
        recognition = task(classes=classes)
        chosen = recognition.select(images().filter(pl.col("expression").is_in(five)))
        predictions = predicted(chosen, tuple(five))
        metrics = recognition.score(predictions).metrics
        assert metrics["accuracy_expression"] == pytest.approx(accuracy_score(predictions["expression"], predictions["expression_pred"]))
        assert metrics["f1_expression"] == pytest.approx(
            f1_score(predictions["expression"], predictions["expression_pred"], average="macro")
        )
        assert metrics["frames_scored"] == chosen.height


class TestSplit:
    def test_the_official_validation_part_is_the_test_and_models_are_selected_on_training_images(self) -> None:
        recognition = task()
        chosen = recognition.select(images())
        split = recognition.split(chosen, 0)
        assert set(chosen["split"][split.test]) == {"validation"}
        assert set(chosen["split"][np.concatenate([split.train, split.validation])]) == {"train"}
        assert 0.1 < split.validation.size / (split.train.size + split.validation.size) < 0.2
        assert split.train.size + split.validation.size + split.test.size == chosen.height

    def test_folds_by_actor_where_there_is_no_official_split(self) -> None:
        actors = images().with_columns(
            subject=pl.col("sample").str.slice(0, 2), clip=pl.col("sample").str.slice(0, 2), frame=pl.int_range(pl.len(), dtype=pl.Int32)
        )
        recognition = task(folds=4, group="subject")
        chosen = recognition.select(actors.with_columns(split=None))
        tested = np.concatenate([recognition.split(chosen, fold).test for fold in range(4)])
        assert sorted(tested) == list(range(chosen.height))
        split = recognition.split(chosen, 1)
        assert not set(chosen["subject"][split.test]) & set(chosen["subject"][np.concatenate([split.train, split.validation])])


class TestValenceArousal:
    def test_scores_only_what_is_labelled(self) -> None:
        recognition = task(targets=["valence", "arousal"], primary="ccc")
        chosen = recognition.select(images())
        assert chosen.height == 100
        guess = chosen["valence"] * 0.5
        predictions = chosen.select("sample", "clip", "subject", "frame", "valence", "arousal").with_columns(
            support=False, valence_pred=guess, arousal_pred=chosen["arousal"]
        )
        y, p = chosen["valence"].to_numpy(), guess.to_numpy()
        metrics = recognition.score(predictions).metrics
        assert metrics["ccc_valence"] == pytest.approx(2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))
        assert metrics["ccc"] == pytest.approx((metrics["ccc_valence"] + 1) / 2)


AUS = {"targets": ["au1", "au12"], "primary": "f1_au"}


class TestActionUnits:
    def coded(self) -> pl.DataFrame:
        n = 60
        draw = np.random.default_rng(1)
        return conform(
            pl.DataFrame(
                {
                    "sample": [f"{i:02d}.jpg" for i in range(n)],
                    "image": [f"{i:02d}.jpg" for i in range(n)],
                    "clip": [f"s{i // 10}" for i in range(n)],
                    "subject": [f"s{i // 10}" for i in range(n)],
                    "frame": list(range(n)),
                    "au1_intensity": draw.integers(0, 6, n),
                    "au12_intensity": [None if i % 7 == 0 else int(draw.integers(0, 6)) for i in range(n)],
                }
            )
        )

    def test_a_rule_makes_the_labels_and_stands_in_the_protocol(self) -> None:
        recognition = task(**AUS, labels={"present": {"_target_": "tasks.labels.Present", "at": 3}}, folds=3, group="subject")
        chosen = recognition.select(self.coded())
        assert (chosen["au1"] == (chosen["au1_intensity"] >= 3)).all()
        assert chosen["au12"].null_count() == 9
        assert recognition.info.protocol == "official-intensity-3-3-folds-seed-0"

    def test_a_rule_can_be_taken_away(self) -> None:
        assert task(**AUS, labels={"present": None}).rules == []

    def test_without_the_rule_that_makes_them_labels_are_missing_and_said(self) -> None:
        with pytest.raises(RequestError, match="the samples have no au1, au12"):
            task(**AUS).select(self.coded())

    def test_published_folds_are_lists_and_their_content_is_in_the_protocol(self) -> None:
        lists = [["s0", "s1"], ["s2", "s3"], ["s4", "s5"]]
        recognition = task(**AUS, labels={"present": {"_target_": "tasks.labels.Present"}}, folds=lists, group="subject", validation=0.2)
        chosen = recognition.select(self.coded())
        assert recognition.folds == 3
        assert [set(chosen["subject"][recognition.split(chosen, fold).test]) for fold in range(3)] == [set(names) for names in lists]
        other = task(**AUS, folds=[["s0", "s2"], ["s1", "s3"], ["s4", "s5"]], group="subject").info.protocol
        assert "3-published-folds" in recognition.info.protocol
        assert recognition.info.protocol.removeprefix("official-intensity-2-") != other.removeprefix("official-")

    def test_what_is_not_labelled_is_not_scored_cell_by_cell(self) -> None:
        recognition = task(**AUS)
        labels = {"au1": [1.0, 0, None, 1], "au12": [None, 0.0, None, 1]}
        names = {"sample": list("abcd"), "clip": list("abcd"), "subject": list("abcd"), "frame": [0] * 4, "support": [False] * 4}
        score = recognition.score(pl.DataFrame(names | labels | {"au1_pred": [0.9, 0.6, 0.9, 0.2], "au12_pred": [0.9, 0.1, 0.9, 0.7]}))
        assert score.metrics["f1_au1"] == pytest.approx(0.5)
        assert score.metrics["f1_au12"] == 1
        assert score.metrics["auc_au12"] == 1
        assert score.metrics["frames_scored"] == 3

    def test_a_threshold_is_a_half_or_chosen_on_validation(self) -> None:
        recognition = task(**AUS)
        assert recognition.setting({"threshold": 0.5}) == recognition.setting({}) == {"threshold": "0.5"}
        assert recognition.setting({"threshold": "validation"}) == {"threshold": "validation"}
        with pytest.raises(RequestError, match=r"no threshold 'test' \(evaluate.threshold\); choose from: 0.5, validation"):
            recognition.setting({"threshold": "test"})
        with pytest.raises(RequestError, match="evaluate cannot be"):
            task().setting({"threshold": "validation"})

    def test_the_parts_of_the_score_are_shown_beside_it(self) -> None:
        assert task(**AUS).info.parts == ("f1_au1", "f1_au12", "auc_au")
        mtl = task(targets=["valence", "arousal", "expression", "au1"], primary="p_mtl")
        assert mtl.info.parts[:3] == ("ccc", "f1_expression", "f1_au")

    def test_an_error_is_better_when_it_is_lower(self) -> None:
        assert not task(targets=["au1_intensity"], primary="mse_au").info.higher_is_better
        assert task(targets=["au1_intensity"], primary="icc_au").info.higher_is_better


class TestHiddenLabels:
    def test_images_of_a_test_part_that_nobody_has_labels_of_are_there_to_be_predicted(self) -> None:
        hidden = images().with_columns(
            pl.when(pl.col("split") == "train").then("expression"),
            *(pl.when(pl.col("split") == "train").then(name).alias(name) for name in ("valence", "arousal")),
            split=pl.col("split").replace("validation", "test"),
        )
        recognition = task(test="test")
        chosen = recognition.select(hidden)
        assert chosen.filter(split="test").height == 50
        assert chosen.filter(split="train")["expression"].null_count() == 0
        predictions = predicted(chosen.filter(split="test").with_columns(pl.lit("sad").alias("expression")), recognition.classes)
        assert np.isnan(recognition.score(predictions.with_columns(expression=pl.lit(None, pl.String))).metrics["accuracy_expression"])

    def test_where_only_this_label_is_missing_nothing_is_there(self) -> None:
        assert (
            not task(targets=["valence", "arousal"], primary="ccc").select(images()).filter(split="validation")["valence"].is_null().any()
        )


class TestVotes:
    def test_votes_are_scored_beside_the_majority(self) -> None:
        recognition = task(primary="agreement_expression", labels={"votes": {"_target_": "tasks.labels.Votes"}})
        votes = {f"votes_{name}": [8 if name == "happy" else 0, 5 if name in ("happy", "sad") else 0] for name in EXPRESSIONS[:8]}
        chances = {f"expression_p_{name}": [float(name == "happy")] * 2 for name in EXPRESSIONS[:8]}
        names = {"sample": ["a", "b"], "clip": ["a", "b"], "subject": [None, None], "frame": [0, 0], "support": [False, False]}
        frame = pl.DataFrame(names | votes | chances | {"expression": ["happy", None], "expression_pred": ["happy", "happy"]})
        score = recognition.score(frame.cast({"subject": pl.String}))
        assert score.metrics["agreement_expression"] == pytest.approx(0.75)
        assert score.metrics["accuracy_expression"] == 1
        assert score.metrics["frames_scored"] == 2
        assert "votes-from-1" in recognition.info.protocol


def parts(recognition: Recognition, chosen: pl.DataFrame, fold: int = 0) -> dict[str, pl.DataFrame]:
    split = recognition.split(chosen, fold)
    return {part: chosen[getattr(split, part)] for part in ("train", "validation", "test")}


class TestHeldOut:
    @pytest.mark.parametrize("part", ["train", "validation"])
    def test_nothing_is_learned_of_what_is_held_out_and_nothing_else_is_tested(self, part: str) -> None:
        recognition = task(classes=7, held_out=["fear", "disgust"])
        found = parts(recognition, recognition.select(images()))
        assert set(found[part]["expression"]) == {"neutral", "happy", "sad", "surprise", "anger"}
        assert set(found["test"]["expression"]) == {"fear", "disgust"}
        assert set(found["test"]["split"]) == {"validation"}

    def test_the_folds_are_those_of_the_task_without_it(self) -> None:
        given = {"folds": 4, "group": "subject", "seed": 3}
        actors = images().with_columns(
            subject=pl.col("sample").str.slice(0, 2), clip=pl.col("sample").str.slice(0, 2), frame=pl.int_range(pl.len(), dtype=pl.Int32)
        )
        plain, zero_shot = task(**given), task(**given, held_out=["sad"])
        chosen = zero_shot.select(actors)
        assert chosen.equals(plain.select(actors))
        for fold in range(4):
            all_of_it, found = (parts(recognition, chosen, fold) for recognition in (plain, zero_shot))
            for part in ("train", "validation"):
                assert found[part].equals(all_of_it[part].filter(pl.col("expression").cast(pl.String) != "sad"))
            assert found["test"].equals(all_of_it["test"].filter(pl.col("expression").cast(pl.String) == "sad"))

    def test_of_other_targets_what_shows_no_expression_is_still_learned_from(self) -> None:
        recognition = task(targets=["expression", "valence"], classes=7, held_out=["fear"])
        found = parts(recognition, recognition.select(images()))
        assert found["train"]["expression"].has_nulls()
        assert set(found["test"]["expression"]) == {"fear"}

    def test_it_stands_in_the_protocol_in_the_order_of_the_classes(self) -> None:
        names = [task(classes=7, held_out=held_out).info.protocol for held_out in (["disgust", "fear"], ["fear", "disgust"], [], None)]
        assert names == ["official-7-classes-held-out-fear-disgust"] * 2 + ["official-7-classes"] * 2

    def test_the_answer_is_the_likeliest_of_those_held_out_and_beside_it_stands_that_of_all(self) -> None:
        recognition = task(classes=["neutral", "fear", "disgust"], held_out=["fear", "disgust"])
        chances = {
            "expression_p_neutral": [0.9, 0.9, 0.2, 0.4],
            "expression_p_fear": [0.06, 0.06, 0.4, 0.3],
            "expression_p_disgust": [0.04, 0.04, 0.4, 0.3],
        }
        names = {"sample": list("abcd"), "clip": list("abcd"), "subject": list("abcd"), "frame": [0] * 4, "support": [False] * 4}
        labels = {"expression": ["fear", "disgust", "fear", None], "expression_pred": ["neutral", "neutral", "fear", "neutral"]}
        score = recognition.score(pl.DataFrame(names | labels | chances))
        assert score.metrics["accuracy_expression"] == pytest.approx(2 / 3)
        assert score.metrics["f1_disgust"] == 0
        assert score.metrics["accuracy_among_all"] == pytest.approx(1 / 3)
        assert recognition.info.parts == ("f1_expression", "recall_expression", "f1_fear", "f1_disgust", "accuracy_among_all")
        with pytest.raises(RequestError, match="predictions lack the columns expression_p_fear, expression_p_disgust"):
            recognition.score(pl.DataFrame(names | labels))

    def test_a_test_part_with_none_of_them_is_told(self) -> None:
        recognition = task(held_out=["contempt"])
        chosen = recognition.select(images()).filter((pl.col("split") == "train") | (pl.col("expression").cast(pl.String) != "contempt"))
        with pytest.raises(RequestError, match=r"no sample of contempt is tested in split 'official' \(task.held_out\)"):
            recognition.split(chosen, 0)

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({"held_out": ["feer"]}, "'feer' is held out and no class here (task.held_out); did you mean 'fear'?"),
            ({"held_out": "fear"}, "held_out is 'fear' (task.held_out); give a list: [fear]"),
            ({"classes": ["fear", "sad"], "held_out": ["sad", "fear"]}, "every class is held out (task.held_out); leave one to learn from"),
            (
                {"targets": ["valence"], "primary": "ccc_valence", "held_out": ["fear"]},
                "'fear' is held out and no class here (task.held_out); it needs the target expression",
            ),
        ],
    )
    def test_what_cannot_be_held_out_is_told(self, changed: dict[str, Any], line: str) -> None:
        with pytest.raises(RequestError) as error:
            task(**changed)
        assert str(error.value) == line


class TestTaught:
    def samples(self) -> pl.DataFrame:
        """Action units on the first two of three images, expressions on the last two."""
        n = 240
        third = pl.int_range(pl.len()) % 3
        known = images(n).with_columns(pl.when(third > 0).then(pl.lit("sad").cast(pl.Enum(EXPRESSIONS))).alias("expression"))
        return known.with_columns(au1=pl.when(third < 2).then(pl.lit(1, pl.Float32)))

    def test_what_is_learned_from_has_the_labels_that_are_taught_and_what_is_tested_has_the_others(self) -> None:
        recognition = task(taught=["au1"])
        chosen = recognition.select(self.samples())
        assert chosen.height == 240
        found = parts(recognition, chosen)
        learned = pl.concat([found["train"], found["validation"]])
        assert learned.height == self.samples().filter(pl.col("split") == "train", pl.col("au1").is_not_null()).height
        assert learned["expression"].has_nulls()
        assert not found["test"]["expression"].has_nulls()
        assert found["test"].height == self.samples().filter(pl.col("split") == "validation", pl.col("expression").is_not_null()).height

    def test_a_test_part_that_nobody_has_labels_of_is_predicted(self) -> None:
        hidden = self.samples().with_columns(pl.when(pl.col("split") == "train").then(name).alias(name) for name in ("expression", "au1"))
        hidden = hidden.with_columns(valence=None, arousal=None).cast({"valence": pl.Float32, "arousal": pl.Float32})
        recognition = task(taught=["au1"])
        assert parts(recognition, recognition.select(hidden))["test"].height == 60

    def test_it_stands_in_the_protocol(self) -> None:
        first, second = (task(taught=taught).info.protocol for taught in (["au1", "au2"], ["au1"]))
        assert len({first, second, task().info.protocol}) == 3
        assert task(taught=["au2", "au1"]).info.protocol == first


class TestRequests:
    @pytest.mark.parametrize("evaluate", [{}, {"support": {}}, {"support": {"size": 0}}, {"support": {"size": "0"}}])
    def test_no_support_is_the_one_setting(self, evaluate: dict[str, Any]) -> None:
        assert task().setting(evaluate) == {}

    @pytest.mark.parametrize(
        "evaluate", [{"support": {"size": 4}}, {"anchor": "last"}, {"support": 0}, {"support": {"selection": "first"}}]
    )
    def test_any_other_setting_is_refused(self, evaluate: dict[str, Any]) -> None:
        with pytest.raises(RequestError, match=r"t has no support frames.*\(evaluate\); set nothing but support.size=0"):
            task().setting(evaluate)

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({"targets": ["expresion"]}, "unknown target 'expresion' (task.targets); did you mean 'expression'?"),
            (
                {"primary": "acuracy_expression"},
                "no metric 'acuracy_expression' for these targets (task.primary); did you mean 'accuracy_expression'?",
            ),
            (
                {"targets": ["valence"], "primary": "ccc"},
                "no metric 'ccc' for these targets (task.primary); choose from: ccc_valence, "
                "pcc_valence, rmse_valence, sagr_nonzero_valence, sagr_valence",
            ),
            ({"classes": 5}, "5 classes (task.classes); give 7 or 8, in AffectNet's order, or a list of names"),
            ({"classes": ["neutral", "hapy"]}, "unknown expression 'hapy' (task.classes); did you mean 'happy'?"),
        ],
    )
    def test_a_wrong_task_is_named_with_what_would_be_right(self, changed: dict[str, Any], line: str) -> None:
        with pytest.raises(RequestError) as error:
            task(**changed)
        assert str(error.value) == line


@pytest.mark.parametrize("name", sorted(available("task")))
def test_each_configured_task_can_be_made_and_evaluated_as_configured(name: str) -> None:
    composed = compose([f"task={name}"])
    made = make_task(composed["task"])
    assert made.info.name == name
    made.setting(composed["evaluate"])
    assert available("task")[name]
    for control in composed["task"]["controls"]:
        targets = compose([f"baseline={control}"])["baseline"]["targets"]
        assert targets is None or set(made.info.targets) <= set(targets)


PUBLISHED = {"disfa": (27, ["SN003", "SN013", "SN002"], 8), "bp4d": (41, ["F007", "M011", "F001"], 12)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_folds_share_out_every_subject_once(name: str) -> None:
    made: Any = make_task(compose([f"task={name}"])["task"])
    subjects, first, aus = PUBLISHED[name]
    everybody = [subject for names in made.lists for subject in names]
    assert len(everybody) == len(set(everybody)) == subjects
    assert [names[0] for names in made.lists] == first
    assert len(made.info.targets) == aus
