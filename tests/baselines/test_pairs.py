from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from baselines import pairs
from baselines.pairs import Expression, Labels, Radius, Random, WithinClip
from harness.errors import RequestError


def labels(kind: np.ndarray, *, valence: np.ndarray | None = None, clip: np.ndarray | None = None) -> Labels:
    n = len(kind)
    zeros = np.zeros(n)
    return Labels(zeros if valence is None else valence, zeros, np.asarray(kind), np.arange(n) if clip is None else clip)


def drawn(rule: Any, given: Labels, n: int, seed: int = 0) -> np.ndarray:
    made: np.ndarray = rule.draw(given, n, np.random.default_rng(seed))
    assert made.shape == (n, 2)
    assert made.min() >= 0
    assert made.max() < len(given.kind)
    assert (made[:, 0] != made[:, 1]).all()
    return made


KINDS = st.lists(st.integers(-1, 4), min_size=3, max_size=40).map(np.array)


@given(kind=KINDS, n=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_pairs_by_expression_are_alike_and_unlike_in_turn_and_labelled(kind: np.ndarray, n: int, seed: int) -> None:
    given = labels(kind)
    counts = np.bincount(kind[kind >= 0], minlength=2)
    if (counts > 0).sum() < 2 or counts.max() < 2:
        with pytest.raises(RequestError, match="give no pairs"):
            Expression().draw(given, n, np.random.default_rng(seed))
        return
    made = drawn(Expression(), given, n, seed)
    assert (kind[made] >= 0).all()
    np.testing.assert_array_equal(Expression().same(given, made), np.arange(n) % 2 == 0)


def test_pairs_by_expression_are_uniform_over_classes_however_rare() -> None:
    kind = np.repeat([0, 1, 2], [2, 50, 448])
    made = kind[drawn(Expression(), labels(kind), 30000)]
    for column in (made[:, 0], made[0::2, 1], made[1::2, 1]):
        assert chisquare(np.bincount(column)).pvalue > 0.001
    unlike = made[1::2] @ [3, 1]
    assert chisquare(np.bincount(unlike, minlength=9)[[1, 2, 3, 5, 6, 7]]).pvalue > 0.001


def test_every_image_of_a_class_is_met_as_often_as_another() -> None:
    kind = np.repeat([0, 1], [5, 5])
    made = drawn(Expression(), labels(kind), 40000)
    assert chisquare(np.bincount(made[:, 0])).pvalue > 0.001
    assert chisquare(np.bincount(made[:, 1])).pvalue > 0.001


@given(values=st.lists(st.integers(-10, 10), min_size=2, max_size=40), n=st.integers(1, 60), radius=st.sampled_from([0.1, 0.2, 0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_pairs_by_radius_are_near_and_far_in_turn(values: list[int], n: int, radius: float) -> None:
    valence = np.array(values, dtype=np.float32).astype(np.float64) / 10
    given = labels(np.zeros(len(values)), valence=valence)
    tenths = np.abs(np.subtract.outer(values, values))
    near = tenths < round(radius * 10)  # in whole tenths, where nothing is rounded
    np.fill_diagonal(near, False)
    if not near.any() or (tenths < round(radius * 10)).all():
        with pytest.raises(RequestError, match="within"):
            Radius(radius=radius).draw(given, n, np.random.default_rng(0))
        return
    made = drawn(Radius(radius=radius), given, n)
    np.testing.assert_array_equal(near[made[:, 0], made[:, 1]], np.arange(n) % 2 == 0)
    np.testing.assert_array_equal(Radius(radius=radius).same(given, made), np.arange(n) % 2 == 0)


def test_pairs_by_radius_meet_every_partner_alike() -> None:
    given = labels(np.zeros(5), valence=np.array([0.0, 0.1, 0.15, 0.9, 1.0]))
    made = drawn(Radius(), given, 40000)
    near, far = made[0::2], made[1::2]
    assert set(map(tuple, near)) == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1), (3, 4), (4, 3)}
    first = far[far[:, 0] == 0][:, 1]
    assert chisquare([np.sum(first == 3), np.sum(first == 4)]).pvalue > 0.001


def test_random_pairs_meet_everybody_but_oneself() -> None:
    made = drawn(Random(), labels(np.array([0, 0, 1])), 30000)
    assert chisquare(np.bincount(made @ [3, 1], minlength=8)[[1, 2, 3, 5, 6, 7]]).pvalue > 0.001


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_pairs_inside_a_clip_is_exact(share: float) -> None:
    clip = np.repeat(np.arange(10), 10)
    kind = np.tile(np.repeat([0, 1], 5), 10)
    given = labels(kind, clip=np.concatenate([clip, [10]])[: len(kind)])
    made = drawn(WithinClip(share=share, other=Expression()), given, 400)
    inside = clip[made[:, 0]] == clip[made[:, 1]]
    assert inside.sum() >= share * 400
    if share == 1.0:
        assert inside.all()
    assert inside.mean() < share + (1 - share) * 0.25 + 1e-9  # by chance, a tenth of the others


def test_a_clip_of_one_frame_makes_no_pair_of_its_own() -> None:
    given = labels(np.zeros(4), clip=np.array([0, 1, 1, 2]))
    assert set(drawn(WithinClip(share=1.0), given, 50).ravel()) == {1, 2}
    with pytest.raises(RequestError, match="no clip has two"):
        WithinClip(share=0.5).draw(labels(np.zeros(4)), 10, np.random.default_rng(0))


def test_without_expressions_classes_follow_from_valence_and_arousal(data: Callable[..., Any]) -> None:
    given = data(valence=[0.1, 0.5, -0.5, -0.5, 0.5, None], arousal=[0.1, 0.5, 0.5, -0.5, -0.5, 0.1], expression=["happy"] * 6)
    assert Labels.of(given, ()).kind[:5].tolist() == [0, 1, 2, 3, 4]
    assert Labels.of(given, ("sad", "happy")).kind.tolist() == [1] * 6


def test_a_rule_is_made_with_the_rule_inside_it() -> None:
    node = {"_target_": "baselines.pairs.WithinClip", "share": 0.25, "other": {"_target_": "baselines.pairs.Radius", "target": "arousal"}}
    assert pairs.make(node) == WithinClip(share=0.25, other=Radius(target="arousal"))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Radius(target="valance"), "did you mean 'valence'"),
        (lambda: Radius(radius=0.0), "a radius of 0.0"),
        (lambda: WithinClip(share=1.5), "a share of 1.5"),
        (lambda: Random().draw(labels(np.zeros(1)), 3, np.random.default_rng(0)), "1 images make no pair"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Callable[[], object], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        make()
