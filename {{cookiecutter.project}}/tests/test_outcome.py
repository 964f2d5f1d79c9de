from pathlib import Path

import pandas as pd
import pytest

from {{ cookiecutter.package }} import outcome
from {{ cookiecutter.package }}.errors import DataError


def test_missing_shares_of_all_columns(tmp_path):
    """What is left out has its missing share, too: from the file's footer alone."""
    path = tmp_path / "snapshot.parquet"
    frame = pd.DataFrame({"a.b": [1.0, None, 3, 4], "text": [None, None, None, "x"]})
    frame.to_parquet(path, index=False, row_group_size=2)
    assert {"a.b": 0.25, "text": 0.75} == outcome.missing_shares(path)
    assert {} == outcome.missing_shares(tmp_path / "none.parquet")


def test_a_step_that_did_not_run(folder, road):
    """The file that is missing is named, and the step that leaves it."""
    (folder / "contract.json").write_bytes((road.folder / "contract.json").read_bytes())
    settings = road.settings.model_copy(
        update={"serving": road.settings.serving.model_copy(update={"bundle": Path("bundle")})}
    )
    with pytest.raises(DataError, match=r"bundle/card\.json not found: run the earlier steps"):
        outcome.collect(settings)
