"""From encoded rows to the estimator's input: outliers, features, imputation, encoding, scale."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from .contract import Contract
from .encoding import Matrix
from .errors import SettingsError
from .features import date_parts, ratios
from .settings import DatePart, Preprocessing

WIDE = 100
SCALERS = {"standard": StandardScaler, "robust": RobustScaler, "minmax": MinMaxScaler}


class Clip(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Pull outliers back to Tukey's fences, the quartiles plus and minus some interquartile ranges.

    Parameters
    ----------
    width : float
        Distance of the fences from the quartiles, in interquartile ranges. Tukey (1977),
        Exploratory Data Analysis, calls what lies beyond 3 "far out".

    Attributes
    ----------
    low_, high_ : ndarray of shape (n_features,)
        The fences; infinite for a column whose quartiles coincide, where nearly all rows agree
        and any other value would be flattened.
    """

    def __init__(self, width: float = 3.0) -> None:
        self.width = width

    def fit(self, X: Matrix, y: Any = None) -> Self:
        """Learn the fences; missing values are left out."""
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        empty = np.isnan(X).all(axis=0)
        lower, upper = np.nanquantile(np.where(empty, 0.0, X), [0.25, 0.75], axis=0)
        reach = np.where(upper > lower, self.width * (upper - lower), np.inf)
        self.low_, self.high_ = lower - reach, upper + reach
        return self

    def transform(self, X: Matrix) -> Matrix:
        """Pull the values of (n_samples, n_features) back; missing ones stay missing."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return np.clip(X, self.low_, self.high_)


class Ratios(TransformerMixin, BaseEstimator):
    """Divide the first half of the columns by the second; a zero below makes a missing value."""

    def fit(self, X: Matrix, y: Any = None) -> Self:
        """Only check the shape: nothing is learned."""
        validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        return self

    def transform(self, X: Matrix) -> Matrix:
        """Return (n_samples, n_features / 2) ratios."""
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return ratios(X)


class DateParts(TransformerMixin, BaseEstimator):
    """Take datetimes, in seconds since 1970, apart.

    Parameters
    ----------
    parts : tuple of str
        Any of ``year``, ``month`` (1-12), ``day`` (1-31), ``weekday`` (Monday is 0), ``hour``.
    """

    def __init__(self, parts: tuple[DatePart, ...] = ("year", "month", "weekday", "hour")) -> None:
        self.parts = parts

    def fit(self, X: Matrix, y: Any = None) -> Self:
        """Only check the shape: nothing is learned."""
        validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        return self

    def transform(self, X: Matrix) -> Matrix:
        """Return (n_samples, n_features * n_parts) numbers; of a missing date, missing parts."""
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return date_parts(X, self.parts)


def build_preprocessor(
    contract: Contract, settings: Preprocessing, sparse: bool = False
) -> ColumnTransformer:
    """Build the unfitted preprocessing of a contract.

    Parameters
    ----------
    contract : Contract
        Its features decide which steps apply to which columns of the encoded matrix.
    settings : Preprocessing
    sparse : bool
        Whether the estimator takes a sparse matrix, as which many one-hot columns are left.

    Returns
    -------
    ColumnTransformer
        Takes (n_samples, n_features) as `encoding` makes it.

    Raises
    ------
    SettingsError
        Where ``preprocessing.ratios`` names a column that is no number.
    """
    numbers = contract.positions(["numeric", "integer"])
    categories = contract.positions(["categorical"])
    dates = contract.positions(["datetime"])
    counts = [len(contract.features[position].categories) for position in categories]
    fill_number = _imputer(settings, settings.impute)
    fill_category = _imputer(settings, "most_frequent")
    clip = Clip(settings.outlier_width) if settings.outliers == "clip" else "passthrough"
    scale = SCALERS[settings.scale]() if settings.scale != "none" else "passthrough"
    sparse = sparse and settings.encode != "ordinal" and sum(counts) > WIDE
    encode = (
        OneHotEncoder(
            categories=[np.arange(count, dtype=float) for count in counts],
            handle_unknown="ignore",
            sparse_output=sparse,
        )
        if settings.encode != "ordinal"
        else "passthrough"
    )
    steps = [
        ("numbers", make_pipeline(clip, fill_number, scale), numbers),
        ("ratios", make_pipeline(Ratios(), clip, fill_number, scale), _ratios(contract, settings)),
        (
            "dates",
            make_pipeline(DateParts(settings.date_parts), fill_number, scale),
            dates if settings.date_parts else [],
        ),
        ("booleans", fill_category, contract.positions(["boolean"])),
        ("categories", make_pipeline(fill_category, encode), categories),
    ]
    return ColumnTransformer([step for step in steps if step[2]], sparse_threshold=float(sparse))


def inliers(contract: Contract, matrix: Matrix, settings: Preprocessing) -> Any:
    """Mark the rows, shape (n_rows,), in which no number lies beyond Tukey's fences."""
    numbers = matrix[:, contract.positions(["numeric", "integer"])]
    if not numbers.size:
        return np.ones(len(matrix), dtype=bool)
    clip = Clip(settings.outlier_width).fit(numbers)
    return ~((numbers < clip.low_) | (numbers > clip.high_)).any(axis=1)


def _imputer(settings: Preprocessing, strategy: str) -> Any:
    if settings.impute == "none":
        return "passthrough"
    return SimpleImputer(strategy=strategy, keep_empty_features=True)


def _ratios(contract: Contract, settings: Preprocessing) -> list[int]:
    numbers = {
        contract.features[position].name: position
        for position in contract.positions(["numeric", "integer"])
    }
    for name in (name for pair in settings.ratios for name in pair):
        if name not in numbers:
            known = ", ".join(numbers) or "none"
            raise SettingsError(
                f"preprocessing.ratios: {name!r} is no numeric feature; the contract has {known}"
            )
    above = [numbers[pair[0]] for pair in settings.ratios]
    return above + [numbers[pair[1]] for pair in settings.ratios]
