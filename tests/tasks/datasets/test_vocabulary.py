"""The one table of codes and names against the datasets' own documentation."""

import pytest

from harness.samples import EXPRESSIONS
from tasks.datasets import vocabulary
from tasks.datasets.vocabulary import CODES, EXPRESSION_NAMES, au_name

# As the datasets print them, code by code.
PUBLISHED = {
    "affectnet": (0, "Neutral Happy Sad Surprise Fear Disgust Anger Contempt"),
    "aff_wild2": (0, "Neutral Anger Disgust Fear Happiness Sadness Surprise Other"),
    "raf_db": (1, "Surprise Fear Disgust Happiness Sadness Anger Neutral"),
    "fer2013": (0, "Angry Disgust Fear Happy Sad Surprise Neutral"),
}
IN_AFFECTNET = {
    "aff_wild2": {0: 0, 1: 6, 2: 5, 3: 4, 4: 1, 5: 2, 6: 3},
    "raf_db": {1: 3, 2: 4, 3: 5, 4: 1, 5: 2, 6: 6, 7: 0},
    "fer2013": {0: 6, 1: 5, 2: 4, 3: 1, 4: 2, 5: 3, 6: 0},
}


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_every_code_has_the_name_that_the_dataset_gives_it(dataset: str) -> None:
    first, names = PUBLISHED[dataset]
    assert CODES[dataset] == {code: EXPRESSION_NAMES[name.lower()] for code, name in enumerate(names.split(), start=first)}


@pytest.mark.parametrize("dataset", IN_AFFECTNET)
def test_codes_of_two_datasets_meet_in_one_expression(dataset: str) -> None:
    for code, other in IN_AFFECTNET[dataset].items():
        assert CODES[dataset][code] == CODES["affectnet"][other] == EXPRESSIONS[other]


def test_a_code_without_a_counterpart_is_other_or_nothing() -> None:
    assert CODES["aff_wild2"][7] == "other"
    assert CODES["aff_wild2"].keys() == set(range(8))
    assert not {8, 9, 10} & CODES["affectnet"].keys(), "none, uncertain and no face are no expressions"


def test_all_names_are_canonical_expressions() -> None:
    assert CODES.keys() == PUBLISHED.keys()
    for codes in CODES.values():
        assert set(codes.values()) <= set(EXPRESSIONS)
        assert len(set(codes.values())) == len(codes), "no two codes have one name"
    assert set(EXPRESSION_NAMES.values()) == set(EXPRESSIONS)
    assert all(EXPRESSION_NAMES[name] == name for name in EXPRESSIONS)
    assert all(name == name.lower() for name in EXPRESSION_NAMES)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("neutral happiness surprise sadness anger disgust fear contempt", "neutral happy surprise sad anger disgust fear contempt"),
        ("angry surprised sad fearful disgusted", "anger surprise sad fear disgust"),
    ],
    ids=["FERPlus", "muxspace"],
)
def test_names_of_other_lists_are_known_too(names: str, expected: str) -> None:
    assert [EXPRESSION_NAMES[name] for name in names.split()] == expected.split()


@pytest.mark.parametrize("name", ["unknown", "nf", "none", "uncertain", "non-face"])
def test_what_is_no_expression_has_no_name(name: str) -> None:
    assert name not in EXPRESSION_NAMES


@pytest.mark.parametrize(
    ("aus", "expected"),
    [
        (vocabulary.AFF_WILD2_AUS, "1,2,4,6,7,10,12,15,23,24,25,26"),
        (vocabulary.ABAW1_AUS, "1,2,4,6,12,15,20,25"),
        (vocabulary.DISFA_AUS, "1,2,4,5,6,9,12,15,17,20,25,26"),
        (vocabulary.BP4D_AUS, "1,2,4,6,7,10,12,14,15,17,23,24"),
        (vocabulary.BP4D_INTENSITY_AUS, "6,10,12,14,17"),
    ],
    ids=["Aff-Wild2", "ABAW1", "DISFA", "BP4D", "BP4D intensities"],
)
def test_action_units_are_those_of_the_dataset(aus: tuple[int, ...], expected: str) -> None:
    assert ",".join(map(str, aus)) == expected


def test_action_units_that_two_datasets_share() -> None:
    assert sorted(set(vocabulary.DISFA_AUS) & set(vocabulary.BP4D_AUS)) == [1, 2, 4, 6, 12, 15, 17]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("AU1", "au1"), ("AU01", "au1"), ("au 12", "au12"), (" AU_26 ", "au26"), ("AU06_c", "au6"), ("AU06_r", "au6"), ("7", "au7")]
    + [(text, None) for text in ("", "AU", "AU0", "AU100", "au1x", "AU12_left", "12.5", "-1", "valence", "AU1,AU2")],
)
def test_an_action_unit_is_known_however_it_is_written(text: str, expected: str | None) -> None:
    assert au_name(text) == expected
