"""Records → the command that makes them again, proved: what it composes must have the very identities that the records have.

No data are read and nothing is fitted. What was fitted, and how, is in the provenance of a record and in its fits; the command is what
differs from the YAMLs as they are now. Where code, versions or YAMLs have moved on since, there is no such command, and that is said.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness import config, identity, plan
from harness.config import Config
from harness.errors import RequestError
from harness.leaderboard import ORACLE
from harness.store import Store
from harness.task import Task

MOST = 200
"""Configs that are composed for one site; what comes after says where it is from instead."""

_ROUNDS = 4  # a group that is chosen may bring keys that differ in turn
_FACTS = ("root", "overrides")
_AXES = ("fold", "seed")


@dataclass(frozen=True)
class Again:
    """A command, or why there is none.

    Attributes:
        command: None where nothing composes to the records.
        why_not: Said then.
        needs: What one must have beside it (the dataset's folder).
    """

    command: str | None
    why_not: str = ""
    needs: str = ""


@dataclass
class Reproducer:
    """Finds commands; what was composed for one row serves all rows of the same config.

    Attributes:
        store: Whose records.
        extra: The user's config folders.
    """

    store: Store
    extra: Sequence[Path] = ()
    _known: dict[str, tuple[list[str], Config, Task] | str] = field(default_factory=dict)

    def again(self, records: Sequence[Mapping[str, Any]]) -> Again:
        """The command of records that share everything but fold, seed and draw.

        Args:
            records: Columns as in ``store.RECORD``.
        """
        known = [self.store.provenance(record["provenance"]) for record in records]
        if not all(known) or not all("guard" in each and "baseline" in each and "task" in each for each in known):
            return Again(None, "the provenance of some of its records is gone")
        first, kept = records[0], known[0]
        if "submission" in kept:
            return Again(None, "its predictions were sent in; nobody here can make them again")
        if first["selection"] == ORACLE:
            return Again(None, "it was selected on the test set")
        found = self._config(first, kept)
        if isinstance(found, str):
            return Again(None, found)
        overrides, composed, task = found
        try:
            axes = self._axes(records, composed)
            if not self._proved(records, known, overrides, composed, task, axes):
                return Again(None, "what these names compose to now has other identities: code, versions or YAMLs have changed since")
        except (RequestError, KeyError, TypeError, ValueError) as error:
            return Again(None, f"it cannot be composed now: {error}")
        given = [f"{key}={','.join(map(written, values))}" for key, values in axes.items()]
        root = [] if first["synthetic"] else ["task.root=FOLDER"]
        folders = [word for folder in self.extra for word in ("--config-dir", folder.name)]
        words = ["harness", "run", *overrides, *root, *given, *folders]
        needs = "" if first["synthetic"] else f"FOLDER is where {first['dataset']} lies, as read with the fingerprint {first['data']}"
        return Again(" ".join(map(shlex.quote, words)), needs=needs)

    def _config(self, record: Mapping[str, Any], kept: Mapping[str, Any]) -> tuple[list[str], Config, Task] | str:
        """Overrides, what they compose to, and its task; or why there is none."""
        fits = [self.store.fit(fit) for fit in kept.get("fits", [])]
        if any(fit is None for fit in fits):
            return "a fit under it is gone from the store"
        how = [(fit["stage"], fit["trainer"], fit["weighting"]) for fit in fits if fit is not None]
        wanted = {"task": kept["task"], "baseline": kept["baseline"]}
        key = identity.canonical([wanted, how])
        if key not in self._known:
            if len(self._known) >= MOST:
                return f"only the first {MOST} configs are looked into"
            try:
                self._known[key] = self._find(record, wanted, how)
            except (RequestError, KeyError, TypeError, ValueError) as error:
                self._known[key] = f"it cannot be composed now: {error}"
        return self._known[key]

    def _find(self, record: Mapping[str, Any], wanted: Mapping[str, Any], how: Sequence[Any]) -> tuple[list[str], Config, Task] | str:
        for group in ("task", "baseline"):
            name = wanted[group].get("name", "")
            if name not in config.available(group, self.extra):
                return f"no {group} of that name is known here; with its folder: --config-dir"
        overrides = [f"task={record['task']}", f"baseline={record['baseline']}"]
        for _ in range(_ROUNDS):
            composed = config.compose(overrides, self.extra)
            if composed["task"].get("root") is not None:
                return "its task reads a folder by its YAML"
            groups, leaves = self._differences(composed, wanted, how, overrides)
            if groups:
                overrides += groups
            elif leaves:
                overrides += leaves
            else:
                return overrides, composed, plan.make_task(composed["task"])
        return "its config differs from the YAMLs by more than overrides can say"

    def _differences(
        self, composed: Config, wanted: Mapping[str, Any], how: Sequence[Any], given: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """What must be set: names of groups, and values."""
        groups: list[str] = []
        leaves: list[str] = []
        for path, have, want in self._uneven(composed, wanted, how, given):
            name = self._group(path, have, want, given)
            if name:
                groups.append(name)
            else:
                leaves += [item for item in _set(path, have, want) if item not in leaves]
        return groups, leaves

    def _uneven(
        self, composed: Config, wanted: Mapping[str, Any], how: Sequence[Any], given: Sequence[str]
    ) -> Iterator[tuple[str, Any, Any]]:
        """Where what is composed is not what was: path, what stands there, what stood there."""
        for part in ("task", "baseline"):
            have, want = (
                {name: _without(value) if name == "stages" else value for name, value in tree[part].items()} for tree in (composed, wanted)
            )
            yield from _uneven(part, *({name: value for name, value in tree.items() if name not in _FACTS} for tree in (have, want)))
        stages = composed["baseline"].get("stages") or {}
        by_hand = [item.split("=")[0].lstrip("+") for item in given]
        for stage, trainer, _ in how:
            own = stages.get(stage) or {}
            have, want = (
                {name: value for name, value in tree.items() if name not in plan.HOW}
                for tree in (plan.trainer_of(composed, own, by_hand), trainer)
            )
            for path, old, new in _uneven("", have, want):
                alike = all(_at(other, path[1:]) == new for _, other, _ in how)
                yield (
                    (f"trainer{path}" if alike else f"baseline.stages.{stage}.trainer{path}"),
                    old if alike else _at(own, f"trainer{path}"),
                    new,
                )
        for stage, _, weighting in how[-1:]:
            if (composed.get("weighting") or (stages.get(stage) or {}).get("weighting")) != weighting:
                yield from _uneven("weighting", composed.get("weighting"), weighting)

    def _group(self, path: str, have: Any, want: Any, given: Sequence[str]) -> str | None:
        """The name in a config group that is most of what stands at a path; None where a value does it."""
        if not isinstance(want, Mapping) or (isinstance(have, Mapping) and have.get("_target_") == want.get("_target_") and have):
            return None
        group = path.rsplit(".", 1)[-1]
        if group not in config.groups(self.extra) or any(item.startswith((f"{group}@{path}=", f"{path}=")) for item in given):
            return None
        best: tuple[int, str] | None = None
        for folder in config.config_dirs(self.extra):
            for file in sorted((folder / group).glob("*.yaml")):
                text = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
                if isinstance(text, Mapping) and text.get("_target_") == want.get("_target_"):
                    alike = sum(want.get(name) == value for name, value in text.items())
                    best = max(best, (alike, file.stem)) if best else (alike, file.stem)
        if best is None:
            return None
        return f"{path}={best[1]}" if "." not in path else f"{group}@{path}={best[1]}"

    def _axes(self, records: Sequence[Mapping[str, Any]], composed: Config) -> dict[str, list[Any]]:
        """What the command gives several values of, or another one than the YAML."""
        axes: dict[str, list[Any]] = {"fold": sorted({record["fold"] for record in records})}
        seeds = sorted({record["seed"] for record in records})
        if seeds != [composed["seed"]]:
            axes["seed"] = seeds
        settings = [json.loads(text) for text in sorted({record["setting"] for record in records})]
        evaluate = composed.get("evaluate") or {}
        leaves: dict[str, list[Any]] = {}
        for setting in settings:
            for path, text in config.leaves(setting):
                value = _number(text)
                if value not in leaves.setdefault(path, []):
                    leaves[path].append(value)
        if "size" in (evaluate.get("support") or {}) and not any("support" in setting for setting in settings):
            leaves["support.size"] = [0]
        for path, values in sorted(leaves.items()):
            if values != [_at(evaluate, path)]:
                axes[f"evaluate.{path}"] = values
        return axes

    def _proved(
        self,
        records: Sequence[Mapping[str, Any]],
        known: Sequence[Mapping[str, Any]],
        overrides: Sequence[str],
        composed: Config,
        task: Task,
        axes: Mapping[str, Sequence[Any]],
    ) -> bool:
        """Whether the command makes every one of the records: by the identities that it would give them on the same data."""
        one = copy.deepcopy(composed)
        texts = []
        evaluated = {key: values for key, values in axes.items() if key not in _AXES}
        for values in itertools.product(*evaluated.values()):
            for key, value in zip(evaluated, values, strict=True):
                config.place(one, key, value)
            reads = ("support", "threshold", *(one["baseline"].get("reads") or ()))
            setting = {name: value for name, value in task.setting(one.get("evaluate") or {}).items() if name in reads}
            texts.append(identity.canonical(setting))
        given = [item.split("=")[0].lstrip("+") for item in overrides]
        entries: dict[str, str] = {}
        for record, kept in zip(records, known, strict=True):
            key = identity.canonical([record["data"], kept["guard"], record["seed"]])
            if key not in entries:
                entries[key] = plan.chain(one, given, task, data=record["data"], proof=kept["guard"], seed=record["seed"])[2]
            if record["evaluation"] not in {plan.evaluation_identity(entries[key], text) for text in texts}:
                return False
        return True


def written(value: Any) -> str:
    """A value as Hydra reads it.

    >>> written([1, "6%", None, {"a": True}]), written("it's")
    ('[1,6%,null,{a:true}]', "'it\\\\'s'")
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z0-9_][\w./%-]*", value) and yaml.safe_load(value) == value
        return value if plain else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)


def _uneven(path: str, have: Any, want: Any) -> Iterator[tuple[str, Any, Any]]:
    """The deepest places where two trees differ."""
    same_kind = isinstance(have, Mapping) and isinstance(want, Mapping) and have.get("_target_") == want.get("_target_")
    if not same_kind:
        if have != want or type(have) is not type(want):
            yield path, have, want
        return
    for name in [*want, *(name for name in have if name not in want)]:
        yield from _uneven(f"{path}.{name}", have.get(name, _NOTHING), want.get(name, _NOTHING))


_NOTHING = object()


def _without(stages: Any) -> Any:
    """Stages without trainer and weighting, which their fits tell."""
    return {
        name: {key: value for key, value in stage.items() if key not in ("trainer", "weighting")} for name, stage in (stages or {}).items()
    }


def _set(path: str, have: Any, want: Any) -> list[str]:
    """The override that sets a place to a value.

    Raises:
        RequestError: Nothing may stand there, which no override of a sweep says.
    """
    if want is _NOTHING:
        raise RequestError(f"{path} is set in the YAML now, and was not")
    return [f"{'+' if have is _NOTHING else ''}{path}={written(want)}"]


def _number(value: Any) -> Any:
    """A number that a task has made a text of; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree.get(part, _NOTHING) if isinstance(tree, Mapping) else _NOTHING
    return tree
