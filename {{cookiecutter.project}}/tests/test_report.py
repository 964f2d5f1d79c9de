import re
import webbrowser
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package }} import release, report, stages
from {{ cookiecutter.package }}.artifacts import PLOTS, REPORT, RUN
from {{ cookiecutter.package }}.contract import Column, Contract, Target

QUANTILES = np.linspace(0, 100, 21).tolist()
VOID = {"meta", "link", "img", "br"}
LOADS = {"src", "srcset", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """What a browser sees: tags with their attributes, the text, and the cells of each section."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.cells = [], "", {}
        self.open, self.section = [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
        if tag in ("td", "th", "li", "p"):
            self.cells.setdefault(self.section, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
            if self.cells.get(self.section):
                self.cells[self.section][-1] += data

    def lines(self, section):
        """The cells of a section, with single spaces."""
        return [" ".join(cell.split()) for cell in self.cells.get(section, [])]

    def found(self, name):
        """Attributes of all tags of a name."""
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(run):
    return Page(report.build(run))


def read_report(road):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(road.folder)
        report.report(road.settings)
        return REPORT.read_text(encoding="utf-8")


def test_a_page_for_each_task(each_road):
    """Every task has a page that says how good the model is, with its pictures and columns."""
    page = Page(read_report(each_road))
    card, metrics = each_road.predictor.card, each_road.predictor.card["metrics"]
    rows = len(each_road.test)
    headline = {
        "multiclass": lambda: f"Right for {round(metrics['accuracy'] * rows)} of {rows} held-out",
        "binary": lambda: f"Right for {round(metrics['accuracy'] * rows)} of {rows} held-out",
        "regression": lambda: f"Off by {metrics['mean_absolute_error']:.3g} on average",
        "clustering": lambda: f"Sorts rows into {len(metrics['shares'])} groups",
    }[card["task"]]()
    assert headline in page.text
    assert [] == page.open
    drawn = {path.stem for path in (each_road.folder / PLOTS).iterdir()} - {"importance"}
    assert len(drawn) == len(page.found("img"))
    for column in each_road.predictor.contract.features:
        assert any(cell.startswith(column.name) for cell in page.lines("data"))
        assert column.name in page.lines("contract")
    for column in each_road.predictor.contract.excluded:
        assert column.reason in page.lines("data")
    for fact in (card["version"], card["data"]["sha256"], card["estimator"]):
        assert fact in page.text


def test_nothing_is_asked_from_elsewhere(each_road):
    """The page runs no script and loads nothing but itself; its contents lead somewhere."""
    html = read_report(each_road)
    page = Page(html)
    assert [] == page.found("script")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in LOADS or (name == "href" and tag != "a"):
                assert value.startswith("data:")
    assert not re.search(r"url\(|@import|https?://", html)
    places = {attributes.get("id") for _, attributes in page.tags}
    assert all(link["href"].removeprefix("#") in places for link in page.found("a"))


def test_same_run_same_bytes(road):
    """Nothing on the page depends on the time or on the process; no other file is left."""
    first = read_report(road)
    assert first == read_report(road)
    assert [REPORT.name] == [path.name for path in (road.folder / "reports").glob("*report*")]
    assert str(road.folder) not in first


NASTY = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single' \\ $x$ " + "{" * 2 + " 7 * 7 " + "}" * 2,
    "Größe, Île, 価格",
    "x" * 300,
]


def test_any_name_is_safe_and_whole(run_with):
    """Markup, quotes, braces, accents and length do no harm in names, categories and classes."""
    categories = (*NASTY, *(f"category {i}" for i in range(996)))
    bed = Column("bed", "categorical", categories=categories)
    columns = (*(Column(name, "numeric") for name in NASTY), bed)
    reference = {
        "rows": 10,
        "columns": {
            **{n: {"kind": "numeric", "missing": 0.5, "quantiles": QUANTILES} for n in NASTY},
            "bed": {"kind": "categorical", "missing": 0.0}
            | {"shares": {c: 0.2 if c in NASTY else 0.0002 for c in categories}},
        },
    }
    counts = dict.fromkeys(NASTY, 1)
    run = run_with(
        reference=reference,
        scores={"recall": dict.fromkeys(NASTY, 0.0)},
        importance={name: {"mean": 0.1, "std": 0.0} for name in NASTY},
        targets={"train": counts, "test": counts},
        examples=[
            {"row": {NASTY[0]: NASTY[0]}, "truth": NASTY[0]}
            | {"prediction": {"prediction": NASTY[0], "probabilities": {NASTY[0]: 1.0}}}
        ],
    )
    contract = Contract("multiclass", Target(NASTY[0], tuple(NASTY)), columns)
    html = report.build(replace(run, contract=contract))
    page = Page(html)
    assert [] == page.found("script") == page.open
    for name in NASTY:
        assert name in page.lines("contract")
        assert name in page.lines("importance")
        assert any(name[:49] in line for line in page.lines("findings"))
    shown = [line for line in page.lines("data") if line.startswith("category ")]
    assert ["category 0 0.1 %"[:10]] == [line[:10] for line in shown]
    assert "995 more 19.9 %" in page.lines("data")
    assert "one of 1000; a warning for others" in " ".join(page.lines("contract"))
    assert "category 995" in page.text


def test_what_to_look_at_first(run_with):
    """Findings stand on top, each with its reason; without any there is no such section."""
    run = run_with(test_rows=40)
    run.reference["columns"]["height"]["missing"] = 0.4
    lines = page_of(run).lines("findings")
    titles = [line.split(". ")[0] for line in lines]
    assert ["Only 40 rows were held out", "Many values are missing"] == titles
    assert "“height” (40 %)" in lines[1]
    assert "40 %" in page_of(run).lines("data")
    assert "findings" not in page_of(run_with()).cells


def test_a_leak_is_found_in_real_data(folder, settings_with):
    """A column that holds the answer in other words is named by the page."""
    frame = pd.read_csv("garden.csv")
    frame["outcome"] = frame["variety"].map({"dwarf": "D", "middle": "M", "tall": "T"})
    frame.to_csv("garden.csv", index=False)
    settings = settings_with(training={"folds": 2}, serving={"bundle": folder / "bundle"})
    for stage in ("snapshot", "contract", "prepare", "train", "evaluate", "package"):
        stages.STAGES[stage](settings)
    report.report(settings)
    lines = Page(REPORT.read_text(encoding="utf-8")).lines("findings")
    (line,) = [line for line in lines if line.startswith("Almost too good to be true")]
    assert "“outcome” carries" in line
    assert "data.exclude" in line


@pytest.mark.parametrize(
    ("accuracy", "rows", "words"),
    [
        (0.95, 20, "Right for 19 of 20 held-out rows"),
        (0.97, 5000, "Right for 97 of 100 held-out rows"),
        (0.998, 5000, "Right for 998 of 1,000 held-out rows"),
        (0.9998, 5000, "Right for 4,999 of 5,000 held-out rows"),
        (1.0, 5000, "Right for 100 of 100 held-out rows"),
    ],
)
def test_the_headline_can_be_counted(run_with, accuracy, rows, words):
    """What is not all right is never rounded to all; the baseline counts the same rows."""
    page = page_of(run_with(scores={"accuracy": accuracy}, test_rows=rows))
    assert words in page.text
    of = int(words.split(" ")[4].replace(",", ""))
    assert f"“no”, every time: {round(0.6 * of):,}." in page.text


def test_metrics_stand_beside_interval_and_baseline(run_with):
    """The deciding metric comes first; without intervals there is a dash."""
    page = page_of(run_with())
    assert ["85 %", "81 % to 89 %", "50 %"] == page.lines("score")[7:10]
    assert ["90 %", "\N{EN DASH}", "60 %"] == page.lines("score")[12:15]
    assert ["yes", "75 %", "70.5 % to 79 %", "", "400"] == page.lines("score")[-10:-5]


def test_without_a_champion(run_with):
    """The first model is told that it is."""
    said = "No champion yet: this would be the first deployment."
    assert said in page_of(run_with()).lines("champion")


DECISION = {
    "promoted": False,
    "reason": "refused: bed=Süd: 0.83 against 0.9",
    "checks": [
        {"name": "balanced_accuracy", "champion": "0.82", "challenger": "0.85"}
        | {"required": "better with 95 % confidence", "passed": True},
        {"name": "bed=Süd", "champion": "0.9", "challenger": "0.83"}
        | {"required": "loses at most 0.05", "passed": False},
    ],
    "figures": {"difference": 0.03, "interval": [0.01, 0.05], "slices": [{"rows": 40}]},
}


def test_against_the_champion(run_with):
    """The gate's table stands on the page with its reason and its figures."""
    page = page_of(run_with(decision=DECISION))
    lines = page.lines("champion")
    said = "It would be refused, and the champion would stay: bed=Süd: 0.83 against 0.9."
    assert said == lines[0]
    assert ["balanced_accuracy", "0.82", "0.85"] == lines[6:9]
    assert ["better with 95 % confidence", "✓ yes", "bed=Süd", "0.9", "0.83"] == lines[9:14]
    assert ["loses at most 0.05", "✗ no"] == [line.split(" Figures")[0] for line in lines[14:16]]
    assert "interval 0.01, 0.05" in " ".join(page.text.split())


def test_the_champion_is_not_its_own_rival(run_with, desk, road):
    """The page of the version that serves says so."""
    settings = desk.place(road)
    release.register(settings)
    assert release.compare(settings)["checks"]
    release.promote(settings)
    decision = release.compare(settings)
    lines = page_of(run_with(decision=decision)).lines("champion")
    assert ["Not compared: it is the champion."] == lines


def test_links_to_a_tracking_server(run_with):
    """Run and version are linked where the store has pages; a password stays out."""
    tracked = {"run_id": "abc", "model": "gar den", "model_version": "3"}
    for uri in ("https://me:secret@mlflow.example/base/", "sqlite:///mlflow.db"):
        html = report.build(run_with(tracked={**tracked, "tracking_uri": uri}))
        links = [link["href"] for link in Page(html).found("a") if link["href"][0] != "#"]
        base = "https://mlflow.example/base/#/"
        expected = [f"{base}runs/abc", f"{base}models/gar%20den/versions/3"]
        assert (expected if "https" in uri else []) == links
        assert "secret" not in html
        assert "gar den, version 3" in Page(html).text


def test_trials_are_summed_up(run_with):
    """A search tells how its trials ended and shows the best first."""
    trials = [
        {"number": i, "state": "complete", "value": i / 20, "params": {"estimator": "svm", "C": i}}
        for i in range(12)
    ]
    trials.append({"number": 12, "state": "pruned", "value": None, "params": {}})
    lines = page_of(run_with(trials=trials)).lines("search")
    assert lines[0].startswith("13 trials (12 complete, 1 pruned), judged by Balanced accuracy")
    assert ["11", "55 %", "estimator svm C 11", "10"] == lines[4:8]
    assert "1" not in lines


def test_how_it_is_served(run_with):
    """The plan, its largest difference and the refused forms stand in the lineage."""
    plan = {"form": "pipeline", "rows": 700, "difference": 2e-7, "refused": {"dense": "no graph"}}
    run = run_with()
    page = page_of(replace(run, card={**run.card, "plan": plan}))
    said = " ".join(page.text.split())
    assert "pipeline: on 700 rows" in said
    assert "the largest difference is 2e-07. Faster forms that were refused: dense no graph" in said


def test_wilson_interval():
    """As tabulated: none of ten may still be a quarter."""
    low, high = report.wilson(0.0, 10)
    assert 0.0 == low
    assert pytest.approx(0.2775, abs=1e-4) == high


def test_the_run_is_named_once_it_is_registered(desk, road):
    """The page names run and version of reports/run.json; a local store has no link."""
    settings = desk.place(road)
    release.register(settings)
    report.report(settings)
    page = Page(REPORT.read_text(encoding="utf-8"))
    assert RUN.is_file()
    assert f"{settings.tracking.model}, version" in page.text
    assert all(link["href"].startswith("#") for link in page.found("a"))


def test_the_browser_is_asked(folder, monkeypatch):
    """`--open` shows the file, and tells whether that worked."""
    asked = []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    assert not report.show()
    assert [(folder / REPORT).as_uri()] == asked


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    colour = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_can_be_read_by_day_and_night():
    """All text has a contrast of 4.5 or more on what is behind it (WCAG AA)."""
    style = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([\w-]+): (#\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert 3 == len(themes)
    for theme in themes:
        on = [
            (ink, paper)
            for ink in ("ink", "quiet", "accent", "bad", "good")
            for paper in ("card", "paper")
        ]
        for ink, paper in [*on, ("warn-ink", "warn-paper")]:
            light, dark = sorted((luminance(theme[ink]), luminance(theme[paper])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper, theme[ink])
