"""Every lock belongs to the pyproject.toml it is generated with, and every pin is hashed."""

import json
import re
import subprocess
import tomllib

import pytest
from conftest import KIT, environment, generate
from test_hooks import pre

from scripts.locks import combinations, fingerprint, lock_folder, rendered_pyproject

COMBINATIONS = combinations()
PIN = re.compile(r"^([\w.-]+)(?:\[[\w, -]+\])?==([\w.+!]+)", re.MULTILINE)


def pins(manager, quality):
    """Read the locked versions of every distribution."""
    folder = lock_folder(manager, quality)
    if manager == "poetry":
        packages = tomllib.loads((folder / "poetry.lock").read_text())["package"]
        found = [(package["name"], package["version"]) for package in packages]
    else:
        found = PIN.findall((folder / "requirements-dev.txt").read_text())
    versions = {}
    for name, version in found:
        versions.setdefault(name, set()).add(version)
    return versions


def check_poetry_lock(folder):
    """Ask Poetry whether poetry.lock is that of the pyproject.toml beside it."""
    words = [environment()["POETRY"], "check", "--lock"]
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)


def test_every_combination_has_its_folder_and_no_other():
    """A manager or quality tool that is added or dropped takes its locks along."""
    folders = lock_folder("", "").parent.iterdir()
    assert {f"{manager}-{quality}" for manager, quality in COMBINATIONS} == {
        f.name for f in folders
    }


@pytest.mark.parametrize("quality", ["black", "ruff"])
def test_poetry_locks_are_fresh(tmp_path, quality):
    """Poetry accepts the lock for the generated pyproject.toml, and not for a changed one."""
    project = generate(tmp_path, manager="poetry", quality=quality)
    fresh = check_poetry_lock(project)
    assert 0 == fresh.returncode, fresh.stdout + fresh.stderr

    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"numpy>=2.4,<3"', '"numpy>=2.3,<3"'))
    assert "changed significantly" in check_poetry_lock(project).stderr


def test_the_kits_own_lock_is_fresh():
    """The kit installs what its pyproject.toml asks for."""
    fresh = check_poetry_lock(KIT)
    assert 0 == fresh.returncode, fresh.stdout + fresh.stderr


@pytest.mark.parametrize("quality", ["black", "ruff"])
@pytest.mark.parametrize(
    "name", [f"requirements{group}.txt" for group in ("", "-sklearn", "-monitor", "-dev")]
)
def test_requirements_are_fresh(quality, name):
    """The first line is the fingerprint of the dependencies that were resolved."""
    first, _ = (lock_folder("venv", quality) / name).read_text().split("\n", 1)
    assert f"# {fingerprint(rendered_pyproject('venv', quality))}" == first


def test_the_fingerprint_changes_with_every_dependency():
    """A changed bound, a new group and another range of Pythons are all noticed."""
    pyproject = rendered_pyproject("venv", "ruff")
    changed = [
        pyproject.replace('"numpy>=2.4,<3"', '"numpy>=2.3,<3"'),
        pyproject.replace("\ndev = [", '\nextra = ["rich"]\ndev = ['),
        pyproject.replace(">=3.11,<3.14", ">=3.11,<3.15"),
    ]
    assert 4 == len({fingerprint(text) for text in [pyproject, *changed]})


@pytest.mark.parametrize("quality", ["black", "ruff"])
@pytest.mark.parametrize(
    "name", [f"requirements{group}.txt" for group in ("", "-sklearn", "-monitor", "-dev")]
)
def test_every_requirement_is_pinned_and_hashed(quality, name):
    """Each entry is one version with at least one SHA-256."""
    text = (lock_folder("venv", quality) / name).read_text()
    entries = re.split(r"\n(?=[^\s#])", text.split("\n", 1)[1].strip())
    pin = r"[\w.-]+(\[[\w, -]+\])?==[\w.+!]+( ; [^\\]+?)?"
    entry = re.compile(rf"{pin}( \\\n    --hash=sha256:[0-9a-f]{{64}})+")
    assert [] == [words for words in entries if not entry.fullmatch(words)]


@pytest.mark.parametrize("quality", ["black", "ruff"])
def test_extras_are_pinned(quality):
    """For what a package asks with extras, older pips take no pin without them."""
    text = (lock_folder("venv", quality) / "requirements-dev.txt").read_text()
    # Of pytest-cov, and of the project itself.
    assert {"coverage[toml]", "psycopg[binary]"} <= set(re.findall(r"^(\S+)==", text, re.M))


@pytest.mark.parametrize("quality", ["black", "ruff"])
def test_every_locked_package_is_hashed(quality):
    """poetry.lock knows the SHA-256 of every file."""
    lock = tomllib.loads((lock_folder("poetry", quality) / "poetry.lock").read_text())
    hashes = [[file["hash"] for file in package["files"]] for package in lock["package"]]
    assert all(hashes)
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for files in hashes for value in files)


@pytest.mark.parametrize("manager", ["poetry", "venv"])
def test_quality_does_not_move_other_versions(manager):
    """Both quality variants install the same versions of what they share."""
    black, ruff = pins(manager, "black"), pins(manager, "ruff")
    shared = black.keys() & ruff.keys()
    assert {name: black[name] for name in shared} == {name: ruff[name] for name in shared}
    assert {"ruff"} == ruff.keys() - black.keys()


@pytest.mark.parametrize("quality", ["black", "ruff"])
def test_serving_is_a_part_of_everything(quality):
    """The image installs the versions that were tested, and nothing for training or development."""
    serving = PIN.findall((lock_folder("venv", quality) / "requirements.txt").read_text())
    everything = pins("venv", quality)
    assert [] == [(name, v) for name, v in serving if v not in everything.get(name, ())]
    assert set() == {"pandas", "matplotlib", "pytest", "mypy"} & {name for name, _ in serving}


def test_every_dependency_is_a_refused_name():
    """No project or package can take the name of something that is installed beside it."""
    names = {name for combination in COMBINATIONS for name in pins(*combination)}
    refused = pre.DEPENDENCIES.split()
    assert [] == sorted(n for n in names if re.sub(r"[-.]+", "_", n.lower()) not in refused)


def test_every_import_is_a_refused_name(default_project):
    """No package can hide a module of the environment."""
    script = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    python = default_project / ".venv/bin/python"
    listed = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    # Linux distributions put things of their own into these two, which no project imports.
    seeds = {"pip", "setuptools"}
    modules = json.loads(listed.stdout).items()
    imports = [name for name, sources in modules if not seeds >= set(sources)]
    names = [name for name in imports if re.fullmatch(r"[a-z][a-z0-9_]*", name)]
    free = [name for name in names if pre.reserved(name) is None and "mypyc" not in name]
    assert [] == free
