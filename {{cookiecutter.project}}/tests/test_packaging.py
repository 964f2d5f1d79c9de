from {{ cookiecutter.package }} import packaging


def test_examples_show_every_class(road):
    """The first examples are of different classes, with their truth."""
    truths = [example["truth"] for example in road.predictor.examples]
    assert {"dwarf", "middle", "tall"} == set(truths[:3])
    assert {str, int, float} >= {type(v) for v in road.predictor.examples[0]["row"].values()} - {
        type(None)
    }


def test_git_commit_is_none_outside_of_a_repository(tmp_path, monkeypatch):
    """A project without git is trained all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert packaging.git_commit() is None
    monkeypatch.setenv("PATH", "")
    assert packaging.git_commit() is None
