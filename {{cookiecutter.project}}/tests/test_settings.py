import pytest
from pydantic import ValidationError

from {{ cookiecutter.package }} import settings
from {{ cookiecutter.package }}.errors import SettingsError

MINIMAL = "project: {name: Garden}\ndata: {source: garden.csv, target: variety}\n"


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def test_values_of_the_file_and_defaults(params):
    """The file's values are used, the rest are defaults."""
    loaded = settings.load(params)
    assert "variety" == loaded.data.target
    assert 8000 == loaded.serving.port


def test_environment_wins(params, monkeypatch):
    """APP_<SECTION>__<KEY> overrides one value and leaves its neighbours alone."""
    monkeypatch.setenv("APP_DATA__TARGET", "weight")
    monkeypatch.setenv("APP_TRAINING__PARAMS", '{"C": 0.5}')
    loaded = settings.load(params)
    assert ("weight", "garden.csv") == (loaded.data.target, str(loaded.data.source))
    assert {"C": 0.5} == loaded.training.params


def test_environment_can_say_null(params, monkeypatch):
    """`null` in a variable means no value."""
    monkeypatch.setenv("APP_DATA__TARGET", "null")
    assert settings.load(params).data.target is None


def test_settings_are_frozen(params):
    """Nobody changes settings on the way."""
    with pytest.raises(ValidationError, match="frozen"):
        settings.load(params).data.target = "weight"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "serving: {port: high}\n", "serving.port: .* not 'high'"),
        (MINIMAL + "serving: {prot: 1}\n", r"serving.prot is unknown \(misspelt\?\)"),
        (MINIMAL + "sreving: {}\n", "sreving is unknown"),
        ("project: {name: Garden}\n", "data: Field required$"),
        (MINIMAL + "training: {folds: 1}\n", "training.folds: .* not 1"),
        (MINIMAL + "preprocessing: {scale: big}\n", "'standard', 'robust'.* not 'big'"),
        ("project: {name", "is no valid YAML"),
        ("just text", "holds no sections; expected project, data"),
    ],
)
def test_wrong_values_are_named(params, text, message):
    """One line says which value is wrong and what was expected."""
    params.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message) as caught:
        settings.load(params)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    """A missing file is named."""
    with pytest.raises(SettingsError, match=r"absent.yaml not found"):
        settings.load(tmp_path / "absent.yaml")


def test_misspelt_section_in_the_environment(params, monkeypatch):
    """A variable for a section that does not exist is refused, not ignored."""
    monkeypatch.setenv("APP_TRAINNG__FOLDS", "3")
    with pytest.raises(SettingsError, match="APP_TRAINNG__FOLDS: no section 'trainng'"):
        settings.load(params)


def test_unreadable_variable(params, monkeypatch):
    """A variable that is no JSON where a list is expected is named."""
    monkeypatch.setenv("APP_DATA__EXCLUDE", "[a")
    with pytest.raises(SettingsError, match="data"):
        settings.load(params)


def test_one_setting_as_text(params, monkeypatch):
    """A script gets a value as the environment has it; secrets stay hidden, others are JSON."""
    assert "train" == settings.value(settings.load(params), "image.model")
    monkeypatch.setenv("APP_IMAGE__MODEL", "models:/garden@champion")
    monkeypatch.setenv("APP_SERVING__ADMIN_TOKEN", "geheim")
    loaded = settings.load(params)
    assert "models:/garden@champion" == settings.value(loaded, "image.model")
    assert '["year", "month", "weekday", "hour"]' == settings.value(
        loaded, "preprocessing.date_parts"
    )
    assert "geheim" not in settings.value(loaded, "serving.admin_token")
    for key in ("image.modell", "image.model.x", "nothing"):
        with pytest.raises(SettingsError, match=f"'{key}' is no setting; expected one such as"):
            settings.value(loaded, key)


def test_what_dvc_cannot_record_is_refused(params, tmp_path, monkeypatch):
    """A stage's setting from the environment, or a source that is no file, is said before a run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"data.source: 'garden.csv' not found; expected a CSV"):
        settings.require_recordable(settings.load(params))
    (tmp_path / "garden.csv").touch()
    monkeypatch.setenv("APP_SERVING__PORT", "1")
    settings.require_recordable(settings.load(params))
    monkeypatch.setenv("APP_TRAINING__ESTIMATOR", "svm")
    with pytest.raises(SettingsError, match="APP_TRAINING__ESTIMATOR: DVC records what stands in"):
        settings.require_recordable(settings.load(params))
