import pytest

from {{ cookiecutter.package }}.artifacts import replacing, sha256, write_json


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


def test_a_file_is_whole_or_not_there(tmp_path):
    """Until a file is complete, and where it never is, what stood there stays, and only that."""
    path = tmp_path / "table"
    path.write_text("old", encoding="utf-8")
    with replacing(path) as partial:
        partial.write_text("new", encoding="utf-8")
        assert "old" == path.read_text(encoding="utf-8")
    assert "new" == path.read_text(encoding="utf-8")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(path, "new")] == [(p, p.read_text(encoding="utf-8")) for p in tmp_path.iterdir()]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    """A kill leaves a hidden part behind, which the next run uses up."""
    (tmp_path / ".facts.json.partial").write_text("half", encoding="utf-8")
    write_json([1], tmp_path / "facts.json")
    assert ["facts.json"] == [path.name for path in tmp_path.iterdir()]


def test_hash_of_a_file(tmp_path):
    """The published SHA-256 of "abc" (FIPS 180-2, appendix B.1)."""
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert expected == sha256(tmp_path / "abc")
