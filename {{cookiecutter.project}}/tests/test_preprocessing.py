import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from {{ cookiecutter.package }} import inspection, preprocessing
from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.errors import SettingsError
from {{ cookiecutter.package }}.preprocessing import Clip, DateParts, Ratios

MATRICES = arrays(
    np.float64,
    st.tuples(st.integers(1, 20), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6) | st.just(np.nan),
)


def test_clip_pulls_back_to_the_fences():
    """Quartiles 2 and 4 with a width of 1 leave 0 to 6."""
    column = np.array([[1.0], [2], [3], [4], [5]])
    clip = Clip(1.0).fit(column)
    assert (0.0, 6.0) == (clip.low_[0], clip.high_[0])
    np.testing.assert_array_equal([[0], [6], [np.nan]], clip.transform([[-9], [9], [np.nan]]))


def test_clip_leaves_a_column_of_one_value_alone():
    """Where the quartiles coincide, other values are no outliers."""
    clip = Clip().fit([[0.0]] * 9 + [[5.0]])
    np.testing.assert_array_equal([[5.0]], clip.transform([[5.0]]))


@given(MATRICES)
def test_clip_never_leaves_the_fences(matrix):
    """Values are inside of the fences, missing ones stay missing, inner ones stay."""
    clip = Clip().fit(matrix)
    clipped = clip.transform(matrix)
    np.testing.assert_array_equal(np.isnan(matrix), np.isnan(clipped))
    inside = (matrix >= clip.low_) & (matrix <= clip.high_)
    np.testing.assert_array_equal(matrix[inside], clipped[inside])
    assert not ((clipped < clip.low_) | (clipped > clip.high_)).any()


def test_ratios():
    """The first half is divided by the second; by zero is missing."""
    np.testing.assert_array_equal(
        [[2.0, np.nan], [np.nan, 0.25]],
        Ratios().fit_transform([[4.0, 1, 2, 0], [np.nan, 1, 1, 4]]),
    )


@given(st.datetimes().map(lambda moment: moment.replace(microsecond=0)))
def test_date_parts_are_those_of_the_calendar(moment):
    """Every part equals the standard library's, before 1970 too."""
    seconds = np.array([[np.datetime64(moment, "s").astype(float)]])
    parts = DateParts(("year", "month", "day", "weekday", "hour")).fit_transform(seconds)
    expected = [moment.year, moment.month, moment.day, moment.weekday(), moment.hour]
    assert expected == parts[0].tolist()


def test_a_missing_date_has_missing_parts():
    """Nothing is made up for a missing date."""
    assert np.isnan(DateParts(("year", "hour")).fit_transform([[np.nan]])).all()


@pytest.fixture
def build(garden, settings_with):
    """Contract, matrix and unfitted preprocessor of the garden, for some settings."""

    def built(**values):
        settings = settings_with(data={"target": "weight"}, preprocessing=values)
        contract = inspection.infer(garden, settings.data)
        preprocessor = preprocessing.build_preprocessor(contract, settings.preprocessing)
        return contract, encode_frame(contract, garden), preprocessor

    return built


def test_every_step_at_work(build):
    """Two numbers, one ratio, four date parts, a flag, three beds and three varieties; no gaps."""
    _, matrix, preprocessor = build(ratios=[["Höhe (cm)", "leaves"]])
    result = preprocessor.fit_transform(matrix)
    assert (240, 2 + 1 + 4 + 1 + 1 + 3 + 3) == result.shape
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[:, :2].mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("values", "columns"),
    [
        ({"encode": "ordinal"}, 10),
        ({"date_parts": []}, 10),
        ({"scale": "none", "outliers": "none"}, 14),
        ({"scale": "minmax"}, 14),
        ({"scale": "robust", "impute": "mean"}, 14),
    ],
)
def test_steps_can_be_switched(build, values, columns):
    """Each choice gives its own number of inputs, and no gaps."""
    _, matrix, preprocessor = build(**values)
    result = preprocessor.fit_transform(matrix)
    assert columns == result.shape[1]
    assert np.isfinite(result).all()


def test_no_imputation_keeps_gaps(build):
    """With impute: none the gaps are left to the estimator."""
    _, matrix, preprocessor = build(impute="none")
    assert np.isnan(preprocessor.fit_transform(matrix)).any()


def test_unseen_categories_are_all_zero(build):
    """An unseen category belongs to none of the known ones."""
    contract, matrix, preprocessor = build(scale="none")
    preprocessor.fit(matrix)
    row = matrix[:1].copy()
    row[0, contract.positions(["categorical"])] = -1
    assert [0] * 6 == preprocessor.transform(row)[0, -6:].tolist()


def test_ratio_of_unknown_columns(build):
    """A ratio of what is no number names what there is."""
    with pytest.raises(SettingsError, match="'bed' is no numeric feature; the contract has Höhe"):
        build(ratios=[["leaves", "bed"]])


def test_inliers(build, settings_with):
    """Rows beyond the fences are marked, missing values are no outliers."""
    contract, matrix, _ = build()
    settings = settings_with().preprocessing
    matrix[5, contract.positions(["integer"])[0]] = 1e6
    kept = preprocessing.inliers(contract, matrix, settings)
    assert [5] == np.flatnonzero(~kept).tolist()
