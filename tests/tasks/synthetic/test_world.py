import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeCV

from harness.samples import EXPRESSIONS
from tasks.synthetic import faces
from tasks.synthetic.world import (
    ACTIVITIES,
    CIRCUMPLEX,
    EMOTIONS,
    PROTOTYPES,
    SPEECH,
    World,
    shown_emotions,
)


def faces_with(*units: dict[int, float], people: int = 1, side: float = 0.0, still: bool = True, size: int = 96) -> faces.Rendering:
    """Each person with each set of AUs; ``still`` looks straight ahead in even light."""
    rng = np.random.default_rng(7)
    identity = {name: np.repeat(values, len(units)) for name, values in faces.draw(faces.IDENTITY, people, rng).items()}
    nuisance = faces.draw(faces.NUISANCE, people * len(units), rng)
    if still:
        nuisance = {name: np.repeat(values[:people], len(units)) for name, values in nuisance.items()}
        for name in ("yaw", "pitch", "roll", "gaze_x", "gaze_y", "light_x", "light_y", "grain"):
            nuisance[name] = np.zeros_like(nuisance[name])
    identity |= {"glasses": np.full_like(identity["glasses"], -1), "beard": np.full_like(identity["beard"], -1)}
    aus = np.tile([[unit.get(au, 0.0) for au in faces.AUS] for unit in units], (people, 1))
    return faces.render(identity, nuisance, aus, np.full(len(aus), side), size=size, seed=0)


def movement(au: int, side: float = 0.0) -> np.ndarray:
    """How an AU moves the landmarks of each of ten people, ``(10, 68, 2)`` in pixels; y points down."""
    points = faces_with({}, {au: 1.0}, people=10, side=side).landmarks.reshape(10, 2, 68, 2)
    return points[:, 1] - points[:, 0]


INNER_BROWS, OUTER_BROWS, UPPER_LIDS, LOWER_LIDS = [21, 22], [17, 26], [37, 38, 43, 44], [40, 41, 46, 47]
LEFT_CORNER, RIGHT_CORNER, UPPER_LIP, CHIN = [48], [54], [51], [8]
X, Y = 0, 1


@pytest.mark.parametrize(
    ("au", "points", "axis", "sign"),
    [
        (1, INNER_BROWS, Y, -1),
        (2, OUTER_BROWS, Y, -1),
        (4, INNER_BROWS, Y, 1),
        (4, [21], X, 1),
        (5, UPPER_LIDS, Y, -1),
        (6, LOWER_LIDS, Y, -1),
        (7, LOWER_LIDS, Y, -1),
        (7, UPPER_LIDS, Y, 1),
        (10, UPPER_LIP, Y, -1),
        (12, LEFT_CORNER + RIGHT_CORNER, Y, -1),
        (12, RIGHT_CORNER, X, 1),
        (15, LEFT_CORNER + RIGHT_CORNER, Y, 1),
        (17, UPPER_LIP, Y, -1),
        (20, LEFT_CORNER, X, -1),
        (24, [57], Y, -1),
        (26, CHIN, Y, 1),
    ],
)
def test_an_action_unit_moves_landmarks_as_facs_says(au: int, points: list[int], axis: int, sign: int) -> None:
    assert (sign * movement(au)[:, points, axis] > 0.4).all()


def test_lips_part_with_au_25_and_further_with_26() -> None:
    closed, parted, dropped = (
        np.diff(faces_with(units, people=10).landmarks[:, [62, 66], Y], axis=1) for units in ({}, {25: 1.0}, {25: 1.0, 26: 1.0})
    )
    assert (closed < parted).all()
    assert (2 * parted < dropped).all()


def test_a_smirk_lifts_one_corner_of_the_mouth() -> None:
    moved = movement(12, side=1.0)
    assert (moved[:, RIGHT_CORNER, Y] < -2).all()
    np.testing.assert_allclose(moved[:, LEFT_CORNER, Y], 0, atol=0.01)


@pytest.mark.parametrize(("au", "upper"), [(au, au <= 7) for au in faces.AUS if au != 9])
def test_an_action_unit_is_seen_in_its_half_of_the_face(au: int, upper: bool) -> None:
    rendering = faces_with({}, {au: 1.0}, people=10)
    images = rendering.images.reshape(10, 2, 96, 96, 3).astype(float)
    change = np.abs(images[:, 1] - images[:, 0]).mean((2, 3))
    for person, tip in enumerate(rendering.landmarks[::2, 33, Y].astype(int)):
        above, below = change[person, :tip].sum(), change[person, tip:].sum()
        assert (above if upper else below) > 3 * (below if upper else above)
        assert above + below > 15


def test_landmarks_lie_on_what_is_drawn_however_the_head_turns() -> None:
    rendering = faces_with({25: 1.0, 26: 1.0}, people=60, still=False)
    grey = rendering.images.mean(-1)

    def at(points: np.ndarray) -> np.ndarray:
        x, y = points.astype(int).T
        return np.asarray(grey[np.arange(len(grey)), y, x])

    cheek = at(rendering.landmarks[:, [29, 2]].mean(1))
    assert (at(rendering.landmarks[:, [66, 57]].mean(1)) < 0.9 * cheek).mean() > 0.95  # lower lip
    assert (at(rendering.landmarks[:, [62, 66, 66]].mean(1)) < 0.6 * cheek).mean() > 0.95  # open mouth, below the teeth
    assert (at(rendering.landmarks[:, 19]) < 0.8 * cheek).mean() > 0.9  # brow


def test_a_face_is_inside_its_box_and_its_image() -> None:
    rendering = faces_with({26: 1.0}, people=60, still=False)
    assert (rendering.boxes[:, :2] <= rendering.landmarks.min(1)).all()
    assert (rendering.boxes[:, 2:] >= rendering.landmarks.max(1)).all()
    assert rendering.landmarks.min() > 0
    assert rendering.landmarks.max() < 96


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_full_emotion_is_read_back_from_its_action_units_alone(emotion: str) -> None:
    rest = np.random.default_rng(0).uniform(0, 0.3, (1, len(faces.AUS)))
    shown = [[PROTOTYPES[emotion].get(au, 0.0) + 0.7 * SPEECH.get(au, 0.0) for au in faces.AUS]]
    np.testing.assert_allclose(shown_emotions(rest + shown, rest), [[float(other == emotion) for other in EMOTIONS]], atol=1e-9)


def test_valence_and_arousal_of_photographs_lie_where_the_circumplex_says() -> None:
    photos = World(0, 800).stills(np.arange(800) % 8)
    for emotion, (valence, arousal) in CIRCUMPLEX.items():
        chosen = photos.expression == EXPRESSIONS.index(emotion)
        assert photos.valence[chosen].mean() == pytest.approx(0.75 * valence, abs=0.12)
        assert photos.arousal[chosen].mean() == pytest.approx(0.75 * arousal, abs=0.12)


def test_raters_mostly_see_the_emotion_that_was_meant_and_sometimes_not() -> None:
    meant = np.arange(800) % 8
    assert 0.85 < (World(0, 800).stills(meant).expression == meant).mean() < 0.99


def test_a_linear_classifier_names_the_expressions_of_people_it_has_not_seen() -> None:
    photos = World(1, 640).stills(np.arange(640) % 8)
    rendering = photos.render(np.arange(640), 48)
    points = rendering.landmarks - rendering.landmarks.mean(1, keepdims=True)
    shape = (points / points.std((1, 2), keepdims=True)).reshape(640, -1)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(shape[:480], photos.expression[:480])
    assert model.score(shape[480:], photos.expression[480:]) > 0.6  # the largest class has 0.13


def ccc(target: np.ndarray, predicted: np.ndarray) -> float:
    covariance = np.cov(target, predicted, bias=True)
    return float(2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (target.mean() - predicted.mean()) ** 2))


def interpolated(footage, label: np.ndarray, size: int, *, constant: bool = False) -> float:
    """CCC of linear interpolation (or of the mean) of a few frames, evenly spaced, on the others."""
    targets, predictions = [], []
    for clip in np.unique(footage.clip):
        own = label[footage.clip == clip]
        support = np.arange(size) * len(own) // size
        rest = np.setdiff1d(np.arange(len(own)), support)
        targets.append(own[rest])
        predictions.append(np.full(len(rest), own[support].mean()) if constant else np.interp(rest, support, own[support]))
    return ccc(np.concatenate(targets), np.concatenate(predictions))


@pytest.mark.parametrize("label", ["valence", "arousal"])
def test_a_few_labels_leave_much_to_a_method_and_many_do_not(label: str) -> None:
    footage = World(0, 60).clips(120, (40, 60))
    values = getattr(footage, label)
    assert 0.1 < interpolated(footage, values, 1, constant=True) < 0.5
    assert interpolated(footage, values, 4) < 0.65
    assert interpolated(footage, values, 8) < 0.85
    assert interpolated(footage, values, 16) > 0.8


def test_differences_within_a_face_carry_over_to_other_people_and_faces_themselves_do_less() -> None:
    footage = World(0, 24).clips(48, (40, 50))
    points = np.concatenate([footage.render(np.flatnonzero(footage.clip == clip), 48).landmarks for clip in range(48)])
    points = points - points.mean(1, keepdims=True)
    shape = (points / points.std((1, 2), keepdims=True)).reshape(len(points), -1)
    train = footage.subject < 18

    def centred(values: np.ndarray) -> np.ndarray:
        """Without the mean of each clip."""
        sums = np.zeros((48, *values.shape[1:]))
        np.add.at(sums, footage.clip, values)
        return np.asarray(values - (sums.T / np.bincount(footage.clip)).T[footage.clip])

    def learned(x: np.ndarray, y: np.ndarray) -> float:
        model = RidgeCV(np.logspace(-2, 3, 6)).fit(x[train], y[train])
        return ccc(y[~train], model.predict(x[~train]))

    within, between = learned(centred(shape), centred(footage.valence)), learned(shape, footage.valence)
    assert within > 0.65
    assert between < within - 0.1


def test_the_same_seed_is_the_same_world_and_another_is_not() -> None:
    one, same, other = (World(seed, 4).clips(4, (5, 9)) for seed in (0, 0, 1))
    rows = np.arange(5)
    np.testing.assert_array_equal(one.render(rows, 32).images, same.render(rows, 32).images)
    np.testing.assert_array_equal(one.valence, same.valence)
    assert not np.array_equal(one.valence[:5], other.valence[:5])


def test_all_subjects_are_filmed_equally_often() -> None:
    footage = World(3, 5).clips(15, (4, 4))
    assert np.bincount(footage.subject).tolist() == [12] * 5


def test_a_study_films_whom_it_is_told_at_what_it_is_told_for_as_long_as_it_is_told() -> None:
    subjects, activities, lengths = [2, 0, 2], [1, 1, 7], [5, 3, 4]
    footage = World(3, 4).film(subjects, activities, lengths)
    np.testing.assert_array_equal(footage.clip, np.repeat([0, 1, 2], lengths))
    np.testing.assert_array_equal(footage.frame, np.concatenate([np.arange(length) for length in lengths]))
    np.testing.assert_array_equal(footage.subject, np.repeat(subjects, lengths))
    np.testing.assert_array_equal(footage.activity, np.repeat(activities, lengths))
    again = World(3, 4).film(subjects, activities, lengths)
    np.testing.assert_array_equal(footage.render(np.arange(12), 32).images, again.render(np.arange(12), 32).images)


def test_an_activity_calls_up_its_emotion() -> None:
    places = [list(ACTIVITIES).index(what) for what in ("talking with the experimenter and hearing a joke", "being insulted")]
    joke, insult = (World(0, 40).film(range(40), [place] * 40, [60] * 40) for place in places)
    assert joke.valence.mean() > insult.valence.mean() + 0.2
    assert joke.present(12).mean() > 1.5 * insult.present(12).mean()
    assert insult.present(4).mean() > 1.5 * joke.present(4).mean()


def test_a_coder_calls_an_action_unit_0_to_5_and_it_is_there_from_a_level() -> None:
    footage = World(1, 6).clips(12, (30, 40))
    assert footage.intensity.shape == (len(footage), len(faces.AUS))
    assert set(np.unique(footage.intensity)) == set(range(6))
    np.testing.assert_allclose(footage.intensity / 5, footage.aus, atol=0.1 + 1e-6)
    levels = footage.intensity[:, faces.AUS.index(12)]
    np.testing.assert_array_equal(footage.present(12), levels >= 2)
    np.testing.assert_array_equal(footage.present(12, at=1), levels >= 1)
    assert 0 < footage.present(12, at=3).sum() < footage.present(12).sum() < footage.present(12, at=1).sum() < len(footage)
