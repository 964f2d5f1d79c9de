"""Release: a finished pipeline becomes a challenger, a challenger the champion, and back again."""

import hashlib
import json
import platform
import shutil
import tempfile
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import contract as contracts
from . import registry, runs, tracking
from .artifacts import (
    CONTRACT,
    METRICS,
    REPORT,
    REPORTS,
    RUN,
    SNAPSHOT,
    TEST,
    TRAIN,
    TRAINING,
    TRIALS,
    read_json,
    read_table,
    sha256,
    write_json,
)
from .bundle import CARD, EXAMPLES
from .errors import BundleError, GateError, RegistryError, UndecidedError
from .registry import CHALLENGER, CHAMPION, Store, Version
from .runs import PackagedModel, Record
from .settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame

    from .gate import Decision

PARAMS = Path("params.yaml")
LOCKS = (Path("poetry.lock"), Path("requirements-dev.txt"))
FINGERPRINTS = "training_rows.npz"
EXAMPLE_ROWS = 5


def register(settings: Settings) -> str:
    """Keep what the stages left as one run, its bundle as a model version, and let it challenge.

    The same files again change nothing. ``reports/run.json`` says where they are.

    Raises
    ------
    DataError
        Where a stage did not run.
    RegistryError
        Where the store cannot be used.
    """
    card = read_json(settings.serving.bundle / CARD)
    with tempfile.TemporaryDirectory() as scratch:
        record = _record(settings, card, Path(scratch))
        packaged = _packaged(settings, card)
        with registry.connect(settings) as store:
            store.settle()
            version = store.log(record, packaged)
            challenges = _challenge(store, version)
            place = tracking.shown(store.uri)
    write_json(
        {
            "run_id": version.run_id,
            "model": settings.tracking.model,
            "model_version": version.number,
            "bundle_version": card["version"],
        },
        RUN,
    )
    return f"version {version.number} of {settings.tracking.model}, {challenges}, in {place}"


def promote(
    settings: Settings,
    least: int = 0,
    frame: "DataFrame | None" = None,
    **facts: Any,
) -> str:
    """Let the challenger take the champion's place, if the gate opens.

    Both answer the same held-out rows, without those that either was trained on.

    Parameters
    ----------
    settings : Settings
    least : int
        With fewer rows a person decides.
    frame : DataFrame or None
        The held-out rows; None for those of the pipeline.
    **facts
        Further ones, that are kept with the decision.

    Raises
    ------
    RegistryError
        Where there is nothing to promote.
    GateError
        Where the challenger is refused, with the table of reasons; the champion stays.
    UndecidedError
        Where the rows are fewer than `least`, with the same table, or none of those that were
        given is new to both; the champion stays.
    """
    from .gate import explain

    model = settings.tracking.model
    with registry.connect(settings) as store:
        store.settle()
        champion, challenger = store.aliased(CHAMPION), store.aliased(CHALLENGER)
        if challenger is None:
            holder = f"; version {champion.number} is the champion" if champion else ""
            raise RegistryError(
                f"{model} has no challenger in {tracking.shown(store.uri)}{holder}: "
                "run the pipeline first"
            )
        if champion and champion.number == challenger.number:
            raise RegistryError(
                f"version {champion.number} of {model} is the champion already: "
                "nothing to promote, run the pipeline on other data or settings first"
            )
        decision, rows = _decide(settings, store, challenger, champion, frame)
        undecided = rows < least
        event = registry.event(
            _next(store),
            challenger.number,
            _verdict(decision, undecided),
            decision.reason,
            champion=challenger.number,
            previous=champion.number if champion else None,
            rows=rows,
            figures=decision.figures,
            **facts,
        )
        table = explain(decision)
        if undecided:
            store.record(event)
            raise UndecidedError(
                f"version {challenger.number} of {model} waits for a person: {rows:,} truths, "
                f"{least:,} are needed to decide without one (monitoring.labels); promote lets it "
                f"serve, if the gate opens\n{table}"
            )
        if not decision.promoted:
            store.record(event)
            raise GateError(
                f"version {challenger.number} of {model} is refused: {decision.reason}\n{table}"
            )
        store.crown(event)
    instead = f" instead of version {champion.number}" if champion else ", the first one"
    return f"version {challenger.number} of {model} is the champion{instead}\n{table}"


def compare(settings: Settings) -> dict[str, Any] | None:
    """Ask the gate what it would decide about the version that `register` made, without effect.

    Returns
    -------
    dict or None
        The decision, as ``dataclasses.asdict`` gives it; ``promoted`` is None where that version
        is the champion, or cannot be compared. None without a champion, and without a store.
    """
    if not tracking.exists(settings):
        return None
    with registry.connect(settings) as store:
        champion = store.aliased(CHAMPION)
        number = read_json(RUN)["model_version"]
        if champion is None:
            return None
        if champion.number == number:
            return {"promoted": None, "checks": (), "reason": "it is the champion", "figures": {}}
        try:
            decision, _ = _decide(settings, store, store.version(number), champion)
        except RegistryError as error:
            return {"promoted": None, "checks": (), "reason": str(error), "figures": {}}
        return asdict(decision)


def rollback(settings: Settings, number: str | None = None, why: str = "", **facts: Any) -> str:
    """Put the previous champion back; again, the one before it.

    Parameters
    ----------
    settings : Settings
    number : str or None
        The version to take back; None for whichever is the champion.
    why : str
    **facts
        Further ones, that are kept with the decision.

    Returns
    -------
    str
        What was done; empty where that version is not the champion any more.

    Raises
    ------
    RegistryError
        Where there is no champion, or none before it.
    """
    model = settings.tracking.model
    with registry.connect(settings) as store:
        store.settle()
        champion = store.aliases().get(CHAMPION)
        if champion is None:
            raise RegistryError(
                f"{model} has no champion in {tracking.shown(store.uri)}: nothing to roll back"
            )
        if number not in (None, champion):
            return ""
        line = _line_of_champions(store)
        if len(line) < 2 or line[-1] != champion:
            raise RegistryError(
                f"version {champion} of {model} has no earlier champion: promote another version"
            )
        previous = line[-2]
        store.crown(
            registry.event(
                _next(store),
                champion,
                "rolled back",
                f"to version {previous}{': ' * bool(why)}{why}",
                champion=previous,
                previous=champion,
                **facts,
            )
        )
    return f"version {previous} of {model} is the champion again, instead of version {champion}"


def attach(settings: Settings, path: Path) -> None:
    """Keep one more file, such as the report, with the run that `register` made."""
    if not tracking.exists(settings):
        return
    run_id = read_json(RUN)["run_id"]
    with registry.connect(settings) as store:
        store.attach(run_id, path)


def _challenge(store: Store, version: Version) -> str:
    """Let a version challenge, unless it serves already or had to be taken back."""
    if store.aliases().get(CHAMPION) == version.number:
        return "the champion already"
    decisions = version.decisions
    if decisions and decisions[-1]["decision"] == "rolled back":
        return f"which was rolled back by {decisions[-1]['who']} and does not challenge again"
    store.challenge(version)
    return "the challenger"


def _line_of_champions(store: Store) -> list[str]:
    """Return all champions that were not rolled back, oldest first."""
    line: list[str] = []
    for event in store.events():
        if event["decision"] == "promoted":
            line.append(event["version"])
        elif event["decision"] == "rolled back" and line:
            line.pop()
    return line


def _next(store: Store) -> int:
    return max((event["number"] for event in store.events()), default=0) + 1


def _verdict(decision: "Decision", undecided: bool) -> str:
    if undecided:
        return "undecided"
    return "promoted" if decision.promoted else "refused"


def _decide(
    settings: Settings,
    store: Store,
    challenger: Version,
    champion: Version | None,
    frame: "DataFrame | None" = None,
) -> tuple["Decision", int]:
    """Let both answer the held-out rows that neither was trained on; say how many these are."""
    from . import gate

    versions = [version for version in (challenger, champion) if version]
    with tempfile.TemporaryDirectory() as scratch:
        frame = _held_out(store, versions, Path(scratch), frame)
        loaded = [_load(store, version, Path(scratch)) for version in versions]
    before = loaded[1] if champion else None
    return gate.decide(loaded[0], before, frame, settings.gate), len(frame)


def _held_out(
    store: Store, versions: list[Version], folder: Path, frame: "DataFrame | None"
) -> "DataFrame":
    """Read the held-out rows, unless they are given, that none of the versions was trained on."""
    given = frame is not None
    if frame is None:
        frame = read_table(TEST, "prepare")
    for version in versions:
        frame = _unseen(frame, store, version, folder)
        if frame.empty and given:
            raise UndecidedError(
                f"version {version.number} of {store.model} was trained on rows like all that came "
                "since, so a person decides: promote lets the challenger serve, if the gate opens"
            )
        if frame.empty:
            raise RegistryError(
                f"version {version.number} of {store.model} was trained on all held-out rows of "
                f"{TEST} that were left: add new rows to the source, and run the pipeline"
            )
    return frame


def _load(store: Store, version: Version, folder: Path) -> Any:
    from .inference import Predictor

    place = store.download(version, registry.BUNDLE, folder / version.number)
    try:
        return Predictor.load(place)
    except BundleError as error:
        raise RegistryError(
            f"version {version.number} of {store.model} cannot be loaded here: {error}"
        ) from error


def _unseen(frame: Any, store: Store, version: Version, folder: Path) -> Any:
    """Leave out the rows that a version was trained on.

    They are known by all columns of its training table. Where one of those is gone, no row can be
    told to be the same, and all stay: the champion may then look better than it is.
    """
    import numpy as np

    from .fingerprints import unseen

    place = store.download_of_run(version, FINGERPRINTS, folder / f"run{version.number}")
    with np.load(place) as known:
        columns, seen = json.loads(str(known["columns"])), known["rows"]
    if not set(columns) <= set(frame.columns):
        return frame
    return unseen(frame, seen, columns)


def _record(settings: Settings, card: dict[str, Any], folder: Path) -> Record:
    """Gather what the stages left; the files are copied into a folder."""
    trained, facts = read_json(TRAINING), read_json(SNAPSHOT.with_suffix(".json"))
    made_from = [settings.serving.bundle / CARD, TRAINING, *([TRIALS] if TRIALS.exists() else [])]
    locks = {path.name: sha256(path) for path in LOCKS if path.exists()}
    environment = {"libraries": card["libraries"], "platform": platform.platform(), "lock": locks}
    write_json(environment, folder / "environment.json")
    _copy_files(folder)
    params = settings.model_dump(mode="json", include={"data"}) | trained["settings"]
    params["estimator"] = trained["estimator"]
    scores, feedback = trained["cross_validation"], card["data"].get("feedback")
    return Record(
        digest=hashlib.sha256("".join(map(sha256, made_from)).encode()).hexdigest(),
        params=runs.flat(params),
        metrics=_metrics(read_json(METRICS), scores),
        folds=(scores["metric"], scores["folds"]),
        trials=read_json(TRIALS) if TRIALS.exists() else [],
        tags={
            "bundle_version": card["version"],
            "data_sha256": facts["sha256"],
            **({"feedback_sha256": feedback["sha256"]} if feedback else {}),
            **({"git_commit": card["git_commit"]} if card.get("git_commit") else {}),
            **{f"lock_{name}": value for name, value in locks.items()},
        },
        files=folder,
        dataset=facts,
    )


def _copy_files(folder: Path) -> None:
    """Copy what the stages left for a reader, and number the rows of the training."""
    import numpy as np

    from .fingerprints import fingerprints

    rows = read_table(TRAIN, "prepare")
    np.savez(folder / FINGERPRINTS, rows=fingerprints(rows), columns=json.dumps(list(rows)))
    found = [CONTRACT, PARAMS, TRAINING, TRIALS, SNAPSHOT.with_suffix(".json")]
    found += [path for path in sorted(REPORTS.rglob("*")) if path not in (RUN, REPORT)]
    for path in found:
        if path.is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path)


def _metrics(measured: dict[str, Any], scores: dict[str, Any]) -> dict[str, float]:
    """Lay out what was measured: the test's by their own names, the others below their section."""
    others = {name: part for name, part in measured.items() if name not in ("test", "intervals")}
    others["intervals"] = {
        name: {"low": ends[0], "high": ends[1]}
        for name, ends in measured.get("intervals", {}).items()
    }
    others["cross_validation"] = {"mean": scores["mean"], "std": scores["std"]}
    return runs.numbers({**measured["test"], **others})


def _packaged(settings: Settings, card: dict[str, Any]) -> PackagedModel:
    bundle = settings.serving.bundle
    pinned = [f"{name}=={made}" for name, made in card["libraries"].items() if name != "python"]
    return PackagedModel(
        bundle=bundle,
        contract=contracts.read(bundle / CONTRACT.name),
        frame=read_table(TEST, "prepare").head(EXAMPLE_ROWS),
        answer=read_json(bundle / EXAMPLES)[0]["prediction"],
        requirements=[*pinned, f"pandas=={metadata.version('pandas')}"],
    )
