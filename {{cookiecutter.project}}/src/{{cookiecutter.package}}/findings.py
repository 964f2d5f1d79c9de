"""What a person should look at before trusting a model."""

from .outcome import Outcome
from .wording import called, counted, largest, listed, named, percent, quoted, score

FEW_ROWS, FEW_OF_CLASS = 100, 10
NEAR_PERFECT, STRIKING, CARRIES = 0.99, 0.95, 0.9
RARE, COMMON = 0.05, 0.9
MISSING = 0.3
SPREAD = 0.2
OVERLAPPING = 0.25


def findings(run: Outcome) -> list[dict[str, str]]:
    """List what a person should look at before trusting the model.

    Returns
    -------
    list of dict
        ``level`` (``warning`` or ``note``), ``title`` and ``text``.
    """
    found = [
        *_about_test_rows(run),
        *_about_score(run),
        *_about_classes(run),
        *_about_columns(run),
    ]
    return sorted(found, key=lambda item: item["level"] == "note")


def _finding(title: str, text: str, level: str = "warning") -> dict[str, str]:
    return {"level": level, "title": title, "text": text}


def _about_test_rows(run: Outcome) -> list[dict[str, str]]:
    found = []
    if run.test_rows < FEW_ROWS:
        found.append(
            _finding(
                f"Only {run.test_rows} rows were held out",
                "The figures below could have come out noticeably better or worse by chance. "
                "Look at the intervals, and at the folds.",
            )
        )
    counts = run.targets.get("test", {})
    few = [name for name in run.contract.class_names if counts.get(name, 0) < FEW_OF_CLASS]
    if counts and few:
        found.append(
            _finding(
                f"Classes with fewer than {FEW_OF_CLASS} held-out rows",
                f"Nothing reliable can be said about {named(few)}.",
            )
        )
    folds = [value for value in run.card["cross_validation"]["folds"] if value is not None]
    if folds and max(folds) - min(folds) > SPREAD and run.contract.task != "clustering":
        found.append(
            _finding(
                "The folds differ a lot",
                f"{called(run.primary)} ranges from {score(min(folds), run.primary)} to "
                f"{score(max(folds), run.primary)} depending on which rows are held out: "
                "there are few rows, or kinds of rows that differ.",
            )
        )
    dates = [c.name for c in run.contract.features if c.kind == "datetime"]
    data = run.card.get("settings", {}).get("data", {})
    if dates and not data.get("time") and run.contract.task != "clustering":
        found.append(
            _finding(
                "Held out at random, though there are dates",
                f"If the model will predict what comes later, set data.time to {named(dates[:3])}"
                " so that the newest rows are held out; the score is usually lower, and truer.",
                "note",
            )
        )
    return found


def _about_score(run: Outcome) -> list[dict[str, str]]:
    value = run.metrics["test"].get(run.primary)
    if value is None:
        return []
    name = called(run.primary)
    if run.contract.task == "clustering":
        if value >= OVERLAPPING:
            return []
        text = f"The silhouette is {value:.2f}: there may be no natural groups in these columns."
        return [_finding("The groups are hardly apart", text)]
    found = []
    least = run.metrics.get("baseline", {}).get(run.primary)
    low = (run.metrics.get("intervals", {}).get(run.primary) or [value])[0]
    if least is not None and low <= least:
        clearly = "" if value <= least else "clearly "
        found.append(
            _finding(
                f"Not {clearly}better than guessing",
                f"{name} is {score(value, run.primary)}, and {score(least, run.primary)} for a "
                "model that looks at no column. The columns may hold nothing about the target.",
            )
        )
    gains = {k: max(v["mean"], 0.0) for k, v in run.metrics.get("importance", {}).items()}
    carrier = max(gains, key=lambda name: gains[name]) if any(gains.values()) else None
    part = gains[carrier] / sum(gains.values()) if carrier else 0.0
    if value >= NEAR_PERFECT or (value >= STRIKING and part >= CARRIES):
        culprit = (
            f"{quoted(carrier)} carries {percent(round(part, 2))} of it. Is it known when a "
            "prediction is needed, or does it hold the answer? If it does, list it in data.exclude."
            if carrier and part >= 0.5
            else "No single column carries it. Do rows repeat, or do columns together hold the "
            "answer?"
        )
        found.append(
            _finding(
                "Almost too good to be true",
                f"{name} is {score(value, run.primary)}, which is rare in practice. {culprit}",
            )
        )
    return found


def _about_classes(run: Outcome) -> list[dict[str, str]]:
    found = []
    counts = run.targets.get("train", {}) if run.contract.classes else {}
    rows = sum(counts.values())
    if rows:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[most] / rows > COMMON or counts[least] / rows < RARE:
            found.append(
                _finding(
                    "The classes are out of balance",
                    f"{percent(counts[most] / rows)} of the training rows are {quoted(most)}, "
                    f"{percent(counts[least] / rows)} are {quoted(least)}. Accuracy flatters "
                    "here: look at balanced accuracy and at what is found of each class.",
                )
            )
    never = [name for name, recall in run.metrics["test"].get("recall", {}).items() if not recall]
    if never:
        text = f"No held-out row of {named(never)} was recognised."
        found.append(_finding("Never found", text))
    return found


def _about_columns(run: Outcome) -> list[dict[str, str]]:
    found = []
    columns = run.reference["columns"]
    gaps = {k: v["missing"] for k, v in columns.items() if v["missing"] >= MISSING}
    if gaps:
        shares = [f"{quoted(name)} ({percent(share)})" for name, share in largest(gaps)]
        found.append(
            _finding(
                "Many values are missing",
                f"{listed(shares)}. They are filled in before the model sees them, unless it is "
                "a tree that takes them as they are.",
            )
        )
    if run.contract.excluded:
        names = [column.name for column in run.contract.excluded]
        found.append(
            _finding(
                f"{counted(names, 'column')} left out",
                f"{named(names)}: the reasons are listed with the data.",
                "note",
            )
        )
    return found
