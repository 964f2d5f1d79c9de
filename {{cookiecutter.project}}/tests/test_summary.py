import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from {{ cookiecutter.package }} import retrieval, summary
from {{ cookiecutter.package }}.artifacts import sha256
from {{ cookiecutter.package }}.bundle import CARD
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.errors import (
    BundleError,
    RegistryError,
    SettingsError,
)
from {{ cookiecutter.package }}.wording import score

CHAMPION = "models:/garden@champion"
RUN = {"databaseId": 7, "headSha": "c0ffee" * 6 + "abcd", "createdAt": "2026-11-02T10:00:00Z"}
STAND_IN = f"""#!{sys.executable}
import json, pathlib, shutil, sys
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
with open(here / "asked.jsonl", "a") as asked:
    asked.write(json.dumps(words) + chr(10))
if words[:2] == ["run", "list"]:
    print((here / "runs.json").read_text())
elif (kept := here / words[words.index("--name") + 1]).exists():
    shutil.copytree(kept, words[words.index("--dir") + 1])
else:
    sys.exit("no valid artifacts found to download")
"""


@pytest.fixture(name="github")
def github_fixture(tmp_path, monkeypatch) -> Path:
    """A folder with what GitHub keeps: programs `gh` and `docker` in it come first."""
    folder = tmp_path / "github"
    folder.mkdir()
    for name, text in {"gh": STAND_IN, "docker": "#!/bin/sh\necho 336000000\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    (folder / "runs.json").write_text("[]", encoding="utf-8")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def keep(github, bundle, size=334_000_000):
    """Let a run have deployed a bundle."""
    (github / "runs.json").write_text(json.dumps([RUN]), encoding="utf-8")
    (github / "bundle").symlink_to(bundle)
    (github / "image-size").mkdir()
    (github / "image-size/image-size").write_text(f"{size}\n", encoding="utf-8")


def with_image(settings, **values):
    """Settings with other values of the section image."""
    return settings.model_copy(update={"image": settings.image.model_copy(update=values)})


def version_in(settings):
    """The version of the bundle that an image would hold."""
    return json.loads((settings.serving.bundle / CARD).read_text(encoding="utf-8"))["version"]


def cells(text, metric):
    """The cells of a metric's line."""
    (line,) = (each for each in text.splitlines() if each.startswith(f"| {metric} |"))
    return [cell.strip() for cell in line.strip("| ").split("|")][1:]


def test_beside_what_is_deployed(road, weak_road, github):
    """Metrics, contract and size are compared with those that the last deployment kept."""
    keep(github, weak_road.settings.serving.bundle)
    said = summary.summary(road.settings, "garden:1")
    new, old = road.predictor.card, weak_road.predictor.card
    assert said.startswith(f"## Garden, version {new['version']}\n\nCompared with: what was ")
    assert f"on 2026-11-02 from c0ffeec0ffee, version {old['version']}.\n" in said
    gain = 100 * (new["metrics"]["accuracy"] - old["metrics"]["accuracy"])
    assert gain > 1
    assert [f"+{gain:.1f} points", "better"] == cells(said, "Accuracy")[2:]
    loss = cells(said, "Log loss")
    assert [f"{old['metrics']['log_loss']:.3f}", f"{new['metrics']['log_loss']:.3f}"] == loss[:2]
    assert ("\N{MINUS SIGN}", "better") == (loss[2][0], loss[3])
    assert "measured on other rows" not in said
    assert "**Contract**: unchanged." in said
    assert "**Image**: 336.0 MB, 2.0 MB more than the deployed one (334.0 MB)." in said
    assert said.endswith("The report is in this run's artifact `reports`: `report.html`.")
    asked = [json.loads(line) for line in (github / "asked.jsonl").read_text().splitlines()]
    assert ["run", "list", "--workflow", "deploy", "--branch", "main"] == asked[0][:6]
    assert [["run", "download", "7", "--name", name] for name in ("bundle", "image-size")] == [
        words[:5] for words in asked[1:]
    ]


def test_a_loss_is_called_worse(road, weak_road, github):
    """The other way round, the words are the other ones."""
    keep(github, road.settings.serving.bundle, size=336_000_000)
    said = summary.summary(weak_road.settings, "garden:1")
    assert [("\N{MINUS SIGN}", "worse"), ("+", "worse")] == [
        (difference[0], verdict)
        for _, _, difference, verdict in (cells(said, "Accuracy"), cells(said, "Log loss"))
    ]
    assert "336.0 MB, as large as the deployed one." in said


def test_nothing_changes(road, github):
    """The deployed model beside itself is the same."""
    keep(github, road.settings.serving.bundle)
    assert ["0", "same"] == cells(summary.summary(road.settings), "Accuracy")[2:]


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda github: None, "Nothing was deployed from main yet."),
        (lambda github: (github / "gh").unlink(), "could not be had: .*No such file.*gh"),
        (
            lambda github: (github / "runs.json").write_text(json.dumps([RUN])),
            "What is deployed could not be had: gh run download: no valid artifacts found",
        ),
        (
            lambda github: (github / "gh").write_text("#!/bin/sh\necho set it >&2\nexit 4\n"),
            "could not be had: gh run list: set it",
        ),
    ],
    ids=["first", "no gh", "gone", "refused"],
)
def test_nothing_to_compare_with(road, github, break_it, why):
    """The change stands alone then, and the summary says why."""
    break_it(github)
    said = summary.summary(road.settings)
    assert re.search(why, said), said
    accuracy = road.predictor.card["metrics"]["accuracy"]
    assert [score(accuracy, "accuracy")] == cells(said, "Accuracy")
    assert "**Image**: none was built." in said


def test_the_champion_comes_first(desk, road, weak_road, github):
    """Where a registry is given its champion is what counts; what is deployed has the size."""
    keep(github, road.settings.serving.bundle)
    settings = desk.place(road)
    assert "what was deployed" in summary.summary(settings)
    given = with_image(settings, mlflow=settings.tracking.uri)
    said = summary.summary(given, "garden:1")
    version = weak_road.predictor.card["version"]
    assert f"Compared with: Champion models:/garden&#64;champion, version {version}." in said
    assert "2.0 MB more than the deployed one" in said


def test_no_champion(road, github):
    """A registry that has none, or does not answer, is named; the deployed model stands in."""
    keep(github, road.settings.serving.bundle)
    given = with_image(road.settings, mlflow="http://127.0.0.1:9")
    said = summary.summary(given)
    assert "No champion: http:" in said
    assert "Compared with: what was deployed" in said


COLUMNS = (
    Column("bed|<b>", "categorical", categories=("Nord", "*Süd*")),
    Column("gone_`", "numeric"),
    Column("kept", "integer"),
)
OLD = Contract("multiclass", Target("variety", ("dwarf", "tall")), COLUMNS)
NEW = replace(
    OLD,
    target=Target("variety", ("dwarf", "<img src=x>")),
    columns=(
        replace(COLUMNS[0], categories=("Nord", "[a](b)")),
        replace(COLUMNS[2], kind="numeric", nullable=True),
        Column("new", "numeric"),
    ),
)


def test_changes_of_the_contract():
    """Every column and class is named with what became of it, harmless in Markdown and HTML."""
    assert [
        "- class <code>&#60;img src&#61;x&#62;</code> is new",
        "- class <code>tall</code> is gone",
        "- column <code>new</code> is new",
        "- column <code>gone&#95;&#96;</code> is gone",
        "- column <code>bed&#124;&#60;b&#62;</code>: <code>&#91;a&#93;(b)</code> new; "
        "<code>&#42;Süd&#42;</code> gone",
        "- column <code>kept</code>: kind <code>&#34;integer&#34;</code> is now "
        "<code>&#34;numeric&#34;</code>; nullable <code>false</code> is now <code>true</code>",
    ] == list(summary.changes(OLD, NEW))


def test_what_breaks_clients(road):
    """A column that is gone, or new and required, is said apart."""
    card = road.predictor.card
    change, other = summary.Model("change", card, NEW), summary.Model("other", card, OLD)
    said = "\n\n".join(summary.models(change, other))
    assert "**Breaks clients**" in said
    assert "- <code>'new' is new and required</code>" in said


def test_another_task(road):
    """Metrics of different tasks are not put side by side."""
    card = road.predictor.card
    regression = replace(OLD, task="regression", target=Target("weight"))
    change, other = summary.Model("change", card, OLD), summary.Model("other", card, regression)
    said = "\n\n".join(summary.models(change, other))
    assert "The task was <code>regression of weight</code> and is <code>classification" in said
    assert "| Metric | change |\n" in said


def test_other_rows(road):
    """Metrics that were measured on other rows are marked so."""
    card = road.predictor.card
    grown = card | {"data": card["data"] | {"sha256": "0"}}
    change, other = summary.Model("change", grown, OLD), summary.Model("other", card, OLD)
    assert any("measured on other rows" in text for text in summary.models(change, other))


def test_a_version_becomes_the_bundle(desk, road, weak_road):
    """The champion takes the place of what the pipeline made; the challenger does not."""
    settings = with_image(desk.place(road), model=CHAMPION)
    assert road.predictor.card["version"] == version_in(settings)
    said = retrieval.retrieve(settings)
    version = weak_road.predictor.card["version"]
    assert f"version {version}, {CHAMPION}, in {settings.serving.bundle}" == said
    assert version == version_in(settings)
    retrieval.retrieve(with_image(settings, model="models:/garden/2"))
    assert road.predictor.card["version"] == version_in(settings)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "models:/garden@shadow"}, RegistryError, "models:/garden@shadow is not in"),
        ({"model": "models:/garden/9"}, RegistryError, "not found"),
        ({"model": CHAMPION, "mlflow": "http://127.0.0.1:9"}, RegistryError, "does not answer"),
        ({"model": "garden"}, SettingsError, "image.model: 'garden' names no version; .* or train"),
    ],
    ids=["alias", "version", "nobody", "no version"],
)
def test_what_cannot_be_had_leaves_the_bundle(desk, road, given, error, message):
    """One line says what is missing; the bundle that was there stays."""
    settings = with_image(desk.place(road), **given)
    with pytest.raises(error, match=message) as caught:
        retrieval.retrieve(settings)
    assert "\n" not in str(caught.value)
    assert road.predictor.card["version"] == version_in(settings)


def test_a_version_that_answers_otherwise_is_refused(desk, road):
    """What does not answer as it did when it was made is not built into an image."""
    settings = with_image(desk.place(road), model=CHAMPION)
    fetched = retrieval.fetch(settings, CHAMPION)
    card = json.loads((fetched / CARD).read_text("utf-8"))
    stored = json.loads((fetched / "examples.json").read_text("utf-8"))
    stored[0]["prediction"]["prediction"] = "weed"
    (fetched / "examples.json").write_text(json.dumps(stored), encoding="utf-8")
    card["files"]["examples.json"] = sha256(fetched / "examples.json")
    (fetched / CARD).write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(BundleError, match=r"does not answer as it did .* was weed, is "):
        retrieval.retrieve(settings)
    assert road.predictor.card["version"] == version_in(settings)
