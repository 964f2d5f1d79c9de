"""The summary of a change: its model, contract and image beside those that serve, in Markdown."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import contract as contracts
from . import registry, retrieval, tracking
from .bundle import CONTRACT, verify
from .compatibility import kind, narrowings
from .contract import Column, Contract
from .errors import ProjectError
from .evaluation import LOWER_IS_BETTER
from .settings import Settings
from .wording import MEANINGS, called, listed, number, score

WORKFLOW, BRANCH = "deploy", "main"
# Artifacts of ci.yml.
BUNDLE, SIZE, REPORTS = "bundle", "image-size", "reports"
ASPECTS = ("kind", "nullable", "categories", "minimum", "maximum", "format")
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Model:
    """A bundle that something is compared with or that is compared, and what it is called."""

    name: str
    card: dict[str, Any]
    contract: Contract

    @classmethod
    def read(cls, name: str, path: Path) -> "Model":
        """Read the parts of a bundle that say what it is."""
        return cls(name, verify(path), contracts.read(path / CONTRACT))


@dataclass(frozen=True)
class Deployed:
    """What the last push that was deployed left with its run, as far as it is to be had."""

    model: Model | None
    size: int | None
    why: str = ""


def summary(settings: Settings, image: str = "") -> str:
    """Compare the bundle, and an image that holds it, with what serves.

    That is the champion where a registry is given, otherwise what the last successful run of the
    deploying workflow left on GitHub. What cannot be had is said in its place.

    Parameters
    ----------
    settings : Settings
    image : str
        A name that Docker knows.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    BundleError
        Where there is no bundle.
    """
    change = Model.read("This change", settings.serving.bundle)
    trained = settings.image.model == "train"
    with tempfile.TemporaryDirectory() as scratch:
        before = deployed(Path(scratch))
    other, notes = before.model, [] if before.model else [before.why]
    if trained and (settings.image.mlflow or os.environ.get(tracking.VARIABLE)):
        name = f"models:/{settings.tracking.model}@{registry.CHAMPION}"
        try:
            other, notes = Model.read(f"Champion {name}", retrieval.fetch(settings, name)), []
        except ProjectError as error:
            notes.append(f"No champion: {error}")
    parts = [
        [f"## {escaped(change.card['name'])}, version {change.card['version']}"],
        [] if trained else [f"Nothing was trained: the image holds {code(settings.image.model)}."],
        [escaped(note) for note in notes],
        list(models(change, other)),
        [sizes(_size(image), before)],
        [f"The report is in this run's artifact `{REPORTS}`: `report.html`."] if trained else [],
    ]
    return "\n\n".join(line for part in parts for line in part)


def models(change: Model, other: Model | None) -> Iterator[str]:
    """Compare metrics and contracts; each text is a paragraph, a list or a table."""
    if other is None:
        yield table(["Metric", change.name], _alone(change.card["metrics"]))
        return
    yield f"Compared with: {escaped(other.name)}, version {other.card['version']}."
    if kind(change.contract) != kind(other.contract):
        yield (
            f"The task was {code(kind(other.contract))} and is {code(kind(change.contract))}: "
            "no metric can be compared."
        )
        yield table(["Metric", change.name], _alone(change.card["metrics"]))
    else:
        header = ["Metric", "Before", change.name, "Difference", ""]
        yield table(header, _beside(change.card["metrics"], other.card["metrics"]))
        if rows(change.card) != rows(other.card):
            yield "They were measured on other rows: a part of each difference may come from that."
    found = list(changes(other.contract, change.contract))
    yield "\n".join(["**Contract**", "", *found]) if found else "**Contract**: unchanged."
    if broken := narrowings(other.contract, change.contract):
        said = [f"- {code(reason)}" for reason in broken]
        yield "\n".join(["**Breaks clients** that go on as before:", "", *said])


def _alone(metrics: dict[str, Any]) -> Iterator[list[str]]:
    for name, value in metrics.items():
        if isinstance(value, int | float):
            yield [escaped(called(name)), score(value, name)]


def _beside(metrics: dict[str, Any], before: dict[str, Any]) -> Iterator[list[str]]:
    for name, value in metrics.items():
        if isinstance(value, int | float):
            old = before.get(name)
            values = score(old, name), score(value, name)
            yield [escaped(called(name)), *values, *moved(name, old, value)]


def moved(metric: str, old: float | None, new: float) -> tuple[str, str]:
    """Say how a metric moved, and whether that is better."""
    if old is None:
        return number(None), "new"
    difference = new - old
    share = MEANINGS.get(metric, ("", False, ""))[1]
    size = f"{abs(difference) * 100:.1f} points" if share else number(abs(difference))
    if not difference or size.startswith("0.0 "):
        return "0", "same"
    better = (difference < 0) == (metric in LOWER_IS_BETTER)
    return f"{'+' if difference > 0 else MINUS}{size}", "better" if better else "worse"


def rows(card: dict[str, Any]) -> Any:
    """Return what decides on which rows a model was measured."""
    return card["data"]["sha256"], card["data"]["test_rows"], card["settings"]["data"]


def changes(old: Contract, new: Contract) -> Iterator[str]:
    """List what became of columns and classes, as items in Markdown."""
    if kind(old) != kind(new):
        yield f"- task: {code(kind(old))} is now {code(kind(new))}"
    yield from _members("class", old.class_names, new.class_names)
    before = {column.name: column for column in old.features}
    after = {column.name: column for column in new.features}
    yield from _members("column", list(before), list(after))
    for name, column in after.items():
        if name in before and (said := list(_differences(before[name], column))):
            yield f"- column {code(name)}: {'; '.join(said)}"


def _members(noun: str, old: Any, new: Any) -> Iterator[str]:
    yield from (f"- {noun} {code(name)} is new" for name in new if name not in old)
    yield from (f"- {noun} {code(name)} is gone" for name in old if name not in new)


def _differences(old: Column, new: Column) -> Iterator[str]:
    for aspect in ASPECTS:
        before, after = getattr(old, aspect), getattr(new, aspect)
        if before == after:
            continue
        if aspect == "categories" and new.kind == old.kind:
            for word, some, others in (("new", after, before), ("gone", before, after)):
                if names := [code(each) for each in some if each not in others]:
                    yield f"{listed(names)} {word}"
        elif aspect != "categories":
            yield f"{aspect} {code(json.dumps(before))} is now {code(json.dumps(after))}"


def sizes(size: int | None, before: Deployed) -> str:
    """Say how large the image is, and how much larger than the deployed one."""
    if size is None:
        return "**Image**: none was built."
    said = f"**Image**: {megabytes(size)} MB"
    if before.size is None:
        return f"{said}. {escaped(before.why or 'The size of the deployed one is not known.')}"
    difference = size - before.size
    if megabytes(abs(difference)) == "0.0":
        return f"{said}, as large as the deployed one."
    word = "more" if difference > 0 else "less"
    than = f"than the deployed one ({megabytes(before.size)} MB)"
    return f"{said}, {megabytes(abs(difference))} MB {word} {than}."


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e6:,.1f}"


def _size(image: str) -> int | None:
    command = ["docker", "image", "inspect", "--format={{.Size}}", image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return int(done.stdout) if image and done.returncode == 0 else None


def deployed(scratch: Path) -> Deployed:
    """Ask GitHub for what the last push that was deployed kept.

    Parameters
    ----------
    scratch : Path
        Where to put it meanwhile.
    """
    wanted = ["--branch", BRANCH, "--event", "push", "--status", "success", "--limit", "1"]
    fields = ["--json", "databaseId,headSha,createdAt"]
    try:
        found = json.loads(_gh("run", "list", "--workflow", WORKFLOW, *wanted, *fields))
        if not found:
            return Deployed(None, None, f"Nothing was deployed from {BRANCH} yet.")
        run = found[0]
        for artifact in (BUNDLE, SIZE):
            place = ["--name", artifact, "--dir", str(scratch / artifact)]
            _gh("run", "download", str(run["databaseId"]), *place)
        name = f"what was deployed on {run['createdAt'][:10]} from {run['headSha'][:12]}"
        size = int((scratch / SIZE / SIZE).read_text(encoding="utf-8"))
        return Deployed(Model.read(name, scratch / BUNDLE), size)
    except (OSError, ValueError, KeyError, ProjectError) as error:
        return Deployed(None, None, f"What is deployed could not be had: {tracking.line(error)}")


def _gh(*words: str) -> str:
    done = subprocess.run(["gh", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"gh {' '.join(words[:2])}: {' '.join(done.stderr.split())}")
    return done.stdout


def table(header: list[str], lines: Iterator[list[str]]) -> str:
    """Lay cells out as a table, numbers to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])


def code(text: str) -> str:
    """Show a text that comes from data as it is."""
    return f"<code>{escaped(text)}</code>"


def escaped(text: str) -> str:
    """Take the meaning for Markdown and HTML from every sign of a text."""
    plain = " ".join(str(text).split())
    return "".join(
        each if each.isalnum() or each in " ,.:()'-/" else f"&#{ord(each)};" for each in plain
    )
