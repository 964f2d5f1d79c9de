"""Drift: whether the rows of a window come from where those of the reference came from.

Every column is tested by itself. Numbers, whole numbers and times: by the ranks of their values
for a shift, by the ranks' distances from the middle for a spread, by Kolmogorov and Smirnov for
any other change of shape. Categories: by chi-squared, what was not seen before being one more. Of
all the share of missing values, of categories that of unseen ones, by Fisher's exact test.

A check has one level of significance, however many columns there are: every probability is
multiplied by the number of tests (Bonferroni). And what is significant only counts if it is large
enough to matter, as with many rows the least difference is significant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from ..checks import Finding
from ..encoding import UNSEEN, Matrix
from ..reference import WINDOWS, Sample, entity_codes, last
from ..settings import Monitoring

Kind = Literal["shape", "missing", "unseen"]
State = Literal["checked", "no events", "window not full", "reference too small"]
Counts = npt.NDArray[np.int64]

# Fewer rows tell nothing, whatever the test.
LEAST_ROWS = 30
# Cells of which a window is expected to have fewer rows are put together (Cochran, 1954).
LEAST_EXPECTED = 5


@dataclass(frozen=True)
class Check:
    """What a check of one window found.

    Attributes
    ----------
    state : str
        ``checked``, or why nothing was.
    events : int
        In the window.
    rows : int
        Of these, one for each entity.
    tests : int
        That the level of significance is shared by.
    findings : tuple of Finding
        In the order of the columns.
    untested : dict
        Columns that could not be tested, and why.
    """

    state: State
    events: int
    rows: int = 0
    tests: int = 0
    findings: tuple[Finding, ...] = ()
    untested: Mapping[str, str] = field(default_factory=dict)

    @property
    def alarm(self) -> bool:
        """Whether any column drifted."""
        return any(finding.alarm for finding in self.findings)

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that drifted, the least likely first."""
        alarms = sorted((each for each in self.findings if each.alarm), key=_urgency)
        return tuple(dict.fromkeys(each.column for each in alarms))


@dataclass(frozen=True)
class Streak:
    """For how many checks in a row a column has drifted, and since which moment."""

    column: str
    checks: int
    since: float


@dataclass(frozen=True)
class _Outcome:
    """The tests of one kind before they are corrected for their number."""

    kind: Kind
    score: float
    p: float
    tests: int
    n: int
    change: str


def window_size(samples: Sequence[Sample], settings: Monitoring) -> int:
    """Return how many events a window has: a tenth of the reference, but not more than is set."""
    rows = max((len(sample.values) for sample in samples), default=0)
    return min(settings.window, rows // WINDOWS)


def step_size(samples: Sequence[Sample], settings: Monitoring) -> int:
    """Return how many events lie between two checks; less where the window has to be smaller."""
    return max(1, settings.step * window_size(samples, settings) // settings.window)


def check(
    samples: Sequence[Sample],
    window: Mapping[str, Matrix],
    settings: Monitoring,
    entities: Sequence[Any] | None = None,
) -> Check:
    """Compare a window with the reference.

    Parameters
    ----------
    samples : sequence of Sample
        The reference.
    window : mapping of str to ndarray, shape (n_events,)
        The columns by name, in the order of the events, as `encoding` makes them.
    settings : Monitoring
    entities : sequence or None
        The key of what each event is about, None where it has none. Of those about the same entity
        only the last is looked at.

    Returns
    -------
    Check
        Nothing is tested, and the state says why, where events are too few or the reference is.
    """
    events = len(next(iter(window.values()), ()))
    size = window_size(samples, settings)
    if size < LEAST_ROWS:
        return Check("reference too small", events)
    if events < size:
        return Check("window not full" if events else "no events", events)
    rows = _latest(entities, events)
    untested = dict.fromkeys(window, "new since the reference")
    outcomes: list[tuple[str, _Outcome]] = []
    for sample in samples:
        if sample.name in settings.ignore:
            untested.pop(sample.name, None)
            continue
        if sample.name not in window:
            untested[sample.name] = "not in the events"
            continue
        found, why = _compared(sample, window[sample.name][rows])
        outcomes += [(sample.name, outcome) for outcome in found]
        untested.pop(sample.name)
        if why:
            untested[sample.name] = why
    tests = sum(outcome.tests for _, outcome in outcomes)
    findings = tuple(_finding(name, outcome, tests, settings) for name, outcome in outcomes)
    return Check("checked", events, len(rows), tests, findings, untested)


def examples(found: Check, window: Mapping[str, Matrix], most: int) -> list[int]:
    """Return the positions of events that show what is least likely of a check.

    Those that lack the value or have an unseen one, or have the largest values, or the smallest;
    the last ones where that does not tell, or nothing is an alarm.
    """
    alarms = sorted((each for each in found.findings if each.alarm), key=_urgency)
    shown: Matrix = np.zeros(found.events)
    if alarms:
        values = window[alarms[0].column]
        shown = {
            "more missing": np.isnan(values).astype(float),
            "more unseen": (values == UNSEEN).astype(float),
            "higher": np.nan_to_num(values, nan=-np.inf),
            "lower": np.nan_to_num(-values, nan=-np.inf),
        }.get(alarms[0].change, shown)
    return [int(i) for i in np.argsort(shown, kind="stable")[::-1][:most]]


def streaks(history: Sequence[tuple[float, Sequence[str]]]) -> tuple[Streak, ...]:
    """Say which columns drift now, and since when.

    Parameters
    ----------
    history : sequence of (float, sequence of str)
        The checks, the oldest first: their moments, and the columns that drifted.

    Returns
    -------
    tuple of Streak
        For each column that drifted in the last check, the longest first.
    """
    current = list(history[-1][1]) if history else []
    found = []
    for column in current:
        run = 0
        while run < len(history) and column in history[-1 - run][1]:
            run += 1
        found.append(Streak(column, run, history[-run][0]))
    return tuple(sorted(found, key=lambda streak: -streak.checks))


def confirmed(
    history: Sequence[tuple[float, Sequence[str]]], settings: Monitoring
) -> tuple[Streak, ...]:
    """Return the drift that counts: of columns that drifted in enough checks in a row."""
    return tuple(each for each in streaks(history) if each.checks >= settings.confirmations)


def _latest(entities: Sequence[Any] | None, events: int) -> Counts:
    """Return the positions of the last event of each entity; without one, each is its own."""
    every = np.arange(events)
    return every if entities is None else np.array(last(entity_codes(entities), every))


def _compared(sample: Sample, values: Matrix) -> tuple[list[_Outcome], str]:
    """Return the outcomes for one column, and why its shape was not tested."""
    missing = np.isnan(values)
    given = np.sort(values[~missing])
    known = sample.values[: np.searchsorted(sample.values, np.nan)]
    if min(len(values), len(sample.values)) < LEAST_ROWS:
        return [], f"fewer than {LEAST_ROWS} rows"
    shares = (missing.sum(), len(values)), (len(sample.values) - len(known), len(sample.values))
    found = _share("missing", *shares, sample.effect)
    if sample.categories is not None:
        unseen = ((given == UNSEEN).sum(), len(given)), ((known == UNSEEN).sum(), len(known))
        found += _share("unseen", *unseen, sample.effect)
    if len(given) < LEAST_ROWS or len(known) < LEAST_ROWS:
        where = "window" if len(given) < LEAST_ROWS else "reference"
        return found, f"fewer than {LEAST_ROWS} values in the {where}"
    if sample.categories is None:
        return [_numbers(given, known, sample.effect), *found], ""
    return [_categories(given, known, sample), *found], ""


def _numbers(given: Matrix, known: Matrix, effect: float) -> _Outcome:
    """Test the values of a window against those of the reference, both sorted."""
    n, m = len(given), len(known)
    pooled = np.sort(np.concatenate([known, given]), kind="stable")
    ends = np.flatnonzero(np.append(pooled[1:] != pooled[:-1], True))
    below = np.searchsorted(given, pooled[ends], "right")
    gap = below / n - (ends + 1 - below) / m
    score = float(np.abs(gap).max())
    size = n * (m / effect) / (n + m / effect)
    ties, hits = np.diff(ends, prepend=-1), np.diff(below, prepend=0)
    ranks = ends + 1 - (ties - 1) / 2 - (n + m + 1) / 2
    shift, spread = (_rank_test(scores, ties, hits, size) for scores in (ranks, ranks**2))
    tested = {
        "higher" if shift > 0 else "lower": 2 * special.ndtr(-abs(shift)),
        "wider" if spread > 0 else "narrower": 2 * special.ndtr(-abs(spread)),
        "another shape": special.kolmogorov(np.sqrt(size) * score),
    }
    change = min(tested, key=tested.__getitem__)
    return _Outcome("shape", score, float(tested[change]), len(tested), n, change)


def _rank_test(scores: Matrix, ties: Counts, hits: Counts, size: float) -> float:
    """Standardise the mean score of a window, by what it is if rows are drawn from all at random.

    Scores that are the ranks give the test of Wilcoxon (1945), squared distances from the middle
    rank that of Mood (1954, Annals of Mathematical Statistics 25, 514-522).
    """
    # Sums of products and no `@`: that would wake the threads of BLAS, and wait for them.
    rows, inside = ties.sum(), hits.sum()
    centred = scores - (scores * ties).sum() / rows
    variance = (centred**2 * ties).sum() / (rows - 1)
    if not variance:
        return 0.0
    excess = (centred * hits).sum()
    difference = excess / inside + excess / (rows - inside)
    return float(difference / np.sqrt(variance / size))


def _categories(given: Matrix, known: Matrix, sample: Sample) -> _Outcome:
    """Test the codes of a window against those of the reference; -1 is the last category."""
    names = (*(sample.categories or ()), "what is unseen")
    counts, counts_known = (
        np.bincount(np.where(v == UNSEEN, len(names) - 1, v).astype(int), minlength=len(names))
        for v in (given, known)
    )
    n, m = len(given), len(known)
    gap = counts / n - counts_known / m
    most = int(np.abs(gap).argmax())
    change = f"{'more' if gap[most] > 0 else 'less'} {names[most]}"
    size = n * (m / sample.effect) / (n + m / sample.effect)
    p = _chi_squared(counts, counts_known, size)
    score = float(np.abs(gap).sum() / 2)
    return _Outcome("shape", score, 1.0 if p is None else p, int(p is not None), n, change)


def _chi_squared(counts: Counts, counts_known: Counts, size: float) -> float | None:
    """Return the probability of shares so different; None where all rows are of one category."""
    n, m = counts.sum(), counts_known.sum()
    pooled = (counts + counts_known) / (n + m)
    order = np.argsort(pooled)
    # The rare cells, and of the others the rarest where these are not enough together.
    expected = pooled[order] * n
    enough = int(np.searchsorted(np.cumsum(expected), LEAST_EXPECTED)) + 1
    together = max(enough, int((expected < LEAST_EXPECTED).sum()))
    cells = np.append(0, np.arange(together, len(order)))
    shares, gaps = (
        np.add.reduceat(values[order], cells) for values in (pooled, counts / n - counts_known / m)
    )
    if len(shares) < 2:
        return None
    return float(special.chdtrc(len(shares) - 1, size * (gaps**2 / shares).sum()))


def _share(
    kind: Kind, window: tuple[int, int], reference: tuple[int, int], effect: float
) -> list[_Outcome]:
    """Test a share by Fisher's exact test; none where neither side has a single such row.

    Such a test cannot be significant, whatever the rows are, so it does not count (Tarone, 1990,
    Biometrics 46, 515-522).
    """
    (hits, n), (hits_known, m) = window, reference
    if not hits + hits_known or not n or not m:
        return []
    gap = hits / n - hits_known / m
    m, hits_known = round(m / effect), round(hits_known / effect)
    drawn = n + m, hits + hits_known, n
    tail = stats.hypergeom.sf(hits - 1, *drawn) if gap > 0 else stats.hypergeom.cdf(hits, *drawn)
    change = f"{'more' if gap > 0 else 'less'} {kind}"
    return [_Outcome(kind, float(abs(gap)), min(1.0, 2 * float(tail)), 1, n, change)]


def _finding(column: str, outcome: _Outcome, tests: int, settings: Monitoring) -> Finding:
    p = min(1.0, outcome.p * tests)
    least = settings.least_shape if outcome.kind == "shape" else settings.least_share
    alarm = p <= settings.alpha and outcome.score >= least
    return Finding(column, outcome.kind, outcome.score, p, alarm, outcome.n, outcome.change)


def _urgency(finding: Finding) -> tuple[float, float]:
    return finding.p, -finding.score
