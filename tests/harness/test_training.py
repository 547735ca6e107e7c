"""Every fit here is a real DeepSpeed engine on the CPU, on frames small enough to take milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from baselines.weighting import Gradients
from harness import seeds, training
from harness.augmentation import augment
from harness.baseline import Data, Stage, Step
from harness.errors import FitError, RequestError
from harness.preemption import Preempted
from harness.trainer import Augment
from tests.harness.fitting import (
    QUIET,
    Faces,
    First,
    Killed,
    KilledAfter,
    LearnedWeights,
    Line,
    N,
    RandomWeights,
    Told,
    Uneven,
    data,
    fit,
    same,
)
from tests.harness.two_workers import CASES, CLIPPED

# Learning


def test_a_line_is_learned_and_its_losses_are_told(tmp_path: Path) -> None:
    fitted = fit(Line(), tmp_path, epochs=60, lr=0.1, weight_decay=0.0, **QUIET)
    assert fitted.history[-1]["validation/valence"] < 0.05 < 0.1 < fitted.history[0]["validation/valence"]
    assert set(fitted.history[0]) == {
        "epoch",
        "lr",
        "seconds",
        "processor_seconds",
        "train/valence",
        "validation/valence",
        "weight/valence",
    }
    assert (fitted.epochs, fitted.selected_epoch, fitted.steps) == (60, 60, 60 * 4)
    assert 2**20 < fitted.peak_memory > fitted.working_memory >= 0
    assert all(entry["processor_seconds"] > 0 for entry in fitted.history)
    assert all(value.dtype == torch.float32 for value in fitted.state.values())
    module = training.load(_set_up(Line()), fitted.state)
    made = training.embed(module, data().frames, device=torch.device("cpu"), batch=7)
    assert made.shape == (N, 1)
    assert np.corrcoef(made[:, 0], data().labels("valence"))[0, 1] > 0.99


def _set_up(stage: Stage) -> Stage:
    stage.setup(data(), data(20, seed=1), ("valence",), (), None)
    return stage


def test_a_fit_is_what_a_bare_loop_over_the_same_batches_gives(tmp_path: Path) -> None:
    """The only test that knows how seeds are drawn; everything else about the loop is PyTorch's own here."""
    fitted = fit(Line(), tmp_path, epochs=2, optimizer="adam", weight_decay=0.01, clip=0.5, weighting=First())
    stage = _set_up(Line())
    seed = seeds.seed_of(3, "Line")
    torch.manual_seed(seeds.seed_of(seed, "module"))
    module = stage.module()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=0.01)
    x, y = torch.from_numpy(data().frames).float().permute(0, 3, 1, 2) / 255, torch.tensor(data().labels("valence"))
    for epoch in (1, 2):
        for index in stage.batches("train", 16, np.random.default_rng(seeds.seed_of(seed, "train", epoch))):
            optimizer.zero_grad()
            rows = torch.from_numpy(index[:, 0])
            (module(x[rows])[:, 0] - y[rows]).square().mean().backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(fitted.state[name], value, rtol=1e-5, atol=1e-6)


class Ordered(Line):
    """The rows one after the other, so that batches of 8 are the halves of those of 16."""

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        if part == "validation":
            return super().batches(part, size, rng)
        return iter(np.array_split(np.arange(48)[:, None], 48 // size))


def test_two_accumulated_halves_are_one_batch(tmp_path: Path) -> None:
    whole = fit(Ordered(), tmp_path / "whole", batch_size=16, **QUIET)
    halves = fit(Ordered(), tmp_path / "halves", batch_size=8, accumulate=2, **QUIET)
    torch.testing.assert_close(halves.state, whole.state)


def test_what_is_left_of_an_epoch_is_averaged_over_what_is_left(tmp_path: Path) -> None:
    """Three batches by two: the last stands alone and counts as a whole update."""
    by_two = fit(Ordered(), tmp_path / "a", batch_size=16, accumulate=2, epochs=1, optimizer="sgd", lr=0.1, weighting=First())
    assert by_two.steps == 3
    torch.manual_seed(seeds.seed_of(seeds.seed_of(3, "Ordered"), "module"))
    module = Ordered().module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x, y = torch.from_numpy(data().frames).float().permute(0, 3, 1, 2) / 255, torch.tensor(data().labels("valence"))
    for rows in (slice(0, 32), slice(32, 48)):
        optimizer.zero_grad()
        (module(x[rows])[:, 0] - y[rows]).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(by_two.state, dict(module.state_dict()), rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_augmentation_others(tmp_path: Path) -> None:
    augmented = {"flip": 0.5, "rotate": 10, "erase": 0.3, "brightness": 0.1}
    one, two = (fit(Faces(), tmp_path / name, augment=augmented, **QUIET) for name in "ab")
    assert same(one, two)
    assert not same(one, fit(Faces(), tmp_path / "c", **QUIET))


# Going on after a kill


@pytest.mark.parametrize(
    "trainer",
    [
        {"schedule": {"name": "cosine", "warmup": 2}, "augment": {"flip": 0.5, "translate": 0.2}},
        {"schedule": {"name": "plateau", "patience": 0, "factor": 0.5}, "selection": "validation"},
        {"schedule": {"name": "step", "every": 1}, "optimizer": "sgd", "resources": {"zero": 1}},
        {"schedule": {"name": "cosine"}, "precision": "bf16", "resources": {"zero": 2, "checkpoint_every": 2}},
        {"clip": 1.0, "resources": {"zero": 3}},
    ],
    ids=["warmup", "plateau", "zero1", "zero2", "zero3"],
)
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, trainer: dict[str, Any]) -> None:
    undisturbed = fit(Faces(), tmp_path / "whole", LearnedWeights(), **trainer)
    with pytest.raises(Killed):
        fit(Faces(), tmp_path / "cut", LearnedWeights(), KilledAfter(tmp_path / "cut", 2), **trainer)
    seen: list[float] = []
    context = training.Local(tmp_path / "cut", on_report=lambda metrics: seen.append(metrics["epoch"]))
    resumed = fit(Faces(), tmp_path / "cut", LearnedWeights(), context, **trainer)
    assert seen == [3, 4]
    assert same(resumed, undisturbed)
    assert (resumed.steps, resumed.selected_epoch) == (undisturbed.steps, undisturbed.selected_epoch)


def test_a_checkpoint_that_was_being_written_is_not_read(tmp_path: Path) -> None:
    undisturbed = fit(Faces(), tmp_path / "whole")
    with pytest.raises(Killed):
        fit(Faces(), tmp_path / "cut", context=KilledAfter(tmp_path / "cut", 3, half=True))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["coming", "epoch-000002"]
    seen: list[float] = []
    resumed = fit(Faces(), tmp_path, context=training.Local(tmp_path / "cut", on_report=lambda metrics: seen.append(metrics["epoch"])))
    assert seen == [3, 4]
    assert same(resumed, undisturbed)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["epoch-000003"]


# What cannot go on, and what cannot be


class Diverging(Line):
    """Its second loss is nan from the third step on."""

    seen = 0

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        self.seen += step.training
        good = super().losses(module, step)["valence"]
        return {"valence": good, "arousal": good * (float("nan") if self.seen > 2 else 1.0)}


def test_a_loss_that_is_not_finite_ends_the_fit_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"loss 'arousal', the weighted sum: not finite at epoch 1, step 3"):
        fit(Diverging(), tmp_path)


def test_a_weighting_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"the weight of 'valence', the weighted sum: not finite at epoch 1, step 1"):
        fit(Line(), tmp_path, weighting=First(float("inf")))


class Scalar(Line):
    def module(self) -> nn.Module:
        module = super().module()
        module.register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))
        return module


def test_a_parameter_that_deepspeed_cannot_take_is_named(tmp_path: Path) -> None:
    """It used to end in "self.dim() cannot be 0 to view Float as Byte"."""
    with pytest.raises(FitError, match=r"no parameter without a dimension, as module.temperature is; make it a vector"):
        fit(Scalar(), tmp_path)


class Empty(Line):
    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return iter(())


def test_a_stage_without_batches_is_told(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="Empty has no batch"):
        fit(Empty(), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"precision": "fp16"}, r"fp16 needs a GPU \(trainer.precision\); use bf16"),
        ({"resources": {"gpus": 1}}, r"no GPU is visible \(trainer.resources.gpus\); set it to 0"),
        ({"epoch": 3}, r"no such key: trainer.epoch \(trainer\); did you mean 'epochs'\?"),
        ({"epochs": 2.5}, r"2.5 is out of range \(trainer.epochs\); give a whole number from 1"),
        ({"epochs": True}, r"True is out of range"),
        ({"lr": 0}, r"0 is out of range \(trainer.lr\); give a number above 0"),
        ({"lr": float("nan")}, r"nan is out of range"),
        ({"optimizer": "adamww"}, r"'adamww' is unknown \(trainer.optimizer\); did you mean 'adamw'\?"),
        (
            {"resources": {"offload": "optimizer"}},
            r"ZeRO 0 cannot offload optimizer \(trainer.resources.offload\); set .* to 1",
        ),
        (
            {"resources": {"offload": "optimizer_and_parameters", "zero": 2}},
            r"ZeRO 2 cannot offload optimizer and parameters",
        ),
        ({"resources": {"offload": "all"}}, r"'all' is unknown \(trainer.resources.offload\); choose from"),
        ({"resources": {"activation_checkpointing": 1}}, r"1 is neither true nor false"),
        ({"precision": "fp16", "resources": {"zero": 1}}, r"under ZeRO 1 as fp16 needs it \(trainer.precision\); use bf16, or set"),
        ({"resources": {"zero": 4}}, r"4 is out of range \(trainer.resources.zero\); give a whole number from 0 to 3"),
        ({"augment": {"scale": [1.2, 0.8]}}, r"\[1.2, 0.8\] is no interval \(trainer.augment.scale\)"),
        ({"augment": {"flop": 0.5}}, r"no such key: trainer.augment.flop \(trainer.augment\); did you mean 'flip'\?"),
        ({"schedule": "cosine"}, r"'cosine' is no mapping \(trainer.schedule\); its keys are name"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        fit(Line(), tmp_path, **wrong)


@pytest.mark.parametrize("wrong", [{"selection": "validation"}, {"schedule": {"name": "plateau"}}])
def test_validation_samples_are_needed_only_to_select_by_them(tmp_path: Path, wrong: dict[str, Any]) -> None:
    nothing = Data(data(1).samples.clear(), np.zeros((0, 8, 8, 1), np.uint8))  # type: ignore[arg-type]
    arguments: dict[str, Any] = {"targets": ("valence",), "classes": (), "weighting": RandomWeights(), "seed": 0}
    with pytest.raises(RequestError, match="there are no validation samples"):
        training.fit(Line(), data(), nothing, trainer=wrong, context=training.Local(tmp_path), **arguments)
    fitted = training.fit(Line(), data(), nothing, trainer={"epochs": 1}, context=training.Local(tmp_path), **arguments)
    assert "validation/valence" not in fitted.history[0]


def test_the_settings_in_configs_are_the_defaults() -> None:
    import yaml

    from harness import trainer

    configs = Path(trainer.__file__).parents[1] / "configs" / "trainer"
    written = {name: yaml.safe_load((configs / f"{name}.yaml").read_text(encoding="utf-8")) for name in ("default", "quick", "paper")}
    default = trainer.read(written["default"])
    for given in (written["quick"], written["paper"]):
        given.pop("defaults")
        trainer.read({**written["default"], **given})
    plain = trainer.Trainer()
    for name in ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "clip", "accumulate", "precision", "selection", "resources"):
        assert getattr(default, name) == getattr(plain, name)


# Selection and schedules


class Worsening(Line):
    """Its validation loss is lowest after the second epoch; no epoch number enters training."""

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        losses = super().losses(module, step)
        return losses if step.training else {"valence": losses["valence"] * 0 + abs(step.progress - 0.5)}


def test_the_weights_of_the_lowest_validation_loss_are_kept(tmp_path: Path) -> None:
    best = fit(Worsening(), tmp_path / "best", selection="validation", **QUIET)
    two = fit(Worsening(), tmp_path / "two", epochs=2, **QUIET)
    last = fit(Worsening(), tmp_path / "last", **QUIET)
    assert (best.selected_epoch, two.selected_epoch, last.selected_epoch, best.epochs) == (2, 2, 4, 4)
    assert torch.equal(best.state["1.weight"], two.state["1.weight"])
    assert not torch.equal(best.state["1.weight"], last.state["1.weight"])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "none"}, [1, 1, 1, 1]),
        ({"name": "step", "every": 2, "factor": 0.1}, [1, 1, 0.1, 0.1]),
        ({"name": "cosine"}, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ({"name": "cosine", "warmup": 2}, [1 / 3, 2 / 3, 1, 0.5]),
        ({"name": "plateau", "patience": 0, "factor": 0.5}, [1, 1, 1, 0.5]),  # Worsening: falls, falls, rises
    ],
    ids=["none", "step", "cosine", "warmup", "plateau"],
)
def test_schedules(tmp_path: Path, schedule: dict[str, Any], rates: list[float]) -> None:
    fitted = fit(Worsening(), tmp_path, lr=0.01, schedule=schedule, **QUIET)
    assert [entry["lr"] / 0.01 for entry in fitted.history] == pytest.approx(rates)


def test_the_weights_of_losses_are_told(tmp_path: Path) -> None:
    fixed = fit(Faces(), tmp_path / "a", Uneven(), epochs=1)
    assert (fixed.history[0]["weight/valence"], fixed.history[0]["weight/arousal"]) == pytest.approx((0.25, 0.75))
    learned = LearnedWeights()
    fitted = fit(Faces(), tmp_path / "b", learned, **QUIET)
    assert learned.s.abs().min() > 0.01
    assert fitted.history[-1]["weight/arousal"] == pytest.approx(float(torch.exp(-learned.s[1].detach())), abs=0.1)


# ZeRO and precision


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> training.Fitted:
    return fit(Faces(), tmp_path_factory.mktemp("plain"), LearnedWeights(), **QUIET)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_every_stage_of_zero_learns_the_same(tmp_path: Path, plain: training.Fitted, zero: int, precision: str) -> None:
    fitted = fit(Faces(), tmp_path, LearnedWeights(), precision=precision, resources={"zero": zero, "checkpoint_every": 0})
    tolerance = 1e-5 if precision == "fp32" else 0.05
    for name in plain.history[-1].keys() - {"seconds", "processor_seconds"}:
        assert fitted.history[-1][name] == pytest.approx(plain.history[-1][name], abs=tolerance)
    if precision == "fp32":
        torch.testing.assert_close(fitted.state, plain.state, rtol=1e-3, atol=1e-5)


# Of several ways at once: offloaded, clipped, accumulated, recomputed
WAYS: dict[str, dict[str, Any]] = {
    "offloaded 1": {"precision": "bf16", "clip": 0.1, "resources": {"zero": 1, "offload": "optimizer"}},
    "offloaded 2": {"clip": 0.1, "accumulate": 2, "resources": {"zero": 2, "offload": "optimizer", "activation_checkpointing": True}},
    "offloaded 3": {"optimizer": "sgd", "accumulate": 2, "resources": {"zero": 3, "offload": "optimizer"}},
    "all offloaded": {"clip": 0.1, "resources": {"zero": 3, "offload": "optimizer_and_parameters", "activation_checkpointing": True}},
    "recomputed": {"precision": "bf16", "accumulate": 2, "resources": {"zero": 0, "activation_checkpointing": True}},
}


@pytest.mark.parametrize("way", WAYS)
def test_resources_change_nothing_that_is_learned_and_a_fit_goes_on_with_them(tmp_path: Path, way: str) -> None:
    trainer = {key: value for key, value in WAYS[way].items() if key != "resources"}
    plain = fit(Faces(), tmp_path / "plain", LearnedWeights(), **trainer)
    asked = fit(Faces(), tmp_path / "asked", LearnedWeights(), **WAYS[way])
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if trainer.get("precision") != "bf16" else {"rtol": 0.05, "atol": 5e-3}
    torch.testing.assert_close(asked.state, plain.state, **tolerance)
    with pytest.raises(Preempted):
        fit(Faces(), tmp_path / "cut", LearnedWeights(), Told(tmp_path / "cut", at=8), **WAYS[way])
    assert same(fit(Faces(), tmp_path / "cut", LearnedWeights(), **WAYS[way]), asked)


def test_a_weighting_of_gradients_cannot_be_recomputed_under_zero_3(tmp_path: Path) -> None:
    """It ended in a segmentation fault."""
    with pytest.raises(RequestError, match=r"Gradients needs the gradient of each loss, which ZeRO 3 cannot .* resources.zero to 2"):
        fit(Faces(), tmp_path, Gradients("mgda"), resources={"zero": 3, "activation_checkpointing": True})


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_weighting_of_gradients_asks_for_what_is_recomputed_once_a_loss(tmp_path: Path, zero: int) -> None:
    kept, again = (
        fit(Faces(), tmp_path / str(wanted), Gradients("mgda"), resources={"zero": zero, "activation_checkpointing": wanted}, epochs=2)
        for wanted in (False, True)
    )
    assert same(again, kept)


# Two workers


@pytest.mark.parametrize("case", CASES)
def test_two_workers_learn_what_one_learns(tmp_path: Path, two_workers: Path, case: str) -> None:
    """Dropout, batch normalisation and CCC on the gathered batch included; what differs is the order of sums."""
    one = fit(Faces(), tmp_path, LearnedWeights(), **CASES[case])
    first, second = (training.load_weights(two_workers / f"{case}-{rank}.safetensors") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, one.state, rtol=1e-3, atol=1e-4)
    histories = [json.loads((two_workers / f"history-{rank}.json").read_text(encoding="utf-8"))[case] for rank in range(2)]
    for ours, theirs, others in zip(one.history, *histories, strict=True):
        for name in ours.keys() - {"seconds", "processor_seconds"}:
            assert theirs[name] == others[name]
            assert theirs[name] == pytest.approx(ours[name], abs=1e-4), name


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_two_workers_clip_the_norm_that_one_clips(tmp_path: Path, two_workers: Path, zero: int) -> None:
    """The norm of the whole gradient, not of a worker's part: the one step is as long as the limit, and in the same direction."""
    start = _set_up(Faces())
    torch.manual_seed(seeds.seed_of(seeds.seed_of(3, "Faces"), "module"))
    before = dict(start.module().named_parameters())
    one = fit(Faces(), tmp_path, Uneven(), resources={"zero": zero, "checkpoint_every": 0}, **CLIPPED)
    two = training.load_weights(two_workers / f"clip-{zero}-0.safetensors")
    steps = [torch.cat([(state[name] - value.detach()).flatten() for name, value in before.items()]) for state in (one.state, two)]
    assert [float(step.norm()) for step in steps] == pytest.approx([0.01, 0.01], rel=1e-4)
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-6)


# Augmentation

EVERYTHING = Augment(flip=0.5, rotate=20, translate=0.1, crop=0.05, scale=(0.8, 1.2), shear=5, brightness=0.2, contrast=0.2, erase=0.5)


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_slice_is_augmented_as_in_the_whole_batch() -> None:
    frames = torch.rand(6, 3, 12, 10, generator=_drawn())
    whole = augment(frames, EVERYTHING, _drawn(), np.arange(6), 6)
    halves = [augment(frames[part], EVERYTHING, _drawn(), np.arange(6)[part], 6) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=1e-6)
    assert whole.shape == frames.shape
    assert 0 <= whole.min() <= whole.max() <= 1
    alike = augment(frames[:1].expand(6, -1, -1, -1), EVERYTHING, _drawn(), np.arange(6), 6)
    assert len(set(alike.sum((1, 2, 3)).tolist())) == 6


def test_without_settings_a_frame_stays_as_it_is() -> None:
    frames = torch.rand(4, 1, 8, 8)
    assert augment(frames, Augment(), _drawn(), np.arange(4), 4) is frames


def test_a_flip_is_a_mirror_image() -> None:
    frames = torch.rand(5, 2, 7, 9)
    torch.testing.assert_close(augment(frames, Augment(flip=1.0), _drawn(), np.arange(5), 5), frames.flip(3), rtol=0, atol=1e-5)


def test_each_kind_stays_in_its_limits() -> None:
    places = np.arange(200)
    x, y = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="xy")
    spot = torch.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 8)[None, None].expand(200, 1, 41, 41)

    def centres(settings: Augment) -> tuple[Tensor, Tensor]:
        made = augment(spot, settings, _drawn(), places, 200)[:, 0]
        mass = made.sum((1, 2))
        return (made * x).sum((1, 2)) / mass - 20, (made * y).sum((1, 2)) / mass - 20

    across, down = centres(Augment(translate=0.1))
    assert 3.9 < (across - 10).abs().max() <= 4.1
    assert 3.9 < down.abs().max() <= 4.15
    across, down = centres(Augment(rotate=30))
    assert torch.rad2deg(torch.atan2(down, across)).abs().max() == pytest.approx(30, abs=1)
    assert torch.hypot(across, down) == pytest.approx(torch.full((200,), 10.0), abs=0.1)
    across, _ = centres(Augment(scale=(0.8, 1.2)))
    assert (float(across.min()), float(across.max())) == pytest.approx((8, 12), abs=0.15)
    grey = torch.full((200, 1, 20, 20), 0.7)
    brighter = augment(grey, Augment(brightness=0.2), _drawn(), places, 200).mean((1, 2, 3))
    assert (float(brighter.min()), float(brighter.max())) == pytest.approx((0.5, 0.9), abs=0.01)
    erased = (augment(grey, Augment(erase=0.5), _drawn(), places, 200) == 0.5).float().mean((1, 2, 3))
    assert float((erased > 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert 0.01 < erased[erased > 0].min() < erased.max() < 0.3


def test_views_differ_and_the_same_view_does_not(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Looking(Line):
        def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
            if not seen:
                seen.extend(step.frames(view=view) for view in (0, 1, 0))
            return super().losses(module, step)

    fit(Looking(), tmp_path, epochs=1, augment={"translate": 0.2})
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


# Frames, weights, sockets


def test_frames_of_the_cache_are_trained_on_and_embedded(tmp_path: Path) -> None:
    """From image files on disk; in memory, the same pixels give the same bits."""
    from PIL import Image

    from harness import frames, samples

    made = data()
    for name, pixels in zip(made.samples["sample"], np.asarray(made.frames), strict=True):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"{name}.png")
    rows = made.samples.with_columns(image=str(tmp_path) + "/" + pl.col("sample") + ".png", clip=pl.col("sample"), frame=pl.lit(0))
    filled = frames.fill(samples.conform(rows), frames.Transform(size=8, crop="image"), tmp_path / "cache")
    assert filled.ok.all()
    assert same(fit(Faces(), tmp_path / "a", train=Data(rows, filled.frames), **QUIET), fit(Faces(), tmp_path / "b", **QUIET))
    flat = training.embed(lambda batch: batch.flatten(1), filled.frames.take(np.arange(40)), device=torch.device("cpu"), batch=16)
    np.testing.assert_allclose(flat, np.asarray(made.frames)[:40].reshape(40, 64) / np.float32(255), rtol=1e-6)


def test_one_worker_listens_to_itself_alone(tmp_path: Path) -> None:
    import psutil

    fit(Line(), tmp_path, epochs=1)
    listening = [connection.laddr.ip for connection in psutil.Process().net_connections("inet") if connection.status == psutil.CONN_LISTEN]
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_frames_that_do_not_fit_are_read_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = fit(Faces(), tmp_path / "a", **QUIET)
    monkeypatch.setattr(training, "_free_memory", lambda device: 1000)
    assert same(fit(Faces(), tmp_path / "b", **QUIET), resident)


def test_weights_on_disk_are_whole_or_refused(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    path = tmp_path / "fit" / "weights.safetensors"
    training.save_weights(state, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    torch.testing.assert_close(training.load_weights(path), state)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RequestError, match="cannot read the weights"):
        training.load_weights(path)
    with pytest.raises(RequestError, match="cannot read the weights"):
        training.load_weights(tmp_path / "none.safetensors")
    with pytest.raises(RequestError, match="the weights do not fit Line"):
        training.load(_set_up(Line()), state)


def test_no_frames_embed_to_nothing() -> None:
    assert training.embed(lambda frames: frames, np.zeros((0, 8, 8, 1), np.uint8), device=torch.device("cpu")).size == 0  # type: ignore[arg-type]
