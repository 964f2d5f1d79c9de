import pytest

from {{ cookiecutter.package }}.artifacts import sha256, write_json


def test_json_is_written_to_be_read(tmp_path):
    """Accents stay legible, a missing folder is made, the last line ends."""
    write_json({"name": "Höhe", "share": 0.5}, tmp_path / "new" / "facts.json")
    text = (tmp_path / "new" / "facts.json").read_text(encoding="utf-8")
    assert '{\n  "name": "Höhe",\n  "share": 0.5\n}\n' == text


def test_what_json_cannot_hold_is_refused(tmp_path):
    """NaN is no JSON, and nothing is left behind."""
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json({"share": float("nan")}, tmp_path / "facts.json")
    assert [] == list(tmp_path.iterdir())


def test_hash_of_a_file(tmp_path):
    """The published SHA-256 of "abc" (FIPS 180-2, appendix B.1)."""
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert expected == sha256(tmp_path / "abc")
