from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Regression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from baselines.controls import Interpolation, LastLabel, MeanLabel, Ridge
from baselines.supervised import Supervised
from harness.baseline import Query
from harness.errors import RequestError

Make = Callable[..., Any]


def by_clip(query: Query, target: str, rule: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """One clip after the other: frame numbers, those of the support and its labels to predictions."""
    samples = query.test.samples
    labels = np.full(samples.height, np.nan)
    labels[query.support] = query.labels[target]
    found = np.empty(samples.height)
    for clip in samples["clip"].unique():
        here = (samples["clip"] == clip).to_numpy()
        given = here & np.isfinite(labels)
        time = samples["frame"].to_numpy()
        found[here] = rule(time[here], time[given], labels[given])
    return found


def last(time: np.ndarray, given: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([labels[given <= t][-1] if (given <= t).any() else labels[0] for t in time])


@pytest.mark.parametrize("per_clip", [1, 2, 4, 7])
@pytest.mark.parametrize(
    ("control", "rule"),
    [
        (MeanLabel(), lambda time, given, labels: np.full(len(time), labels.mean())),
        (LastLabel(), last),
        (Interpolation(), lambda time, given, labels: np.interp(time, given, labels)),
    ],
    ids=["mean", "last", "interpolation"],
)
def test_controls_agree_with_a_loop_over_clips(world: Make, control: Any, rule: Any, per_clip: int) -> None:
    query = world(per_clip).query
    predicted = control.predict(query)
    for target in ("valence", "arousal"):
        np.testing.assert_allclose(predicted[target], by_clip(query, target, rule), atol=1e-7)


@pytest.mark.parametrize("control", [LastLabel(), Interpolation()])
def test_support_frames_keep_their_own_label(world: Make, control: Any) -> None:
    made = world(4)
    np.testing.assert_array_equal(control.predict(made.query)["valence"][made.query.support], made.valence[made.query.support])


def test_a_support_frame_without_a_label_counts_for_the_other_target_only(world: Make) -> None:
    query = world(3).query
    query.labels["valence"][4] = np.nan
    for control, rule in (
        (LastLabel(), last),
        (Interpolation(), lambda t, g, y: np.interp(t, g, y)),
        (MeanLabel(), lambda t, g, y: y.mean()),
    ):
        predicted = control.predict(query)
        for target in ("valence", "arousal"):
            np.testing.assert_allclose(predicted[target], by_clip(query, target, rule), atol=1e-7)


def test_without_support_the_mean_is_that_of_the_training_labels(world: Make) -> None:
    query = world(0).query
    np.testing.assert_allclose(MeanLabel().predict(query)["arousal"], query.train.samples["arousal"].mean(), atol=1e-6)


@pytest.mark.parametrize("control", [LastLabel(), Interpolation()])
def test_a_clip_without_support_is_refused_by_name(world: Make, control: Any) -> None:
    with pytest.raises(RequestError, match="clip 'clip 0' has no labelled support frame"):
        control.predict(world(0).query)


def test_the_best_constant_of_expressions_is_their_frequency_and_of_action_units_their_presence(world: Make, data: Make) -> None:
    train = data(expression=["happy", "happy", "sad", None, "fear"], au1=[0, 1, 0, None, 0], au2=[0, 0, 0, 0, None])
    query = world(0, targets=("expression", "au1", "au2"), classes=("neutral", "happy", "sad"), train=train).query
    predicted = MeanLabel().predict(query)
    np.testing.assert_allclose(predicted["expression"], np.tile([0, 2 / 3, 1 / 3], (32, 1)))
    assert set(predicted["au1"]) == {1.0}
    assert set(predicted["au2"]) == {0.0}


def test_the_best_constants_of_votes_and_intensities_are_their_means(world: Make, data: Make) -> None:
    train = data(votes_happy=[5, 1, 0], votes_sad=[5, 3, 0], expression=[None] * 3, au4_intensity=[0, 3, None])
    query = world(0, targets=("expression", "au4_intensity"), classes=("happy", "sad"), train=train).query
    predicted = MeanLabel().predict(query)
    np.testing.assert_allclose(predicted["expression"], np.tile([0.375, 0.625], (32, 1)))
    assert set(predicted["au4_intensity"]) == {1.5}


def test_ridge_finds_a_rare_action_unit_at_a_half_and_measures_its_intensity(world: Make, data: Make) -> None:
    rng = np.random.default_rng(2)
    strength = rng.uniform(0, 5, 300) * (rng.random(300) < 0.3)
    features = np.column_stack([strength, rng.normal(0, 1, (300, 7))]).astype(np.float32)
    present = (strength >= 3).astype(int)
    train = data(au4=present.tolist(), au4_intensity=strength.tolist(), clip=[f"c{i // 10}" for i in range(300)], frame=list(range(300)))
    query = world(0, targets=("au4", "au4_intensity"), train=train, encoder=lambda given, part: features[: given.samples.height]).query
    predicted = Ridge().predict(query)
    assert present.mean() < 0.15
    assert ((predicted["au4"] >= 0.5) == present[:32]).mean() > 0.8
    assert (predicted["au4"][present[:32] == 1] >= 0.5).all(), "unweighted, a rare unit is never above a half"
    np.testing.assert_allclose(predicted["au4_intensity"], strength[:32], atol=0.2)


def test_with_one_subject_there_is_nothing_to_choose_a_penalty_on_and_the_largest_is_taken(world: Make, data: Make) -> None:
    """It used to ask scikit-learn for a single fold, which it refuses."""
    train = data(valence=np.linspace(-1, 1, 60).tolist(), arousal=np.linspace(1, -1, 60).tolist(), clip=["one"] * 60)
    query = world(0, train=train).query
    features = StandardScaler().fit(query.train_embeddings.astype(float))
    expected = Regression(alpha=10.0 * 60).fit(features.transform(query.train_embeddings), train.samples["valence"])
    np.testing.assert_allclose(Ridge().predict(query)["valence"], expected.predict(features.transform(query.embeddings)), atol=1e-5)


def test_ridge_is_scikit_learns_with_the_penalty_best_by_group(world: Make) -> None:
    query = world(0).query
    features = StandardScaler().fit(query.train_embeddings)
    x, y = features.transform(query.train_embeddings), query.train.samples["valence"].to_numpy()
    groups = query.train.samples["clip"].to_numpy()

    def error(penalty: float) -> float:
        folds = GroupKFold(5).split(x, y, groups)
        return float(np.mean([((Regression(alpha=penalty * 60).fit(x[a], y[a]).predict(x[b]) - y[b]) ** 2).mean() for a, b in folds]))

    penalties = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    expected = Regression(alpha=60 * min(penalties, key=error)).fit(x, y).predict(features.transform(query.embeddings))
    np.testing.assert_allclose(Ridge().predict(query)["valence"], expected.clip(-1, 1), atol=1e-6)


def test_ridge_corrects_each_clip_by_a_ridge_on_its_support_errors(world: Make) -> None:
    made = world(4)
    query = made.query
    features = StandardScaler().fit(query.train_embeddings.astype(float)).transform(query.embeddings.astype(float))
    plain = Ridge().predict(world(0).query)["valence"]
    expected = np.empty_like(plain)
    clips = query.test.samples["clip"].to_numpy()
    for clip in np.unique(clips):
        here, given = clips == clip, (clips == clip) & query.support
        correction = Regression(alpha=5.0).fit(features[given], (made.valence - plain)[given])
        expected[here] = plain[here] + correction.predict(features[here])
    np.testing.assert_allclose(Ridge(clip_penalty=5.0).predict(query)["valence"], expected.clip(-1, 1), atol=1e-6)


def test_ridge_tells_expressions_apart(world: Make, data: Make) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(3, size=90)
    features = (np.eye(8)[codes] * 3 + rng.normal(0, 1, (90, 8))).astype(np.float32)
    names = ("happy", "sad", "fear")
    train = data(expression=[names[code] for code in codes], clip=[f"c{i}" for i in range(90)])
    query = world(
        0, targets=("expression",), classes=("neutral", *names), train=train, encoder=lambda given, part: features[: given.samples.height]
    ).query
    chances = Ridge().predict(query)["expression"]
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert (chances >= 0).all()
    assert (chances.argmax(1) == codes[:32] + 1).mean() > 0.9


def test_random_features_are_the_same_in_every_process(world: Make) -> None:
    import torch

    frames = torch.rand(2, 1, 24, 24)
    state = torch.get_rng_state()
    first, second = (Ridge(backbone={"name": "conv"}).encode(frames) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, Ridge(backbone={"name": "conv"}, seed=1).encode(frames))


def test_controls_import_no_torch() -> None:
    code = "import sys, baselines.controls; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_calibration_moves_each_clip_by_its_mean_error(world: Make) -> None:
    import torch

    class Halves(torch.nn.Module):
        def outputs(self, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"valence": embeddings[:, 0] / 2, "arousal": embeddings[:, 1] / 2}

    made = world(3, modules=(Halves(),))
    clips, support = made.query.test.samples["clip"].to_numpy(), made.query.support
    expected = made.valence / 2
    for clip in np.unique(clips):
        expected[clips == clip] += (made.valence / 2)[support & (clips == clip)].mean()
    np.testing.assert_allclose(Supervised().predict(made.query)["valence"], expected.clip(-1, 1), atol=1e-6)
    np.testing.assert_allclose(Supervised(calibrate="none").predict(made.query)["valence"], made.valence / 2, atol=1e-6)
    with pytest.raises(RequestError, match="did you mean 'offset'"):
        Supervised(calibrate="ofset")
