import hashlib
import hmac
import stat

import pytest

from {{ cookiecutter.package }} import entities
from {{ cookiecutter.package }}.errors import StoreError
from {{ cookiecutter.package }}.ingestion import Job
from {{ cookiecutter.package }}.settings import Events


def test_the_secret_is_made_once_and_for_its_owner(tmp_path):
    """Without a setting the folder of events has it, readable for nobody else."""
    folder = tmp_path / "events"
    secret = entities.secret(folder)
    assert 64 == len(secret)
    assert secret == entities.secret(folder)
    assert ["entity.key"] == [path.name for path in folder.iterdir()]
    assert 0o600 == stat.S_IMODE((folder / "entity.key").stat().st_mode)


def test_the_setting_comes_first(tmp_path):
    """Several machines share a secret by the setting; no file is made."""
    given = {"entity": "who", "entity_secret": "ours"}
    settings = Events(folder=tmp_path, **given)
    assert "ours" == Job.of(settings).secret
    assert [] == list(tmp_path.iterdir())
    made = Job.of(Events(folder=tmp_path, entity="who")).secret
    assert made == entities.secret(tmp_path)


def test_the_process_that_was_faster_wins(tmp_path, monkeypatch):
    """Two that start at once use one secret."""
    make = entities._make

    def beaten(path):
        path.write_text("theirs", encoding="ascii")
        make(path)

    monkeypatch.setattr(entities, "_make", beaten)
    assert "theirs" == entities.secret(tmp_path)
    assert ["entity.key"] == [path.name for path in tmp_path.iterdir()]


def test_without_a_place_the_setting_is_named(tmp_path):
    """A folder that cannot be one is reported with the way out."""
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreError, match=r"entity.key cannot be used .*set APP_EVENTS__ENTITY_SECR"
    ):
        entities.secret(tmp_path / "file")


def test_a_pseudonym_is_an_hmac():
    """It is the same for the same entity and secret, and says nothing without the secret."""
    expected = hmac.new(b"key", "Zoë".encode(), hashlib.sha256).hexdigest()[:32]
    assert expected == entities.pseudonym("Zoë", "key")
    assert expected != entities.pseudonym("Zoë", "another")
