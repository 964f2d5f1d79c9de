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
    .github/monitor.sh .github/release.sh .github/repository.py .github/retrain.sh
    .github/settings.env.example .github/workflows/monitor.yml .github/workflows/retrain.yml
    .trivyignore.yaml
    .github/workflows/ci.yml .github/workflows/publish.yml .github/workflows/release.yml
    .github/workflows/security.yml .github/workflows/site.yml docs/security.md
    CHANGELOG.md CONTRIBUTING.md Dockerfile LICENSE MLproject Makefile README.md compose.yaml
    data/feedback/README.md
    data/raw/README.md data/raw/penguins.csv docs/architecture.md dvc.yaml params.yaml
    docs/index.md docs/site.css docs/runbooks/index.md docs/runbooks/not-ready.md
    docs/runbooks/roll-back.md docs/runbooks/rotate-secrets.md docs/runbooks/store.md
    docs/runbooks/wrong-predictions.md docs/runbooks/drift.md docs/runbooks/degradation.md
    docs/runbooks/stale-monitor.md docs/runbooks/errors.md docs/runbooks/latency.md
    docs/runbooks/service-down.md docs/monitoring.md
    monitoring/alertmanager.yml monitoring/alerts.yml monitoring/alerts_test.yml
    monitoring/prometheus.yml monitoring/grafana/dashboards/files.yml
    monitoring/grafana/dashboards/model.json monitoring/grafana/dashboards/service.json
    monitoring/grafana/datasources/prometheus.yml
    pyproject.toml zensical.toml
"""
ADDED = {
    ("manager", "poetry"): "poetry.lock poetry.toml",
    ("manager", "venv"): """
        requirements.txt requirements-sklearn.txt requirements-monitor.txt requirements-dev.txt
    """,
    ("quality", "black"): ".flake8",
    ("deploy", "ssh"): """
        .github/workflows/deploy.yml .github/workflows/target.yml .github/record.sh docs/deploy.md
        deploy/bootstrap.sh deploy/deploy.sh deploy/host.sh docs/runbooks/failed-deployment.md
    """,
    ("deploy", "kubernetes"): """
        .github/workflows/deploy.yml .github/workflows/target.yml .github/record.sh docs/deploy.md
        docs/runbooks/failed-deployment.md
        deploy/deploy.sh deploy/prepare.sh
        deploy/access/deployer.yaml deploy/access/kustomization.yaml deploy/access/namespace.yaml
        deploy/base/autoscaler.yaml deploy/base/deployment.yaml deploy/base/disruption-budget.yaml
        deploy/base/ingress.yaml deploy/base/kustomization.yaml deploy/base/network-policy.yaml
        deploy/base/service.yaml
        deploy/monitoring/kustomization.yaml deploy/monitoring/service-monitor.yaml
        deploy/overlays/production/kustomization.yaml deploy/overlays/staging/kustomization.yaml
    """,
    ("deploy", "none"): ".github/workflows/main.yml",
}
COPIED = ("src", ".github", "data", "deploy-ssh", "deploy-kubernetes", "monitoring/grafana")
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
    """Sources, workflows, scripts and data hold no Jinja, so they are checked in the template."""
    copied = {
        path.relative_to(TEMPLATE).as_posix()
        for folder in COPIED
        for path in (TEMPLATE / folder).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        # Objects hold the project's name.
        and (folder != "deploy-kubernetes" or path.suffix == ".sh")
    }
    for deploy in QUESTIONS["deploy"]:
        project = generate(tmp_path / deploy, project_name="Zebra", deploy=deploy)
        for name in copied:
            arrived = project / name.replace("{{cookiecutter.package}}", "zebra").replace(
                f"-{deploy}", "", 1
            )
            if arrived.exists() and (TEMPLATE / name).read_bytes() == arrived.read_bytes():
                copied = copied - {name}
    assert set() == copied


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
