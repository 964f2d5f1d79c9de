"""Generated projects are used as they are: linted on every Python, installed, tested, served."""

import json
import os
import subprocess

import pytest
import uv
from conftest import generate, interpreters, leave_out, make, served
from test_hooks import AWKWARD

from scripts.demo import ask, environment
from scripts.locks import lock_folder

PYTHONS = interpreters()
TOOLS = {
    "black": ["isort", "black", "flake8", "mypy"],
    "ruff": ["ruff", "ruff", "mypy"],
}


def python(version):
    """Name the interpreter of a version, or skip the case that needs it."""
    if version not in PYTHONS:
        pytest.skip(f"Python {version} is not on this machine")
    return PYTHONS[version]


@pytest.mark.parametrize("quality", TOOLS)
def test_the_manager_changes_no_python(tmp_path, quality):
    """Linters see the same with poetry and venv, so that one of them is enough below."""
    seen = []
    for manager in ("poetry", "venv"):
        project = generate(tmp_path / manager, manager=manager, quality=quality)
        modules = project.rglob("*.py")
        seen.append({path.relative_to(project): path.read_text() for path in modules})
    assert len(seen[0]) > 100
    assert seen[0] == seen[1]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize(("quality", "manager"), [("black", "poetry"), ("ruff", "venv")])
def test_the_output_passes_its_own_lint(tmp_path, manager, quality, version):
    """Not one finding in the unmodified project: formatter, linters and types."""
    project = generate(tmp_path, manager=manager, quality=quality, python=version)
    requirements = lock_folder("venv", quality) / "requirements-dev.txt"
    run = [uv.find_uv_bin(), "--quiet"]
    subprocess.run([*run, "venv", "--python", python(version), project / ".venv"], check=True)
    words = ["pip", "sync", "--python", project / ".venv/bin/python", requirements]
    subprocess.run([*run, *words], check=True)
    # Pylint takes minutes: test_workflows.py runs it, on the default project.
    leave_out(project, "$(RUN)pylint")
    source = str(project / "src")
    said = make(project, "--old-file=.venv/.installed", "lint", PYTHONPATH=source).splitlines()
    ran = [line.split()[0].removeprefix(".venv/bin/") for line in said if line.startswith(".venv")]
    assert TOOLS[quality] == ran
    changed = {" M Makefile"} if quality == "black" else set()
    assert changed == set(status(project).splitlines())


def status(project):
    """Ask git what has changed since the project was generated."""
    words = ["git", "status", "--porcelain"]
    return subprocess.run(words, cwd=project, capture_output=True, text=True, check=True).stdout


def check_answers(project, package):
    """Compare the service's answers with those that the pipeline wrote down."""
    examples = json.loads((project / "bundle/examples.json").read_text())
    card = json.loads((project / "bundle/card.json").read_text())
    with served(project, package) as address:
        rows = [example["row"] for example in examples]
        answer = ask(f"{address}/predict", {"rows": rows})
        ids = [prediction.pop("id") for prediction in answer["predictions"]]
        assert len(rows) == len(set(ids))
        assert [example["prediction"] for example in examples] == answer["predictions"]
        assert card == ask(f"{address}/model")["card"]


# The tests of the default project are run by its workflow, in test_workflows.py.
CASES = {
    "venv-ruff": {"manager": "venv", "quality": "ruff", "python": "3.11"},
    "awkward": {**AWKWARD, "license": "proprietary", "python": "3.13", "owner": "Zoe-1"},
}


@pytest.mark.parametrize("case", CASES)
def test_install_test_train_and_serve(tmp_path, case):
    """The whole road: installing fills at most a screen, HTTP answers what the pipeline did."""
    answers = CASES[case]
    asked = answers.get("python", "3.12")
    version = asked if asked in PYTHONS else next(iter(PYTHONS))
    project = generate(tmp_path, **answers)
    said = make(project, "install", PYTHON=python(version))
    assert 24 >= len(said.splitlines()), said
    installed = subprocess.run(
        [project / ".venv/bin/python", "--version"], capture_output=True, text=True, check=True
    )
    assert installed.stdout.startswith(f"Python {version}.")
    # On 3.11, without sys.monitoring, measuring coverage takes as long as the tests.
    without = "--no-cov -W ignore::pytest_cov.CovDisabledWarning" if version == "3.11" else ""
    make(project, "test", "pipeline", PYTEST_ADDOPTS=without)
    assert "make: Nothing to be done" in make(project, "install", "test")
    assert "Data and pipelines are up to date." in make(project, "pipeline")
    package = next(path.name for path in (project / "src").iterdir() if path.suffix == "")
    check_answers(project, package)
    expected = {"?? contract.json", "?? dvc.lock"}
    assert expected >= set(status(project).splitlines())


def test_a_missing_python_is_named(tmp_path):
    """Without a Python that fits, one line says which ones do and how to name one."""
    project = generate(tmp_path, manager="venv")
    run = subprocess.run(
        ["make", "install", "PYTHON=/nowhere/python"], cwd=project, capture_output=True, text=True
    )
    assert 2 == run.returncode
    assert (
        "Python 3.11, 3.12 or 3.13 is missing: install one (python.org/downloads) "
        "or name it: make install PYTHON=/path/to/python\n"
    ) == "".join(run.stdout.splitlines(keepends=True)[-1:])


def test_a_failed_install_says_why(tmp_path):
    """Poetry's reason is shown, and what it left is not taken for installed."""
    project = generate(tmp_path, manager="poetry")
    declared = project / "pyproject.toml"
    declared.write_text(declared.read_text().replace("numpy>=2.4", "numpy>=2.5"))
    words = ["make", "install"]
    run = subprocess.run(words, cwd=project, env=environment(), capture_output=True, text=True)
    assert 2 == run.returncode
    assert "changed significantly since poetry.lock was last generated" in run.stdout
    assert 24 >= len(run.stdout.splitlines()), run.stdout
    assert not (project / ".venv/.installed").exists()


def test_shims_with_nothing_behind_them_are_passed_over(tmp_path):
    """The Makefile takes the first Python that runs, not the first name on PATH."""
    project = generate(tmp_path / "out", manager="venv")
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3.12", "python3.13"):
        (shims / name).write_text("#!/bin/sh\nexit 127\n")
        (shims / name).chmod(0o755)
    (shims / "python3.11").symlink_to(python("3.11"))
    path = f"{shims}:{os.defpath}"
    run = ["make", "--dry-run", ".venv/bin/python"]
    said = subprocess.run(run, cwd=project, env={"PATH": path}, capture_output=True, text=True)
    assert "python3.11 -m venv .venv" in said.stdout.splitlines(), said.stderr


def test_help_lists_every_target(tmp_path):
    """`make` alone says what there is."""
    project = generate(tmp_path)
    said = make(project)
    targets = [
        "help",
        "install",
        "format",
        "lint",
        "test",
        "audit",
        "bundle",
        "pipeline",
        "report",
        "retrain",
        "site",
        "ui",
        "serve",
        "monitor",
        "dispatch",
        "smoke",
        "image",
        "image-test",
        "summary",
        "deploy",
        "rollback",
        "github",
        "release",
        "clean",
    ]
    assert sorted(targets) == sorted(line.split()[1] for line in said.splitlines())
