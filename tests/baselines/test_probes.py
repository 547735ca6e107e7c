"""The nearest training samples vote."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from baselines import probes
from baselines.probes import Nearest
from harness.baseline import Data, Query
from harness.errors import RequestError

Make = Callable[..., Any]
CLASSES = ("neutral", "happy", "sad")
REFERENCE = {"metric": "cosine", "algorithm": "brute", "weights": lambda distances: (1 - distances).clip(0) + 1e-12}


@pytest.fixture
def asked(data: Make) -> Callable[..., Query]:
    """A query about some test embeddings, given training embeddings and their labels."""

    def make(train: np.ndarray, test: np.ndarray, targets: tuple[str, ...], **labels: Any) -> Query:
        def encode(data: Data, part: str) -> np.ndarray:
            return train if part == "train" else test

        return Query(
            test=data(clip=["c"] * len(test)),
            support=np.zeros(len(test), bool),
            labels={},
            setting={},
            targets=targets,
            classes=CLASSES,
            train=data(**labels),
            modules=(),
            device=None,
            encoder=encode,
        )

    return make


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(0.3, 1, (90, 8)).astype(np.float32), draw.normal(0.3, 1, (40, 8)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_it_is_scikit_learns(asked: Make, vectors: tuple[np.ndarray, np.ndarray], k: int) -> None:
    train, test = vectors
    draw = np.random.default_rng(1)
    names = draw.choice(CLASSES, 90)
    valence, au, intensity = draw.uniform(-1, 1, 90), draw.integers(0, 2, 90), draw.integers(0, 6, 90)
    query = asked(
        train,
        test,
        ("expression", "valence", "au1", "au1_intensity"),
        expression=names.tolist(),
        valence=valence.tolist(),
        au1=au.tolist(),
        au1_intensity=intensity.tolist(),
    )
    predicted = Nearest(neighbours=k).predict(query)
    share, usual = KNeighborsRegressor(k, **REFERENCE).fit(train, au).predict(test), au.mean()
    np.testing.assert_allclose(predicted["au1"], share / usual / (share / usual + (1 - share) / (1 - usual)), atol=1e-5)
    for target, labels in {"valence": valence, "au1_intensity": intensity}.items():
        expected = KNeighborsRegressor(k, **REFERENCE).fit(train, labels).predict(test)
        np.testing.assert_allclose(predicted[target], expected, atol=1e-5)
    reference = KNeighborsClassifier(k, **REFERENCE).fit(train, names)
    order = [list(reference.classes_).index(name) for name in CLASSES]
    np.testing.assert_allclose(predicted["expression"], reference.predict_proba(test)[:, order], atol=1e-5)


def test_each_target_is_asked_of_the_samples_labelled_for_it(asked: Make, vectors: tuple[np.ndarray, np.ndarray]) -> None:
    train, test = vectors
    valence = np.random.default_rng(2).uniform(-1, 1, 90)
    known = np.arange(90) % 3 > 0
    labels = {
        "valence": [float(value) if there else None for value, there in zip(valence, known, strict=True)],
        "arousal": valence.tolist(),
    }
    predicted = Nearest(neighbours=7).predict(asked(train, test, ("valence", "arousal"), **labels))
    for target, rows in {"valence": known, "arousal": np.ones(90, bool)}.items():
        expected = KNeighborsRegressor(7, **REFERENCE).fit(train[rows], valence[rows]).predict(test)
        np.testing.assert_allclose(predicted[target], expected, atol=1e-5)


def test_votes_are_averaged_as_they_are(asked: Make) -> None:
    train = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    votes = {"votes_neutral": [8, 0, 0], "votes_happy": [2, 10, 0], "votes_sad": [0, 0, 0]}
    query = asked(train, np.array([[2, 0]], np.float32), ("expression",), **votes)
    np.testing.assert_allclose(Nearest(neighbours=2).predict(query)["expression"], [[0.4, 0.6, 0]])


def test_a_rare_action_unit_is_found_at_a_half_and_one_that_never_or_always_shows_is_as_usual(asked: Make) -> None:
    angle = np.repeat([0.0, 1.5], [90, 10])
    train = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    rare = [*[0] * 90, *[1] * 4, *[0] * 6]
    query = asked(train, train[[0, 99]], ("au1", "au2", "au4"), au1=rare, au2=[0] * 100, au4=[1] * 100)
    predicted = Nearest(neighbours=10).predict(query)
    assert predicted["au1"][0] < 0.5 < predicted["au1"][1], "four of its ten neighbours show it, and four of a hundred do"
    np.testing.assert_array_equal(predicted["au2"], 0)
    np.testing.assert_allclose(predicted["au4"], 1)


def test_in_blocks_it_is_the_same(asked: Make, vectors: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    query = asked(*vectors, ("valence",), valence=np.linspace(-1, 1, 90).tolist())
    whole = Nearest().predict(query)["valence"]
    monkeypatch.setattr(probes, "BLOCK", 4 * 90 * 7)
    np.testing.assert_allclose(Nearest().predict(query)["valence"], whole, rtol=1e-6)
    monkeypatch.setattr(probes, "BLOCK", 1)
    np.testing.assert_allclose(Nearest().predict(query)["valence"], whole, rtol=1e-6)


def test_more_neighbours_than_there_are_is_all_of_them(asked: Make, vectors: tuple[np.ndarray, np.ndarray]) -> None:
    query = asked(*vectors, ("valence",), valence=np.linspace(-1, 1, 90).tolist())
    expected = KNeighborsRegressor(90, **REFERENCE).fit(vectors[0], np.linspace(-1, 1, 90)).predict(vectors[1])
    np.testing.assert_allclose(Nearest(neighbours=5000).predict(query)["valence"], expected, atol=1e-5)


def test_one_class_in_training_is_the_answer(asked: Make, vectors: tuple[np.ndarray, np.ndarray]) -> None:
    predicted = Nearest().predict(asked(*vectors, ("expression",), expression=["sad"] * 90))["expression"]
    np.testing.assert_allclose(predicted, np.tile([0, 0, 1], (40, 1)))


def test_a_target_nobody_is_labelled_for_is_refused_by_name(asked: Make, vectors: tuple[np.ndarray, np.ndarray]) -> None:
    query = asked(*vectors, ("valence", "au1"), valence=[0.0] * 90, au1=[None] * 90)
    with pytest.raises(RequestError, match="no training sample is labelled for au1"):
        Nearest().predict(query)


def test_vectors_without_a_direction_and_opposite_ones_still_give_means(asked: Make) -> None:
    train = np.array([[1, 0], [0, 0], [np.nan, 1], [1e30, 0]], np.float32)
    test = np.array([[0, 0], [-1, 0], [np.inf, 0], [3, 0]], np.float32)
    query = asked(train, test, ("valence", "au1"), valence=[0.2, 0.4, 0.6, 0.4], au1=[0, 0, 1, 1])
    predicted = Nearest(neighbours=4).predict(query)
    np.testing.assert_allclose(predicted["valence"], [0.4, 0.4, 0.4, 0.3], atol=1e-6)
    np.testing.assert_allclose(predicted["au1"], [0.5] * 4, atol=1e-6)
    np.testing.assert_allclose(Nearest(neighbours=1).predict(query)["valence"][3], 0.2, atol=1e-6)


def test_no_test_sample_is_no_prediction(asked: Make, vectors: tuple[np.ndarray, np.ndarray]) -> None:
    query = asked(vectors[0], vectors[1][:0], ("valence", "expression"), valence=[0.0] * 90, expression=["sad"] * 90)
    assert {target: values.shape for target, values in Nearest().predict(query).items()} == {"valence": (0,), "expression": (0, 3)}


@pytest.mark.parametrize("neighbours", [0, -1, 2.5, "20", True, None])
def test_a_number_of_neighbours_that_cannot_be_is_refused(neighbours: Any) -> None:
    with pytest.raises(RequestError, match=r"baseline\.neighbours"):
        Nearest(neighbours=neighbours)


def test_probes_import_no_torch() -> None:
    code = "import sys, baselines.probes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
