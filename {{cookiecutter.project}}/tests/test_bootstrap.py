import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from {{ cookiecutter.package }} import bootstrap


@pytest.mark.parametrize("rows", [200, 30_000])
def test_means_spread_as_they_should(rows):
    """Drawn means have the standard error of the mean, many rows drawn in groups too."""
    values = np.random.default_rng(1).exponential(size=(rows, 1))
    means = bootstrap.resampled_means(values, 1000)[:, 0]
    assert (1000,) == means.shape
    error = values.std() / np.sqrt(rows)
    assert pytest.approx(values.mean(), abs=error / 5) == means.mean()
    assert pytest.approx(error, rel=0.1) == means.std()


def test_bounds_of_few_rows_are_those_of_student():
    """Of few rows the expanded bound of a mean is Student's, of many the plain one."""
    values = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    means = bootstrap.resampled_means(values[:, None], 20_000)[:, 0]
    bound = np.quantile(means, bootstrap.expanded(0.95, 12))
    assert pytest.approx(stats.t.ppf(0.95, 11) * stats.sem(values), rel=0.03) == bound
    assert np.quantile(means, 0.95) < 0.92 * bound
    assert pytest.approx(0.95, abs=1e-5) == bootstrap.expanded(0.95, 100_000)


def test_counts_are_drawn_in_blocks(monkeypatch):
    """All resamples come, each with all rows, whatever fits into memory at once."""
    monkeypatch.setattr(bootstrap, "BLOCK", 12)
    blocks = list(bootstrap.resampled_counts(np.array([5, 10, 85]), 10))
    assert [4, 4, 2] == [len(block) for block in blocks]
    assert {100} == set(np.concatenate(blocks).sum(axis=1).tolist())


@pytest.mark.parametrize("classes", [2, 4])
def test_drawn_metrics_lie_around_the_measured(classes):
    """The mean of the drawn metrics is what scikit-learn measures, their spread its own."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, 600)
    probabilities = generator.dirichlet(np.ones(classes), 600)
    probabilities[np.arange(600), truth] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    drawn = bootstrap.classification(truth, probabilities, 400)

    def measured(rows):
        guess = probabilities[rows].argmax(axis=1)
        shares = probabilities[rows, 1] if classes == 2 else probabilities[rows]
        recalls = [(guess[truth[rows] == c] == c).mean() for c in range(classes)]
        return {
            "accuracy": (guess == truth[rows]).mean(),
            "balanced_accuracy": np.mean(recalls),
            "f1_macro": f1_score(truth[rows], guess, average="macro"),
            "log_loss": log_loss(truth[rows], probabilities[rows]),
            "roc_auc": roc_auc_score(truth[rows], shares, multi_class="ovr"),
        }

    whole = measured(np.arange(600))
    one_by_one = [measured(generator.integers(0, 600, 600)) for _ in range(120)]
    assert set(whole) == set(drawn)
    for name, value in whole.items():
        spread = np.std([metrics[name] for metrics in one_by_one])
        assert pytest.approx(value, abs=spread / 4) == drawn[name].mean()
        assert pytest.approx(spread, rel=0.25) == drawn[name].std()


def test_errors_of_a_constant_target():
    """Where a draw has no spread, nothing is explained."""
    drawn = bootstrap.errors(np.ones(40), np.ones(40), 100)
    assert {0.0} == set(drawn["r2"].tolist()) == set(drawn["mean_absolute_error"].tolist())
