import json
from datetime import UTC, datetime

import pandas as pd
import pytest

from {{ cookiecutter.package }} import export, ingestion
from {{ cookiecutter.package }}.errors import StoreError
from {{ cookiecutter.package }}.events import EventLog
from {{ cookiecutter.package }}.ingestion import Job
from {{ cookiecutter.package }}.store import opened


@pytest.fixture(name="filled")
def filled_fixture(tmp_path, address, made_event):
    """A store with five predictions, one of them of a request that failed, and two truths."""
    log = EventLog(tmp_path / "log")
    log.append([made_event(4, answer=b"", body=b"x", status=400)])
    log.append([made_event(number, ts=86400.0 * number + 0.25) for number in range(4)])
    log.close()
    ingestion.ingest(Job(str(log.folder), address))
    truth = {"prediction_id": f"{2:032x}-0", "observed_at": 5.5, "source": "Eve"}
    with opened(address) as store:
        store.record([{**truth, "label": '"dwarf"'}, {**truth, "label": '"tall"'}])
    return address


def test_export(filled, tmp_path, monkeypatch):
    """Every prediction is one row, with its latest truth; JSON is text, moments are timestamps."""
    monkeypatch.setattr(export, "ROWS", 2)
    path = tmp_path / "new" / "x.parquet"
    assert 5 == export.export(filled, path)
    frame = pd.read_parquet(path)
    # In order of time: the request that failed was made in the first hour of 1970.
    assert [0, 4, 1, 2, 3] == [int(each.partition("-")[0], 16) for each in frame.prediction_id]
    assert datetime(1970, 1, 2, 0, 0, 0, 250_000, tzinfo=UTC) == frame.ts[2]
    assert {"n": 1, "i": 0} == json.loads(frame.features[2])
    assert "tall" == json.loads(frame.output[2])["prediction"]
    assert [200, 400, 200, 200, 200] == frame.status.tolist()
    assert [True, True] == frame.loc[1, ["features", "output"]].isna().tolist()
    told = frame.dropna(subset=["label"])
    assert [(f"{2:032x}-0", '"tall"', "Eve", 2)] == list(
        told[["prediction_id", "label", "source", "revision"]].itertuples(index=False, name=None)
    )
    assert datetime(1970, 1, 1, 0, 0, 5, 500_000, tzinfo=UTC) == told.observed_at.iloc[0]
    assert ["x.parquet"] == [each.name for each in path.parent.iterdir()]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("1970-01-02", None, [1, 2, 3]),
        ("1970-01-02T01:00:00.25+01:00", "1970-01-03T00:00:00.25", [1]),
        (None, "1970-01-01T00:00:01", [0]),
        ("2020-01-01", None, []),
    ],
)
def test_a_time_can_be_chosen(filled, tmp_path, since, until, expected):
    """The first moment is in it, the last is not; without a zone they are UTC."""
    path = tmp_path / "x.parquet"
    assert len(expected) == export.export(filled, path, since, until)
    frame = pd.read_parquet(path)
    assert expected == [int(each.partition("-")[0], 16) for each in frame.prediction_id]


def test_what_fails_leaves_the_old_file(filled, tmp_path):
    """A moment that cannot be read is told; what was exported before stays."""
    path = tmp_path / "x.parquet"
    path.write_text("old")
    with pytest.raises(StoreError, match=r"--until: 'soon' is no moment; expected ISO 8601"):
        export.export(filled, path, until="soon")
    assert "old" == path.read_text()
