"""Successive halving: the worse stop, each arm among its own, and a killed sweep keeps its standards."""

from __future__ import annotations

import math

import pytest

from harness.rungs import Brackets, Halving, loss_of


def test_of_many_that_come_to_a_rung_the_worse_stop_and_the_best_never() -> None:
    brackets = Brackets(Halving(1, 3))
    losses = [0.5, 0.9, 0.1, 0.8, 0.7, 0.05]
    stopped = [brackets.stops("a", f"f{n}", 9, 1, loss) for n, loss in enumerate(losses)]
    assert stopped == [False, True, False, True, True, False]
    assert not brackets.stops("a", "f0", 9, 2, 99.0), "between two rungs nobody stops"
    assert not brackets.stops("a", "f2", 9, 3, 0.1)
    assert brackets.stops("a", "f0", 9, 3, 0.5)


def test_arms_do_not_crowd_out_each_other() -> None:
    brackets = Brackets(Halving(1, 3))
    for n in range(6):
        brackets.stops("good", f"g{n}", 9, 1, 0.01 * n)
    assert not brackets.stops("bad", "b0", 9, 1, 5.0)
    assert brackets.stops("good", "late", 9, 1, 5.0)


def test_nobody_is_stopped_at_the_last_epoch_or_where_there_is_no_rung() -> None:
    brackets = Brackets(Halving(1, 3))
    for n in range(4):
        assert not brackets.stops("a", f"f{n}", 3, 3, float(n))
        assert not brackets.stops("one", f"f{n}", 1, 1, float(n))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_the_worst_and_spoils_no_rung(loss: float) -> None:
    brackets = Brackets(Halving(1, 2))
    assert not brackets.stops("a", "good", 4, 1, 0.5)
    assert brackets.stops("a", "bad", 4, 1, loss)
    assert not brackets.stops("a", "better", 4, 1, 0.4)
    assert brackets.stops("a", "huge", 4, 1, 1e30)


def test_what_the_store_remembers_counts_as_if_it_had_been_seen() -> None:
    whole, resumed = Brackets(Halving(1, 3)), Brackets(Halving(1, 3))
    ended = {"x": [0.3, 0.3, 0.2], "y": [0.9], "z": [0.2, 0.1, 0.1, 0.1]}
    for fit, losses in ended.items():
        for epoch, loss in enumerate(losses, start=1):
            whole.stops("a", fit, 9, epoch, loss)
        resumed.recall("a", fit, 9, dict(enumerate(losses, start=1)))
    for epoch, loss in ((1, 0.25), (1, 0.6), (3, 0.05), (3, 0.19)):
        fit = f"new-{epoch}-{loss}"
        assert resumed.stops("a", fit, 9, epoch, loss) == whole.stops("a", fit, 9, epoch, loss)
    assert not Brackets(Halving(1, 3)).stops("a", "new", 9, 1, 0.6)
    assert resumed.stops("a", "another", 9, 1, 0.6)


def test_the_loss_is_the_mean_of_the_validation_losses() -> None:
    assert loss_of({"epoch": 1, "train/valence": 9, "validation/valence": 1.0, "validation/arousal": 2.0}) == 1.5
    assert loss_of({"epoch": 1, "train/valence": 9}) is None
