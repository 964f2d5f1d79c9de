import numpy as np
import pytest
from matplotlib import image
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from {{ cookiecutter.package }} import plots
from {{ cookiecutter.package }}.artifacts import PLOTS
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.inference import Output

CLASSES = ["confusion_matrix", "precision_recall", "roc"]
PICTURES = {
    "multiclass": [*CLASSES, "importance"],
    "binary": [*CLASSES, "importance"],
    "regression": ["errors", "importance", "predicted"],
    "clustering": ["clusters"],
}


def test_pictures_of_each_task(each_road):
    """Each task has its pictures, none of another task, and none is empty."""
    task, folder = each_road.predictor.contract.task, each_road.folder / PLOTS
    assert sorted(PICTURES[task]) == sorted(path.stem for path in folder.iterdir())
    for picture in folder.iterdir():
        pixels = image.imread(picture)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.02


def test_pictures_of_an_earlier_run_go(road, tmp_path):
    """What an earlier run drew does not stand beside the new pictures."""
    (tmp_path / "errors.png").write_bytes(b"")
    contract = road.predictor.contract
    truth = np.array([0.0, 1, 2])
    drawn = plots.draw(tmp_path, contract, truth, Output(truth, np.eye(3)), np.eye(3), {})
    assert ["confusion_matrix.png", "roc.png", "precision_recall.png"] == [p.name for p in drawn]
    assert sorted(drawn) == sorted(tmp_path.iterdir())


def test_same_numbers_same_bytes(tmp_path):
    """A picture holds no date and no version, and depends on nothing but the numbers."""
    contract = Contract("regression", Target("y"), (Column("x", "numeric"),))
    truth = np.arange(5000.0)
    for name in ("first", "second"):
        result = Output(truth + 1)
        plots.draw(tmp_path / name, contract, truth, result, None, {"x": {"mean": 1, "std": 0}})
    for picture in (tmp_path / "first").iterdir():
        written = picture.read_bytes()
        assert written == (tmp_path / "second" / picture.name).read_bytes()
        assert b"matplotlib" not in written


def test_names_are_no_formulas(tmp_path):
    """Dollars, backslashes and scripts without a glyph do not stop the drawing."""
    names = ("a $\\frac$ b", "価格", "x" * 200)
    contract = Contract("multiclass", Target("y", names), ())
    truth = np.array([0.0, 1, 2])
    importance = {name: {"mean": 0.1, "std": 0.0} for name in names}
    drawn = plots.draw(tmp_path, contract, truth, Output(truth, np.eye(3)), None, importance)
    assert all(path.stat().st_size for path in drawn)


@pytest.mark.parametrize("display", [RocCurveDisplay, PrecisionRecallDisplay])
def test_curves_leave_out_what_cannot_be_drawn(road, display):
    """A class that is not among the test rows has no curve."""
    truth = np.array([0.0, 1, 0])
    figure = plots.curves(display, road.predictor.contract, truth, np.eye(3))
    names = [text.get_text() for text in figure.get_axes()[0].get_legend().get_texts()]
    assert ["dwarf", "middle"] == [name.split(" ")[0] for name in names]


def test_confusions_are_counted_and_coloured_by_their_class():
    """A cell shows its count; its colour is the share of the true class, however rare."""
    contract = Contract("binary", Target("y", ("no", "yes")), ())
    truth, guess = np.array([0.0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1])
    axes = plots.confusion_matrix(contract, truth, np.eye(2)[guess]).get_axes()[0]
    assert ["3", "1", "0", "1"] == [text.get_text() for text in axes.texts]
    assert [[0.75, 0.25], [0.0, 1.0]] == axes.get_images()[0].get_array().tolist()


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
