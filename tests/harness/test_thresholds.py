"""Thresholds are the best on what they are chosen on, and moving them changes no order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from harness.thresholds import best, moved

chances = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]) | st.floats(0, 1)


@settings(max_examples=200, deadline=None)
@given(cells=st.lists(st.tuples(st.booleans(), chances), min_size=1, max_size=40))
def test_no_threshold_has_a_better_f1(cells: list[tuple[bool, float]]) -> None:
    y, p = (np.array(column, float) for column in zip(*cells, strict=True))
    threshold = best(y, p)
    assert 0 <= threshold <= 1
    if not y.any():
        assert threshold == 0.5
        return
    chosen = f1_score(y, p >= threshold, zero_division=0)
    others = [f1_score(y, p >= value, zero_division=0) for value in {*p.tolist(), 0.5, 1.1}]
    assert chosen >= max(others) - 1e-12


@settings(max_examples=100, deadline=None)
@given(p=st.lists(chances, min_size=1, max_size=30), threshold=st.floats(0, 1))
def test_what_was_at_the_threshold_is_at_a_half_and_the_order_stays(p: list[float], threshold: float) -> None:
    before, after = np.array(p), moved(np.array(p), threshold)
    assert ((after >= 0) & (after <= 1)).all()
    assert ((after >= 0.5) == (before >= threshold)).all()
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()


def test_rows_without_a_label_have_no_say() -> None:
    y, p = np.array([0, 1, np.nan, np.nan]), np.array([0.1, 0.3, 0.15, 0.9])
    assert best(y, p) == pytest.approx(0.2)


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken() -> None:
    assert best(np.array([0, 1, 0, 1.0]), np.array([0.4, 0.6, 0.4, 0.6])) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_of_a_constant_everything_is_a_detection_which_is_the_best_it_can_do(value: float) -> None:
    y, p = np.array([0, 1, 0.0]), np.full(3, value)
    assert (moved(p, best(y, p)) >= 0.5).all()
