import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeCV

from harness.errors import RequestError
from harness.samples import EXPRESSIONS
from tasks.datasets import afew_va, affectnet, faces
from tasks.datasets.synthetic import (
    CIRCUMPLEX,
    EMOTIONS,
    PROTOTYPES,
    SPEECH,
    UNREADABLE,
    World,
    shown_emotions,
    write_afew_va,
    write_affectnet,
)

SMALL = {"subjects": 3, "clips": 5, "frames": (4, 7), "image": 48}


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


# ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def assert_same_samples(read: pl.DataFrame, meant: pl.DataFrame) -> None:
    assert_frame_equal(read.sort("sample"), meant.sort("sample"), abs_tol=1e-6)


def test_afew_va_is_read_as_it_was_meant(tmp_path: Path) -> None:
    written = write_afew_va(tmp_path / "clean", **SMALL, quirks=False)
    reading = afew_va.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples["subject"].n_unique() == 3
    assert set(np.round(reading.samples["valence"] * 10, 6) % 1) == {0.0}


def test_the_quirks_of_afew_va_are_on_disk_and_the_reader_copes(tmp_path: Path) -> None:
    root = tmp_path / "afew"
    written = write_afew_va(root, **SMALL)
    reading = afew_va.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems["kind"].sort().to_list() == ["actor spelled in several ways", "missing image"]
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.json")} == {
        *(f"01/{clip}/{clip}.json" for clip in ("001", "003", "005")),
        *(f"{clip}/{clip}.json" for clip in ("002", "004")),
    }
    assert "01/001/00001.jpg" in reading.samples["sample"]
    assert (root / "01/001_cropped").is_dir()
    values = {type(frame["valence"]) for path in root.rglob("*.json") for frame in json.loads(path.read_text())["frames"].values()}
    assert values == {int, float}
    assert set(written.quirks["quirk"]) == {"flattened", "float labels", "other spelling", "missing image", "jpeg", "cropped leftover"}


def test_affectnet_of_2015_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = tmp_path / "affectnet"
    written = write_affectnet(root, train=40, validation=16, image=48)
    reading = affectnet.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert dict(reading.problems["kind"].value_counts().iter_rows()) == {
        "unreadable label": 2,  # NULL for valence and for arousal
        "unreadable landmarks": 1,
        "unusable box": 1,
        "missing image": 1,
    }
    rows = pl.read_csv(root / "Manually_Annotated/training.csv", infer_schema=False)
    assert rows.height == 40
    assert rows.filter(expression="8")["valence"].cast(float).is_between(-1, 1).sum() == 2
    assert rows.filter(pl.col("expression").is_in(["9", "10"]))["valence"].to_list() == ["-2"] * 4
    assert {Path(name).suffix for name in rows["subDirectory_filePath"]} == {".jpg", ".JPG", ".png"}
    assert UNREADABLE in rows["subDirectory_filePath"]
    broken = written.quirks.filter(quirk="unreadable image")["file"]
    assert len(broken) == 2
    for file in reading.samples["sample"]:
        if file in broken:
            with pytest.raises(OSError, match=r"identify|truncated"):
                Image.open(root / file).load()
        else:
            with Image.open(root / file) as picture:
                picture.load()
                assert picture.format == ("PNG" if file.endswith(".png") else "JPEG")


def test_affectnet_of_2021_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = tmp_path / "affectnet"
    written = write_affectnet(root, layout="2021", train=24, validation=9, image=32)
    reading = affectnet.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems["kind"].to_list() == ["annotation without an image"]
    kinds = {np.load(path, allow_pickle=False).dtype.kind for path in root.glob("train_set/annotations/*_exp.npy")}
    assert kinds == {"U", "i"}
    parts = [{path.stem for path in (root / part / "images").iterdir()} for part in ("train_set", "val_set")]
    assert parts[0] & parts[1]
    assert sorted(map(int, parts[0])) != list(range(min(map(int, parts[0])), max(map(int, parts[0])) + 1))


@pytest.mark.parametrize("layout", ["2015", "2021"])
def test_affectnet_without_quirks_has_no_problem(tmp_path: Path, layout: str) -> None:
    written = write_affectnet(tmp_path / "clean", layout=layout, train=20, validation=5, image=32, quirks=False)
    reading = affectnet.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert reading.samples.select("valence", "arousal", "expression", "landmarks").null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize(
    "write",
    [
        lambda root, seed: write_afew_va(root, **SMALL, seed=seed),
        lambda root, seed: write_affectnet(root, train=20, validation=4, image=32, seed=seed),
        lambda root, seed: write_affectnet(root, layout="2021", train=20, validation=4, image=32, seed=seed),
    ],
    ids=["afew_va", "affectnet 2015", "affectnet 2021"],
)
def test_the_same_arguments_write_the_same_bytes_and_another_seed_does_not(tmp_path: Path, write) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write(tmp_path / name, seed)
    assert tree(tmp_path / "one") == tree(tmp_path / "same")
    one, other = (
        {path.read_bytes() for path in (tmp_path / name).rglob("*") if path.suffix in (".png", ".jpg")} for name in ("one", "other")
    )
    assert one & other <= {b""}  # the empty image


def test_nothing_is_written_into_a_folder_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RequestError, match="is not empty"):
        write_afew_va(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_afew_va(tmp_path / "new", **SMALL)
    assert afew_va.read(tmp_path / "new").samples.height


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_afew_va(tmp_path / "afew", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "arguments", "message"),
    [
        (write_afew_va, {"subjects": 0}, "subjects=0 is too small"),
        (write_afew_va, {"clips": 1000}, "at most 999"),
        (write_afew_va, {"frames": (9, 5)}, "the least and the most"),
        (write_affectnet, {"train": 3}, "train=3 is too small"),
        (write_affectnet, {"layout": "2051"}, "did you mean"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path: Path, write, arguments, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        write(tmp_path / "new", **arguments)
    assert not list(tmp_path.iterdir())
