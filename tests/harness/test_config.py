"""Names and overrides make one config, and every mistake is one line with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config
from harness.errors import RequestError, did_you_mean
from tests.conftest import PLUGIN

EXTRA = [PLUGIN / "configs"]


def test_every_task_and_baseline_composes() -> None:
    for task in config.available("task"):
        assert config.compose([f"task={task}"])["task"]["name"] == task
    for baseline in config.available("baseline"):
        assert config.compose([f"baseline={baseline}"])["baseline"]["name"] == baseline


def test_every_config_says_in_one_line_what_it_is() -> None:
    for group in config.groups():
        for name, description in config.available(group).items():
            assert len(description) > 10, f"{group}/{name}.yaml"


def test_a_users_folder_adds_names_and_the_task_may_choose_the_baseline() -> None:
    composed = config.compose(["task=toy"], EXTRA)
    assert composed["baseline"]["name"] == "toy"
    assert config.compose(["task=toy", "baseline=mean_label"], EXTRA)["baseline"]["name"] == "mean_label"
    assert "toy" in config.available("task", EXTRA)
    assert "toy" not in config.available("task")


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("trainer.epoch=3", "did you mean 'trainer.epochs'?"),
        ("baseline=mtclar", "did you mean 'mt_clar'?"),
        ("evaluate.suport.size=3", "did you mean 'evaluate.support.size'?"),
        ("epochs", "write it as key=value"),
        ("epochs=3", "did you mean 'trainer.epochs'?"),
        ("trainer.zzzzz=3", "choose from: accumulate, augment, batch_size"),
        ("task.root.x=3", "task.root holds a value and no keys"),
        ("seed=0,1", "several are for the axes of a sweep"),
        ("trainer.epochs=${nope}", "'nope' not found"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(override: str, remedy: str) -> None:
    with pytest.raises(RequestError) as caught:
        config.compose([override])
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_that_cannot_be_parsed_is_told_too() -> None:
    with pytest.raises(RequestError) as caught:
        config.compose(["trainer.epochs={"])
    assert "\n" not in str(caught.value)
    assert "trainer.epochs={" in str(caught.value)


def test_a_config_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match="no such folder: /nowhere"):
        config.compose([], [Path("/nowhere")])


def test_place_sets_what_is_there_and_refuses_what_is_not() -> None:
    node = {"a": {"b": 1}}
    config.place(node, "a.b", 2)
    assert node == {"a": {"b": 2}}
    for key in ("a.c", "c", "a.b.c", "x.b"):
        with pytest.raises(RequestError, match="no such key"):
            config.place(node, key, 3)


def test_instantiate_says_which_target_and_why() -> None:
    with pytest.raises(RequestError, match=r"cannot import no\.such\.Thing"):
        config.instantiate({"_target_": "no.such.Thing"})
    with pytest.raises(RequestError, match="unexpected keyword"):
        config.instantiate({"_target_": "harness.frames.Transform", "colour": 1})


def test_did_you_mean_names_the_closest_or_all() -> None:
    assert did_you_mean("mt_claar", ["mt_clar", "ridge"]) == "did you mean 'mt_clar'?"
    assert did_you_mean("zzz", ["b", "a"]) == "choose from: a, b"


def test_a_config_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "O'Brien's configs, (new) = [1]"
    (folder / "baseline").mkdir(parents=True)
    (folder / "baseline" / "mine.yaml").write_text("# Mine\ndefaults: [mean_label, _self_]\nname: mine\n")
    assert config.compose(["baseline=mine"], [folder])["baseline"]["name"] == "mine"


@pytest.mark.parametrize("content", [b"a: [b\nc: d", b"\xff\xfe", b"a: ${nope}", b"a: ${"])
def test_a_yaml_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "broken.yaml").write_bytes(content)
    assert "broken" in config.available("baseline", [tmp_path])
    with pytest.raises(RequestError) as caught:
        config.compose(["baseline=broken"], [tmp_path])
    assert "baseline=broken" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_composition_is_kept_until_a_yaml_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine = tmp_path / "mine"
    (mine / "trainer").mkdir(parents=True)
    file = mine / "trainer" / "mine.yaml"
    file.write_text("defaults: [default, _self_]\nepochs: 7\n")
    first = config.compose(["trainer=mine"], [mine])
    kept = list((tmp_path / "cache" / "harness" / "configs").iterdir())
    assert len(kept) == 1
    with monkeypatch.context() as patched:
        patched.setattr(config, "_compose", lambda *_: pytest.fail("composed again"))
        assert config.compose(["trainer=mine"], [mine]) == first
    file.write_text("defaults: [default, _self_]\nepochs: 8\n")
    assert config.compose(["trainer=mine"], [mine])["trainer"]["epochs"] == 8
    kept[0].write_text("{")
    file.write_text("defaults: [default, _self_]\nepochs: 7\n")
    assert config.compose(["trainer=mine"], [mine]) == first


def test_what_asks_the_environment_is_composed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in ("a", "b"):
        monkeypatch.setenv("FOLDER", folder)
        assert config.compose(["output_dir=${oc.env:FOLDER}"])["output_dir"] == folder
    assert not (tmp_path / "cache").exists()
