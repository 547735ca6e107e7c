"""CLEF: what its stages contrast, what the second takes over from the first, and labels that it was not taught."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import contrast
from baselines.clef import Clef, ContrastStage, SimilarityStage
from baselines.weighting import Equal
from harness import training
from harness.baseline import Previous
from harness.config import compose, instantiate
from harness.errors import RequestError

Make = Callable[..., Any]
ACTIVITIES = ("hearing a joke", "watching a sad film", "smelling something unpleasant")
CLASSES = ("neutral", "happy", "sad")
TARGETS = ("expression", "au6", "au12", "valence")


def node(stage: str) -> dict[str, Any]:
    """The stage of `configs/baseline/clef.yaml`, with a small net."""
    config: dict[str, Any] = compose(["baseline=clef"])["baseline"]["stages"][stage]
    kept = {key: value for key, value in config.items() if key not in ("_target_", "trainer", "weighting")}
    return kept | {"backbone": {"name": "conv", "widths": [8, 16]}, "dim": 24, "projection": 12}


def rule(name: str) -> dict[str, Any]:
    """The pair strategy of that name."""
    chosen = compose(["baseline=clef", f"positives@baseline.stages.contrast.positives={name}"])
    found: dict[str, Any] = chosen["baseline"]["stages"]["contrast"]["positives"]
    return found


def contrast_stage(**more: Any) -> ContrastStage:
    return ContrastStage(**node("contrast") | more)


def similarity_stage(**more: Any) -> SimilarityStage:
    return SimilarityStage(**node("similarity") | {"smoothing": 0.0, "dropout": 0.0} | more)


def people(data: Make, n: int = 48, *, activity: bool = True) -> Any:
    """Faces with a mouth that the activity opens, a brow that is the person's, and labels that follow the mouth."""
    what, who = np.arange(n) % 3, np.arange(n) // 3 % 4
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (n, 24, 24, 1), dtype=np.uint8)
    for row in range(n):
        pixels[row, 16 : 17 + 2 * what[row], 6:18] += 150
        pixels[row, 4 : 5 + who[row], 3:21] += 100
    return data(
        pixels,
        subject=[f"p{number}" for number in who],
        clip=[f"p{a}-{b}" for a, b in zip(who, what, strict=True)],
        frame=list(range(n)),
        activity=[ACTIVITIES[place] for place in what] if activity else [None] * n,
        expression=[CLASSES[place] for place in what],
        au6=(what == 1).astype(int).tolist(),
        au12=(what >= 1).astype(int).tolist(),
        valence=(what / 2 - 0.5).tolist(),
    )


class Alone:
    """A step on one worker that holds all rows of its index; the second view is the first, turned."""

    training = True
    progress = 1.0
    device = torch.device("cpu")

    def __init__(self, pixels: np.ndarray, rows: np.ndarray) -> None:
        self.index = rows[:, None]
        self._frames = torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2).float() / 255

    def frames(self, column: int = 0, view: int = 0) -> torch.Tensor:
        return self._frames.flip(3) if view else self._frames

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        return local

    def rows(self, values: torch.Tensor, column: int = 0) -> torch.Tensor:
        return values[torch.from_numpy(self.index[:, column])]


def ready(stage: Any, given: Any, previous: Previous | None = None, targets: tuple[str, ...] = TARGETS) -> Any:
    """The stage's module, with the stage set up on the same data for training and validation."""
    stage.setup(given, given, targets, CLASSES, previous)
    torch.manual_seed(0)
    return stage.module()


# ── contrast ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_are_contrasted_with_images_of_their_activity_and_with_its_text(data: Make) -> None:
    given, stage = people(data), contrast_stage()
    net = ready(stage, given)
    step = Alone(given.frames.array, np.arange(0, 48, 4))
    found = stage.losses(net, step)
    assert list(found) == list(stage.objectives()) == ["image_image", "image_text"]
    first, second = (net.images(net.encoder(step.frames(view=view))) for view in (0, 1))
    activity = np.array([ACTIVITIES.index(name) for name in given.samples["activity"]])[step.index[:, 0]]
    same = (activity[:, None] == activity) & ~np.eye(len(activity), dtype=bool)
    expected = contrast.image_image(first, second, torch.from_numpy(same.astype(np.float32)), stage.temperature)
    assert found["image_image"].item() == pytest.approx(expected.item(), rel=1e-5)
    texts = net.texts(net.tower.prepare(sorted(ACTIVITIES)))
    place = torch.from_numpy(np.array([sorted(ACTIVITIES).index(ACTIVITIES[number]) for number in activity]))
    assert found["image_text"].item() == pytest.approx(contrast.image_text(first, texts, place, stage.temperature).item(), rel=1e-4)


@pytest.mark.parametrize(("switches", "named"), [({"image_text": False}, {"image_image"}), ({"image_image": False}, {"image_text"})])
def test_each_contrast_can_be_switched_off(data: Make, switches: dict[str, bool], named: set[str]) -> None:
    given, stage = people(data), contrast_stage(**switches)
    net = ready(stage, given)
    assert set(stage.losses(net, Alone(given.frames.array, np.arange(12)))) == named == set(stage.objectives())


def test_nothing_to_contrast_is_refused() -> None:
    with pytest.raises(RequestError, match="nothing is contrasted"):
        contrast_stage(image_image=False, image_text=False)
    with pytest.raises(RequestError, match=r"temperature of 0 \(stages.contrast.temperature\)"):
        contrast_stage(temperature=0)


def test_samples_without_activities_are_refused_by_what_needs_them_and_by_nothing_else(data: Make) -> None:
    bare = people(data, activity=False)
    with pytest.raises(RequestError, match=r"no activity \(stages.contrast.image_text\); set stages.contrast.image_text=false"):
        contrast_stage().setup(bare, bare, TARGETS, CLASSES, None)
    with pytest.raises(RequestError, match="activity"):
        contrast_stage(image_text=False).setup(bare, bare, TARGETS, CLASSES, None)
    alone = contrast_stage(
        image_text=False,
        positives=rule("augmentation"),
    )
    net = ready(alone, bare)
    assert set(alone.losses(net, Alone(bare.frames.array, np.arange(12)))) == {"image_image"}


def test_an_epoch_meets_every_frame_once(data: Make) -> None:
    given, stage = people(data), contrast_stage()
    stage.setup(given, given, TARGETS, CLASSES, None)
    batches = list(stage.batches("train", 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).ravel()) == list(range(48))


def test_contrast_by_activity_brings_an_activity_together_and_by_subject_a_person(data: Make, tmp_path: Path) -> None:
    given = people(data)
    who, what = (given.samples[name].rank("dense").to_numpy() for name in ("subject", "activity"))
    told = {}
    for name in ("activity", "subject"):
        stage = contrast_stage(positives=rule(name), image_text=False)
        fitted = training.fit(
            stage,
            given,
            given,
            targets=TARGETS,
            classes=CLASSES,
            trainer={"epochs": 12, "batch_size": 24, "lr": 5e-3, "augment": {"flip": 0.5}},
            weighting=Equal(),
            seed=0,
            context=training.Local(tmp_path / name),
        )
        net = training.load(stage, fitted.state)
        with torch.no_grad():
            vectors = net.images(net.encoder(torch.from_numpy(given.frames.array).permute(0, 3, 1, 2).float() / 255))  # type: ignore[operator]
        cosine = (vectors @ vectors.T).numpy()
        other = ~np.eye(48, dtype=bool)
        told[name] = {
            kind: cosine[other & (codes[:, None] == codes)].mean() - cosine[codes[:, None] != codes].mean()
            for kind, codes in (("what", what), ("who", who))
        }
    assert told["activity"]["what"] > told["activity"]["who"] + 0.3
    assert told["subject"]["who"] > told["subject"]["what"] + 0.3


# ── similarity ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_are_recognised_by_the_cosine_with_the_mean_of_their_prompts(data: Make) -> None:
    given, stage = people(data), similarity_stage(descriptions=False)
    net = ready(stage, given)
    step = Alone(given.frames.array, np.arange(48))
    found = stage.losses(net, step)
    assert set(found) == set(TARGETS)
    vectors = net.images(net.encoder(step.frames()))
    prototypes = torch.stack([F.normalize(net.texts(net.tower.prepare(stage.told.name(label))).mean(0), dim=0) for label in CLASSES])
    codes = torch.tensor([CLASSES.index(name) for name in given.samples["expression"]])
    expected = F.cross_entropy(vectors @ prototypes.T * net.scale.exp(), codes)
    assert found["expression"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert net.scale.exp().item() == pytest.approx(1 / stage.temperature)
    assert set(net.heads) == {"valence"}, "what has no text has a head"


@pytest.mark.parametrize(
    ("names", "descriptions", "heads", "more"),
    [
        (True, True, {"valence"}, {"names_descriptions"}),
        (False, True, {"valence"}, set()),
        (True, False, {"valence"}, set()),
        (False, False, set(TARGETS), set()),
    ],
)
def test_the_switches_of_the_ablation(data: Make, names: bool, descriptions: bool, heads: set[str], more: set[str]) -> None:
    given, stage = people(data), similarity_stage(names=names, descriptions=descriptions)
    net = ready(stage, given)
    assert set(net.heads) == heads
    found = stage.losses(net, Alone(given.frames.array, np.arange(12)))
    assert set(found) == set(TARGETS) | more
    assert list(found) == list(stage.objectives())
    assert stage.objectives()["valence"] == "regression"
    assert all(stage.objectives()[name] == "likelihood" for name in {"au12", *more})
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_second_stage_begins_where_the_first_ended(data: Make) -> None:
    given, first = people(data), contrast_stage()
    before = ready(first, given)
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(torch.randn_like(parameter))
    previous = Previous(first, before, np.zeros((48, 24), np.float32), np.zeros((48, 24), np.float32))
    net = ready(similarity_stage(), given, previous)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    with pytest.raises(RequestError, match="does not fit this one"):
        ready(similarity_stage(dim=32), given, previous)


def test_labels_that_were_not_taught_are_predicted_by_their_texts_alone(data: Make) -> None:
    given, stage = people(data), similarity_stage()
    net = ready(stage, given, targets=("au6", "au12")).eval()
    embeddings = torch.randn(5, 24)
    assert net.raw(embeddings, "expression", CLASSES).shape == (5, 3)
    assert net.raw(embeddings, "au1", ()).shape == (5,)
    assert "heads" not in str(list(net.state_dict()))
    with pytest.raises(RequestError, match="cannot predict valence"):
        net.raw(embeddings, "valence", ())
    plain = ready(similarity_stage(names=False, descriptions=False), given, targets=("au6",))
    with pytest.raises(RequestError, match=r"cannot predict expression \(stages.similarity\)"):
        plain.raw(embeddings, "expression", CLASSES)


def test_it_learns_and_predicts_what_the_contract_says(data: Make, tmp_path: Path) -> None:
    given, stage = people(data), similarity_stage()
    fitted = training.fit(
        stage,
        given,
        given,
        targets=TARGETS,
        classes=CLASSES,
        trainer={"epochs": 25, "batch_size": 16, "lr": 5e-3},
        weighting=Equal(),
        seed=0,
        context=training.Local(tmp_path),
    )
    net = training.load(stage, fitted.state)
    with torch.no_grad():
        embeddings = stage.encode(net, torch.from_numpy(given.frames.array).permute(0, 3, 1, 2).float() / 255).numpy()

    class Query:
        modules, targets, classes, device = (net,), TARGETS, CLASSES, torch.device("cpu")

    Query.embeddings = embeddings  # type: ignore[attr-defined]
    with torch.no_grad():
        predicted = Clef().predict(Query())  # type: ignore[arg-type]
    np.testing.assert_allclose(predicted["expression"].sum(1), 1, atol=1e-6)
    right = predicted["expression"].argmax(1) == [CLASSES.index(name) for name in given.samples["expression"]]
    assert right.mean() > 0.9
    assert ((predicted["au12"] >= 0.5) == (given.samples["au12"].to_numpy() == 1)).mean() > 0.9
    assert predicted["valence"].shape == (48,)


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "famo", "gradnorm", "mgda", "nash", "aligned", "graddrop"])
@pytest.mark.parametrize("which", ["contrast", "similarity"])
def test_its_losses_can_be_weighed_in_any_way(data: Make, tmp_path: Path, which: str, name: str) -> None:
    given, stage = people(data), contrast_stage() if which == "contrast" else similarity_stage()
    fitted = training.fit(
        stage,
        given,
        given,
        targets=TARGETS,
        classes=CLASSES,
        trainer={"epochs": 2, "batch_size": 16, "lr": 1e-3, "resources": {"checkpoint_every": 0}},
        weighting=instantiate(compose([f"weighting={name}"])["weighting"]),
        seed=0,
        context=training.Local(tmp_path),
    )
    assert {key for key in fitted.history[-1] if key.startswith("train/")} == {f"train/{loss}" for loss in stage.objectives()}
    assert all(math.isfinite(value) for value in fitted.history[-1].values())


# ── two workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fit(folder: Path, given: Any, name: str, **where: int) -> training.Fitted:
    stage: Any = contrast_stage() if name == "contrast" else similarity_stage()
    return training.fit(
        stage,
        given,
        given,
        targets=TARGETS,
        classes=CLASSES,
        trainer={"epochs": 2, "batch_size": 16, "lr": 1e-3, "augment": {"flip": 0.5}},
        weighting=Equal(),
        seed=0,
        context=training.Local(folder / name, **where),
    )


def _worker(folder: Path) -> None:
    from tests.baselines.conftest import make_data

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    given = people(make_data)
    told = {name: _fit(folder, given, name, rank=rank, world=world).history for name in ("contrast", "similarity")}
    (folder / f"history-{rank}.json").write_text(json.dumps(told), encoding="utf-8")


def test_negatives_of_all_workers_count_so_two_learn_what_one_learns(data: Make, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    common["PYTHONPATH"] = str(Path(__file__).parents[2])
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=300)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said[0][-3000:] + said[1][-3000:]
    both = [json.loads((tmp_path / f"history-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    given = people(data)
    for name in ("contrast", "similarity"):
        one = _fit(tmp_path / "one", given, name).history
        for ours, theirs, others in zip(one, both[0][name], both[1][name], strict=True):
            for loss in ours.keys() - {"seconds"}:
                assert theirs[loss] == others[loss]
                assert theirs[loss] == pytest.approx(ours[loss], abs=2e-4), loss


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
