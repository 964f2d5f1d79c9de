from {{ cookiecutter.package }} import runs


def test_who(monkeypatch):
    """A workflow decides in the name of the person who started it."""
    monkeypatch.setenv("GITHUB_ACTOR", "lea")
    assert "lea" == runs.who()
    monkeypatch.delenv("GITHUB_ACTOR")
    assert "@" in runs.who()


def test_names_that_mlflow_allows():
    """Names keep what MLflow allows, and stay different."""
    named = runs.named({"recall.Île (a)": 1, "recall.Île [a]": 2, "a/b": 3})
    assert {"recall.Île _a_": 1, "recall.Île _a__2": 2, "a_b": 3} == named


def test_leaves():
    """Nested sections are named by their path; only numbers are metrics."""
    tree = {"a": {"b": 1, "c": {}}, "d": True, "e": "text", "f": 0.5}
    assert {"a.b": 1, "a.c": {}, "d": True, "e": "text", "f": 0.5} == runs.flat(tree)
    assert {"a.b": 1.0, "f": 0.5} == runs.numbers(tree)
