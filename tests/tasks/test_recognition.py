"""Single images: the classes told apart, the official split, and what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import accuracy_score, f1_score

from harness.errors import RequestError
from harness.plan import TASK_FACTS
from harness.samples import EXPRESSIONS, conform
from tasks.recognition import Recognition

CONFIGS = Path(__file__).parents[2] / "configs" / "task"


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
            ({"targets": ["valence"], "primary": "ccc"}, "no metric 'ccc' for these targets (task.primary); choose from: ccc_valence, pcc_valence, rmse_valence, sagr_nonzero_valence, sagr_valence"),
            ({"classes": 5}, "5 classes (task.classes); give 7 or 8, in AffectNet's order, or a list of names"),
            ({"classes": ["neutral", "hapy"]}, "unknown expression 'hapy' (task.classes); did you mean 'happy'?"),
        ],
    )
    def test_a_wrong_task_is_named_with_what_would_be_right(self, changed: dict[str, Any], line: str) -> None:
        with pytest.raises(RequestError) as error:
            task(**changed)
        assert str(error.value) == line


@pytest.mark.parametrize("name", ["afew_va", "affectnet_expression", "affectnet_va"])
def test_each_configured_task_can_be_made_and_evaluated_as_configured(name: str) -> None:
    config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    node = {key: value for key, value in config["task"].items() if key not in ("_target_", *TASK_FACTS)}
    recognition = Recognition(**node, dataset={"name": "d"})
    assert recognition.info.name == name
    assert recognition.setting(config["evaluate"]) == {}
