"""Which frames are given, what makes two settings equal, and what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from harness.errors import RequestError
from harness.plan import TASK_FACTS
from harness.samples import conform
from tasks.few_shot import ANCHORS, SELECTIONS, FewShotVideo

CONFIGS = Path(__file__).parents[2] / "configs" / "task"
TASK = FewShotVideo(name="t", version=1, protocol="p", dataset={"name": "d"})
RANDOM_OF_DRAW_0 = [3, 19, 22, 31]
SIZED = [selection for selection in SELECTIONS if selection != "every"]


def clips(*lengths: int, names: str = "abcdefgh") -> pl.DataFrame:
    rows = [
        (f"{clip}/{frame}", clip, f"actor {clip}", frame) for clip, length in zip(names, lengths, strict=False) for frame in range(length)
    ]
    return pl.DataFrame(rows, schema=["sample", "clip", "subject", "frame"], orient="row")


def positions(selection: str, length: int, *, seed: int = 0, clip: str = "a", **support: Any) -> list[int]:
    """Support positions of one clip alone, its frames' thumbnails drawn with ``seed``."""
    test = clips(length, names=clip)
    setting = TASK.setting({"support": {"selection": selection, **support}})
    return np.flatnonzero(TASK.support(test, setting, thumbnails(length, seed))).tolist()


def thumbnails(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


class TestSupport:
    @pytest.mark.parametrize("selection", SIZED)
    @settings(max_examples=30)
    @given(length=st.integers(1, 80), seed=st.integers(0, 5))
    def test_a_larger_support_contains_a_smaller_one_and_leaves_a_frame_to_score(self, selection: str, length: int, seed: int) -> None:
        before: set[int] = set()
        for size in (1, 2, 3, 4, 7, 8, 16, 80):
            chosen = set(positions(selection, length, seed=seed, size=size))
            assert len(chosen) == max(1, min(size, length - 1))
            assert before <= chosen
            before = chosen

    @pytest.mark.parametrize("selection", SIZED)
    @settings(max_examples=30)
    @given(length=st.integers(1, 200), percent=st.integers(1, 100))
    def test_a_share_is_its_number_of_frames_rounded_up(self, selection: str, length: int, percent: int) -> None:
        frames = -(-percent * length // 100)
        assert positions(selection, length, size=f"{percent}%") == positions(selection, length, size=frames)

    def test_six_percent_of_fifty_frames_are_three(self) -> None:
        assert positions("first", 50, size="6%") == [0, 1, 2]

    def test_uniform_is_even_where_it_can_be_and_starts_with_the_first_frame(self) -> None:
        assert positions("uniform", 64, size=1) == [0]
        assert positions("uniform", 64, size=2) == [0, 32]
        assert positions("uniform", 64, size=4) == [0, 16, 32, 48]
        assert positions("uniform", 64, size=8) == list(range(0, 64, 8))
        assert positions("uniform", 50, size=4) == [0, 12, 25, 37]

    @given(length=st.integers(2, 300), power=st.integers(0, 6))
    def test_uniform_leaves_gaps_that_differ_by_one_frame_at_most(self, length: int, power: int) -> None:
        size = 2**power
        if size < length:
            gaps = np.diff([*positions("uniform", length, size=size), length])
            assert gaps.max() - gaps.min() <= 1

    def test_every_takes_each_kth_position_whatever_the_frames_are_called(self) -> None:
        test = clips(50, 21).with_columns(pl.col("frame") * 3 + 7)
        chosen = TASK.support(test, TASK.setting({"support": {"selection": "every", "every": 20}}), thumbnails(71))
        assert np.flatnonzero(chosen).tolist() == [0, 20, 40, 50, 70]

    def test_random_draws_are_kept_for_good(self) -> None:
        """Stored supports must not change with a version of NumPy; these were drawn with 2.2."""
        assert positions("random", 50, size=4, draw=0) == RANDOM_OF_DRAW_0
        assert positions("random", 50, size=4, draw=1) != RANDOM_OF_DRAW_0
        assert positions("random", 50, size=4, draw=0, clip="b") != RANDOM_OF_DRAW_0

    def test_random_takes_every_position_equally_often(self) -> None:
        drawn = np.concatenate([positions("random", 10, size=3, draw=draw) for draw in range(500)])
        assert np.abs(np.bincount(drawn, minlength=10) - 150).max() < 45  # four standard deviations of Binomial(500, 0.3)

    def test_kmeans_takes_one_frame_of_each_cluster_and_the_medoid_first(self) -> None:
        centres = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
        near = np.random.default_rng(1).normal(scale=0.1, size=(30, 2)).astype(np.float32)
        frames = centres[np.arange(30) % 3] + near
        test, setting = clips(30), {"support": {"selection": "kmeans", "size": 3}}
        assert set(np.flatnonzero(TASK.support(test, setting, frames)) % 3) == {0, 1, 2}
        alone = TASK.support(test, {"support": {"selection": "kmeans", "size": 1}}, frames)
        distances = ((frames[:, None] - frames) ** 2).sum(axis=2)
        assert np.flatnonzero(alone) == distances.sum(axis=0).argmin()

    def test_kmeans_of_identical_frames_takes_different_ones(self) -> None:
        chosen = TASK.support(clips(9), {"support": {"selection": "kmeans", "size": 4}}, np.ones((9, 3), dtype=np.float32))
        assert chosen.sum() == 4

    @pytest.mark.parametrize("selection", SELECTIONS)
    def test_the_support_of_a_clip_does_not_depend_on_the_other_clips(self, selection: str) -> None:
        test, faces = clips(7, 40, 1, 23), thumbnails(71)
        setting = TASK.setting({"support": {"selection": selection, "size": 5, "every": 6, "draw": 2}})
        together = TASK.support(test, setting, faces)
        assert np.array_equal(together, TASK.support(test, setting, faces))
        for clip in "abcd":
            of_clip = (test["clip"] == clip).to_numpy()
            assert np.array_equal(together[of_clip], TASK.support(test.filter(of_clip), setting, faces[of_clip]))

    def test_size_0_gives_nothing(self) -> None:
        assert not TASK.support(clips(5, 6), TASK.setting({"support": {"size": 0}}), thumbnails(11)).any()


class TestSetting:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"support": {"size": 4, "draw": 0}}, {"support": {"size": "4", "draw": 3}}),
            ({"support": {"size": 4, "every": 20}}, {"support": {"size": 4, "every": 10}}),
            ({"support": {"selection": "every", "size": 4}}, {"support": {"selection": "every", "size": 8}}),
            ({"support": {"size": 0, "selection": "random", "draw": 1}, "anchor": "mean", "block": 5}, {"support": {"size": "0"}}),
            ({"support": {"size": 1}, "anchor": "mean"}, {"support": {"size": 1}, "anchor": "last"}),
            ({"support": {"size": "6%"}}, {"support": {"size": " 6.0 % "}}),
            ({}, {"support": {"size": 4, "selection": "uniform", "every": 20, "draw": 0}, "anchor": "last", "block": 1}),
        ],
    )
    def test_what_makes_no_difference_is_left_out(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        assert TASK.setting(one) == TASK.setting(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"support": {"selection": "random", "draw": 0}}, {"support": {"selection": "random", "draw": 1}}),
            ({"support": {"selection": "every", "every": 20}}, {"support": {"selection": "every", "every": 10}}),
            ({"support": {"size": "6%"}}, {"support": {"size": 6}}),
            ({"support": {"size": 1}, "block": 5}, {"support": {"size": 1}}),
            ({"support": {"size": 2}, "anchor": "mean"}, {"support": {"size": 2}, "anchor": "median"}),
            ({"support": {"size": 1, "selection": "every"}, "anchor": "mean"}, {"support": {"size": 1, "selection": "every"}}),
        ],
    )
    def test_what_makes_a_difference_stays(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        assert TASK.setting(one) != TASK.setting(other)

    @given(
        size=st.one_of(st.integers(0, 40), st.sampled_from(["6%", "100%", "0.5%"])),
        selection=st.sampled_from(SELECTIONS),
        anchor=st.sampled_from(ANCHORS),
        draw=st.integers(0, 3),
    )
    def test_a_canonical_setting_is_its_own_canonical_form(self, size: int | str, selection: str, anchor: str, draw: int) -> None:
        canonical = TASK.setting({"support": {"size": size, "selection": selection, "draw": draw}, "anchor": anchor})
        assert TASK.setting(canonical) == canonical

    @pytest.mark.parametrize(
        ("evaluate", "line"),
        [
            ({"suport": {}}, "unknown key 'suport' (evaluate.suport); did you mean 'support'?"),
            ({"support": {"sise": 4}}, "unknown key 'sise' (evaluate.support.sise); did you mean 'size'?"),
            ({"support": 4}, "4 is no group of keys (evaluate.support); its keys are size, selection, every, draw"),
            ({"support": {"selection": "unifrom"}}, "unknown selection 'unifrom' (evaluate.support.selection); did you mean 'uniform'?"),
            (
                {"anchor": ["last"]},
                "unknown anchor ['last'] (evaluate.anchor); did you mean 'last'?",
            ),
            ({"support": {"every": 1}}, "every is 1 (evaluate.support.every); give a whole number from 2 on"),
            ({"support": {"draw": -1}}, "draw is -1 (evaluate.support.draw); give a whole number from 0 on"),
            ({"block": True}, "block is True (evaluate.block); give a whole number from 1 on"),
        ],
    )
    def test_a_wrong_key_or_value_is_named_with_what_would_be_right(self, evaluate: dict[str, Any], line: str) -> None:
        with pytest.raises(RequestError) as error:
            TASK.setting(evaluate)
        assert str(error.value) == line

    @pytest.mark.parametrize("size", [-1, 2.5, 4.0, "four", "", None, True, "0%", "101%", "%", "-6%", "6%%"])
    def test_a_size_is_a_whole_number_or_a_share_above_nothing_and_up_to_all(self, size: Any) -> None:
        with pytest.raises(RequestError, match=r"support size .* \(evaluate.support.size\); give a number of frames"):
            TASK.setting({"support": {"size": size}})


def made_predictions() -> pl.DataFrame:
    """Three clips of two actors, an error of its own kind in each; every fourth frame is a support frame predicted exactly."""
    draw = np.random.default_rng(7)
    n = 60
    truth = {target: np.round(draw.uniform(-1, 1, n), 1) for target in ("valence", "arousal")}
    support = np.arange(n) % 4 == 0
    guess = {
        f"{target}_pred": np.where(support, values, np.clip(0.6 * values + draw.normal(0, 0.2, n), -1, 1))
        for target, values in truth.items()
    }
    return pl.DataFrame(
        {
            "sample": [f"s{i}" for i in range(n)],
            "clip": np.repeat(["a", "b", "c"], [10, 20, 30]),
            "subject": np.repeat(["x", "x", "y"], [10, 20, 30]),
            "frame": np.concatenate([np.arange(10), np.arange(20), np.arange(30)]),
            "support": support,
        }
        | truth
        | guess
    )


def ccc(y: np.ndarray, p: np.ndarray) -> float:
    return float(2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))


class TestScore:
    @pytest.mark.parametrize("score_support", [False, True])
    def test_metrics_equal_an_independent_computation_on_the_scored_frames(self, score_support: bool) -> None:
        task = FewShotVideo(name="t", version=1, protocol="p", dataset={"name": "d"}, score_support=score_support)
        predictions = made_predictions()
        metrics = task.score(predictions).metrics
        scored = predictions if score_support else predictions.filter(~pl.col("support"))
        for target in task.info.targets:
            y, p = scored[target].to_numpy(), scored[f"{target}_pred"].to_numpy()
            assert metrics[f"rmse_{target}"] == pytest.approx(np.sqrt(np.mean((y - p) ** 2)))
            assert metrics[f"pcc_{target}"] == pytest.approx(np.corrcoef(y, p)[0, 1])
            assert metrics[f"ccc_{target}"] == pytest.approx(ccc(y, p))
            assert metrics[f"sagr_{target}"] == pytest.approx(np.mean(np.sign(y) == np.sign(p)))
            of_clips = [ccc(part[target].to_numpy(), part[f"{target}_pred"].to_numpy()) for part in scored.partition_by("clip")]
            assert metrics[f"ccc_{target}_per_clip"] == pytest.approx(np.mean(of_clips))
        assert metrics["ccc"] == metrics[task.info.primary] == pytest.approx((metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2)
        assert metrics["frames_scored"] == scored.height
        assert metrics["labels_used"] == 15

    def test_a_support_frame_changes_no_score_however_wrong_it_is(self) -> None:
        predictions = made_predictions()
        spoiled = predictions.with_columns(
            pl.when("support").then(-1.0).otherwise(pl.col(f"{t}_pred")).alias(f"{t}_pred") for t in TASK.info.targets
        )
        assert TASK.score(spoiled).metrics == TASK.score(predictions).metrics
        assert TASK.score(spoiled).units.equals(TASK.score(predictions).units)

    def test_predictions_of_support_frames_alone_are_refused(self) -> None:
        with pytest.raises(RequestError, match="t: no frame is left to score"):
            TASK.score(made_predictions().filter("support"))


def samples(actors: int = 10, frames: int = 4) -> pl.DataFrame:
    rows = [
        (f"{actor}/{clip}/{frame}", f"{actor}-{clip}", frame, f"actor {actor}")
        for actor in range(actors)
        for clip in range(2)
        for frame in range(frames)
    ]
    frame = pl.DataFrame(rows, schema=["sample", "clip", "frame", "subject"], orient="row")
    return conform(frame.with_columns(image="sample", valence=pl.lit(0.5), arousal=pl.lit(-0.5)))


class TestData:
    def test_frames_without_both_labels_are_left_out_and_the_rest_is_sorted(self) -> None:
        shuffled = samples().sample(fraction=1, shuffle=True, seed=0)
        unlabelled = shuffled.with_columns(pl.when(pl.col("sample") == "3/1/2").then(None).otherwise("arousal").alias("arousal"))
        chosen = TASK.select(unlabelled)
        assert chosen["sample"].to_list() == [sample for sample in samples().sort("clip", "frame")["sample"] if sample != "3/1/2"]

    def test_each_actor_is_tested_once_and_in_one_part_of_a_fold(self) -> None:
        rows = TASK.select(samples())
        tested = []
        for fold in range(TASK.folds):
            split = TASK.split(rows, fold)
            actors = [set(rows["subject"][part]) for part in (split.train, split.validation, split.test)]
            assert all(actors)
            assert sum(map(len, actors)) == len(set.union(*actors)) == 10
            tested += sorted(actors[2])
        assert sorted(tested) == sorted(set(rows["subject"]))

    def test_other_folds_are_another_protocol(self) -> None:
        names = {
            FewShotVideo(name="t", version=1, protocol="p", dataset={"name": "d"}, folds=k, seed=s).info.protocol
            for k in (3, 5)
            for s in (0, 1)
        }
        assert len(names) == 4


class TestConfigs:
    def test_the_task_as_configured_has_the_defaults_of_the_code(self) -> None:
        config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "afew_va_support.yaml"))
        node = {key: value for key, value in config["task"].items() if key not in ("_target_", *TASK_FACTS)}
        task = FewShotVideo(**node, dataset={"name": "afew_va"})
        assert task.setting(config["evaluate"]) == task.setting({})
        assert not task.scores_support

    def test_as_released_is_one_frame_in_twenty_the_last_one_blocks_of_five_and_scores_the_support(self) -> None:
        config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "afew_va_as_released.yaml"))
        assert TASK.setting(config["evaluate"]) == {"support": {"selection": "every", "every": 20}, "anchor": "last", "block": 5}
        assert config["task"]["score_support"]
        assert "flatter" in config["task"]["note"]


@pytest.mark.parametrize(
    ("key", "value"), [("folds", "many"), ("folds", 1), ("seed", -1), ("seed", 0.5), ("validation", "half"), ("validation", 1.0)]
)
def test_a_split_that_cannot_be_is_refused_before_any_data_are_read(key: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"task.{key}"):
        FewShotVideo(name="t", version=1, protocol="p", dataset={"name": "d"}, **{key: value})  # type: ignore[arg-type]
