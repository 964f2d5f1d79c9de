"""Updating: `cruft update` from the kit's last release, in a project that its user has changed."""

import json
import re
import shutil
import subprocess

import pytest
from conftest import KIT, TEMPLATE, copy_kit, environment, files, generate
from test_hooks import cruft

# What users change: words of the last release, and what they put there.
EDITS = {
    "params.yaml": [
        ('description: "A model that is trained', 'description: "Which penguin is it? A model'),
        ("outliers: clip  ", "outliers: none  "),
        ("floors: {}     ", "floors: {balanced_accuracy: 0.8}"),
        ("folds: 5\n", "folds: 3                        # our tables are small\n"),
    ],
    "README.md": [
        ("A model that is trained, tested", "Which penguin is it? Trained, tested"),
        ("[How it is built]", "## Who\n\nAda looks after it.\n\n[How it is built]"),
    ],
    "Makefile": [
        (
            "\t$(RUN)pytest -m image tests/test_image.py\n\t@touch $@\n",
            "\t$(RUN)pytest -m image tests/test_image.py\n\t@touch $@\n\n"
            ".PHONY: names\nnames: ## Say which penguins there are\n\t@cat names.txt\n",
        ),
    ],
    "pyproject.toml": [("fail_under = 90", "fail_under = 85")],
    "src/penguins/preprocessing.py": [("is no numeric feature", "is no numeric column")],
    "tests/test_preprocessing.py": [("is no numeric feature", "is no numeric column")],
    "tests/test_architecture.py": [('    {"cli"},\n', '    {"cli"},\n    {"names"},\n')],
}
OWN = {
    "names.txt": "Adelie\nChinstrap\nGentoo\n",
    "src/penguins/names.py": '''"""The names of all penguins."""

from .contract import Contract


def names(contract: Contract) -> str:
    """Return the classes, in a line."""
    return ", ".join(contract.class_names)
''',
    "tests/test_names.py": '''from penguins.contract import Contract, Target
from penguins.names import names


def test_names():
    """They stand in a line."""
    assert "Adelie, Gentoo" == names(Contract("binary", Target("x", ("Adelie", "Gentoo")), ()))
''',
}
DROPPED = ".devcontainer/devcontainer.json"
CHANGED = [path for path in EDITS if path.startswith("tests/")]


def git(folder, *words):
    """Run git under a name; give back what it said."""
    named = ("git", "-c", "user.name=kit", "-c", "user.email=kit@localhost")
    run = subprocess.run([*named, *words], cwd=folder, capture_output=True, text=True)
    assert 0 == run.returncode, run.stderr
    return run.stdout.strip()


def newest(folder, commit):
    """Name the newest entry of the changelog at a commit."""
    return re.search(r"^## (.+)", git(folder, "show", f"{commit}:CHANGELOG.md"), re.MULTILINE)[1]


def last_release():
    """Name the release before this state: a tag; without tags, the last commit of its changelog."""
    words = ["git", "describe", "--tags", "--abbrev=0", "--match=v*", "HEAD~1"]
    tagged = subprocess.run(words, cwd=KIT, capture_output=True, text=True)
    if tagged.returncode == 0:
        return git(KIT, "rev-parse", f"{tagged.stdout.strip()}^{{commit}}")
    log = ["git", "log", "--first-parent", "--format=%H %P", "--", "CHANGELOG.md"]
    run = subprocess.run(log, cwd=KIT, capture_output=True, text=True)
    now = re.search(r"^## (.+)", (KIT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    for line in run.stdout.splitlines():
        before = line.split()[1:2]
        if before and (version := newest(KIT, before[0])) != now and version[0].isdigit():
            return before[0]
    return pytest.skip("no release of the kit is in its history here")


@pytest.fixture
def kit(tmp_path):
    """The kit's history with the present state, committed or not, as its last commit."""
    release = last_release()
    git(tmp_path, "clone", "--quiet", KIT, "kit")
    folder = tmp_path / "kit"
    for path in folder.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(copy_kit(tmp_path / "copy"), folder, dirs_exist_ok=True)
    commit(folder)
    git(folder, "tag", "release", release)
    return folder


def create(tmp_path, kit, *words):
    """Let cruft create a project and make it a repository."""
    cruft(tmp_path, "create", str(kit), "--no-input", "--default-config", *words)
    git(tmp_path / "penguins", "init", "--quiet")
    commit(tmp_path / "penguins")
    return tmp_path / "penguins"


def commit(folder):
    """Commit everything."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "state")


def change(folder, path, old, new):
    """Replace words of a file, which have to be there."""
    text = (folder / path).read_text()
    assert old in text, f"{path} of the last release has no {old!r}: choose another edit"
    (folder / path).write_text(text.replace(old, new, 1))


def run(project, venv, *words):
    """Run a command of the project in the environment; give back what it says."""
    if not (project / ".venv").exists():
        (project / ".git/info/exclude").write_text(".venv\n")
        (project / ".venv").symlink_to(venv)
    done = subprocess.run(
        words,
        cwd=project,
        env=environment(PYTHONPATH=str(project / "src"), OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert 0 == done.returncode, f"{' '.join(map(str, words))}\n{done.stdout[-5000:]}"
    return done.stdout


def unmerged(project):
    """Name the files that git holds for unmerged."""
    return git(project, "diff", "--name-only", "--diff-filter=U").splitlines()


def test_update_from_the_last_release(tmp_path, kit, default_project):
    """Every edit is still there, every other file is that of a new project, and all is green."""
    venv = default_project / ".venv"
    project = create(tmp_path, kit, "--checkout", "release")
    run(project, venv, "make", "--old-file=.venv/.installed", "pipeline")
    change(project, "contract.json", '"maximum": 59.6', '"maximum": 66.6')
    reviewed = (project / "contract.json").read_text()
    for path, edits in EDITS.items():
        for old, new in edits:
            change(project, path, old, new)
    for path, text in OWN.items():
        (project / path).write_text(text)
    (project / DROPPED).unlink()
    commit(project)

    cruft(project, "update", "--skip-apply-ask")
    assert [] == unmerged(project)
    assert [] == [path for path in files(project) if path.endswith((".rej", ".orig"))]
    for path, edits in EDITS.items():
        for _, new in edits:
            assert new in (project / path).read_text()
    for path, text in OWN.items():
        assert text == (project / path).read_text()
    assert reviewed == (project / "contract.json").read_text()

    fresh = generate(tmp_path / "fresh")
    new = {path for path in files(fresh) if path != DROPPED}
    git(project, "add", "--all")
    tracked = set(git(project, "ls-files").splitlines())
    assert new | OWN.keys() | {".cruft.json", "contract.json"} == tracked
    for path in new - EDITS.keys():
        assert (fresh / path).read_bytes() == (project / path).read_bytes(), path
    record = json.loads((project / ".cruft.json").read_text())
    assert git(kit, "rev-parse", "HEAD") == record["commit"]
    commit(project)
    cruft(project, "check")

    # The environment is that of the lock. Whatever is as in a new project is tested there; here,
    # what reads the changed files. Of the linters, pylint would take a minute.
    lock = (project / "poetry.lock").read_bytes()
    assert (default_project / "poetry.lock").read_bytes() == lock
    for tool in (["isort", "--check"], ["black", "--check", "--quiet"], ["flake8"]):
        run(project, venv, venv / "bin" / tool[0], *tool[1:], "src", "tests")
    run(project, venv, venv / "bin/mypy")
    own = [*CHANGED, "tests/test_names.py", "tests/test_settings.py"]
    run(project, venv, venv / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *own)
    said = run(project, venv, "make", "--old-file=.venv/.installed", "pipeline")
    assert "Running stage 'package'" in said
    assert reviewed == (project / "contract.json").read_text()
    assert OWN["names.txt"] == run(project, venv, "make", "--silent", "names")
    card = json.loads((project / "bundle/card.json").read_text())
    assert "none" == card["settings"]["preprocessing"]["outliers"]
    assert 3 == card["settings"]["training"]["folds"]


@pytest.fixture
def project(tmp_path, kit_repository):
    """A project of the present kit, whose user holds out more rows and pins another image."""
    made = create(tmp_path, kit_repository)
    change(made, "params.yaml", "test_share: 0.25", "test_share: 0.3")
    change(made, DROPPED, "{", '{ "remoteUser": "ada",')
    commit(made)
    return made


def move_on(kit, *removed):
    """Commit to the kit: a default, a changelog, and files that are no longer there."""
    change(kit / TEMPLATE.name, "params.yaml", "test_share: 0.25", "test_share: 0.2")
    (kit / TEMPLATE.name / "CHANGELOG.md").write_text("# Changelog of the future\n")
    for path in removed:
        (kit / TEMPLATE.name / path).unlink()
    commit(kit)


def test_a_conflict_holds_both_versions(project, kit_repository):
    """Where both changed a line, git names the file, and it has both; the rest is updated."""
    move_on(kit_repository)
    cruft(project, "update", "--skip-apply-ask")
    assert ["params.yaml"] == unmerged(project)
    ours, theirs = (project / "params.yaml").read_text().split("<<<<<<< ours\n")[1].split("=======")
    assert "test_share: 0.3" in ours
    assert "test_share: 0.2" in theirs
    assert "# Changelog of the future\n" == (project / "CHANGELOG.md").read_text()


def test_an_edited_file_that_the_kit_drops_stays(project, kit_repository):
    """It stays as it is and is named; what conflicts elsewhere is beside its file, as .rej."""
    edited = (project / DROPPED).read_text()
    move_on(kit_repository, DROPPED)
    said = cruft(project, "update", "--skip-apply-ask", errors=True)
    assert f"error: {DROPPED}: patch does not apply" in said
    assert "Project directory may have *.rej files" in said
    assert edited == (project / DROPPED).read_text()
    assert "test_share: 0.3" in (project / "params.yaml").read_text()
    assert "+  test_share: 0.2" in (project / "params.yaml.rej").read_text()
    assert "# Changelog of the future\n" == (project / "CHANGELOG.md").read_text()
    assert "?? params.yaml.rej" in git(project, "status", "--porcelain")


def test_an_update_changes_an_answer(tmp_path, kit_repository):
    """`--variables-to-update` brings the files of the new answer and takes those of the old."""
    project = create(tmp_path, kit_repository)
    said = cruft(project, "update", "-y", "--variables-to-update", '{"deploy": "none"}')
    assert ["Good work! Project's cruft has been updated and is as clean as possible!"] == (
        said.splitlines()
    )
    fresh = generate(tmp_path / "fresh", deploy="none")
    assert files(fresh) | {".cruft.json"} == files(project)
    for path in files(fresh):
        assert (fresh / path).read_bytes() == (project / path).read_bytes(), path


def test_a_project_of_cookiecutter_is_linked(tmp_path, kit_repository):
    """What cookiecutter generated follows the kit after `cruft link`; `diff` prints a diff."""
    project = generate(tmp_path)
    words = ("--checkout", "HEAD", "--no-input", "--default-config")
    cruft(project, "link", str(kit_repository), *words)
    cruft(project, "diff", "--exit-code")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "follow the kit")
    change(project, "params.yaml", "test_share: 0.25", "test_share: 0.3")
    said = cruft(project, "diff").splitlines()
    assert (
        "diff --git upstream-template-old/params.yaml upstream-template-new/params.yaml" == said[0]
    )
    assert "-  test_share: 0.3" in said
    git(project, "commit", "--quiet", "--all", "--message", "hold out more")
    move_on(kit_repository)
    cruft(project, "update", "--skip-apply-ask")
    assert "# Changelog of the future\n" == (project / "CHANGELOG.md").read_text()
