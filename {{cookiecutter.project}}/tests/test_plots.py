import numpy as np
import pytest
from matplotlib import image

from {{ cookiecutter.package }} import plots
from {{ cookiecutter.package }}.inference import Output

PICTURES = {
    "multiclass": {"confusion_matrix.png", "curves.png", "importance.png"},
    "binary": {"confusion_matrix.png", "curves.png", "importance.png"},
    "regression": {"residuals.png", "importance.png"},
    "clustering": {"clusters.png"},
}


def test_pictures_of_each_task(each_road):
    """Each task has its pictures, none of another task, and none is empty."""
    folder = each_road.folder / "reports"
    assert PICTURES[each_road.predictor.contract.task] == {p.name for p in folder.glob("*.png")}
    for picture in folder.glob("*.png"):
        pixels = image.imread(picture)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.02


def test_pictures_of_an_earlier_run_go(road, tmp_path):
    """What an earlier run drew does not stand beside the new pictures."""
    (tmp_path / "residuals.png").write_bytes(b"")
    contract = road.predictor.contract
    truth = np.array([0.0, 1, 2])
    drawn = plots.draw(tmp_path, contract, truth, Output(truth, np.eye(3)), np.eye(3), {})
    assert ["confusion_matrix.png", "curves.png"] == [path.name for path in drawn]
    assert not (tmp_path / "residuals.png").exists()


def test_curves_leave_out_what_cannot_be_drawn(road):
    """A class that is not among the test rows has no curve."""
    figure = plots.curves(road.predictor.contract, np.array([0.0, 1, 0]), np.eye(3))
    names = [text.get_text() for text in figure.get_axes()[0].get_legend().get_texts()]
    assert ["dwarf", "middle"] == [name.split(" ")[0] for name in names]


def test_cluster_map_of_a_single_column():
    """One input has no second component."""
    result = Output(np.array([0, 1, 1], dtype=object))
    figure = plots.cluster_map(np.array([[1.0], [2.0], [3.0]]), result)
    assert "second component (0%)" == figure.get_axes()[0].get_ylabel()


@pytest.mark.parametrize("columns", [1, 30])
def test_importance_shows_the_twenty_first(columns):
    """The picture shows the twenty most important columns, the first on top."""
    importance = {f"x{i}": {"mean": 1.0 / (i + 1), "std": 0.0} for i in range(columns)}
    axes = plots.importance_bars(importance, "r2").get_axes()[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert [f"x{i}" for i in range(min(columns, 20))] == shown[::-1]
