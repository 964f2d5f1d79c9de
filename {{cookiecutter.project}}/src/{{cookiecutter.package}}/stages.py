"""The stages of the road; each reads files, writes files, and says in a line what came out.

Each runs as a process of its own, so it imports what it needs, and nothing that it does not.
"""

from .artifacts import (
    CONTRACT,
    METRICS,
    MODEL,
    PLOTS,
    REPORT,
    REPORTS,
    SNAPSHOT,
    TEST,
    TRAIN,
    TRAINING,
    TRIALS,
    read_table,
    write_csv,
    write_json,
)
from .errors import ContractError
from .settings import Settings


def snapshot(settings: Settings) -> str:
    """Read the source and keep what was read."""
    from . import data

    frame = data.read(settings.data.source, settings.data)
    facts = data.write_snapshot(frame, SNAPSHOT, settings.data.source)
    return f"{facts['rows']:,} rows, {facts['columns']} columns of {facts['source']}"


def agree(settings: Settings, accept: bool = False) -> str:
    """Check the snapshot against the contract; infer one where there is none, or for other data.

    Parameters
    ----------
    settings : Settings
    accept : bool
        Infer it anew, whatever stands in contract.json.

    Raises
    ------
    ContractError
        With a table of all violations.
    """
    from . import contract, inspection, violations

    frame = read_table(SNAPSHOT, "snapshot")
    known = contract.read(CONTRACT) if CONTRACT.exists() and not accept else None
    now = inspection.agreement(settings.data)
    # A contract from before a setting existed does not name it, and holds while it is null.
    if known and dict.fromkeys(now) | known.agreed == now:
        if found := violations.check(frame, known):
            raise ContractError(
                f"{settings.data.source} breaks {CONTRACT}:\n{violations.explain(found)}\n"
                "mend the source, edit contract.json, or accept the data: contract --accept"
            )
        return f"kept by {len(frame):,} rows"
    inferred = inspection.infer(frame, settings.data)
    contract.write(inferred, CONTRACT)
    target = f", target {inferred.target.name}" if inferred.target else ""
    left_out = "".join(f"\n  without {c.name}: {c.reason}" for c in inferred.excluded)
    again = " again, as the data settings changed" if known else ""
    return f"inferred{again}: {inferred.task}{target}, {len(inferred.features)} features{left_out}"


def prepare(settings: Settings) -> str:
    """Split the snapshot into training and test rows; feedback joins the one, and is the other."""
    from . import contract, data, feedback

    agreed, frame = contract.read(CONTRACT), read_table(SNAPSHOT, "snapshot")
    train, test = data.split(frame, agreed, settings.data)
    dropped = len(frame) - len(train) - len(test)
    more = f", {dropped:,} without a target left out" if dropped else ""
    if known := feedback.read(agreed):
        train, test = known.join(train, agreed)
        more += f", of these {len(known.rows):,} of feedback ({known.facts['policy']})"
    data.write_table(train, TRAIN)
    data.write_table(test, TEST)
    return f"{len(train):,} training and {len(test):,} test rows{more}"


def train(settings: Settings) -> str:
    """Search where it is asked for, then cross-validate and fit on the training rows."""
    from . import bundle, contract, search, training
    from .encoding import encoded

    agreed = contract.read(CONTRACT)
    matrix, target = encoded(agreed, read_table(TRAIN, "prepare"))
    with training.few_threads(matrix):
        found = search.search(agreed, matrix, target, settings) if search.wanted(settings) else None
        chosen = found.settings if found else settings
        name = training.estimator_name(agreed, len(matrix), chosen)
        scores = training.cross_validate(agreed, matrix, target, chosen)
        bundle.dump_model(training.fit(agreed, matrix, target, chosen), MODEL)
    write_json(found.trials if found else [], TRIALS)
    facts = {
        "estimator": name,
        "cross_validation": scores,
        "settings": chosen.model_dump(mode="json", include={"preprocessing", "training"}),
        "search": found.summary if found else None,
    }
    write_json(facts, TRAINING)
    write_csv(["fold", "score"], enumerate(scores["folds"], 1), REPORTS / "folds.csv")
    searched = f", best of {found.summary['trials']} trials" if found else ""
    if scores["mean"] is None:
        return f"{name}, too few rows to cross-validate"
    measured = f"{scores['metric']} {scores['mean']:.3f} ± {scores['std']:.3f}"
    return f"{name}, {measured} in cross-validation{searched}"


def evaluate(settings: Settings) -> str:
    """Measure the fitted model on the test rows and draw what it does."""
    from . import bundle, contract, evaluation, plots
    from .encoding import encode_target, encoded

    agreed, pipeline = contract.read(CONTRACT), bundle.load_model(MODEL)
    matrix, truth = encoded(agreed, read_table(TEST, "prepare"))
    metrics, result, features = evaluation.evaluate(pipeline, agreed, matrix, truth)
    shares: dict[str, dict[str, float]] = {}
    if truth is not None and settings.evaluation.importance_repeats:
        shares = evaluation.importance(pipeline, agreed, matrix, truth, settings.evaluation)
    drawn = plots.draw(PLOTS, agreed, truth, result, features, shares)
    names = [agreed.target.name] if agreed.target else []
    trained = encode_target(agreed, read_table(TRAIN, "prepare", names))
    base = evaluation.baseline(agreed, trained, truth)
    losses = [(column, loss["mean"]) for column, loss in shares.items()]
    write_csv(["column", "loss"], losses, REPORTS / "importance.csv")
    intervals = evaluation.intervals(agreed, truth, result, features)
    write_json(
        {"test": metrics, "intervals": intervals, "baseline": base, "importance": shares}, METRICS
    )
    primary = evaluation.PRIMARY[agreed.task]
    against = f" (baseline {base[primary]:.3f})" if base else ""
    pictures = ", ".join(path.name for path in drawn)
    return f"{primary} {metrics[primary]:.3f}{against} on {len(matrix):,} test rows; {pictures}"


def package(settings: Settings) -> str:
    """Compile the model and make the bundle that serving loads."""
    from . import packaging

    return packaging.package(settings)


def register(settings: Settings) -> str:
    """Keep the run in MLflow; its model becomes the challenger."""
    from . import release

    return release.register(settings)


def report(settings: Settings) -> str:
    """Write the page about the run, beside the champion where there is one, and keep it there."""
    from . import release
    from . import report as page

    said = page.report(settings, release.compare(settings))
    release.attach(settings, REPORT)
    return said


STAGES = {
    "snapshot": snapshot,
    "contract": agree,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "package": package,
    "register": register,
    "report": report,
}
