"""The documentation site: the pages in docs/, and those that are made from the bundle."""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from . import bundle, openapi
from .artifacts import REPORT
from .contract import Contract
from .errors import DataError
from .markup import code, folded, shown, table, text
from .report import KINDS, allowed
from .settings import Settings
from .wording import MEANINGS, NOTHING, called, number, score

DOCS, CONFIGURATION = Path("docs"), Path("zensical.toml")
PAGES = Path(".cache/pages")
LISTED = 8


def write(settings: Settings) -> str:
    """Lay out in .cache/pages what `zensical build` makes the site of.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    str
        What was made, in a line.

    Raises
    ------
    BundleError
        Where the bundle is missing, incomplete, altered, or made with other libraries.
    DataError
        Where the report is missing.
    """
    folder = settings.serving.bundle
    contract, _, card, _ = bundle.read(folder)
    if not REPORT.is_file():
        raise DataError(f"{REPORT} not found: run `make pipeline`")
    document = describe(settings)
    made = {
        "contract.md": contract_page(contract),
        "model.md": model_page(card),
        "api.md": openapi.reference(document),
        "openapi.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
    }
    shutil.rmtree(PAGES, ignore_errors=True)
    docs = Path(shutil.copytree(DOCS, PAGES / DOCS))
    shutil.copy(CONFIGURATION, PAGES)
    for source in (folder / bundle.CONTRACT, folder / bundle.CARD, REPORT):
        shutil.copy(source, docs)
    for name, content in made.items():
        (docs / name).write_text(content, encoding="utf-8", newline="\n")
    return f"version {card['version']}, in {PAGES}"


def describe(settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document of the service with this bundle, the operator's part included."""
    from .serving.app import create_app

    elsewhere = dict.fromkeys(("source", "challenger", "keys", "otlp"))
    serving = settings.serving.model_copy(update=elsewhere | {"admin_token": SecretStr("any")})
    events = settings.events.model_copy(update={"mode": "off"})
    app = create_app(settings.model_copy(update={"serving": serving, "events": events}))
    # The file with the keys is where the service runs; that it asks for one is to be described.
    app.state.keys = settings.serving.keys
    return app.openapi()


def contract_page(contract: Contract) -> str:
    """Describe in Markdown what a row must look like, and what is predicted."""
    task, target = contract.task, contract.target
    aim = "The rows are sorted into groups; there is no target."
    if target:
        aim = f"{code(target.name)} is predicted ({task})"
        if names := contract.class_names:
            aim += f": one of {_values(names)}"
        else:
            aim += f", {number(target.minimum)} to {number(target.maximum)} in training."
    heads = ["Column", "Holds", "May be missing", "Values", "Example"]
    rows = [
        [
            code(column.name),
            KINDS[column.kind],
            "yes" if column.nullable else "no",
            _values(column.categories) if column.categories else text(allowed(column)),
            text(number(column.example)),
        ]
        for column in contract.features
    ]
    parts = [
        "# Contract",
        "What a row must look like to be predicted. It is checked for the data, for every request "
        "and for every file that is scored. A category that was not seen in training, or a number "
        "far from those that were, is answered with a warning.",
        f"<p>{aim}</p>",
        table(heads, rows),
    ]
    if contract.excluded:
        left_out = [[code(c.name), text(c.reason or NOTHING)] for c in contract.excluded]
        parts += ["## Left out", "The model does not see these columns."]
        parts.append(table(["Column", "Why"], left_out))
    return "\n\n".join([*parts, "For tools: [contract.json](contract.json)."]) + "\n"


def _values(names: tuple[str, ...]) -> str:
    listed = ", ".join(map(code, names))
    return folded(f"{len(names)} values", listed) if len(names) > LISTED else listed


def model_page(card: dict[str, Any]) -> str:
    """Describe in Markdown how good the model is, what it looks at, and where it comes from."""
    parts = [
        "# Model",
        f"<p>{text(card['name'])}, version {code(card['version'])}: {code(card['estimator'])}.</p>",
        "[The report](report.html) of the run that made it has the plots; for tools: "
        "[card.json](card.json).",
        "## How good it is",
        *_metrics(card["metrics"], card["baseline"]),
    ]
    folds = card["cross_validation"]
    if folds["mean"] is not None:
        figures = [score(folds[name], folds["metric"]) for name in ("mean", "std")]
        named = called(folds["metric"]).lower()
        parts.append(f"In cross-validation on the training rows: {named} {' ± '.join(figures)}.")
    if card["importance"]:
        losses = [
            [code(name), f"{number(loss['mean'])} ± {number(loss['std'])}"]
            for name, loss in card["importance"].items()
        ]
        parts += ["## What it looks at", "What is lost when a column is shuffled."]
        parts.append(table(["Column", "Loss"], losses))
    parts += ["## Where it comes from", table(["Origin", "Value"], _origin(card))]
    return "\n\n".join([*parts, "## Settings", shown(card["settings"])]) + "\n"


def _metrics(metrics: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """Make a table of the metrics that are numbers, and one of each that is a number by class."""
    single = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
    heads = ["On held-out rows", "Model", *(["Baseline"] if baseline else []), "Meaning"]
    rows = []
    for name, value in single.items():
        given = [value, *([baseline.get(name)] if baseline else [])]
        meaning = MEANINGS[name][2] if name in MEANINGS else ""
        rows.append([called(name), *(score(each, name) for each in given), meaning])
    parts = [table(heads, rows)]
    for name, values in metrics.items():
        if isinstance(values, dict):
            found = [[text(each), number(value)] for each, value in values.items()]
            parts.append(table([called(name), "Model"], found))
    return parts


def _origin(card: dict[str, Any]) -> list[list[str]]:
    data, plan = card["data"], card["plan"]
    facts = {
        "Data": f"{code(data['source'])}, {number(data['rows'])} rows: "
        f"{number(data['training_rows'])} to learn from, {number(data['test_rows'])} held out",
        "SHA-256 of the data": code(data["sha256"]),
        "Git commit": code(card["git_commit"]) if card["git_commit"] else "not in a repository",
        "How it is served": text(plan["form"]),
        "Libraries": text(", ".join(f"{name} {is_}" for name, is_ in card["libraries"].items())),
    }
    return list(map(list, facts.items()))
