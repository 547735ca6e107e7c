"""Equal budgets: every arm that trains gets the same number of draws of its hyper-parameters, and the best on validation counts.

Ray Tune's sample spaces draw. Importing them takes longer than reading a finished sweep may, so what was drawn is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import identity, suggestions
from harness.errors import RequestError, did_you_mean
from harness.rungs import Halving
from harness.store import write_atomically
from harness.suggestions import Search
from harness.task import Setting, TaskInfo

KEYS = ("draws", "seed", "space", "arms", "search", "stop")
SEED = 100
"""Of the fits that are tuned, where a sweep names none."""

SPACES = (
    *("uniform", "quniform", "loguniform", "qloguniform", "randn", "qrandn"),
    *("randint", "qrandint", "lograndint", "qlograndint", "choice"),
)
"""What may be drawn from: functions of ``ray.tune``."""

PLACES = ("trainer", "weighting", "baseline")
"""Where a value may be drawn; what is measured, and on what, is the same for all draws."""

ON_VALIDATION = "/validation-part"
"""What the id of a protocol ends with where the validation part is scored; such records never share a table with others."""


@dataclass(frozen=True)
class Tune:
    """How the arms of a sweep are tuned.

    Attributes:
        draws: Of every arm that trains anything.
        seed: Of the draws and of the fits that are tuned; the refits have others.
        space: Dotted key → a sample space of Ray Tune (``_target_: ray.tune.loguniform`` …) or a fixed value; of every arm.
        arms: Arm → the same of what it has of its own.
        search: How draws after the first ones are found; None where all are random.
        stop: By what rule a draw is stopped early; None where each has all its epochs.
    """

    draws: int
    seed: int
    space: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    search: Search | None = None
    stop: Halving | None = None

    def of(self, arm: str) -> dict[str, Any]:
        """The space of an arm; what it has of its own replaces what all have."""
        return self.space | self.arms.get(arm, {})


def read(text: Any, scale: Any, given: Mapping[str, str], *, arms: Iterable[str], axes: Iterable[str], where: str) -> Tune | None:
    """The ``tune:`` of a sweep's YAML; None where there is none.

    Args:
        text: The node.
        scale: The node of the chosen scale, whose keys win.
        given: ``draws``, ``seed``, ``search`` and ``stop`` as the command line gives them.
        arms: All names of arms.
        axes: Keys that vary already.
        where: The file.

    Raises:
        RequestError: A key, a number, an arm or a space that cannot be.
    """
    if text is None and scale is None:
        if given:
            key = next(iter(given))
            raise RequestError("nothing is tuned in this sweep", where=f"tune.{key}={given[key]}", remedy="give its YAML a key tune")
        return None
    node = _merged(_mapping(text, f"{where}: tune"), _mapping(scale, f"{where}: tune of the scale")) | dict(given)
    for key in node:
        if key not in KEYS:
            raise RequestError(f"no such key: tune.{key}", where=where, remedy=did_you_mean(key, KEYS))
    if "draws" not in node:
        raise RequestError("tune.draws is not set", where=where, remedy="say how many draws every arm has")
    space = _mapping(node.get("space"), f"{where}: tune.space")
    named = _mapping(node.get("arms"), f"{where}: tune.arms")
    arms, axes = list(arms), list(axes)
    for arm in named:
        if arm not in arms:
            raise RequestError(f"no arm is called {arm!r}", where=f"{where}: tune.arms", remedy=did_you_mean(arm, arms))
    own = {arm: _mapping(values, f"{where}: tune.arms.{arm}") for arm, values in named.items()}
    spaces = {f"{where}: tune.space": space, **{f"{where}: tune.arms.{arm}": values for arm, values in own.items()}}
    if not any(spaces.values()):
        raise RequestError("nothing is to be drawn", where=f"{where}: tune", remedy="give it a space, {trainer.lr: …}")
    for place, values in spaces.items():
        for key, value in values.items():
            _check(key, value, axes, place)
    search = _chosen(node.get("search"), "search", "random", {"optuna": Search}, {"startup": 2, "at_once": 1})
    stop = _chosen(node.get("stop"), "stop", "null", {"asha": Halving}, {"grace": 1, "factor": 2})
    if search:
        for values in spaces.values():
            suggestions.check(values)
    return Tune(_whole(node["draws"], 1, "tune.draws"), _whole(node.get("seed", SEED), 0, "tune.seed"), space, own, search, stop)


def drawn(space: Mapping[str, Any], draws: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The values of each draw, by key in the order of the space.

    The value of one draw of one key follows from the seed, the key and the draw alone: all arms try the same learning rates, and the
    first draws of many are those of few.

    Args:
        space: As of :class:`Tune`.
        draws: How many.
        seed: Of the draws.
        folder: Where what was drawn is kept, by its space, seed, number and the version of Ray; what is damaged is drawn again.

    Raises:
        RequestError: Ray Tune refuses the space.
    """
    sampled = {key: value for key, value in space.items() if isinstance(value, Mapping)}
    fixed = {key: [value] * draws for key, value in space.items() if key not in sampled}
    kept = folder / f"{identity.address([sampled, draws, seed, metadata.version('ray')])}.json"
    values = (_kept(kept, sampled, draws) if sampled else {}) or {}
    if sampled and not values:
        values = {key: _sample(key, node, draws, seed) for key, node in sampled.items()}
        write_atomically(kept, json.dumps({"values": values, "address": identity.address(values)}, indent=1).encode())
    return [{key: (fixed | values)[key][draw] for key in space} for draw in range(draws)]


def best(scores: Sequence[float | None], *, higher_is_better: bool = True) -> int | None:
    """The draw with the best score, of equal ones the first; None where none has a score.

    >>> best([0.1, None, 0.3, 0.3]), best([0.1, None, 0.3], higher_is_better=False), best([None])
    (2, 0, None)
    """
    known = [(score if higher_is_better else -score, -draw) for draw, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None


def on_validation(setting: Setting) -> Setting:
    """The same setting for the validation part, where no threshold can be chosen on it and scored on it.

    >>> on_validation({"support": {"size": 0}, "threshold": "validation"})
    {'support': {'size': 0}, 'threshold': '0.5', 'part': 'validation'}
    """
    plain = {"threshold": "0.5"} if setting.get("threshold") == "validation" else {}
    return {**setting, **plain, "part": "validation"}


def split_setting(setting: Setting) -> tuple[str, Setting]:
    """The part that is scored, ``test`` or ``validation``, and the task's own setting.

    >>> split_setting({"support": {"size": 0}, "part": "validation"}), split_setting({})
    (('validation', {'support': {'size': 0}}), ('test', {}))
    """
    return str(setting.get("part", "test")), {name: value for name, value in setting.items() if name != "part"}


def protocol_of(info: TaskInfo, setting: Setting) -> str:
    """The id of the protocol that a record of this setting stands under."""
    return info.protocol + (ON_VALIDATION if setting.get("part") == "validation" else "")


def selected(epoch: str, draws: int | None) -> str:
    """How a model was selected, as a table says it: how its epoch was, and where they were tuned its hyper-parameters.

    >>> selected("last", None), selected("last", 8), selected("validation", 8)
    ('last', 'validation (8 draws)', 'validation (8 draws, and the epoch)')
    >>> selected("validation (4 draws, and the epoch)", 8)
    'validation (8 draws, and the epoch)'
    """
    if not draws:
        return epoch
    by_epoch = epoch == "validation" or epoch.endswith(", and the epoch)")
    return f"validation ({draws} draws{', and the epoch' if by_epoch else ''})"


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise RequestError(f"{value!r} is no mapping", where=where)
    return {str(key): item for key, item in (value or {}).items()}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, but a sample space is replaced whole."""
    out = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping) and not {"_target_"} & {*value, *out[key]}
        out[str(key)] = _merged(out[key], value) if both else value
    return out


def _chosen(value: Any, key: str, nothing: str, known: Mapping[str, Callable[..., Any]], least: Mapping[str, int]) -> Any:
    """What ``tune.search`` or ``tune.stop`` says: a name, or a mapping of it and of whole numbers.

    Args:
        value: The node.
        key: Which of them.
        nothing: The name of what needs no library; None is given for it.
        known: Name → what is made of the numbers.
        least: Number → the least it may be.

    Raises:
        RequestError: A name, a key or a number that cannot be.
    """
    given = value if isinstance(value, Mapping) else {"name": value}
    name = nothing if given.get("name") is None else str(given["name"])
    if name not in (nothing, *known):
        raise RequestError(f"tune.{key} is {name!r}", where=f"tune.{key}", remedy=did_you_mean(name, [nothing, *known]))
    numbers = {str(each): number for each, number in given.items() if each != "name"}
    for each in numbers:
        if name == nothing or each not in least:
            remedy = did_you_mean(each, least) if name in known else f"{key}: {{name: {next(iter(known))}, …}} has numbers"
            raise RequestError(f"no such key: tune.{key}.{each}", where=f"tune.{key}", remedy=remedy)
    whole = {each: _whole(number, least[each], f"tune.{key}.{each}") for each, number in numbers.items()}
    return known[name](**whole) if name in known else None


def _whole(value: Any, least: int, where: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < least:
        raise RequestError(f"{where} is {value!r}", where=where, remedy=f"give a whole number from {least} on")
    return int(text)


def _check(key: str, value: Any, axes: Sequence[str], where: str) -> None:
    """Refuse what cannot be drawn, and where nothing can be.

    Raises:
        RequestError: It says which.
    """
    first, _, rest = key.partition(".")
    if first not in PLACES or not rest:
        raise RequestError(f"{key} cannot be tuned", where=where, remedy=f"what can begins with {', '.join(f'{p}.' for p in PLACES)}")
    if key in axes:
        raise RequestError(f"{key} is an axis of the sweep as well", where=where, remedy="vary it or tune it")
    if key.endswith(".epochs") or key.startswith("trainer.resources"):
        raise RequestError(f"{key} cannot be tuned: budgets would differ", where=where, remedy=f"set {key}=… for all draws")
    if isinstance(value, list):
        raise RequestError(f"{value!r} is no sample space", where=f"{where}.{key}", remedy="{_target_: ray.tune.choice, categories: […]}")
    if not isinstance(value, Mapping):
        return
    target = value.get("_target_")
    if target not in [f"ray.tune.{name}" for name in SPACES]:
        remedy = did_you_mean(str(target or ""), [f"ray.tune.{name}" for name in SPACES])
        raise RequestError(f"{target!r} is no sample space", where=f"{where}.{key}._target_", remedy=remedy)
    for name, number in value.items():
        if name not in ("_target_", "categories") and (isinstance(number, bool) or not isinstance(number, int | float)):
            remedy = "numbers with an exponent are written 3.0e-4"
            raise RequestError(f"{number!r} is no number", where=f"{where}.{key}.{name}", remedy=remedy)
    if {"lower", "upper"} <= value.keys() and not value["lower"] < value["upper"]:
        raise RequestError(f"nothing lies from {value['lower']} to {value['upper']}", where=f"{where}.{key}", remedy="lower comes first")


def _sample(key: str, node: Mapping[str, Any], draws: int, seed: int) -> list[Any]:
    """Draw from one space.

    Raises:
        RequestError: Ray Tune refuses it.
    """
    import numpy as np

    from harness import cluster

    cluster.tell_environment(gpus=1)
    from ray import tune

    arguments = {name: value for name, value in node.items() if name != "_target_"}
    try:
        domain = getattr(tune, node["_target_"].rpartition(".")[2])(**arguments)
        values = []
        for draw in range(draws):
            digest = hashlib.sha256(f"{seed}:{key}:{draw}".encode()).digest()
            values.append(domain.sample(random_state=np.random.RandomState(np.frombuffer(digest, np.uint32))))
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        what = f"{node['_target_']} refuses {arguments}: {error}"
        raise RequestError(what, where=f"tune: {key}", remedy="see Ray Tune's search space API") from None
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _kept(path: Path, sampled: Mapping[str, Any], draws: int) -> dict[str, list[Any]] | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        values: dict[str, list[Any]] = known["values"]
        whole = identity.address(values) == known["address"] and values.keys() == sampled.keys()
        return values if whole and all(len(each) == draws for each in values.values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
