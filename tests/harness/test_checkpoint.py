"""A checkpoint is whole or not there, and any number of workers and any stage of ZeRO go on from it."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import checkpoint, training
from harness.preemption import Preempted
from tests.harness.fitting import Faces, Killed, KilledAfter, LearnedWeights, Line, Odd, Told, Uneven, fit, same
from tests.harness.two_workers import MOVES


def close(one: training.Fitted | dict[str, torch.Tensor], other: training.Fitted) -> None:
    torch.testing.assert_close(one if isinstance(one, dict) else one.state, other.state, rtol=1e-3, atol=1e-4)


# Going on elsewhere


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], training.Fitted]:
    """What each of the moved fits learns undisturbed, by one worker with the stage of ZeRO it was given."""
    known: dict[str, training.Fitted] = {}

    def of(name: str) -> training.Fitted:
        if name not in known:
            known[name] = fit(Odd(), tmp_path_factory.mktemp(name), LearnedWeights(), **MOVES[name])
        return known[name]

    return of


@pytest.mark.parametrize("name", MOVES)
def test_two_workers_go_on_with_what_one_left(two_workers: Path, plain: Any, name: str) -> None:
    first, second = (training.load_weights(two_workers / f"of-one-{name}-{rank}.safetensors") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    close(first, plain(name))


@pytest.mark.parametrize("name", MOVES)
def test_one_worker_goes_on_with_what_two_left(two_workers: Path, plain: Any, tmp_path: Path, name: str) -> None:
    shutil.copytree(two_workers / f"of-two-{name}", tmp_path / "two")
    seen: list[float] = []
    context = training.Local(tmp_path / "two", on_report=lambda metrics: seen.append(metrics["epoch"]))
    resumed = fit(Odd(), tmp_path, LearnedWeights(), context, **MOVES[name])
    assert seen == [2, 3, 4], "begun anew"
    close(resumed, plain(name))
    for ours, theirs in zip(resumed.history, plain(name).history, strict=True):
        for key in theirs.keys() - {"seconds", "processor_seconds"}:
            assert ours[key] == pytest.approx(theirs[key], abs=1e-3), key


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 1), (1, 2), (2, 0)])
def test_another_stage_of_zero_goes_on(tmp_path: Path, plain: Any, before: int, after: int) -> None:
    trainer = {key: value for key, value in MOVES["zero1"].items() if key != "resources"}
    with pytest.raises(Preempted):
        fit(Odd(), tmp_path, LearnedWeights(), Told(tmp_path, at=8), resources={"zero": before}, **trainer)
    seen: list[float] = []
    context = training.Local(tmp_path, on_report=lambda metrics: seen.append(metrics["epoch"]))
    close(fit(Odd(), tmp_path, LearnedWeights(), context, resources={"zero": after}, **trainer), plain("zero1"))
    assert seen == [2, 3, 4]


def test_what_was_never_moved_begins_with_zeros_elsewhere(tmp_path: Path) -> None:
    """A parameter that no loss has reached has no state under ZeRO 0, and shares a vector with others under ZeRO 2."""

    class Half(Odd):
        def losses(self, module: Any, step: Any) -> dict[str, torch.Tensor]:
            losses = super().losses(module, step)
            reached = step.progress > 0.5
            return losses | {"arousal": losses["arousal"] if reached else losses["arousal"].detach() * 0 + 1e-3}

        def module(self) -> Any:
            module: Any = super().module()
            module["unused"] = torch.nn.Linear(3, 3)
            return module

    with pytest.raises(Preempted):
        fit(Half(), tmp_path, Uneven(), Told(tmp_path, at=8))
    fitted = fit(Half(), tmp_path, Uneven(), resources={"zero": 2}, weight_decay=0.0)
    assert fitted.epochs == 4


def test_the_scale_of_losses_in_fp16_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It falls while the first steps overflow. Nobody trains in fp16 on a CPU, but PyTorch can."""
    monkeypatch.setattr(training, "_device", lambda settings: torch.device("cpu"))
    whole = fit(Faces(), tmp_path / "whole", Uneven(), precision="fp16")
    with pytest.raises(Preempted):
        fit(Faces(), tmp_path / "cut", Uneven(), Told(tmp_path / "cut", at=8), precision="fp16")
    (folder,) = (tmp_path / "cut").glob("epoch-*")
    assert '"scale"' in (folder / "facts.json").read_text()
    assert same(fit(Faces(), tmp_path / "cut", Uneven(), precision="fp16"), whole)


# What lies on disk


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of two epochs."""
    folder = tmp_path_factory.mktemp("left")
    with pytest.raises(Killed):
        fit(Faces(), folder, LearnedWeights(), KilledAfter(folder, 2), selection="validation")
    return folder


def test_nothing_is_pickled(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["facts.json", "manifest.json", "module.safetensors", "optimizer.safetensors"]
    assert sorted(path.name for path in (left / "epoch-000002").rglob("*")) == names
    shutil.copytree(left, tmp_path / "left")
    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("something was unpickled"))
    seen: list[float] = []
    context = training.Local(tmp_path / "left", on_report=lambda metrics: seen.append(metrics["epoch"]))
    fit(Faces(), tmp_path, LearnedWeights(), context, selection="validation")
    assert seen == [3, 4]


@pytest.mark.parametrize("harm", ["truncated", "missing", "changed"])
@pytest.mark.parametrize("name", ["facts.json", "manifest.json", "module.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_is_found_and_said(left: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, harm: str) -> None:
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    _harm(tmp_path / "epoch-000002" / name, harm)
    with caplog.at_level(logging.WARNING):
        assert training.Local(tmp_path).checkpoint() is None
    assert "epoch-000002 is damaged" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["corrupt-epoch-000002"]


def _harm(path: Path, harm: str) -> None:
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    if harm != "missing":
        path.write_bytes(
            content[:middle] if harm == "truncated" else content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        )


def test_a_fit_whose_checkpoint_is_damaged_begins_anew(left: Path, tmp_path: Path) -> None:
    shutil.copytree(left, tmp_path / "cut")
    _harm(tmp_path / "cut" / "epoch-000002" / "optimizer.safetensors", "changed")
    trainer = {"selection": "validation"}
    assert same(fit(Faces(), tmp_path / "cut", LearnedWeights(), **trainer), fit(Faces(), tmp_path / "whole", LearnedWeights(), **trainer))


def test_where_the_latest_is_damaged_an_earlier_one_will_do(left: Path, tmp_path: Path) -> None:
    """A kill after the new one was renamed and before the old one was removed leaves both."""
    shutil.copytree(left / "epoch-000002", tmp_path / "epoch-000002")
    shutil.copytree(left / "epoch-000002", tmp_path / "epoch-000002-step-000000003")
    assert training.Local(tmp_path).checkpoint() == tmp_path / "epoch-000002-step-000000003"
    _harm(tmp_path / "epoch-000002-step-000000003" / "facts.json", "changed")
    assert training.Local(tmp_path).checkpoint() == tmp_path / "epoch-000002"


@pytest.mark.parametrize("moment", ["replace", "rmtree"])
def test_a_kill_while_one_checkpoint_takes_the_place_of_another_loses_neither(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)

    def die(*arguments: Any, **more: Any) -> None:
        raise Killed

    def write(folder: Path) -> None:
        shutil.copytree(left / "epoch-000002", folder, dirs_exist_ok=True)
        monkeypatch.setattr(*((Path, "replace") if moment == "replace" else (shutil, "rmtree")), die)

    with pytest.raises(Killed):
        training.Local(tmp_path).keep("epoch-000003", write)
    monkeypatch.undo()
    found = training.Local(tmp_path).checkpoint()
    assert found == tmp_path / ("epoch-000002" if moment == "replace" else "epoch-000003")
    assert checkpoint.intact(found)


def test_a_checkpoint_of_another_module_is_left_and_said(left: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    with caplog.at_level(logging.WARNING):
        assert fit(Line(), tmp_path).epochs == 4
    assert "is of another module or version; training starts again" in caplog.text


def test_facts_come_back_as_they_were(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "nothing": None,
        "numbers": [1, 2.5, True, float("inf"), 0.1 + 0.2],
        "pair": (1, ("a",)),
        "by number": {0: {"exp_avg": torch.arange(3.0)}, 1: torch.tensor(4)},
    }
    tensors: dict[str, torch.Tensor] = {}
    told = checkpoint._as_json(facts, tensors)
    again = checkpoint._from_json(told, tensors)
    assert repr(again) == repr(facts)
    with pytest.raises(TypeError, match="numbers, texts, tensors, lists and mappings; PosixPath is none"):
        checkpoint._as_json({"a": tmp_path}, {})
