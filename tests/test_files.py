"""The exact set of files that every option value generates."""

import pytest
from conftest import KIT, TEMPLATE, files, generate
from test_answers import QUESTIONS

# One project is the sum of these lines: what every project has, and what a value adds.
EVERY = """
    .devcontainer/devcontainer.json .dvc/.gitignore .dvc/config .dvcignore
    .dockerignore .editorconfig .gitattributes .gitignore .pre-commit-config.yaml .python-version
    .github/ISSUE_TEMPLATE/bug.yml .github/PULL_REQUEST_TEMPLATE.md
    .github/actions/setup/action.yml .github/dependabot.yml .github/zizmor.yml
    .github/workflows/ci.yml .github/workflows/deploy.yml
    CHANGELOG.md CONTRIBUTING.md Dockerfile LICENSE MLproject Makefile README.md compose.yaml
    data/raw/README.md data/raw/penguins.csv docs/architecture.md dvc.yaml params.yaml
    pyproject.toml
"""
ADDED = {
    ("manager", "poetry"): "poetry.lock poetry.toml",
    ("manager", "venv"): "requirements.txt requirements-sklearn.txt requirements-dev.txt",
    ("quality", "black"): ".flake8",
}
CODE = ("src/penguins/", "tests/")
VALUES = [(option, value) for option, values in QUESTIONS["_optional"].items() for value in values]


def expected(**chosen):
    """Sum the lines for the default answers with some of them changed."""
    answers = {option: next(iter(values)) for option, values in QUESTIONS["_optional"].items()}
    answers |= chosen
    return {
        *EVERY.split(),
        *(path for key in answers.items() for path in ADDED.get(key, "").split()),
    }


@pytest.mark.parametrize(("option", "value"), VALUES, ids=map("=".join, VALUES))
def test_files_of_every_option_value(tmp_path, option, value):
    """A value adds its own files, and leaves out those of the other values."""
    found = files(generate(tmp_path, **{option: value}))
    assert expected(**{option: value}) == {path for path in found if not path.startswith(CODE)}


def test_source_files(tmp_path):
    """Every source, test and asset arrives once, under the package's name."""
    project = generate(tmp_path)
    folders = (TEMPLATE / "src/{{cookiecutter.package}}", TEMPLATE / "tests")
    template = {
        path.relative_to(TEMPLATE).as_posix().replace("{{cookiecutter.package}}", "penguins")
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert template == {path for path in files(project) if path.startswith(CODE)}


@pytest.mark.parametrize("license", QUESTIONS["license"])
def test_the_license_that_was_asked_for(tmp_path, license):
    """LICENSE has the words of the chosen one, and the author's name."""
    text = (generate(tmp_path, license=license, author="Ada") / "LICENSE").read_text()
    words = {
        "MIT": "Permission is hereby granted, free of charge",
        "BSD-3-Clause": "Redistribution and use in source and binary forms",
        "Apache-2.0": "Licensed under the Apache License, Version 2.0",
        "proprietary": "All rights reserved.",
    }
    assert [license] == [name for name, start in words.items() if start in text]
    assert "Copyright (c) Ada" in text or "Copyright Ada" in text


def test_copied_files_are_byte_identical(tmp_path):
    """Python sources, workflows and data hold no Jinja, so they can be checked in the template."""
    project = generate(tmp_path, project_name="Zebra")
    copied = [
        path
        for folder in ("src", ".github", "data")
        for path in (TEMPLATE / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    changed = [
        name
        for path in copied
        if (name := path.relative_to(TEMPLATE).as_posix())
        and path.read_bytes()
        != (project / name.replace("{{cookiecutter.package}}", "zebra")).read_bytes()
    ]
    assert [] == changed


def test_every_folder_is_on_the_architecture_page():
    """Every folder at the top is one that the architecture page names."""
    named = (KIT / "docs/architecture.md").read_text()
    made = (
        ".git",
        ".artifacts",
        ".cache",
        ".poetry",
        ".pytest_cache",
        ".ruff_cache",
        ".venv",
        "demo",
    )
    folders = {path.name for path in KIT.iterdir() if path.is_dir() and path.name not in made}
    assert set() == {name for name in folders if f"{name}/" not in named}
