import numpy as np
import pytest
from scipy import stats

from {{ cookiecutter.package }}.monitoring import drift
from {{ cookiecutter.package }}.reference import Sample, chosen, entity_codes, sample
from {{ cookiecutter.package }}.settings import Monitoring

SETTINGS = Monitoring()
COLORS = ("blue", "green", "red")


def mixed(generator, rows):
    """Columns of every kind: normal, skewed, heavy-tailed, tied, categories, with gaps."""
    table = {
        "height": generator.normal(size=rows),
        "income": generator.lognormal(size=rows),
        "gain": generator.standard_t(2, size=rows),
        "visits": generator.poisson(2, rows).astype(float),
        "color": generator.choice(3, rows, p=[0.6, 0.3, 0.1]).astype(float),
    }
    for name in ("gain", "color"):
        table[name][generator.random(rows) < 0.1] = np.nan
    return table


def reference(table, entities=None):
    """The samples of a table, in which only colors are categories."""
    return [
        sample(name, COLORS if name == "color" else None, values, entities)
        for name, values in table.items()
    ]


def one(known, values, categories=None, **settings):
    """The check of a single column, by kind."""
    known = np.asarray(known, dtype=float)
    window = {"column": np.asarray(values, dtype=float)}
    found = drift.check([sample("column", categories, known)], window, Monitoring(**settings))
    return {finding.kind: finding for finding in found.findings}


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def before(generator):
    return reference(mixed(generator, 10_000))


def test_chance_is_no_drift():
    """A hundredth of the checks may alarm by chance; three standard errors more are 0.027."""
    alarms = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        samples = reference(mixed(generator, 5000))
        alarms.append(drift.check(samples, mixed(generator, 500), Monitoring(window=500)).alarm)
    assert np.mean(alarms) <= 0.027


def test_chance_is_no_drift_with_a_small_reference():
    """Three hundred rows and windows of thirty alarm no more often."""
    alarms = []
    for seed in range(600):
        generator = np.random.default_rng(seed)
        alarms.append(drift.check(reference(mixed(generator, 300)), mixed(generator, 30), SETTINGS))
    assert {"checked"} == {each.state for each in alarms}
    assert np.mean([each.alarm for each in alarms]) <= 0.022


def shifted(window, _):
    window["height"] += 0.2
    return "height", "shape", "higher"


def spread(window, _):
    window["height"] *= 1.3
    return "height", "shape", "wider"


def emptied(window, generator):
    window["height"][generator.random(1000) < 0.05] = np.nan
    return "height", "missing", "more missing"


def filled(window, generator):
    window["gain"] = generator.standard_t(2, size=1000)
    return "gain", "missing", "less missing"


def recolored(window, generator):
    window["color"][generator.random(1000) < 0.02] = -1
    return "color", "unseen", "more unseen"


def redder(window, generator):
    window["color"][generator.random(1000) < 0.1] = 2
    return "color", "shape", "more red"


@pytest.mark.parametrize("change", [shifted, spread, emptied, filled, recolored, redder])
def test_drift_is_found(change):
    """What changed is named, with how; in at least 19 of 20 windows."""
    found = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        samples, window = reference(mixed(generator, 10_000)), mixed(generator, 1000)
        expected = change(window, generator)
        alarms = [each for each in drift.check(samples, window, SETTINGS).findings if each.alarm]
        found += expected in [(each.column, each.kind, each.change) for each in alarms]
    assert found >= 57


def test_repeated_entities_are_no_drift():
    """Five events of each entity alarm in at most 2 % of the checks, and without the key often."""
    alarms = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        known, later = (generator.permutation(np.repeat(np.arange(n), 5)) for n in (2000, 1000))
        _, about = chosen(np.arange(10_000), 1000, known)
        table, window = mixed(generator, 2000), mixed(generator, 1000)
        events = {name: values[later[:1000]] for name, values in window.items()}
        samples = reference({name: values[about] for name, values in table.items()}, about)
        naive = reference({name: values[known] for name, values in table.items()})
        alarms.append(
            (
                drift.check(samples, events, SETTINGS, later[:1000].tolist()).alarm,
                drift.check(naive, events, SETTINGS).alarm,
            )
        )
    by_entity, by_event = np.mean(alarms, axis=0)
    assert by_entity <= 0.06
    assert by_event >= 0.1


def test_the_design_effect_makes_the_reference_smaller(generator):
    """Where five rows tell as much as one, a fifth of the rows is reckoned with, in every test."""
    numbers, colors = generator.normal(size=2000), generator.choice(3, 2000).astype(float)
    gaps = np.where(np.arange(2000) % 20 == 0, np.nan, 0.0)
    windows = numbers[:100] + 0.3, np.where(colors[:100] == 0, 1, colors[:100]), gaps[:100] * 1
    windows[2][:9] = np.nan
    kinds = ("shape", None), ("shape", COLORS), ("missing", None)
    p = []
    columns = zip((numbers, colors, gaps), windows, kinds, strict=True)
    for known, window, (kind, categories) in columns:
        for effect in (1.0, 5.0):
            samples = [Sample("column", categories, np.sort(known), effect)]
            found = drift.check(samples, {"column": window}, Monitoring(window=100))
            (raw,) = (each.p / found.tests for each in found.findings if each.kind == kind)
            p.append(raw)
    shrunk = (1 / 100 + 1 / 2000) / (1 / 100 + 5 / 2000)
    assert pytest.approx(stats.norm.isf(p[0] / 2) * shrunk**0.5) == stats.norm.isf(p[1] / 2)
    assert pytest.approx(stats.chi2.isf(p[2], 2) * shrunk) == stats.chi2.isf(p[3], 2)
    for found, rows in zip(p[4:], (2000, 400), strict=True):
        hits = int(np.isnan(windows[2]).sum())
        table = [[hits, 100 - hits], [rows // 20, rows - rows // 20]]
        assert pytest.approx(2 * stats.fisher_exact(table, "greater").pvalue) == found


def test_one_event_of_each_entity_is_looked_at(before, generator):
    """The last one; an event without a key stands for itself."""
    window = mixed(generator, 1000)
    keys = [None] * 400 + ["a", "b"] * 300
    found = drift.check(before, window, SETTINGS, keys)
    assert (1000, 402) == (found.events, found.rows)
    kept = {name: np.append(values[:400], values[998:]) for name, values in window.items()}
    alone = drift.check(before, kept, Monitoring(window=400))
    assert alone.findings == found.findings


def test_wilcoxon_mood_and_smirnov(generator):
    """Shift, spread and shape have the probabilities that SciPy gives, times three tests."""
    known, values = generator.normal(size=400), generator.normal(size=40)
    for change in (values + 0.8, values * 2.5, np.where(values > 0, 0.9, -0.9) + values / 99):
        expected = {
            "shift": stats.mannwhitneyu(change, known, use_continuity=False).pvalue,
            "spread": stats.mood(change, known).pvalue,
            "shape": stats.kstwobign.sf(
                np.sqrt(400 * 40 / 440) * stats.ks_2samp(change, known).statistic
            ),
        }
        found = one(known, change)["shape"]
        assert pytest.approx(3 * min(expected.values()), rel=1e-9) == found.p
        assert pytest.approx(stats.ks_2samp(change, known).statistic) == found.score


def test_ties_are_ranked_in_the_middle(generator):
    """Whole numbers have the probability that SciPy gives for ties."""
    known, values = generator.poisson(2, 600), generator.poisson(3, 60)
    expected = stats.mannwhitneyu(values, known, use_continuity=False).pvalue
    assert pytest.approx(3 * expected, rel=1e-9) == one(known, values)["shape"].p


def test_categories_by_chi_squared(generator):
    """Without rare ones the probability is that of SciPy's table, the size the total variation."""
    known, values = generator.choice(3, 900), generator.choice(3, 90, p=[0.5, 0.3, 0.2])
    table = np.stack([np.bincount(known), np.bincount(values)])
    found = one(known, values, COLORS)["shape"]
    shares = table / table.sum(axis=1, keepdims=True)
    expected = stats.chi2_contingency(table, correction=False)
    # SciPy expects the pooled shares in both, as here, so the statistic is the same.
    assert pytest.approx(expected.pvalue) == found.p
    assert pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2) == found.score


def test_rare_categories_are_put_together():
    """Eight categories of which a window has one row each are one cell, and no alarm."""
    names = tuple(map(str, range(9)))
    known = np.append(np.zeros(9920), np.repeat(np.arange(1, 9), 10))
    values = np.append(np.zeros(992), np.repeat([1.0, 2.0, 3.0, 4.0], 2))
    assert pytest.approx(1) == one(known, values, names)["shape"].p


def test_shares_by_fisher():
    """The share of missing values has twice the one-sided probability, times four tests."""
    known = np.append(np.full(20, np.nan), np.zeros(980))
    values = np.append(np.full(9, np.nan), np.zeros(91))
    expected = stats.fisher_exact([[9, 91], [20, 980]], "greater").pvalue
    found = one(known, values, window=100)["missing"]
    assert pytest.approx(2 * expected * 4) == found.p
    assert pytest.approx(0.07) == found.score


def test_tests_are_counted(before, generator):
    """Three for numbers, one for categories, one for each share that somebody has."""
    window = mixed(generator, 1000)
    alone = drift.check(before, window, SETTINGS)
    assert 4 * 3 + 1 + 2 == alone.tests
    window["color"][0] = -1
    assert 4 * 3 + 1 + 2 + 1 == drift.check(before, window, SETTINGS).tests
    first = drift.check(before[:1], {"height": window["height"]}, SETTINGS)
    assert 3 == first.tests
    several = drift.check(before, window, SETTINGS)
    p = {each.column: each.p for each in several.findings if each.kind == "shape"}["height"]
    assert pytest.approx(min(1, first.findings[0].p / 3 * several.tests)) == p


def test_ranks_do_not_change_by_monotone_transforms(generator):
    """Logarithms, cubes and other units give the same size and the same probability."""
    known, values = generator.normal(size=2000), generator.normal(0.3, 1, size=200)
    expected = one(known, values)["shape"]
    for transform in (np.exp, lambda x: x**3, lambda x: 1.8 * x + 32):
        found = one(transform(known), transform(values))["shape"]
        assert (expected.p, expected.score, "higher") == (found.p, found.score, found.change)


@pytest.mark.parametrize(
    ("known", "values", "expected"),
    [
        (np.zeros(500), np.zeros(50), False),
        (np.zeros(500), np.ones(50), True),
        (np.full(500, np.nan), np.full(50, np.nan), False),
        (np.zeros(500), np.full(50, np.nan), True),
        (np.full(500, np.nan), np.zeros(50), True),
    ],
    ids=["constant", "another constant", "missing", "all missing now", "missing before"],
)
@pytest.mark.parametrize("categories", [None, COLORS])
def test_columns_with_one_value(known, values, categories, expected):
    """Constant and empty columns are no drift as long as they stay what they were."""
    found = one(known, values, categories)
    assert expected is any(finding.alarm for finding in found.values())


@pytest.mark.parametrize("categories", [None, COLORS])
@pytest.mark.parametrize(
    ("known", "values"),
    [
        (np.zeros(10_000), np.ones(1000)),
        (np.arange(10_000) % 3, np.zeros(1000)),
        (np.arange(10_000) % 10 == 0, np.arange(1000) % 10 != 0),
        (np.zeros(10_000), np.full(1000, np.nan)),
        (np.full(10_000, np.nan), np.zeros(1000)),
        (np.arange(10_000) % 3, np.full(1000, -1)),
    ],
    ids=["another", "one of three", "turned", "missing", "missing before", "unseen"],
)
def test_the_largest_drift_is_an_alarm(known, values, categories):
    """A difference so large that its probability is 0 as far as numbers go is not lost."""
    assert any(each.alarm and each.p < 1e-200 for each in one(known, values, categories).values())


@pytest.mark.parametrize("change", [lambda x: x + 50, lambda x: x * 1000, np.zeros_like, np.sign])
def test_the_largest_drift_of_numbers_is_an_alarm(generator, change):
    """Other units, another scale, one value alone or two."""
    known, values = generator.normal(size=100_000), generator.normal(size=10_000)
    found = one(known, change(values), window=10_000)["shape"]
    assert (True, True) == (found.alarm, found.p < 1e-200)


def test_small_differences_do_not_count(generator):
    """With many rows the least difference is significant; only larger ones are an alarm."""
    known, values = generator.normal(size=100_000), generator.normal(0.06, 1, size=100_000)
    found = one(known, values)["shape"]
    assert found.p < 1e-9
    assert not found.alarm
    assert one(known, values, least_shape=0.01)["shape"].alarm
    gaps = np.where(np.arange(100_000) < 500, np.nan, known)
    assert (False, True) == tuple(
        one(known, gaps, least_share=least)["missing"].alarm for least in (0.01, 0.004)
    )


@pytest.mark.parametrize(
    ("rows", "events", "expected"),
    [
        (10_000, 0, "no events"),
        (10_000, 999, "window not full"),
        (10_000, 1000, "checked"),
        (2000, 199, "window not full"),
        (2000, 200, "checked"),
        (299, 1000, "reference too small"),
    ],
)
def test_states(generator, rows, events, expected):
    """A check says why nothing was tested, and then nothing alarms."""
    window = mixed(generator, events)
    window["height"] += 9
    found = drift.check(reference(mixed(generator, rows)), window, SETTINGS)
    assert (expected, events) == (found.state, found.events)
    assert (expected == "checked") is found.alarm


def test_nothing_at_all():
    """Neither a reference nor events is a state as well."""
    assert "reference too small" == drift.check([], {}, SETTINGS).state


def test_columns_that_come_and_go(before, generator):
    """A column that is gone, new or ignored is no alarm, but is named."""
    window = mixed(generator, 1000)
    window["size"] = window.pop("income")
    window["height"] += 9
    found = drift.check(before, window, Monitoring(ignore=("height",)))
    assert {"income": "not in the events", "size": "new since the reference"} == found.untested
    assert {"gain", "visits", "color"} == {finding.column for finding in found.findings}
    assert not found.alarm


def test_too_few_rows(before, generator):
    """Held-out rows may be fewer than all rows, and one entity may make all the events."""
    window = mixed(generator, 1000)
    few = Sample("height", None, np.arange(29.0))
    found = drift.check([few, *before[1:]], window, SETTINGS)
    assert {"height": "fewer than 30 rows"} == found.untested
    alone = drift.check(before, window, SETTINGS, ["a"] * 1000)
    assert ({"fewer than 30 rows"}, 1) == (set(alone.untested.values()), alone.rows)
    window["height"][29:] = np.nan
    found = drift.check(before, window, SETTINGS)
    assert {"height": "fewer than 30 values in the window"} == found.untested
    assert ("height",) == found.drifted


def test_the_least_likely_comes_first(before, generator):
    """The columns that drifted are in the order of their probabilities, each once."""
    window = mixed(generator, 1000)
    window["height"] += 0.4
    window["visits"] += 2
    window["visits"][:100] = np.nan
    assert ("visits", "height") == drift.check(before, window, SETTINGS).drifted


def test_windows_and_steps_fit_the_reference():
    """A window is at most a tenth of the reference, and steps shrink with it."""
    for rows, expected in ((50_000, (1000, 500)), (3000, (300, 150)), (305, (30, 15)), (0, (0, 1))):
        samples = [sample("a", None, np.zeros(rows)), sample("(prediction)", None, np.zeros(9))]
        assert expected == (
            drift.window_size(samples, SETTINGS),
            drift.step_size(samples, SETTINGS),
        )


def test_drift_is_confirmed_by_two_checks_in_a_row():
    """It has to be the same column; the moment is that of the first check of the row."""
    history = [(1.0, ("a",)), (2.0, ()), (3.0, ("a", "b")), (4.0, ("b", "a")), (5.0, ("a", "c"))]
    assert () == drift.confirmed(history[:3], SETTINGS)
    assert (drift.Streak("b", 2, 3.0), drift.Streak("a", 2, 3.0)) == drift.confirmed(
        history[:4], SETTINGS
    )
    assert (drift.Streak("a", 3, 3.0),) == drift.confirmed(history, SETTINGS)
    assert (drift.Streak("a", 3, 3.0), drift.Streak("c", 1, 5.0)) == drift.streaks(history)
    assert () == drift.confirmed([], SETTINGS)
    assert () == drift.confirmed([(1.0, ("a",)), (2.0, ("b",))], SETTINGS)


def test_a_small_shift_is_confirmed_in_time():
    """A fifth of a standard deviation in one of 20 columns, within 1,500 events in 19 of 20.

    It sets in with a check, the first of four.
    """
    found = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        known, stream = (generator.normal(size=(20, rows)) for rows in (10_000, 2500))
        stream[7, 1000:] += 0.2
        samples = [sample(str(j), None, values) for j, values in enumerate(known)]
        history = []
        for end in (1000, 1500, 2000, 2500):
            window = {str(j): values[end - 1000 : end] for j, values in enumerate(stream)}
            history.append((float(end), drift.check(samples, window, SETTINGS).drifted))
        counted = drift.confirmed(history, SETTINGS)
        assert {each.column for each in counted} <= {"7"}
        found += bool(counted)
    assert found >= 38


def test_entities_without_a_key_are_their_own():
    """None never equals None, and no key is taken for a position."""
    assert [0, 1, 2, 0, 3, 4] == entity_codes([5, None, 2, 5, None, None]).tolist()
