import json
import shutil

import pytest

from {{ cookiecutter.package }} import site
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.errors import BundleError, DataError

COLUMNS = (
    Column("Höhe [cm]", "numeric", True, 1.0, 2.0, example=1.5),
    Column("a|b `c`", "categorical", categories=("<i>", "Süd"), example="<i>"),
    Column("id", "excluded", reason="as many values as rows"),
)
CONTRACT = """\
<p><code>weight</code> is predicted (regression), 10 to 20 in training.</p>

<table>
<thead><tr><th>Column</th><th>Holds</th><th>May be missing</th>\
<th>Values</th><th>Example</th></tr></thead>
<tbody>
<tr><td><code>Höhe &#91;cm]</code></td><td>number</td><td>yes</td>\
<td>1 to 2; a warning below 0.5 or above 2.5</td><td>1.5</td></tr>
<tr><td><code>a|b `c`</code></td><td>category</td><td>no</td>\
<td><code>&lt;i&gt;</code>, <code>Süd</code></td><td>&lt;i&gt;</td></tr>
</tbody>
</table>

## Left out

The model does not see these columns.

<table>
<thead><tr><th>Column</th><th>Why</th></tr></thead>
<tbody>
<tr><td><code>id</code></td><td>as many values as rows</td></tr>
</tbody>
</table>

For tools: [contract.json](contract.json).
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with pages of its own and a report, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("docs/index.md", "zensical.toml", "reports/report.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


def found(folder):
    """The files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_contract():
    """Columns stand in a table as they are called, and those left out below it."""
    contract = Contract("regression", Target("weight", minimum=10, maximum=20), COLUMNS)
    assert CONTRACT == site.contract_page(contract).split("\n\n", 2)[2]


def test_contract_of_groups_and_classes():
    """Without a target nothing is predicted; of many classes the list is folded."""
    groups = site.contract_page(Contract("clustering", None, COLUMNS[:2]))
    assert "<p>The rows are sorted into groups; there is no target.</p>" in groups
    assert "Left out" not in groups
    names = tuple("abcdefghi")
    many = site.contract_page(Contract("multiclass", Target("bed", names), COLUMNS))
    assert "one of <details><summary>9 values</summary>\n<code>a</code>, " in many


def test_model(each_road):
    """The page has every metric, where the model comes from and what it is made with."""
    card = each_road.predictor.card
    page = site.model_page(card)
    for name, value in card["metrics"].items():
        assert site.called(name) in page
        if not isinstance(value, dict):
            assert f"<td>{site.score(value, name)}</td>" in page
    facts = (card["version"], card["data"]["sha256"], card["plan"]["form"], card["estimator"])
    assert [] == [fact for fact in facts if fact not in page]
    for name, version in card["libraries"].items():
        assert f"{name} {version}" in page
    assert bool(card["importance"]) == ("## What it looks at" in page)
    assert bool(card["baseline"]) == ("<th>Baseline</th>" in page)


def test_write(road, place):
    """The pages in docs/ and those that are made are laid out, in place of older ones."""
    (place / ".cache/pages/docs").mkdir(parents=True)
    (place / ".cache/pages/docs/old.md").touch()
    said = site.write(road.settings)
    assert f"version {road.predictor.card['version']}, in .cache/pages" == said
    made = {"api.md", "card.json", "contract.json", "contract.md", "model.md", "openapi.json"}
    pages = {"zensical.toml", *(f"docs/{name}" for name in made | {"index.md", "report.html"})}
    assert pages == found(place / ".cache/pages")
    document = json.loads((place / ".cache/pages/docs/openapi.json").read_text(encoding="utf-8"))
    assert document["info"]["version"] == road.predictor.card["version"]
    assert {"post", "delete"} == set(document["paths"]["/admin/rollback"])
    assert "rows&#91;].Höhe (cm)" in (place / ".cache/pages/docs/api.md").read_text("utf-8")
    assert not (place / "events").exists()


def test_a_service_with_keys_is_described_without_them(road, place):
    """That a key is asked for is said where there are none, as on a machine that builds pages."""
    serving = road.settings.serving.model_copy(update={"keys": place / "absent.txt"})
    site.write(road.settings.model_copy(update={"serving": serving}))
    api = (place / ".cache/pages/docs/api.md").read_text(encoding="utf-8")
    assert 'curl "$URL/predict" --header "X-API-Key: $KEY" --json' in api


@pytest.mark.parametrize(("missing", "error"), [("bundle", BundleError), ("report", DataError)])
def test_what_is_missing(road, place, missing, error):
    """Without a bundle or a report nothing is written, and what was there stays."""
    site.write(road.settings)
    before = found(place)
    serving = road.settings.serving
    if missing == "bundle":
        serving = serving.model_copy(update={"bundle": place / "nowhere"})
    else:
        shutil.rmtree(place / "reports")
    with pytest.raises(error, match="run `make pipeline`"):
        site.write(road.settings.model_copy(update={"serving": serving}))
    assert before - {"reports/report.html"} == found(place) - {"reports/report.html"}
