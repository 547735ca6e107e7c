"""The two phases of arms that are tuned, in a plan: their draws, asked round after round, and what is made of the best.

The first round is drawn at random, the same values for all arms. Where a sweep searches, the next is asked once all draws before are
scored or left out, and what was asked is kept in the store: neither rescoring nor a draw that is tried again nor another version of
Optuna changes what has been drawn, and a finished sweep imports none.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from harness import config as configs
from harness import identity, rungs, suggestions, tuning
from harness.config import Config
from harness.errors import RequestError
from harness.store import Store
from harness.suggestions import Tried

if TYPE_CHECKING:
    from harness.plan import Added, Builder

OPTIONAL = "baseline.stages."
"""An axis that begins so says nothing to an arm whose baseline has no such key."""

TRIES: dict[str, Any] = {
    "arm": pl.String,
    "task": pl.String,
    "protocol": pl.String,
    "fold": pl.Int64,
    "axes": pl.String,  # JSON: what else varies, by key
    "draw": pl.Int64,
    "values": pl.String,  # JSON: what was drawn, by key; null where it is not asked yet
    "fits": pl.List(pl.String),  # its stages; none where it is not asked yet
    "epochs": pl.List(pl.Int64),  # of each; where it is not asked yet, of those that draws do not share
    "score": pl.Float64,  # on the validation part; null until it is there, and where it is left out
    "left_out": pl.String,  # null, or why it cannot be chosen
    "stopped": pl.Int64,  # null, or the epoch of the last stage after which it was stopped early
    "chosen": pl.Boolean,
}


@dataclass(frozen=True)
class _Outcome:
    """What became of a draw: a score, or why it is left out; neither where that is not known yet."""

    score: float | None = None
    left_out: str | None = None
    stopped: tuple[int, float] | None = None

    @property
    def known(self) -> bool:
        return self.score is not None or self.left_out is not None


class Rounds:
    """Puts arms that are tuned into a plan."""

    def __init__(self, builder: Builder, tune: tuning.Tune, store: Store) -> None:
        self._builder, self._tune, self._store = builder, tune, store
        self._draws = store.output / "cache" / "draws"
        known = store.records().filter(pl.col("protocol").str.ends_with(tuning.ON_VALIDATION))
        self._scores: dict[str, float | None] = dict(known.select("evaluation", "score").iter_rows())
        self._failures = store.failures()
        self._searched: set[str] = set()
        self.tries: list[tuple[Any, ...]] = []

    def space(self, arm: str, composed: Config) -> dict[str, Any] | None:
        """The space of an arm, without what its baseline does not have; None for an arm that trains nothing.

        Raises:
            RequestError: A key that its config does not have, nothing left to draw, or several workers where draws are to be stopped.
        """
        if not composed["baseline"].get("stages"):
            return None
        space = {}
        for key, value in self._tune.of(arm).items():
            if key not in self._tune.arms.get(arm, {}) and key.startswith(OPTIONAL) and not configs.has(composed, key):
                continue
            try:
                configs.place(copy.deepcopy(composed), key, None)
            except RequestError as error:
                nothing = key.startswith("weighting.") and not composed.get("weighting")
                close = "give the arm a weighting: weighting=…" if nothing else error.remedy
                raise RequestError(f"{arm}: {error.what}", where=f"tune: {key}", remedy=close) from None
            space[key] = value
        if not space:
            raise RequestError(
                f"{arm} trains, and nothing of it is tuned", where="tune", remedy=f"give tune.space or tune.arms.{arm} a key"
            )
        return space

    def add(
        self, one: Config, arm: str, set_by_hand: Sequence[str], space: Mapping[str, Any], seeds: Sequence[Any], axes: Mapping[str, Any]
    ) -> None:
        """All rows of one arm on one fold, under one value of every axis but the seed; one that tries the same as another stands once.

        Args:
            one: Resolved, with nothing drawn.
            arm: Its display name.
            set_by_hand: As of :meth:`harness.plan.Builder.add`.
            space: What :meth:`space` gave.
            seeds: Of the refits.
            axes: What else varies, with its value here.

        Raises:
            RequestError: A seed of the refits is that of the fits that are tuned, so that nothing would be fitted anew.
        """
        tune, set_by_hand = self._tune, [*set_by_hand, *space]
        if tune.seed in seeds and one["baseline"].get("seeded", True):
            what, remedy = f"seed {tune.seed} is of the fits that are tuned", "give the refits others: seed=… or tune.seed=…"
            raise RequestError(what, where=f"seed={','.join(map(str, seeds))}", remedy=remedy)
        at_random = min(tune.draws, tune.search.startup) if tune.search else tune.draws
        drawn = tuning.drawn(space, at_random, tune.seed, self._draws)
        bracket = identity.canonical([arm, one["fold"], axes])
        added: list[Added] = []
        found: list[_Outcome] = []

        def try_(values: Mapping[str, Any]) -> None:
            changed = configs.changed(one, {"seed": tune.seed, **values})
            asked = self._builder.add(changed, arm, set_by_hand, phase="tuning", draw=len(added))
            if tune.stop:
                self._may_stop(asked, arm, bracket)
            added.append(asked)
            found.append(self._outcome(asked))

        for values in drawn:
            try_(values)
        info, possible = added[0].task.info, any(why_not is None for _, why_not in added[0].evaluations)
        search = identity.address(
            [[one_of.evaluations for one_of in added], tune.search and [dict(space), asdict(tune.search), tune.stop and asdict(tune.stop)]]
        )
        if search in self._searched:
            return
        self._searched.add(search)
        while possible and tune.search and len(drawn) < tune.draws and all(outcome.known for outcome in found):
            tried = [Tried(values, outcome.score, outcome.stopped) for values, outcome in zip(drawn, found, strict=True)]
            for values in self._asked(search, space, tried, info.higher_is_better)[: tune.draws - len(drawn)]:
                drawn.append(values)
                try_(values)
        complete = len(drawn) == tune.draws and all(outcome.known for outcome in found)
        chosen = tuning.best([outcome.score for outcome in found], higher_is_better=info.higher_is_better) if complete else None
        if possible:
            self._tell(drawn, added, found, chosen, (arm, info.name, info.protocol, one["fold"], identity.canonical(axes)))
            for draw in range(len(drawn), tune.draws):
                why = f"asked once the {len(drawn)} draws before are scored"
                held = configs.changed(one, {"seed": tune.seed})
                self._builder.hold(held, arm, set_by_hand, phase="tuning", draw=draw, stand="waiting", why_not=why)
        for seed in seeds:
            refit = configs.changed(one, {"seed": seed})
            if chosen is not None:
                picked = configs.changed(refit, drawn[chosen])
                self._builder.add(picked, arm, set_by_hand, phase="refit", draw=chosen, draws=tune.draws)
            elif not possible:
                self._builder.add(refit, arm, set_by_hand, phase="refit")
            elif complete:
                why_not = f"none of its {tune.draws} draws can be chosen; of the first: {found[0].left_out}"
                self._builder.hold(refit, arm, set_by_hand, phase="refit", stand="failed", why_not=why_not)
            else:
                why_not = f"waits for its {tune.draws} draws"
                self._builder.hold(refit, arm, set_by_hand, phase="refit", stand="waiting", why_not=why_not)

    def _tell(
        self,
        drawn: Sequence[Mapping[str, Any]],
        added: Sequence[Added],
        found: Sequence[_Outcome],
        chosen: int | None,
        where: tuple[Any, ...],
    ) -> None:
        """Rows of :data:`TRIES` of all draws, those that are not asked yet among them."""
        for draw, (values, one_of, outcome) in enumerate(zip(drawn, added, found, strict=True)):
            fits, epochs = [spec.fit for spec in one_of.stages], [int(spec.trainer["epochs"]) for spec in one_of.stages]
            stopped = outcome.stopped and outcome.stopped[0]
            self.tries.append((*where, draw, json.dumps(values), fits, epochs, outcome.score, outcome.left_out, stopped, draw == chosen))
        own = [
            int(spec.trainer["epochs"])
            for place, spec in enumerate(added[0].stages)
            if place == len(added[0].stages) - 1 or len({one_of.stages[place].fit for one_of in added}) > 1
        ]
        for draw in range(len(drawn), self._tune.draws):
            self.tries.append((*where, draw, None, [], own, None, None, None, False))

    def _asked(self, search: str, space: Mapping[str, Any], tried: Sequence[Tried], higher_is_better: bool) -> list[dict[str, Any]]:
        """The values of the round that follows some draws, as they are kept, or else from Optuna.

        All of a round are asked though a sweep may need fewer: the first draws of many are those of few.
        """
        assert self._tune.search is not None
        name = f"{search}-{len(tried)}"
        kept = self._store.search(name)
        if kept is not None:
            return [{key: values[key] for key in space} for values in kept]
        n, seed = self._tune.search.at_once, self._tune.seed
        asked = suggestions.suggest(space, tried, n, seed=seed, higher_is_better=higher_is_better)
        with contextlib.suppress(RequestError):  # a store that may only be read is planned all the same, and asks the same again
            self._store.keep_search(name, asked)
        return asked

    def _may_stop(self, added: Added, arm: str, bracket: str) -> None:
        """Fits of the draw may be stopped where others of the arm on the same fold do better.

        Raises:
            RequestError: Several workers train it.
        """
        if not added.stages:
            return
        job = self._builder.jobs[added.fit]
        if int(job.resources["workers"]) > 1:
            what = f"{arm} is trained by {job.resources['workers']} workers, and such a fit is not stopped early"
            raise RequestError(what, where="tune.stop", remedy="set trainer.resources.workers=1 or tune.stop=null")
        job.stop, job.bracket = self._tune.stop, job.bracket or bracket

    def _outcome(self, added: Added) -> _Outcome:
        """Of a draw; its score is the mean over its settings on the validation part."""
        names = [evaluation for evaluation, why_not in added.evaluations if why_not is None]
        scores = [self._scores[name] for name in names if name in self._scores]
        if names and len(scores) == len(names):
            known = [score for score in scores if score is not None]
            return _Outcome(sum(known) / len(known)) if len(known) == len(names) else _Outcome(left_out="its score is undefined")
        if names and self._tune.stop and (stopped := rungs.read(self._store, added.fit, self._tune.stop).stopped):
            epoch, of = stopped[0], int(added.stages[-1].trainer["epochs"])
            return _Outcome(left_out=f"stopped after epoch {epoch} of {of}", stopped=stopped)
        failure = next((self._failures[name] for name in (added.fit, *names) if name in self._failures), None)
        return _Outcome(left_out=None if failure is None else str(failure.get("error") or "it failed"))
