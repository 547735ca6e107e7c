"""Label protocols: what each rule makes of labels, and that its id says so."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from harness.errors import RequestError
from harness.samples import check, conform
from tasks.labels import Cleaned, Majority, Present, UnknownIsAbsent, Votes


def samples(**columns: list[Any]) -> pl.DataFrame:
    n = len(next(iter(columns.values())))
    names = [f"{i}.jpg" for i in range(n)]
    return conform(pl.DataFrame({"sample": names, "clip": names, "frame": [0] * n, **columns}, strict=False))


def votes(*rows: dict[str, int]) -> pl.DataFrame:
    names = ("neutral", "happy", "surprise", "unknown", "no_face")
    return samples(**{f"votes_{name}": [row.get(name, 0) for row in rows] for name in names})


class TestPresent:
    @pytest.mark.parametrize(("at", "expected"), [(1, [0, 1, 1, 1, None]), (2, [0, 0, 1, 1, None]), (3, [0, 0, 0, 1, None])])
    def test_a_unit_is_there_from_an_intensity_on(self, at: int, expected: list[Any]) -> None:
        found = check(Present(at=at)(samples(au12_intensity=[0, 1, 2, 5, None])))
        assert found["au12"].to_list() == expected
        assert found["au12_intensity"].to_list() == [0, 1, 2, 5, None], "what it was made from stays"

    def test_its_id_says_from_which(self) -> None:
        assert Present().id == "intensity-2"
        assert Present(at=3).id == "intensity-3"

    @pytest.mark.parametrize("at", [0, 6, "two"])
    def test_there_are_five_intensities(self, at: Any) -> None:
        with pytest.raises(RequestError, match=r"task\.labels\.present\.at.*1 to 5"):
            Present(at=at)


class TestUnknownIsAbsent:
    def test_unknown_cells_of_a_coded_frame_become_absent_and_uncoded_frames_stay_so(self) -> None:
        found = UnknownIsAbsent()(samples(au1=[1, None, None], au2=[None, 0, None]))
        assert found.select("au1", "au2").rows() == [(1, 0), (0, 0), (None, None)]


class TestCleaned:
    @pytest.mark.parametrize(
        ("expression", "valence", "arousal", "kept"),
        [
            ("neutral", 0.1, 0.1, True),
            ("neutral", 0.2, 0.1, False),
            ("happy", 0.5, -0.1, True),
            ("happy", -0.1, 0.5, False),
            ("happy", 0.1, 0.1, False),
            ("sad", -0.5, -0.3, True),
            ("sad", 0.1, -0.4, False),
            ("surprise", -0.2, 0.6, True),
            ("surprise", 0.4, -0.1, False),
            ("fear", 0.0, 0.5, True),
            ("fear", 0.1, 0.5, False),
            ("fear", -0.5, -0.1, False),
            ("disgust", -0.4, 0.0, True),
            ("disgust", -0.2, 0.15, False),
            ("anger", 0.1, 0.5, True),
            ("anger", -0.5, -0.1, False),
            ("contempt", -0.3, 0.1, True),
            ("contempt", 0.3, 0.1, False),
            (None, 0.5, 0.5, False),
            ("happy", None, None, False),
        ],
    )
    def test_labels_that_fit_each_other_stay(self, expression: Any, valence: Any, arousal: Any, kept: bool) -> None:
        given = samples(expression=[expression], valence=[valence], arousal=[arousal], split=["validation"])
        found = Cleaned()(given)
        assert found["expression"].to_list() == ([expression] if kept else [None])
        assert found["valence"].to_list() == ([valence] if kept else [None])

    def test_other_parts_are_spared_unless_all_are_meant(self) -> None:
        given = samples(expression=["happy"] * 2, valence=[-0.5] * 2, arousal=[0.0] * 2, split=["train", "validation"])
        assert Cleaned()(given)["expression"].to_list() == ["happy", None]
        assert Cleaned(parts=None)(given)["expression"].to_list() == [None, None]
        assert [Cleaned().id, Cleaned(parts=None).id] == ["cleaned-validation", "cleaned"]


class TestMajority:
    def test_most_votes_win_and_what_is_no_expression_may_win_too(self) -> None:
        given = votes({"happy": 6, "neutral": 4}, {"unknown": 6, "happy": 4}, {"no_face": 10}, {"surprise": 1}, {})
        assert Majority()(given)["expression"].to_list() == ["happy", None, None, "surprise", None]

    def test_a_tie_is_dropped_or_goes_to_the_first(self) -> None:
        given = votes({"happy": 5, "neutral": 5}, {"happy": 4, "unknown": 4, "surprise": 2}, {"unknown": 5, "no_face": 5})
        assert Majority(ties="drop")(given)["expression"].to_list() == [None, None, None]
        assert Majority(ties="first")(given)["expression"].to_list() == ["neutral", "happy", None]

    def test_an_absolute_majority_can_be_asked_for(self) -> None:
        given = votes({"happy": 6, "neutral": 4}, {"happy": 5, "neutral": 3, "surprise": 2})
        assert Majority(more_than=0.5)(given)["expression"].to_list() == ["happy", None]

    def test_the_votes_are_gone_so_that_nothing_learns_from_them(self) -> None:
        assert not [name for name in Majority()(votes({"happy": 6})).columns if name.startswith("votes")]

    def test_the_rule_is_in_the_id(self) -> None:
        assert Majority().id == "majority-ties-drop"
        assert Majority(ties="first", more_than=0.5).id == "majority-ties-first-above-0.5"

    def test_an_unknown_rule_and_samples_without_votes_are_refused(self) -> None:
        with pytest.raises(RequestError, match="did you mean 'first'"):
            Majority(ties="frist")
        with pytest.raises(RequestError, match="no votes"):
            Majority()(samples(expression=["happy"]))


class TestVotes:
    def test_votes_for_expressions_stay_and_the_winner_is_the_expression(self) -> None:
        found = Votes()(votes({"happy": 6, "neutral": 2, "unknown": 2}, {"happy": 5, "neutral": 5}, {"no_face": 10}))
        assert found["expression"].to_list() == ["happy", None, None]
        assert found.select("votes_neutral", "votes_happy").rows() == [(2, 6), (5, 5), (None, None)]
        assert not {"votes_unknown", "votes_no_face"} & set(found.columns)

    def test_faces_that_few_could_name_can_be_left_out(self) -> None:
        found = Votes(least=4)(votes({"happy": 3, "unknown": 7}, {"happy": 4, "unknown": 6}))
        assert found["votes_happy"].to_list() == [None, 4]
