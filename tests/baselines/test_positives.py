from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import positives
from baselines.positives import (
    Activity,
    ActivityCrossSubject,
    Augmentation,
    AuOverlap,
    Expression,
    Random,
    Strategy,
    Subject,
    Table,
    Temporal,
    TextSimilarity,
)
from harness.config import available, config_dirs, instantiate
from harness.errors import RequestError

NAN = float("nan")
STRATEGIES: dict[str, Strategy] = {
    "activity": Activity(),
    "activity_cross_subject": ActivityCrossSubject(),
    "augmentation": Augmentation(),
    "subject": Subject(),
    "random": Random(),
    "expression": Expression(),
    "au_overlap": AuOverlap(),
    "text_similarity": TextSimilarity(),
    "temporal": Temporal(window=6),
}


def table(n: int, **columns: Any) -> Table:
    """Samples of which nothing is known but what is given."""
    activity = np.asarray(columns.get("activity", np.full(n, -1)))
    given: dict[str, Any] = {
        **dict.fromkeys(("subject", "activity", "clip", "frame", "expression"), np.full(n, -1)),
        "aus": np.zeros((n, 0)),
        "activities": tuple(f"activity {i}" for i in range(max(int(activity.max(initial=-1)) + 1, 0))),
        **columns,
    }
    return Table(**{name: np.asarray(value) if isinstance(value, list) else value for name, value in given.items()})


def people(subjects: int = 6, activities: int = 4, frames: int = 12, seed: int = 0) -> Table:
    """Each of some people in a clip of each activity, in an order that says nothing."""
    subject, activity, frame = (axis.ravel() for axis in np.indices((subjects, activities, frames)))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(subject))
    aus = rng.integers(0, 2, (len(subject), 5)).astype(np.float32)
    cosine = np.eye(activities, dtype=np.float32)
    columns = {"subject": subject, "activity": activity, "clip": subject * activities + activity, "frame": frame, "expression": frame % 3}
    return table(len(order), aus=aus, similarity=cosine, **{name: column[order] for name, column in columns.items()})


def pairs(strategy: Strategy, given: Table) -> dict[tuple[int, int], float]:
    """The weights above 0 of a batch of all samples, once a pair."""
    weights = strategy.weights(given, np.arange(len(given)))
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, weights.T)
    assert (np.diag(weights) == 0).all()
    return {(int(i), int(j)): round(float(weights[i, j]), 5) for i, j in zip(*np.nonzero(weights), strict=True) if i < j}


def epoch(given: Table, strategy: Strategy, size: int, *, each: int = 4, seed: int = 0) -> list[np.ndarray]:
    """The batches of one epoch, with what is true of every epoch."""
    made = list(positives.batches(given, strategy, size, np.random.default_rng(seed), each=each))
    assert all(batch.dtype == np.int64 and batch.shape == (len(batch), 1) for batch in made)
    np.testing.assert_array_equal(np.sort(np.concatenate(made)[:, 0]), np.arange(len(given)))
    assert len(made) == math.ceil(len(given) / size)
    sizes = [len(batch) for batch in made]
    assert 0 < min(sizes) <= max(sizes) <= size
    assert max(sizes) - min(sizes) <= each
    return [batch[:, 0] for batch in made]


def with_a_positive(given: Table, strategy: Strategy, made: list[np.ndarray]) -> float:
    """Share of the samples that have one in their batch."""
    return float(np.concatenate([strategy.weights(given, rows).any(axis=1) for rows in made]).mean())


def test_activity_is_whose_activity_is_one_whoever_it_is() -> None:
    assert pairs(Activity(), table(5, activity=[1, 0, 1, 1, 0], subject=[0, 0, 0, 1, -1])) == {(0, 2): 1, (0, 3): 1, (2, 3): 1, (1, 4): 1}


def test_activity_cross_subject_leaves_out_the_same_person_and_whoever_may_be() -> None:
    given = table(6, activity=[0, 0, 0, 1, 0, 0], subject=[0, 0, 1, 1, -1, -1])
    assert pairs(ActivityCrossSubject(), given) == {(0, 2): 1, (1, 2): 1}


def test_augmentation_has_none() -> None:
    assert pairs(Augmentation(), people()) == {}


def test_subject_is_one_person_at_anything() -> None:
    assert pairs(Subject(), table(4, subject=[2, 0, 2, 1], activity=[0, 0, 1, 1])) == {(0, 2): 1}


def test_expression_is_one_expression() -> None:
    assert pairs(Expression(), table(4, expression=[3, 3, -1, 0])) == {(0, 1): 1}


def test_what_is_not_known_is_like_nothing_else_that_is_not() -> None:
    nothing = table(3, activity=[-1, -1, 0], aus=np.full((3, 2), NAN), similarity=np.ones((1, 1)), frame=[-1, -1, 0], clip=[0, 0, 0])
    for strategy in STRATEGIES.values():
        assert pairs(strategy, nothing) == {}


def test_au_overlap_is_the_jaccard_index_of_what_is_labelled_in_both() -> None:
    aus = [
        [1, 1, 0, 0],
        [1, 0, 1, 0],  # one of three with the first
        [1, 1, NAN, 0],  # all of two with the first; one of two with the second
        [0, 0, 0, 0],
        [0, NAN, 0, 0],  # none, as the one above
        [NAN, NAN, NAN, 1],  # of the others, only the last is labelled in both
    ]
    expected = {(0, 1): 0.33333, (0, 2): 1, (1, 2): 0.5, (3, 4): 1}
    assert pairs(AuOverlap(), table(6, aus=np.array(aus, np.float32))) == expected


def test_au_overlap_agrees_with_sets_taken_one_by_one() -> None:
    rng = np.random.default_rng(1)
    aus = rng.choice([0, 1, NAN], (20, 7), p=[0.5, 0.3, 0.2]).astype(np.float32)
    weights = AuOverlap().weights(table(20, aus=aus), np.arange(20))
    for i in range(20):
        for j in range(20):
            both = [au for au in range(7) if np.isfinite(aus[[i, j], au]).all()]
            a, b = ({au for au in both if aus[row, au] == 1} for row in (i, j))
            jaccard = len(a & b) / len(a | b) if a | b else float(bool(both))
            assert weights[i, j] == pytest.approx(0 if i == j else jaccard)


def test_text_similarity_grows_from_its_floor_and_is_whole_for_one_activity() -> None:
    cosine = np.array([[1, 0.65, 0.2], [0.65, 0.9, -1], [0.2, -1, 1]], np.float32)
    given = table(5, activity=[0, 1, 2, 1, -1], similarity=cosine)
    assert pairs(TextSimilarity(), given) == {(0, 1): 0.5, (0, 3): 0.5, (1, 3): 1}
    assert pairs(TextSimilarity(floor=0.0), given) == {(0, 1): 0.65, (0, 3): 0.65, (0, 2): 0.2, (1, 3): 1}


def test_temporal_is_frames_of_a_clip_up_to_a_window_apart() -> None:
    given = table(6, clip=[0, 0, 0, 1, 1, 0], frame=[0, 3, 6, 0, 9, -1])
    assert pairs(Temporal(window=3), given) == {(0, 1): 1, (1, 2): 1}
    assert pairs(Temporal(window=9), given) == {(0, 1): 1, (1, 2): 1, (0, 2): 1, (3, 4): 1}


def test_random_has_classes_of_the_same_sizes_that_say_nothing_of_content() -> None:
    rng = np.random.default_rng(0)
    activity = rng.choice([-1, 0, 1, 2], 4000, p=[0.1, 0.2, 0.3, 0.4])
    given = table(4000, activity=activity)
    dealt = Random(seed=3).key(given)
    np.testing.assert_array_equal(np.bincount(dealt + 1), np.bincount(activity + 1))
    np.testing.assert_array_equal(dealt < 0, activity < 0)
    known = activity >= 0
    by_chance = (np.bincount(activity[known]) / known.sum()) ** 2
    assert (dealt == activity)[known].mean() == pytest.approx(by_chance.sum(), abs=0.03)
    np.testing.assert_array_equal(Random(seed=3).key(table(4000, activity=activity)), dealt)
    assert (Random(seed=4).key(given) != dealt).any()
    rows = np.arange(40)
    np.testing.assert_array_equal(Random(seed=3).weights(given, rows), Activity().weights(table(40, activity=dealt[:40]), rows))


@pytest.mark.parametrize("name", STRATEGIES)
def test_weights_of_a_batch_are_those_of_its_rows(name: str) -> None:
    given, rows = people(), np.array([5, 250, 17, 3, 99, 100, 31])
    everything = STRATEGIES[name].weights(given, np.arange(len(given)))
    np.testing.assert_array_equal(STRATEGIES[name].weights(given, rows), everything[np.ix_(rows, rows)])
    assert ((everything >= 0) & (everything <= 1)).all()
    assert everything.any() == (name != "augmentation")


def test_a_batch_holds_groups_of_one_key() -> None:
    given = people(subjects=7)  # 84 samples of each activity: all in groups of four, though 336 are no multiple of 32
    made = epoch(given, Activity(), 32)
    for batch in made:
        assert (np.bincount(given.activity[batch]) % 4 == 0).all()
    assert with_a_positive(given, Activity(), made) == 1


def test_batches_smaller_than_a_group_hold_one_that_fits() -> None:
    given = table(240, subject=np.arange(240) % 20)
    assert with_a_positive(given, Subject(), epoch(given, Subject(), 3)) == 1


def test_large_and_small_groups_are_mixed_alike_in_every_batch() -> None:
    given = table(800, subject=np.concatenate([np.repeat(np.arange(100), 4), np.repeat(np.arange(100, 300), 2)]))
    for batch in epoch(given, Subject(), 16):
        assert (given.subject[batch] < 100).sum() == 8


def test_any_two_keys_may_meet() -> None:
    given = table(80, subject=np.repeat(np.arange(20), 4))
    together = np.zeros((20, 20), bool)
    for seed in range(300):
        for batch in epoch(given, Subject(), 8, seed=seed):
            together[np.ix_(given.subject[batch], given.subject[batch])] = True
    assert together.all()


def test_groups_of_a_key_that_is_no_multiple_are_as_equal_as_can_be() -> None:
    given = table(1000, subject=np.arange(1000) % 200)  # five of each: not 4 + 1, where one in five would be alone
    shares = [with_a_positive(given, Subject(), epoch(given, Subject(), 32, seed=seed)) for seed in range(10)]
    assert min(shares) > 0.95


@pytest.mark.parametrize("size", [30, 32, 37])
def test_sizes_that_are_no_multiple_of_a_group_cost_few_positives(size: int) -> None:
    given = people(subjects=50, activities=1, frames=11)
    for strategy in (Subject(), Temporal(window=6)):
        assert with_a_positive(given, strategy, epoch(given, strategy, size)) > 0.95


def test_across_subjects_an_activity_brings_different_people_together() -> None:
    given = people(subjects=6, frames=40)
    made = epoch(given, ActivityCrossSubject(), 16)
    assert with_a_positive(given, ActivityCrossSubject(), made) == 1
    for batch in made:
        weights = ActivityCrossSubject().weights(given, batch)
        assert (weights.sum(1) >= 3).all(), "a group of four is of four people"
    anyhow = [ActivityCrossSubject().weights(given, batch).sum(1).min() for batch in epoch(given, Activity(), 16)]
    assert min(anyhow) < 3, "by chance it would not be"


def test_across_subjects_one_person_with_most_samples_is_spread_over_the_others() -> None:
    rng = np.random.default_rng(0)
    subject = rng.permutation(np.repeat([0, 1, 2, 3], [200, 80, 60, 60]))
    given = table(400, subject=subject, activity=np.zeros(400, np.int64))
    assert with_a_positive(given, ActivityCrossSubject(), epoch(given, ActivityCrossSubject(), 4)) > 0.97


def test_across_subjects_those_who_are_not_known_take_nobodys_place() -> None:
    subject = np.random.default_rng(0).permutation(np.repeat([-1, 0, 1, 2, 3], 80))
    given = table(400, subject=subject, activity=np.zeros(400, np.int64))
    made = epoch(given, ActivityCrossSubject(), 4)
    for batch in made:
        assert sorted(given.subject[batch]) in ([0, 1, 2, 3], [-1] * 4)


def test_temporal_takes_neighbours() -> None:
    given = people(frames=60)
    made = epoch(given, Temporal(window=6), 32)
    assert with_a_positive(given, Temporal(window=6), made) > 0.98
    by_chance = with_a_positive(given, Temporal(window=6), epoch(given, Augmentation(), 32))
    assert by_chance < 0.35


def test_au_overlap_brings_those_together_that_show_the_same() -> None:
    given = people()
    overlap = [
        np.mean([AuOverlap().weights(given, batch).max(axis=1).mean() for batch in epoch(given, strategy, 16)])
        for strategy in (AuOverlap(), Augmentation())
    ]
    assert overlap[0] > 0.95
    assert overlap[1] < 0.85


def test_whoever_has_no_partner_is_there_without_a_positive() -> None:
    given = table(9, subject=[0, 0, 0, 1, 1, 2, 3, -1, -1], activity=[0, 0, 1, 1, 1, 2, -1, -1, 3])
    (batch,) = epoch(given, Activity(), 64)
    alone = {int(row) for row, weights in zip(batch, Activity().weights(given, batch), strict=True) if not weights.any()}
    assert alone == {5, 6, 7, 8}
    (batch,) = epoch(given, ActivityCrossSubject(), 64)
    weights = ActivityCrossSubject().weights(given, batch)
    assert {int(row) for row in batch[weights.any(axis=1)]} == {2, 3, 4}


def test_one_subject_with_one_activity_is_one_class_and_has_nobody_across() -> None:
    given = table(10, subject=np.zeros(10, np.int64), activity=np.zeros(10, np.int64))
    for strategy, share in ((Activity(), 1), (Subject(), 1), (ActivityCrossSubject(), 0)):
        assert with_a_positive(given, strategy, epoch(given, strategy, 4)) == share


def test_batches_follow_from_the_generator_and_every_epoch_is_another() -> None:
    given = people()
    first, again, other = (epoch(given, Activity(), 32, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(sorted(a) != sorted(b) for a, b in zip(first, other, strict=True))
    together = np.zeros((len(given), len(given)), bool)
    for seed in range(60):
        for batch in epoch(given, Activity(), 32, seed=seed):
            together[np.ix_(batch, batch)] = True
    assert together.mean() > 0.99, "anybody meets anybody"


@given(
    key=st.lists(st.integers(-1, 5), max_size=70),
    subjects=st.integers(1, 4),
    size=st.integers(1, 40),
    each=st.integers(1, 6),
    name=st.sampled_from(["activity", "activity_cross_subject", "subject", "random", "augmentation"]),
)
@settings(max_examples=200, deadline=None)
def test_any_samples_make_batches_of_the_sizes_asked_for(key: list[int], subjects: int, size: int, each: int, name: str) -> None:
    n = len(key)
    given = table(n, activity=np.array(key, np.int64), subject=np.arange(n) % subjects)
    if n and max(key) < 0 and name in ("activity", "activity_cross_subject", "random"):
        with pytest.raises(RequestError, match="no sample has an activity"):
            positives.batches(given, STRATEGIES[name], size, np.random.default_rng(0), each=each)
        return
    if n:
        epoch(given, STRATEGIES[name], size, each=each)
    else:
        assert list(positives.batches(given, STRATEGIES[name], size, np.random.default_rng(0), each=each)) == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_is_done_one_sample_after_the_other(name: str) -> None:
    def lines(frames: int) -> int:
        """Lines of Python that an epoch's batches and the weights of one take."""
        given, done = people(frames=frames), 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal done
            done += event == "line"
            return trace if frame.f_code.co_filename == positives.__file__ else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            made = positives.batches(given, STRATEGIES[name], 32, np.random.default_rng(0))
            STRATEGIES[name].weights(given, next(made)[:, 0])
        finally:
            sys.settrace(before)
        return done

    assert 5 < lines(200) == lines(20)


def test_a_million_samples() -> None:
    n = 1_000_000
    rng = np.random.default_rng(0)
    given = table(n, subject=rng.integers(0, 140, n), activity=rng.integers(0, 10, n))
    assert with_a_positive(given, ActivityCrossSubject(), epoch(given, ActivityCrossSubject(), 64)[:50]) == 1


def test_a_table_of_samples_as_a_reader_gives_them(data: Callable[..., Any]) -> None:
    given = data(
        clip=["b", "b", "a", "a", "c"],
        frame=[0, 1, 5, None, 0],
        subject=["F02", "F02", None, None, "F01"],
        activity=["sad 😢 <b>film</b>", "sad 😢 <b>film</b>", " ", None, "a joke"],
        expression=["sad", "happy", None, "neutral", "happy"],
        au12=[0, 1, None, 0, 1],
        au4=[1, None, None, 0, 0],
        au4_intensity=[5, None, None, 0, 0],
    )
    found = Table.of(given, classes=("neutral", "happy"))
    assert len(found) == 5
    assert found.activities == ("a joke", "sad 😢 <b>film</b>")
    assert found.activity.tolist() == [1, 1, -1, -1, 0]
    assert found.subject.tolist() == [1, 1, -1, -1, 0]
    assert found.clip.tolist() == [1, 1, 0, 0, 2]
    assert found.frame.tolist() == [0, 1, 5, -1, 0]
    assert found.expression.tolist() == [-1, 1, -1, 0, 1]
    np.testing.assert_array_equal(found.aus, np.array([[1, 0], [NAN, 1], [NAN, NAN], [0, 0], [0, 1]], np.float32))
    assert {values.dtype for values in (found.subject, found.activity, found.clip, found.frame, found.expression)} == {np.dtype(np.int64)}
    assert found.similarity is None


def test_labels_that_a_dataset_has_not_are_known_of_nobody(data: Callable[..., Any]) -> None:
    whole = data(clip=["a", "b"])
    bare = type(whole)(whole.samples.drop("activity", "expression", "valence", "arousal"), whole.frames)
    for samples in (whole, bare):
        found = Table.of(samples, classes=())
        assert found.aus.shape == (2, 0)
        assert found.activities == ()
        assert [values.tolist() for values in (found.subject, found.activity, found.expression)] == [[-1, -1]] * 3


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("activity", "no sample has an activity"),
        ("activity_cross_subject", "no sample has a subject"),
        ("subject", "no sample has a subject"),
        ("random", "no sample has an activity"),
        ("expression", "no sample has one of the task's expressions"),
        ("au_overlap", "no sample has a labelled action unit"),
        ("text_similarity", "how alike the descriptions of the activities are"),
        ("temporal", "no clip has two frames"),
    ],
)
def test_a_strategy_says_in_one_line_what_the_samples_lack(data: Callable[..., Any], name: str, line: str) -> None:
    given = Table.of(data(clip=["a", "b", "c"]), classes=("happy",))
    with pytest.raises(RequestError, match=line) as refused:
        positives.batches(given, STRATEGIES[name], 2, np.random.default_rng(0))
    assert refused.value.where == "positives"
    assert list(positives.batches(given, Augmentation(), 2, np.random.default_rng(0)))


def test_no_samples_make_no_batches_whatever_the_strategy(data: Callable[..., Any]) -> None:
    given = Table.of(data(clip=[]), classes=("happy",), similarity=np.zeros((0, 0)))
    for strategy in STRATEGIES.values():
        assert list(positives.batches(given, strategy, 2, np.random.default_rng(0))) == []
        assert strategy.weights(given, np.arange(0)).shape == (0, 0)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: TextSimilarity(floor=1.0), "a floor of 1.0"),
        (lambda: TextSimilarity(floor=NAN), "a floor of nan"),
        (lambda: Temporal(window=0), "a window of 0"),
        (lambda: Random(seed=-1), "a seed of -1"),
        (lambda: positives.batches(people(), Activity(), 8, np.random.default_rng(0), each=0), "0 samples of a key"),
        (lambda: Temporal(window=3).key(table(4, clip=[0, 0, 1, 1], frame=[0, 5, 3, 20])), "the nearest two are 5 apart"),
        (lambda: instantiate({"_target_": "baselines.positives.Temporal", "windw": 3}), "unexpected keyword argument 'windw'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Callable[[], object], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        make()


def test_similarities_of_other_activities_are_an_error_and_no_wrong_weights() -> None:
    with pytest.raises(ValueError, match="for 2 activities"):
        table(2, activity=[0, 1], similarity=np.eye(3))


def test_every_strategy_has_a_yaml_and_every_yaml_a_line_about_it() -> None:
    found = available("positives")
    assert set(found) == set(STRATEGIES)
    assert all(found.values())
    for name, strategy in STRATEGIES.items():
        node = yaml.safe_load((config_dirs()[-1] / "positives" / f"{name}.yaml").read_text(encoding="utf-8"))
        made = instantiate(node)
        assert type(made) is type(strategy)
        assert made == type(strategy)(), "the YAML gives the defaults"
