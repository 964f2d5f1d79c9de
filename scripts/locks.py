"""Resolve the lock of every manager with every quality option: `make locks`."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

import uv
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context

KIT = Path(__file__).resolve().parents[1]
TEMPLATE = KIT / "{{cookiecutter.project}}"


def combinations():
    """List every (manager, quality), the two answers that change dependencies."""
    options = json.loads((KIT / "cookiecutter.json").read_text())
    return list(itertools.product(options["manager"], options["quality"]))


def lock_folder(manager, quality):
    """Name the template's folder with the lock of a combination."""
    return TEMPLATE / ".locks" / f"{manager}-{quality}"


def rendered_pyproject(manager, quality):
    """Render the template's pyproject.toml for a combination, without generating."""
    answers = {"manager": manager, "quality": quality}
    context = generate_context(str(KIT / "cookiecutter.json"), extra_context=answers)
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    environment = create_env_with_context(context)
    template = environment.from_string((TEMPLATE / "pyproject.toml").read_text())
    return template.render(**context)


def fingerprint(pyproject):
    """Say in one line, with a hash, what a lock is resolved from."""
    tables = tomllib.loads(pyproject)
    project = tables["project"]
    source = [project["requires-python"], project["dependencies"], tables["dependency-groups"]]
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()
    return f"Resolved from the dependencies of pyproject.toml, sha256:{digest}"


def lock_with_poetry(folder):
    """Write poetry.lock beside pyproject.toml."""
    poetry = os.environ.get("POETRY", str(KIT / ".poetry/bin/poetry"))
    environment = {**os.environ, "POETRY_VIRTUALENVS_CREATE": "false"}
    words = [poetry, "lock", "--no-interaction", "--quiet"]
    subprocess.run(words, cwd=folder, env=environment, check=True)


def lock_with_uv(folder):
    """Write requirements-dev.txt (all groups), and from the same pins what an image installs."""
    mark = f"# {fingerprint((folder / 'pyproject.toml').read_text())}\n"
    compile_pins = [
        uv.find_uv_bin(),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--generate-hashes",
    ]
    # Without its extras pip does not take a pin for what a package with them asks for.
    compile_pins += ["--no-strip-extras", "--no-header", "--no-annotate"]
    compile_pins += ["--python-version", "3.11", "pyproject.toml"]
    everything = ["--group", "train", "--group", "dev", "--output-file", "requirements-dev.txt"]
    serving = ["--constraint", "requirements-dev.txt", "--output-file", "requirements.txt"]
    groups = [
        ["--group", name, *serving[:3], f"requirements-{name}.txt"]
        for name in ("sklearn", "monitor")
    ]
    for words in (everything, serving, *groups):
        subprocess.run([*compile_pins, *words], cwd=folder, check=True)
    for words in (everything, serving, *groups):
        pins = folder / words[-1]
        pins.write_text(mark + pins.read_text())


def main():
    """Resolve every combination into the template."""
    with tempfile.TemporaryDirectory() as folder:
        # A manager's second lock starts from its first, so that shared versions agree. Ruff has no
        # dependencies, so it is first: it cannot make Poetry split a package by Python version.
        for manager, quality in reversed(combinations()):
            print(f"{manager} with {quality}", flush=True)
            work = Path(folder) / manager
            work.mkdir(exist_ok=True)
            source = work / "pyproject.toml"
            source.write_text(rendered_pyproject(manager, quality))
            lock_with_poetry(work) if manager == "poetry" else lock_with_uv(work)
            target = lock_folder(manager, quality)
            target.mkdir(parents=True, exist_ok=True)
            for lock in set(work.iterdir()) - {source}:
                shutil.copy(lock, target)


if __name__ == "__main__":
    main()
