import pandas as pd
import pytest

from {{ cookiecutter.package }} import batch
from {{ cookiecutter.package }}.errors import ContractError, DataError


@pytest.fixture
def source(road, tmp_path):
    """The test rows as a file."""
    road.test.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


@pytest.mark.parametrize("chunk", [7, 50_000])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_row_is_answered(road, source, monkeypatch, suffix, chunk):
    """The file holds the source's columns and the answers that the predictor gives."""
    monkeypatch.setattr(batch, "CHUNK_ROWS", chunk)
    destination = source.with_name("answers" + suffix)
    assert (60, 0) == batch.score(road.predictor, source, destination, road.settings.data)
    read = pd.read_parquet if suffix == ".parquet" else pd.read_csv
    answers = read(destination)
    assert [*road.test.columns, "prediction"] == list(answers.columns[: len(road.test.columns) + 1])
    names = [column.name for column in road.predictor.contract.features]
    rows = road.test[names].astype(object).where(road.test[names].notna(), None)
    expected = road.predictor.predict(rows.to_dict("records"))
    assert [answer.prediction for answer in expected] == answers.prediction.tolist()
    for label in ("dwarf", "middle", "tall"):
        shares = [answer.probabilities[label] for answer in expected]
        assert pytest.approx(shares) == answers[f"probability_{label}"].tolist()


def test_clustering_has_scores(walk, tmp_path):
    """Groups come with their distance."""
    road = walk(data={"target": None}, without=["weight", "alive", "variety"])
    road.test.to_parquet(tmp_path / "rows.parquet")
    batch.score(
        road.predictor, tmp_path / "rows.parquet", tmp_path / "answers.csv", road.settings.data
    )
    assert {"prediction", "score"} <= set(pd.read_csv(tmp_path / "answers.csv").columns)


def test_unfamiliar_values_are_counted(road, source):
    """Unseen categories are answered, and counted."""
    frame = road.test.assign(bed="Mars")
    frame.to_csv(source, index=False)
    scored = batch.score(road.predictor, source, source.with_name("out.csv"), road.settings.data)
    assert (60, 60) == scored


def test_broken_rows_leave_nothing_behind(road, source):
    """A file that breaks the contract is refused, and an earlier answer stays as it was."""
    destination = source.with_name("answers.csv")
    destination.write_text("earlier", encoding="utf-8")
    road.test.astype({"leaves": object}).assign(leaves="many").to_csv(source, index=False)
    with pytest.raises(ContractError, match=r"rows 1 to 60, break the contract:\n.*\nleaves"):
        batch.score(road.predictor, source, destination, road.settings.data)
    assert "earlier" == destination.read_text(encoding="utf-8")
    assert ["answers.csv", "rows.csv"] == sorted(p.name for p in source.parent.iterdir())


def test_unknown_kind_of_file(road, source):
    """A destination that is neither CSV nor Parquet is refused before any work."""
    with pytest.raises(DataError, match=r"expected a name ending in \.csv or \.parquet"):
        batch.score(road.predictor, source, source.with_name("out.xlsx"), road.settings.data)
