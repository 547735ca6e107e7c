"""What to try next: Optuna's estimate of where good values lie, asked in rounds.

The store is the truth: a round follows from the seed and from the scores of the rounds before alone, so whoever plans again, in another
process or after a kill, asks the same. No study is kept, and nothing is read back from one. Optuna is imported only here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import RequestError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAPPED = ("uniform", "quniform", "loguniform", "randint", "qrandint", "lograndint", "choice")
"""Functions of ``ray.tune`` whose spaces Optuna has, too."""


@dataclass(frozen=True)
class Search:
    """``tune.search: {name: optuna, …}``.

    Attributes:
        startup: Draws of the first round, which are random.
        at_once: Draws of each round after it; all of a round may run at once.
    """

    startup: int = 4
    at_once: int = 4


@dataclass(frozen=True)
class Tried:
    """One draw of an earlier round.

    Attributes:
        values: By key.
        score: On the validation part; None where it has none.
        stopped: Where it was stopped early: the epoch, and the loss on the validation part then.
    """

    values: Mapping[str, Any]
    score: float | None = None
    stopped: tuple[int, float] | None = None


def check(space: Mapping[str, Any]) -> None:
    """Refuse a space that Optuna does not have. Imports nothing.

    Args:
        space: Dotted key → a sample space of Ray Tune (``_target_`` and its arguments), or a fixed value.

    Raises:
        RequestError: It says which.
    """
    for key, node in space.items():
        name = _kind(node)
        if name is not None and name not in MAPPED:
            remedy = f"use one of {', '.join(MAPPED)}, or search: random"
            raise RequestError(f"Optuna has no space like ray.tune.{name}", where=f"tune: {key}", remedy=remedy)


def suggest(space: Mapping[str, Any], tried: Sequence[Tried], n: int, *, seed: int, higher_is_better: bool) -> list[dict[str, Any]]:
    """The values of the next ``n`` draws, by key in the order of the space.

    Args:
        space: As of :func:`check`.
        tried: All draws of earlier rounds, in their order. One without a score says nothing, but for one that was stopped.
        n: Draws of the round; the first of many are those of few.
        seed: With the number of draws before, all that chance follows from.
        higher_is_better: Of the score.

    Raises:
        RequestError: Optuna has no such space, or refuses it.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    check(space)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {key: _distribution(key, node) for key, node in space.items() if _kind(node) is not None}
    digest = hashlib.sha256(f"{seed}:{len(tried)}".encode()).digest()
    # Values of a round that are not scored yet count as bad ones, so that a round does not ask for the same thing several times.
    sampler = optuna.samplers.TPESampler(n_startup_trials=0, constant_liar=True, seed=int.from_bytes(digest[:4], "big"))
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize", sampler=sampler)
    for one in tried:
        known: dict[str, Any] = {"params": {key: one.values[key] for key in spaces}, "distributions": spaces}
        if one.score is not None and math.isfinite(one.score):
            study.add_trial(create_trial(state=TrialState.COMPLETE, value=one.score, **known))
        elif one.stopped is not None and math.isfinite(one.stopped[1]):
            epoch, loss = one.stopped
            study.add_trial(
                create_trial(state=TrialState.PRUNED, intermediate_values={epoch: -loss if higher_is_better else loss}, **known)
            )
    asked = [study.ask(spaces).params for _ in range(n)]
    return [{key: values[key] if key in spaces else node for key, node in space.items()} for values in asked]


def _kind(node: Any) -> str | None:
    """The name of a sample space of ``ray.tune``; None of a fixed value."""
    return str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, Mapping) else None


def _distribution(key: str, node: Mapping[str, Any]) -> BaseDistribution:
    """The same space as Optuna names it; Ray Tune's whole numbers end before the upper one, Optuna's with it.

    Raises:
        RequestError: Optuna refuses it.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    given = {name: value for name, value in node.items() if name not in ("_target_", "base")}
    try:
        match _kind(node):
            case "choice":
                return CategoricalDistribution(given["categories"])
            case "uniform":
                return FloatDistribution(given["lower"], given["upper"])
            case "loguniform":
                return FloatDistribution(given["lower"], given["upper"], log=True)
            case "quniform":
                return FloatDistribution(given["lower"], given["upper"], step=given["q"])
            case "randint":
                return IntDistribution(given["lower"], given["upper"] - 1)
            case "lograndint":
                return IntDistribution(given["lower"], given["upper"] - 1, log=True)
            case _:  # qrandint, whose upper end is one of its values
                return IntDistribution(given["lower"], given["upper"], step=given.get("q", 1))
    except (KeyError, TypeError, ValueError) as error:
        what = f"Optuna refuses {node['_target_']} of {given}: {error}"
        raise RequestError(what, where=f"tune: {key}", remedy="see Ray Tune's search space API") from None
