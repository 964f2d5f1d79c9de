import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package }}.fingerprints import fingerprints, unseen


def rows(count):
    """Rows that all differ, of numbers and text."""
    number = np.arange(count)
    return pd.DataFrame({"size": number * 1.0, "bed": np.where(number % 4 < 2, "north", "south")})


def test_fingerprints_tell_rows_apart():
    """Each of many rows has its own, equal rows share one, and order changes nothing."""
    frame = rows(5000)
    prints = fingerprints(frame)
    assert 5000 == len(np.unique(prints))
    shuffled = frame.sample(frac=1, random_state=0)[frame.columns[::-1]]
    assert prints[shuffled.index].tolist() == fingerprints(shuffled).tolist()
    swapped = frame.rename(columns={"size": "height", "height": "size"}).assign(size=-1)
    assert not set(prints.tolist()) & set(fingerprints(swapped).tolist())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pd.Series([1, 2]), pd.Series([1.0, 2.0, np.nan])),
        (pd.Series([True, False]), pd.Series([True, False, None], dtype=object)),
        (pd.Series([0.0, 1.5]), pd.Series([-0.0, 1.5])),
        (pd.Series(["a", "ü"]), pd.Series(["a", "ü"], dtype="category")),
        (pd.Series([None, "a"]), pd.Series([np.nan, "a"], dtype=object)),
        (pd.Series([1, 2]), pd.Series([1, 2], dtype="Int64")),
        (
            pd.to_datetime(pd.Series(["2024-01-01", "2024-01-02"])).astype("datetime64[ns]"),
            pd.to_datetime(pd.Series(["2024-01-01", "2024-01-02"]), utc=True),
        ),
    ],
)
def test_fingerprints_do_not_depend_on_the_type(one, other):
    """A column that was read as another type because of its neighbours has the same prints."""
    first, second = (fingerprints(pd.DataFrame({"x": series})) for series in (one, other))
    assert first.tolist() == second.tolist()[:2]
    assert first[0] != first[1]


def test_fingerprints_are_the_same_in_another_process():
    """Python's own hashes differ from process to process; these are what they always were."""
    frame = pd.DataFrame({"text": ["x", None], "number": [1.5, 2.0]})
    assert [13084680102138274749, 6863043853347670794] == fingerprints(frame).tolist()


def test_moments_within_a_second_differ():
    """Moments are told apart to the microsecond."""
    moments = pd.to_datetime(["2024-01-01 00:00:00.000001", "2024-01-01"], format="ISO8601")
    assert 2 == len(set(fingerprints(pd.DataFrame({"x": moments})).tolist()))


def test_unseen():
    """Rows of the training are left out, and rows that equal one; nothing else is."""
    frame = rows(100)
    twice = pd.concat([frame, frame.iloc[[7]]], ignore_index=True)
    left = unseen(twice, fingerprints(frame.iloc[:60]))
    assert list(range(60, 100)) == left.index.tolist()
    assert 100 == len(unseen(frame, np.array([], dtype=np.uint64)))
