"""What the hooks refuse, and what they leave behind, by the real command too."""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import uv
from conftest import KIT, files, generate
from test_answers import answered


def hook(name):
    """Import a hook without rendering it."""
    spec = importlib.util.spec_from_file_location(name, KIT / f"hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pre = hook("pre_gen_project")
post = hook("post_gen_project")


def problems(**answers):
    """Ask the hook about answers that cookiecutter itself lets through."""
    return pre.problems({**answered(), **answers}, [])


def cookiecutter(into, *words, **environment):
    """Run the real command, with a home of its own for its replay files."""
    return subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(KIT), "--output-dir", str(into), *words],
        env={**os.environ, "HOME": str(into.parent), **environment},
        capture_output=True,
        text=True,
    )


def git(folder, *words):
    """Ask git about a folder."""
    run = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("package", "reason", "better"),
    [
        ("json", "a module of the standard library", "json_model"),
        ("test", "a module of the standard library", "test_model"),
        ("class", "a Python keyword", "class_model"),
        ("match", "a Python keyword", "match_model"),
        ("mlflow", "taken in every generated project", "mlflow_model"),
        ("sklearn", "taken in every generated project", "sklearn_model"),
        ("tests", "taken in every generated project", "tests_model"),
        ("2nd", "not a lower-case Python package name", "model_2nd"),
        ("Penguins", "not a lower-case Python package name", "penguins"),
        ("my-package", "not a lower-case Python package name", "my_package"),
        ("café", "not a lower-case Python package name", "cafe"),
        ("_private", "not a lower-case Python package name", "private"),
        ("", "not a lower-case Python package name", "penguins"),
        ("a" * 41, "longer than 40 characters", "a" * 40),
    ],
)
def test_package_names(package, reason, better):
    """A package that would hide another, or be none, is refused with a name that works."""
    assert [f"package: {package!r} is {reason}; {better} would work"] == problems(package=package)
    assert [] == problems(package=better)


@pytest.mark.parametrize(
    ("project", "reason", "better"),
    [
        ("My Project", "no name for a folder, repository and distribution", "my-project"),
        ("../up", "no name for a folder, repository and distribution", "up"),
        ("a--b-", "no name for a folder, repository and distribution", "a-b"),
        ("Zebra", "no name for a folder, repository and distribution", "zebra"),
        ("zebra.git", "no name for a folder, repository and distribution", "zebra"),
        ("", "no name for a folder, repository and distribution", "penguins"),
        ("scikit-learn", "taken in every generated project", "scikit-learn-model"),
        ("numpy", "taken in every generated project", "numpy-model"),
    ],
)
def test_project_names(project, reason, better):
    """A name that no folder, repository, image or distribution may have is refused."""
    assert [f"project: {project!r} is {reason}; {better} would work"] == problems(project=project)
    assert [] == problems(project=better)


@pytest.mark.parametrize(
    ("owner", "better"),
    [("my org", "my-org"), ("-x", "x"), ("a--b", "a-b"), ("x" * 40, "x" * 39), ("o/p", "o-p")],
)
def test_owners(owner, better):
    """An owner that no GitHub login can be is refused."""
    expected = f"owner: {owner!r} is not a GitHub organisation or user; {better} would work"
    assert [expected] == problems(owner=owner)
    assert [] == problems(owner=better)


@pytest.mark.parametrize(
    ("text", "better"),
    [("two\nlines", "two lines"), ("a\ttab", "a tab"), ("", "Penguins"), ("bell\a", "bell")],
)
def test_texts(text, better):
    """Free text has to fit on one line of TOML, YAML and Markdown."""
    expected = f"description: {text!r} is not one line of text; {better} would work"
    assert [expected] == problems(description=text)
    assert [] == problems(description=better)


def test_unknown_options_and_values():
    """A replay file may hold what no question ever offered."""
    assert ["manager: 'conda' is not an option; poetry or venv would work"] == problems(
        manager="conda"
    )
    known = ", ".join([*pre.TEXTS, *answered()["_optional"]])
    assert [f"mangaer: there is no such question; one of {known} would work"] == problems(
        mangaer="venv"
    )


def test_unsupported_combinations():
    """A combination on the list is refused with the values that would do."""
    seeded = [{"manager": "poetry", "quality": "ruff"}]
    refused = "manager=poetry with quality=ruff is not supported; manager=venv would work"
    assert [refused] == problems(_unsupported=seeded, quality="ruff")
    assert [] == problems(_unsupported=seeded, quality="black")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("python /bin/cookiecutter kit --no-input mangaer=venv", ["mangaer"]),
        ("python -m cookiecutter -o a=b kit -c x=y manager=venv --output-dir=c=d", ["manager"]),
        ("/env/cookiecutter/bin/python /env/bin/cookiecutter gh:o/r a=1 b=2", ["a", "b"]),
        ('python /bin/cruft create kit --extra-context {"mangaer":"venv"}', ["mangaer"]),
        ("python /bin/cruft create kit -y", []),
        ("python my_script.py kit mangaer=venv", []),
    ],
)
def test_names_on_the_command_line(command, names):
    """Only cookiecutter's and cruft's own words are taken for answers."""
    assert names == pre.given_names(command.split())


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the system has no /proc")
def test_a_misspelt_question_is_refused_by_the_command(tmp_path):
    """Cookiecutter alone would generate with the default, without a word."""
    out = tmp_path / "out"
    run = cookiecutter(out, "--no-input", "mangaer=venv", "description=a = b")
    assert 1 == run.returncode
    assert "mangaer: there is no such question; one of project_name, " in run.stderr
    assert [] == list(out.iterdir())


def test_a_refusal_leaves_nothing_behind(tmp_path):
    """Every problem is said at once, in a line each, and no folder stays."""
    out = tmp_path / "out"
    run = cookiecutter(out, "--no-input", "package=json", "owner=a b")
    assert 1 == run.returncode
    lines = [line for line in run.stderr.splitlines() if line.endswith("would work")]
    assert [
        "package: 'json' is a module of the standard library; json_model would work",
        "owner: 'a b' is not a GitHub organisation or user; a-b would work",
    ] == lines
    assert [] == list(out.iterdir())


def test_a_wrong_choice_is_refused_by_the_command(tmp_path):
    """Cookiecutter refuses a value that is not offered."""
    run = cookiecutter(tmp_path / "out", "--no-input", "manager=conda")
    assert 1 == run.returncode
    assert "conda provided for choice variable manager" in run.stderr


def test_replay(tmp_path):
    """The answers of the last run generate the same files again."""
    assert (
        0
        == cookiecutter(
            tmp_path / "one", "--no-input", "project_name=Zebra", "quality=ruff"
        ).returncode
    )
    again = cookiecutter(tmp_path / "two", "--replay")
    assert 0 == again.returncode, again.stderr
    assert files(tmp_path / "one/zebra") == files(tmp_path / "two/zebra")


def test_the_next_commands_are_said(tmp_path):
    """The last words are what to type."""
    run = cookiecutter(tmp_path / "out", "--no-input", "project_name=Zebra")
    assert ["Next:", "  cd zebra", "  make serve"] == run.stdout.splitlines()[-3:]


def test_the_project_is_a_clean_repository_with_one_commit(tmp_path):
    """Everything generated is committed on main, and nothing is left over."""
    project = generate(tmp_path, project_name="Zebra")
    assert "main" == git(project, "branch", "--show-current")
    assert "Generate the project" == git(project, "log", "--format=%s")
    assert "" == git(project, "status", "--porcelain")
    assert files(project) == set(git(project, "ls-files").splitlines())


def test_the_author_commits_where_git_knows_nobody(tmp_path):
    """A fresh machine has no user.name; the author of the answers stands in."""
    config = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    config |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.useConfigOnly"}
    run = cookiecutter(
        tmp_path / "out", "--no-input", "author=Zoë", **config, GIT_CONFIG_VALUE_0="true"
    )
    assert 0 == run.returncode, run.stderr
    assert "Zoë" == git(tmp_path / "out/penguins", "log", "--format=%an")


def test_no_repository_inside_another(tmp_path):
    """A project generated into a repository becomes part of it."""
    git(tmp_path, "init", "--quiet")
    run = cookiecutter(tmp_path / "out", "--no-input")
    assert "No repository: this folder lies inside one." in run.stdout
    assert not (tmp_path / "out/penguins/.git").exists()


def test_a_repository_of_its_own_where_another_ignores_it(tmp_path):
    """A folder that the repository around it does not follow is none of its business."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/out/\n")
    run = cookiecutter(tmp_path / "out", "--no-input")
    assert "No repository" not in run.stdout
    assert "Generate the project" == git(tmp_path / "out/penguins", "log", "--format=%s")


def test_no_repository_without_git(tmp_path):
    """Git is not needed to generate."""
    run = cookiecutter(tmp_path / "out", "--no-input", PATH=str(tmp_path))
    assert "No repository: git is missing." in run.stdout
    assert 0 == run.returncode, run.stderr


def test_an_option_file_missing_from_the_template_fails(tmp_path):
    """The table may not name files that are not there."""
    (tmp_path / "kept").touch()
    answers = {"_optional": {"x": {"a": ["kept"], "b": ["gone"]}}, "x": "a", "license": "MIT"}
    with pytest.raises(FileNotFoundError):
        post.apply_options(tmp_path, answers)


AWKWARD = {
    "project_name": 'Zoë\'s "Pinguïns" 🐧 \\o/',
    "description": "It's \"quoted\", back\\slashed, naïve, '''tripled''' \"\"\" & 100 % 🐧",
    "author": 'Zoë "Z" O\'Neil <z@example.org>, Ünal \\ Co. 🐧',
}


@pytest.mark.parametrize("manager", ["poetry", "venv"])
def test_awkward_text_survives(tmp_path, manager):
    """Quotes, backslashes, accents and emoji arrive as they were typed, and the wheel builds."""
    project = generate(tmp_path, **AWKWARD, manager=manager)
    assert "zoe-s-pinguins-o" == project.name
    tables = tomllib.loads((project / "pyproject.toml").read_text())
    assert AWKWARD["description"] == tables["project"]["description"]
    readme = (project / "README.md").read_text()
    assert [f"# {AWKWARD['project_name']}", "", AWKWARD["description"]] == readme.splitlines()[:3]
    assert f"Copyright (c) {AWKWARD['author']}" in (project / "LICENSE").read_text().splitlines()

    build = [uv.find_uv_bin(), "build", "--quiet", "--wheel", "--python", sys.executable]
    subprocess.run(build, cwd=project, check=True)
    wheel = next((project / "dist").glob("*.whl"))
    assert "zoe_s_pinguins_o-0.1.0-py3-none-any.whl" == wheel.name
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read("zoe_s_pinguins_o-0.1.0.dist-info/METADATA").decode()
        assert "zoe_s_pinguins_o/cli.py" in archive.namelist()
    assert f"Summary: {AWKWARD['description']}" in metadata.splitlines()


def cruft(folder, *words, errors=False):
    """Run cruft in a folder and return what it says, with its errors or without."""
    run = subprocess.run(
        [Path(sys.executable).with_name("cruft"), *words],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert 0 == run.returncode, run.stdout + run.stderr
    return run.stdout + run.stderr if errors else run.stdout


def test_cruft(tmp_path, kit_repository):
    """A project follows the kit: created, checked, and updated when a template file changes."""
    said = cruft(tmp_path, "create", str(kit_repository), "--no-input", "--default-config")
    assert "cruft adds .cruft.json first" in said
    project = tmp_path / "penguins"
    assert not (project / ".git").exists()
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    cruft(project, "check")
    cruft(project, "diff", "--exit-code")

    changed = kit_repository / "{{cookiecutter.project}}/CHANGELOG.md"
    changed.write_text("# Changelog of the future\n")
    git(kit_repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "change")
    cruft(project, "update", "--skip-apply-ask")
    assert "# Changelog of the future\n" == (project / "CHANGELOG.md").read_text()
    assert json.loads((project / ".cruft.json").read_text())["commit"] == git(
        kit_repository, "rev-parse", "HEAD"
    )
