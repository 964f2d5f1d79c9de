"""Search: the estimator, its arguments and its preprocessing, chosen by cross-validation.

Optuna's TPE (Bergstra et al. 2011, Algorithms for hyper-parameter optimization) proposes, folds
are measured one by one, and a trial that falls behind the median of those before it is given up.
Each trial is kept when it ends, so a search that was killed goes on where it stopped. What is
proposed depends on the seed and on the trials before it alone: a number of trials, unlike a number
of minutes, always finds the same.
"""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from . import preprocessing, training
from .contract import Contract
from .encoding import Matrix
from .errors import SettingsError, StoppedError, TrainingError
from .evaluation import PRIMARY
from .settings import Settings
from .training import ESTIMATORS, Choice, Estimator, Space

KEPT = Path(".cache/search")
ROWS = 20_000
COMPLETE = 3
FIRST_FOLD_ROWS = 2000
ONE_HOT_INPUTS = 100
REDUCED_INPUTS = 10
PREPROCESSING = ("impute", "encode", "scale", "outliers")

Data = tuple[Contract, Matrix, Matrix | None]


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes
    ----------
    settings : Settings
        With the preprocessing, estimator, arguments and components of the best trial.
    trials : list of dict
        Of each trial its ``number``, ``state`` (complete; pruned, as it fell behind; failed, as it
        could not be fitted; cut, as time was up), ``value`` (mean of the folds, where complete),
        ``params`` and ``folds``.
    summary : dict
        How many ``trials`` ended, how many of them were ``pruned``, and the ``best`` value.
    """

    settings: Settings
    trials: list[dict[str, Any]]
    summary: dict[str, Any]


def wanted(settings: Settings) -> bool:
    """Say whether the settings ask for a search."""
    return bool(settings.training.search.trials or settings.training.search.minutes)


def search(contract: Contract, matrix: Matrix, target: Matrix | None, settings: Settings) -> Found:
    """Search for as many trials or minutes as the settings allow, whichever ends first.

    The trials are kept in a file named after rows, contract, settings and code: the same search
    goes on with them, spends only what is left of its budget, and nothing once that is used up.
    The first trials are every estimator's defaults with the preprocessing of the settings, among
    them what ``estimator: auto`` would choose: nothing worse in cross-validation is found.

    Of a clustering only the number of clusters is searched. Silhouettes measured after different
    preprocessing are distances in different spaces, and the flattest space would win.

    Parameters
    ----------
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
        As `encoding` makes it. Of more than 20,000 rows the search looks at a sample.
    target : ndarray, shape (n_rows,), or None
    settings : Settings

    Returns
    -------
    Found

    Raises
    ------
    SettingsError
        Where ``training.search.estimators`` names one that cannot be searched.
    TrainingError
        Where a class has too few rows to cross-validate, or no trial could be fitted.
    StoppedError
        By Ctrl-C; the trials so far are kept.
    """
    spaces = _spaces(contract, matrix, settings)
    matrix, target = _sample(matrix, target)
    if training.fold_count(contract, target, len(matrix), settings) < 2:
        raise TrainingError(
            "training.search: a class has fewer than 2 training rows, too few to compare by "
            "cross-validation; merge it with another, or set trials and minutes to 0"
        )
    path = KEPT / f"{_fingerprint(contract, matrix, target, settings)}.log"
    with _quiet():
        kept = _open(path)
        study = _continued(kept, len(matrix))
        try:
            _go_on(study, kept, spaces, settings, (contract, matrix, target))
        except KeyboardInterrupt as error:
            raise StoppedError(
                f"search stopped: {len(kept.trials)} trials are kept in {path}; "
                "run it again to go on"
            ) from error
    return _found(study, settings)


def _go_on(study: Any, kept: Any, spaces: dict[str, Space], settings: Settings, data: Data) -> None:
    """Add trials until the budget is used up."""
    starts = _starts(data[0], spaces)
    most = settings.training.search.trials or math.inf
    seconds = settings.training.search.minutes * 60 or math.inf
    if data[0].task == "clustering":
        most = min(most, len(starts))
    spent = max((trial.user_attrs["spent"] for trial in study.trials), default=0.0)
    began = time.monotonic() - spent
    with _bar(most, seconds) as progress:
        while (number := len(_ended(study))) < most and spent < seconds:
            _show(progress, study, data[0], seconds, spent)
            study.sampler = _sampler(len(spaces), settings.training.seed + number)
            if number < len(starts):
                study.enqueue_trial(starts[number])
            trial = study.ask()
            # Whatever the budget, something has to come out of it.
            deadline = began + seconds if _best(study) else math.inf
            measured = _measured(
                study, trial, data, _applied(settings, _suggested(trial, spaces)), deadline
            )
            spent = time.monotonic() - began
            kept.add_trial(_told(study, trial, *measured, spent))
        _show(progress, study, data[0], seconds, spent)


def _sampler(estimators: int, seed: int) -> Any:
    """Return a sampler for one trial, so that it depends on no trial of this process."""
    from optuna.samplers import TPESampler

    return TPESampler(n_startup_trials=estimators, seed=seed, multivariate=True, group=True)


def _told(study: Any, trial: Any, folds: list[float], state: str, spent: float) -> Any:
    """End a trial, and return it with what is needed to go on without this process."""
    from optuna.trial import TrialState

    for name, value in (("state", state), ("folds", folds), ("spent", spent)):
        trial.set_user_attr(name, value)
    ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    mean = float(np.mean(folds)) if state == "complete" else None
    return study.tell(trial, mean, ends.get(state, TrialState.FAIL))


def _measured(
    study: Any, trial: Any, data: Data, settings: Settings, deadline: float
) -> tuple[list[float], str]:
    """Measure one trial fold by fold, until it is complete, falls behind or time is up."""
    for earlier in _ended(study):
        if earlier.params == trial.params:
            return earlier.user_attrs["folds"], earlier.user_attrs["state"]
    contract, matrix, target = data
    last = training.fold_count(contract, target, len(matrix), settings)
    folds: list[float] = []
    try:
        for score in training.fold_scores(*data, settings):
            folds.append(score)
            trial.report(float(np.mean(folds)), len(folds))
            if len(folds) < last and trial.should_prune():
                return folds, "pruned"
            if len(folds) < last and time.monotonic() > deadline:
                return folds, "cut"
    except (TrainingError, ValueError):
        # Some estimators find out only in predicting that they had too few rows.
        return folds, "failed"
    return folds, "complete"


def _spaces(contract: Contract, matrix: Matrix, settings: Settings) -> dict[str, Space]:
    """Return what is searched of each estimator: preprocessing, components and arguments."""
    table = ESTIMATORS[training.kind(contract)]
    known = [name for name, estimator in table.items() if estimator.space]
    for name in settings.training.search.estimators:
        if name not in known:
            raise SettingsError(
                f"training.search.estimators: {name!r} cannot be searched for a "
                f"{training.kind(contract)}; expected some of {', '.join(known)}"
            )
    quick = [name for name in known if len(matrix) <= (table[name].rows or math.inf)]
    return {
        name: {**_preprocessing_space(contract, matrix, settings, table[name]), **table[name].space}
        for name in settings.training.search.estimators or quick
    }


def _preprocessing_space(
    contract: Contract, matrix: Matrix, settings: Settings, estimator: Estimator
) -> Space:
    """Return the choices that these data and this estimator leave, the settings' own first."""
    if contract.task == "clustering":
        return {}
    given, trees, space = settings.preprocessing, estimator.trees, {}
    if np.isnan(matrix).any() or given.impute == "none":
        fills = [given.impute, "median", "mean", "most_frequent"]
        space["impute"] = _choice(
            [*fills, "none"] if estimator.gaps else [fill for fill in fills if fill != "none"]
        )
    counts = [
        len(column.categories) for column in contract.features if column.kind == "categorical"
    ]
    if trees and max(counts, default=0) > 2 and sum(counts) <= ONE_HOT_INPUTS:
        first = "ordinal" if given.encode == "auto" else given.encode
        space["encode"] = _choice([first, "ordinal", "onehot"])
    # A tree splits at the same rows whatever the scale.
    if not trees and contract.positions(["numeric", "integer"]):
        space["scale"] = _choice([given.scale, "standard", "robust", "minmax"])
        space["outliers"] = _choice([given.outliers, "clip", "none"])
    width = len(contract.features)
    if not trees and width >= REDUCED_INPUTS:
        kept = [settings.training.components, 0, width // 4, width // 2]
        space["components"] = _choice(kept)
    return space


def _choice(values: list[Any]) -> Choice:
    return Choice(tuple(dict.fromkeys(values)))


def _starts(contract: Contract, spaces: dict[str, Space]) -> list[dict[str, Any]]:
    """List the first trials: the defaults of every estimator, then what often does better."""
    table = ESTIMATORS[training.kind(contract)]
    more = [(name, start) for name in spaces for start in table[name].starts]
    return [
        {
            "estimator": name,
            **{f"{name}.{key}": what.start for key, what in spaces[name].items()},
            **{f"{name}.{key}": value for key, value in start.items()},
        }
        for name, start in [*((name, {}) for name in spaces), *more]
    ]


def _suggested(trial: Any, spaces: dict[str, Space]) -> dict[str, Any]:
    """Ask for an estimator and its choices."""
    name = trial.suggest_categorical("estimator", list(spaces))
    chosen = {"estimator": name}
    for key, what in spaces[name].items():
        label = f"{name}.{key}"
        if isinstance(what, Choice):
            chosen[key] = trial.suggest_categorical(label, what.values)
        elif isinstance(what.low, int):
            chosen[key] = trial.suggest_int(label, what.low, what.high, log=what.log)
        else:
            chosen[key] = trial.suggest_float(label, what.low, what.high, log=what.log)
    return chosen


def _applied(settings: Settings, chosen: dict[str, Any]) -> Settings:
    """Return the settings with a trial's choices in place of their own."""
    arguments = dict(chosen)
    steps = {key: arguments.pop(key) for key in PREPROCESSING if key in arguments}
    fitted = {
        "estimator": arguments.pop("estimator"),
        "components": arguments.pop("components", settings.training.components),
        "params": arguments,
    }
    return settings.model_copy(
        update={
            "preprocessing": settings.preprocessing.model_copy(update=steps),
            "training": settings.training.model_copy(update=fitted),
        }
    )


def _sample(matrix: Matrix, target: Matrix | None) -> tuple[Matrix, Matrix | None]:
    """Return at most `ROWS` rows, spread evenly over the classes or the range of the target."""
    if len(matrix) <= ROWS:
        return matrix, target
    order = np.random.default_rng(0).permutation(len(matrix))
    if target is not None:
        order = order[np.argsort(target[order], kind="stable")]
    kept = np.sort(order[np.linspace(0, len(order) - 1, ROWS).astype(int)])
    return matrix[kept], None if target is None else target[kept]


def _fingerprint(
    contract: Contract, matrix: Matrix, target: Matrix | None, settings: Settings
) -> str:
    """Name a search by all that its trials depend on, which its budget is not."""
    content = settings.model_dump(mode="json", include={"preprocessing", "training"})
    for name in ("trials", "minutes"):
        del content["training"]["search"][name]
    for name in ("estimator", "params"):
        del content["training"][name]
    hashed = hashlib.sha256(json.dumps([content, asdict(contract), sklearn.__version__]).encode())
    for module in (__file__, training.__file__, preprocessing.__file__):
        hashed.update(Path(module).read_bytes())
    hashed.update(np.ascontiguousarray(matrix).tobytes())
    hashed.update(b"" if target is None else np.ascontiguousarray(target).tobytes())
    return hashed.hexdigest()[:16]


def _open(path: Path) -> Any:
    """Open the file of kept trials; a last line that was not written to its end is dropped."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        written = path.read_bytes()
        path.write_bytes(written[: written.rfind(b"\n") + 1])
    # Whoever held the lock of an earlier run is gone: a stage runs once at a time.
    Path(f"{path}.lock").unlink(missing_ok=True)
    backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )


def _continued(kept: Any, rows: int) -> Any:
    """Return a study in memory with the kept trials: what is not finished leaves no trace."""
    import optuna

    # One fold of a small table says too little.
    folds = 1 if rows >= FIRST_FOLD_ROWS else 2
    pruner = optuna.pruners.MedianPruner(n_startup_trials=COMPLETE, n_warmup_steps=folds)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.add_trials(kept.trials)
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's log, and warnings that concern one trial only, off the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _ended(study: Any) -> list[Any]:
    """List the trials that count: all but those for which the time was not enough."""
    return [
        t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("state", "cut") != "cut"
    ]


def _best(study: Any) -> Any:
    """Return the best trial, the first of equals; None where none is complete."""
    complete = [trial for trial in _ended(study) if trial.user_attrs["state"] == "complete"]
    return max(complete, key=lambda trial: trial.value, default=None)


def _bar(most: float, seconds: float) -> Any:
    by_time = most == math.inf
    return tqdm(
        total=round(seconds if by_time else most),
        unit="s" if by_time else "trial",
        desc="search",
        leave=False,
        disable=None,
    )


def _show(progress: Any, study: Any, contract: Contract, seconds: float, spent: float) -> None:
    """Bring the progress bar up to date: trials or seconds, the best value and whose it is."""
    if progress.disable:
        return
    ended, best = _ended(study), _best(study)
    progress.n = round(min(spent, seconds)) if progress.unit == "s" else len(ended)
    if best:
        value = f"{PRIMARY[contract.task]} {best.value:.3f}, {best.params['estimator']}"
        progress.set_postfix_str(f"best of {len(ended)}: {value}")


def _found(study: Any, settings: Settings) -> Found:
    best = _best(study)
    if best is None:
        raise TrainingError(
            f"training.search: none of {len(_ended(study))} trials could be fitted; "
            "set trials and minutes to 0 to see why"
        )
    records = [
        {
            "number": trial.number,
            "state": trial.user_attrs["state"],
            "value": trial.value if trial.user_attrs["state"] == "complete" else None,
            "params": _plain(trial.params),
            "folds": trial.user_attrs["folds"],
        }
        for trial in study.trials
        if "state" in trial.user_attrs
    ]
    states = [record["state"] for record in records if record["state"] != "cut"]
    summary = {"trials": len(states), "pruned": states.count("pruned"), "best": best.value}
    return Found(_applied(settings, _plain(best.params)), records, summary)


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's parameters without the name of the estimator in each."""
    return {key.rpartition(".")[2]: value for key, value in params.items()}
