import numpy as np
import pytest
from scipy import stats

from {{ cookiecutter.package }} import comparison
from {{ cookiecutter.package }}.contract import Column
from {{ cookiecutter.package }}.settings import Gate

SETTINGS = Gate(resamples=400)
TRIALS = 300


def hits(generator, truth, share):
    """Class positions that are right with a probability."""
    return np.where(generator.random(len(truth)) < share, truth, -1.0)


def promoted(task, rows, draw):
    """How often a challenger would be promoted; `draw` makes truth, champion and challenger."""
    generator = np.random.default_rng(0)
    found = [comparison.compare(task, *draw(generator, rows), SETTINGS) for _ in range(TRIALS)]
    return np.mean([each.low > 0 for each in found])


def equal_classes(generator, rows):
    truth = generator.integers(0, 3, rows).astype(float)
    return truth, hits(generator, truth, 0.8), hits(generator, truth, 0.8)


def nearly_the_same(generator, rows):
    truth, champion, _ = equal_classes(generator, rows)
    differ = generator.random(rows) < 5 / rows
    return truth, champion, np.where(differ, hits(generator, truth, 0.5), champion)


def equal_numbers(generator, rows):
    truth, common, *own = generator.normal(size=(4, rows))
    return truth, truth + common + own[0], truth + common + own[1]


def equal_groups(generator, rows):
    common, *own = generator.normal(size=(3, rows))
    return None, common + own[0], common + own[1]


@pytest.mark.parametrize("rows", [30, 300])
@pytest.mark.parametrize(
    ("task", "draw"),
    [
        ("multiclass", equal_classes),
        ("multiclass", nearly_the_same),
        ("regression", equal_numbers),
        ("clustering", equal_groups),
    ],
)
def test_equal_models_are_rarely_promoted(task, draw, rows):
    """One in twenty may pass by chance; three standard errors above that would be 0.088."""
    assert promoted(task, rows, draw) <= 0.088


def better_classes(generator, rows):
    truth = generator.integers(0, 2, rows).astype(float)
    return truth, hits(generator, truth, 0.8), hits(generator, truth, 0.9)


def better_numbers(generator, rows):
    truth, common, *own = generator.normal(size=(4, rows))
    return truth, truth + common + own[0], truth + common + 0.5 * own[1]


@pytest.mark.parametrize(
    ("task", "draw"), [("binary", better_classes), ("regression", better_numbers)]
)
def test_clearly_better_models_are_promoted(task, draw):
    """Half the errors, in 400 rows: found in at least 19 of 20 cases."""
    assert promoted(task, 400, draw) >= 0.95


def test_bounds_of_few_rows_are_those_of_student():
    """Both bounds of a mean difference lie where Student's t has them, farther than draws alone."""
    gains = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    found = comparison.compare("clustering", None, np.zeros(12), gains, Gate(resamples=20_000))
    reach = stats.t.ppf(0.95, 11) * stats.sem(gains)
    assert pytest.approx([-reach, reach], rel=0.03) == [found.low, found.high]


def test_three_rows_are_no_proof():
    """Three of a hundred rows gained and none lost happens to one in eight equal models."""
    truth = np.tile([0.0, 1.0], 50)
    champion, challenger = (np.where(np.arange(100) < few, -1.0, truth) for few in (10, 7))
    found = comparison.compare("binary", truth, champion, challenger, SETTINGS)
    assert pytest.approx(0.03) == found.difference
    assert found.low <= 0
    assert comparison.compare("binary", truth, champion, truth, SETTINGS).low > 0


def test_a_class_that_a_draw_lacks():
    """One row of a class is missing in a third of the draws; they count the other classes."""
    truth = np.array([0.0] * 59 + [1.0])
    champion, challenger = np.zeros(60), truth
    found = comparison.compare("binary", truth, champion, challenger, SETTINGS)
    assert (0.5, 1.0, 0.5) == (found.champion, found.challenger, found.difference)
    assert 0 == found.low


def test_the_difference_of_r2():
    """The bounds lie around the difference of two known R²."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=20_000)
    signs = generator.choice([-1, 1], 20_000)
    found = comparison.compare("regression", truth, truth + signs, truth + signs / 2, SETTINGS)
    assert pytest.approx(0.75, abs=0.02) == found.difference
    assert found.low < found.difference < found.high
    assert found.high - found.low < 0.06
    constant = comparison.compare("regression", np.ones(40), np.ones(40), np.zeros(40), SETTINGS)
    assert 0 == constant.low


def parts(before, after, codes, **settings):
    column = Column("bed", "categorical", categories=tuple(map(str, range(20))))
    encoded = [(column, codes), (Column("size", "numeric"), codes)]
    return comparison.slices(encoded, before, after, Gate(**settings))


def test_slices_lose_by_more_than_chance():
    """Among equal models a group is rarely refused; one that loses a fifth of its hits is."""
    generator = np.random.default_rng(0)
    codes = np.repeat(np.arange(20.0), 100)
    refused = 0
    for _ in range(TRIALS):
        before, after = (generator.random((2, 2000)) < 0.8).astype(float)
        refused += bool(comparison.losing(parts(before, after, codes), Gate()))
    assert refused / TRIALS <= 0.05
    before = np.ones(2000)
    after = np.where((codes == 3) & (np.arange(2000) % 5 == 0), 0.0, before)
    (found,) = comparison.losing(parts(before, after, codes), Gate())
    assert ("bed = 3", 100, 1.0, 0.8) == (
        found.name,
        found.rows,
        found.champion,
        found.challenger,
    )
    assert pytest.approx(0.2) == found.loss
    assert pytest.approx(0.5**20) == found.chance


def test_small_slices_are_left_out():
    """Groups below slice_rows, and columns of other kinds, are not looked at."""
    codes = np.repeat([0.0, 1.0, np.nan, -1.0], [30, 29, 40, 50])
    found = parts(np.zeros(149), np.zeros(149), codes)
    assert {"bed = 0", "bed = (missing)", "bed = (unseen)"} == {part.name for part in found}
    assert [] == comparison.losing([], Gate())


def test_slices_of_errors_are_compared_by_their_spread():
    """A loss of one tenth is beyond chance where it is steady, not where it swings."""
    codes = np.zeros(100)
    steady, swinging = np.full(100, -0.1), np.tile([3.0, -3.2], 50)
    for scores, expected in ((steady, 1), (swinging, 0), (np.zeros(100), 0)):
        found = parts(np.zeros(100), scores, codes)
        assert expected == len(comparison.losing(found, Gate()))
    assert pytest.approx(0.3745, abs=1e-4) == parts(np.zeros(100), swinging, codes)[0].chance
