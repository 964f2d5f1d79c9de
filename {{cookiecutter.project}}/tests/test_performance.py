from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.monitoring import performance
from {{ cookiecutter.package }}.monitoring.windows import Events, Place
from {{ cookiecutter.package }}.reference import LOSS, Sample, sample
from {{ cookiecutter.package }}.settings import Monitoring

SETTINGS = Monitoring()
COLORS = Column("color", "categorical", nullable=True, categories=("blue", "red"))
CLASSES = Contract("binary", Target("alive", (False, True)), (COLORS,))
NUMBERS = Contract("regression", Target("weight"), (COLORS,))
GROUPS = Contract("clustering", None, (COLORS,))


def events_of(outputs, labels, rows=None, scores=None):
    """Some labelled events."""
    places = [Place(float(i), str(i)) for i in range(len(outputs))]
    scores = np.array(scores or [np.nan] * len(outputs))
    return Events(places, rows or [{}] * len(outputs), outputs, scores, None, list(labels))


def said(values):
    return [{"prediction": value} for value in values]


def errors(generator, rows, share):
    return (generator.random(rows) < share).astype(float)


def checked(known, losses, contract=CLASSES, about=None, **settings):
    reference = known if isinstance(known, Sample) else sample(LOSS, None, np.asarray(known))
    return performance.check(contract, reference, losses, about, Monitoring(**settings))


def test_losses():
    """1 where classes differ, how far numbers are apart; NaN where one of them is none."""
    events = events_of(said([True, False, True]), [True, True, 1])
    assert [0.0, 1.0, 1.0] == performance.losses(CLASSES, events).tolist()
    events = events_of(said([1.5, 2, None, 3]), [1, 4.5, 1, "much"])
    found = performance.losses(NUMBERS, events)
    np.testing.assert_array_equal([0.5, 2.5, np.nan, np.nan], found)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("held_out", [86, 2000])
def test_chance_is_no_degradation(share, held_out):
    """A hundredth of the checks may alarm by chance; three standard errors more are 0.027."""
    alarms = []
    for seed in range(300):
        generator = np.random.default_rng([seed, held_out])
        known, window = (errors(generator, rows, share) for rows in (held_out, 1000))
        alarms.append(checked(known, window, least_loss=0).finding.alarm)
    assert np.mean(alarms) <= 0.027


def test_chance_is_no_degradation_of_numbers():
    """Nor where a few errors are much larger than the others."""
    alarms = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        known, window = (generator.exponential(size=rows) ** 1.5 for rows in (1000, 500))
        alarms.append(checked(known, window, NUMBERS, least_loss=0).finding.alarm)
    assert np.mean(alarms) <= 0.027


def test_flipped_labels_are_caught():
    """A tenth of 1,000 labels flipped, in at least 90 % of windows, whatever the model's errors."""
    for share in (0.02, 0.2):
        found = 0
        for seed in range(40):
            generator = np.random.default_rng(seed)
            known, window = (errors(generator, rows, share) for rows in (2500, 1000))
            flipped = np.abs(window - errors(generator, 1000, 0.1))
            found += checked(known, flipped).finding.alarm
        assert found >= 36


def test_welch():
    """Of numbers the probability, and the lower bound, are those of SciPy."""
    generator = np.random.default_rng(0)
    known, window = generator.exponential(size=400), generator.exponential(1.2, size=500)
    finding = checked(known, window, NUMBERS).finding
    unit = known.mean()
    expected = stats.ttest_ind(window / unit, known / unit, equal_var=False, alternative="greater")
    assert pytest.approx(expected.pvalue) == finding.p
    assert pytest.approx(expected.confidence_interval(0.99).low) == finding.low
    assert pytest.approx((window.mean() - unit) / unit) == finding.score
    assert ("larger errors", "(loss)", 500) == (finding.change, finding.column, finding.n)


def test_fewer_errors_are_no_alarm():
    """Only more of them are."""
    finding = checked(np.tile([0.0, 1], 500), np.zeros(1000)).finding
    assert (False, "fewer errors", -0.5) == (finding.alarm, finding.change, finding.score)
    assert finding.p > 0.99


def test_small_differences_do_not_count():
    """However significant they are."""
    known, window = np.repeat([0.0, 1], [99_000, 1000]), np.repeat([0.0, 1], [97_500, 2500])
    finding = checked(known, window).finding
    assert finding.p < 1e-9
    assert (False, True) == (finding.alarm, checked(known, window, least_loss=0.01).finding.alarm)


def test_no_error_is_not_certain():
    """A reference without any error does not let the first one alarm."""
    window = np.repeat([0.0, 1], [990, 10])
    assert not checked(np.zeros(86), window, least_loss=0).finding.alarm
    assert checked(np.zeros(86), np.repeat([0.0, 1], [800, 200])).finding.alarm


@pytest.mark.parametrize(("value", "expected"), [(2.0, False), (3.0, True), (1.0, False)])
def test_constant_errors(value, expected):
    """Numbers that are always as far off leave nothing to chance."""
    finding = checked(np.full(100, 2.0), np.full(500, value), NUMBERS).finding
    assert expected is finding.alarm
    assert finding.score == finding.low


def test_a_perfect_regression_before():
    """Errors are then told as they are, as there is nothing to measure them by."""
    assert (1.5, True) == (
        checked(np.zeros(100), np.full(500, 1.5), NUMBERS).finding.score,
        checked(np.zeros(100), np.full(500, 1.5), NUMBERS).finding.alarm,
    )


def test_too_few():
    """Truths, or rows of the reference: a state, and no finding."""
    known = np.tile([0.0, 1], 50)
    for losses in (np.zeros(299), np.append(np.zeros(299), np.full(50, np.nan)), np.empty(0)):
        found = checked(known, losses)
        assert ("too few truths", min(299, len(losses)), None) == (
            found.state,
            found.labelled,
            found.finding,
        )
    found = checked(known[:29], np.zeros(300))
    assert ("reference too small", None) == (found.state, found.finding)
    assert "checked" == checked(np.append(known[:30], np.nan), np.zeros(300)).state


def test_repeated_entities_tell_less():
    """Five events of each entity, all wrong or all right, alarm hardly more often than others."""
    alarms = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        known, window = (np.repeat(errors(generator, rows, 0.2), 5) for rows in (400, 200))
        about = np.repeat(np.arange(400), 5)
        reference = sample(LOSS, None, known, about)
        assert 4 < reference.effect < 6
        alarms.append(
            [
                checked(each, window, about=entities, least_loss=0).finding.alarm
                for each, entities in ((reference, about[:1000].tolist()), (known, None))
            ]
        )
    by_entity, by_event = np.mean(alarms, axis=0)
    assert by_entity <= 0.04
    assert by_event >= 0.1


def test_metrics_of_classes():
    """Those of the evaluation, with intervals, by the labels as the contract spells them."""
    shares = [{"false": 0.9, "true": 0.1}, {"false": 0.2, "true": 0.8}] * 30
    outputs = [{"prediction": each["true"] > 0.5, "probabilities": each} for each in shares]
    labels = [False, True] * 27 + [True, False] * 3
    found, intervals = performance.metrics(CLASSES, events_of(outputs, labels))
    assert (0.9, {"false": 0.9, "true": 0.9}) == (found["accuracy"], found["recall"])
    low, high = intervals["accuracy"]
    assert 0.8 <= low < 0.9 < high <= 1
    one = performance.metrics(CLASSES, events_of(outputs, [True] * 60))
    assert 0.5 == one[0]["accuracy"]
    assert "roc_auc" not in one[0] | one[1]


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (said([True] * 9), [True] * 9),
        ([{"prediction": True, "probabilities": {"true": 1}}] * 9, [True] * 9),
        ([{"prediction": True, "probabilities": {"true": 1, "false": 0}}] * 9, ["alive"] * 9),
    ],
    ids=["no probabilities", "not of all classes", "another contract's label"],
)
def test_what_cannot_be_measured(outputs, labels):
    """No metrics, but losses."""
    assert ({}, {}) == performance.metrics(CLASSES, events_of(outputs, labels))
    assert 9 == len(performance.losses(CLASSES, events_of(outputs, labels)))


def test_metrics_of_numbers():
    """What is no number is left out."""
    outputs = said([1.0, 2, 3, None, 9])
    found, intervals = performance.metrics(NUMBERS, events_of(outputs, [1, 2, 4, 4, "much"]))
    assert pytest.approx(1 / 3) == found["mean_absolute_error"]
    assert {"r2", "mean_absolute_error", "root_mean_squared_error"} == set(intervals)


def test_slices():
    """Where most errors are comes first; what is missing and unseen are groups of their own."""
    colors = ["blue"] * 40 + ["red"] * 50 + [None] * 30 + ["pink"] * 30
    losses = np.repeat([0.0, 1, 0, 1, 0], [40, 20, 30, 15, 45])
    losses[0] = np.nan
    events = events_of([{}] * 150, [], [{"color": each} for each in colors])
    found = performance.slices(CLASSES.features, events, losses, 30)
    assert [
        ("color = (missing)", 30, 0.5),
        ("color = red", 50, 0.4),
        ("color = (unseen)", 30, 0.0),
        ("color = blue", 39, 0.0),
    ] == [(each["name"], each["rows"], each["loss"]) for each in found]
    assert ["color = red"] == [
        each["name"] for each in performance.slices(CLASSES.features, events, losses, 50)
    ]


def test_estimated():
    """The mean probability of what was said; of other tasks there is none."""
    events = events_of(said([True] * 3), [], scores=[0.5, 0.75, np.nan])
    assert 0.625 == performance.estimated(CLASSES, events)
    assert performance.estimated(NUMBERS, events) is None
    assert performance.estimated(GROUPS, events) is None
    assert performance.estimated(CLASSES, events_of([], [])) is None
    nothing = replace(events, scores=np.full(3, np.nan))
    assert performance.estimated(CLASSES, nothing) is None
