import pytest

from {{ cookiecutter.package }}.contract import Column
from {{ cookiecutter.package }}.findings import findings


def test_a_sound_run_is_not_warned_about(run_with):
    """Enough rows, a believable score and full columns leave nothing to look at first."""
    assert [] == findings(run_with())


LEAK = {"height": {"mean": 0.48, "std": 0.01}, "bed": {"mean": 0.01, "std": 0.01}}
EQUAL = {"height": {"mean": 0.1, "std": 0.01}, "bed": {"mean": 0.1, "std": 0.01}}
DATES = (Column("planted", "datetime"),)
OUT = (Column("height", "numeric"), Column("id", "excluded", reason="identifier"))


@pytest.mark.parametrize(
    ("parts", "title", "words"),
    [
        ({"test_rows": 40}, "Only 40 rows were held out", "by chance"),
        (
            {"targets": {"train": {"no": 90, "yes": 60}, "test": {"no": 90, "yes": 3}}},
            "Classes with fewer than 10 held-out rows",
            "“yes”",
        ),
        ({"folds": [0.6, 0.95]}, "The folds differ a lot", "60\N{NO-BREAK SPACE}% to 95"),
        ({"columns": DATES}, "Held out at random, though there are dates", "“planted”"),
        (
            {"scores": {"balanced_accuracy": 0.5}, "intervals": {}},
            "Not better than guessing",
            "50\N{NO-BREAK SPACE}%",
        ),
        (
            {"intervals": {"balanced_accuracy": [0.45, 0.9]}},
            "Not clearly better than guessing",
            "85\N{NO-BREAK SPACE}%",
        ),
        (
            {"scores": {"balanced_accuracy": 0.96}, "importance": LEAK},
            "Almost too good to be true",
            "“height” carries 98\N{NO-BREAK SPACE}% of it",
        ),
        (
            {"scores": {"balanced_accuracy": 0.995}, "importance": {}},
            "Almost too good to be true",
            "No single column",
        ),
        (
            {"targets": {"train": {"no": 970, "yes": 30}, "test": {"no": 970, "yes": 30}}},
            "The classes are out of balance",
            "97\N{NO-BREAK SPACE}% of the training rows are “no”",
        ),
        ({"scores": {"recall": {"no": 1.0, "yes": 0.0}}}, "Never found", "“yes”"),
        ({"columns": OUT}, "1 column left out", "“id”"),
    ],
)
def test_what_should_worry(run_with, parts, title, words):
    """Each reason for doubt is named on top of the page, with the column or class that it is."""
    (finding,) = findings(run_with(**parts))
    assert title == finding["title"]
    assert words in finding["text"]


def test_missing_values_are_pointed_out(run_with):
    """A column that lacks much is named with its share."""
    run = run_with()
    run.reference["columns"]["height"]["missing"] = 0.4
    (finding,) = findings(run)
    assert "“height” (40\N{NO-BREAK SPACE}%)" in finding["text"]


def test_believable_scores_are_believed(run_with):
    """A high score that many columns carry is no leak, unless it is all but perfect."""
    assert [] == findings(run_with(scores={"balanced_accuracy": 0.96}, importance=EQUAL))
