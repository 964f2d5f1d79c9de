"""The workflows of a new project, executed by act on this machine."""

import json
import os
import shutil
import subprocess
import sys

import engine
import images
import pytest
import yaml
from conftest import TEMPLATE, generate, leave_out
from host import ENVIRONMENTS, running
from runner import MAIN, PASSWORD, PYTHONS, STANDINS, TOOLS, repository

FAILING_TEST = "\n\ndef test_seeded():\n    assert False\n"

pytestmark = [
    pytest.mark.skipif(not engine.client(), reason="no Docker engine with BuildKit"),
    pytest.mark.skipif(not (TOOLS / "act").exists(), reason="no act"),
]


GITHUB = """#!{python}
import json, shutil, sys
words = sys.argv[1:]
with open({asked!r}, "a") as file:
    file.write(json.dumps(words) + chr(10))
if words[:2] == ["run", "list"]:
    print('[{{"databaseId": 7, "headSha": "c0ffeec0ffee00", "createdAt": "2026-11-02T10:00:00Z"}}]')
else:
    name, place = (words[words.index(option) + 1] for option in ("--name", "--dir"))
    shutil.copytree({kept!r} + "/" + name, place)
"""


def deployed(runner, bundle, size):
    """Let GitHub say that a run deployed this bundle, in an image of this size."""
    kept, asked = runner.folder / "github", runner.folder / "asked.jsonl"
    shutil.copytree(bundle, kept / "bundle")
    (kept / "image-size").mkdir()
    (kept / "image-size/image-size").write_text(f"{size}\n")
    words = {"python": sys.executable, "asked": str(asked), "kept": str(kept)}
    runner.place("gh", GITHUB.format(**words))


def seed(runner, path, text):
    """Add lines to a file and commit."""
    file = runner.repository / path
    file.write_text(f"{file.read_text(encoding='utf-8')}{text}", encoding="utf-8")
    runner.commit()


def test_green(runner, default_project):
    """Ci.yml passes on a new project, and its image holds the model that it trained."""
    deployed(runner, default_project / "bundle", size=1_000_000)
    run = runner.act("ci.yml", "pull_request", f"--matrix=python:{MAIN}", branch="topic")
    assert 0 == run.code, run.text[-5000:]
    jobs = {"lint", f"test ({MAIN})", "train", "image", "gate"}
    assert dict.fromkeys(jobs, "success") == run.jobs
    assert ".venv/bin/pylint --score n src tests" in run.text
    assert [True] == [any(kept.iterdir()) for kept in runner.folder.glob("cache/mypy-*")]
    assert "Installing poetry.lock" not in run.text  # the cache has the environment
    assert "7 passed" in run.text
    assert '⚙  Summary - <pre>{\n  "' in run.text
    kept = runner.folder / "artifacts"
    names = {"bundle", "reports", "image-size", f"coverage-{MAIN}"}
    assert names == {path.name for path in kept.iterdir()}
    image = f"model:{runner.git('rev-parse', 'HEAD')}"
    card = engine.docker("run", "--rm", image, "cat", "bundle/card.json")
    assert json.loads((kept / "bundle/card.json").read_text("utf-8")) == json.loads(card)

    version = json.loads(card)["version"]
    assert f"## Penguins, version {version}" in run.text
    assert f"what was deployed on 2026-11-02 from c0ffeec0ffee, version {version}." in run.text
    assert "| Balanced accuracy | 98.9\u00a0% | 98.9\u00a0% | 0 | same |" in run.text
    size = int(engine.docker("image", "inspect", "--format={{.Size}}", image))
    assert f"{size}\n" == (kept / "image-size/image-size").read_text()
    more = f"{(size - 1_000_000) / 1e6:.1f} MB more than the deployed one (1.0 MB)"
    assert f"**Image**: {size / 1e6:.1f} MB, {more}." in run.text
    assert "The report is in this run's artifact `reports`: `report.html`." in run.text
    assert (kept / "reports/report.html").is_file()


def test_red(runner):
    """A failing test, a finding, an image that does not serve: their jobs are red, and the gate."""
    runner.lighten()
    seed(runner, "tests/test_settings.py", FAILING_TEST)
    seed(runner, "src/penguins/errors.py", "\n\nimport os\n")
    seed(runner, "Dockerfile", 'CMD ["python", "-m", "penguins", "score"]\n')
    run = runner.act("ci.yml", "push", f"--matrix=python:{MAIN}", branch="topic")
    steps = {"lint": "make lint", f"test ({MAIN})": "make test", "image": "make image-test"}
    assert {*steps.items(), ("gate", "Every job succeeded")} == run.failed
    assert dict.fromkeys([*steps, "gate"], "failure") | {"train": "success"} == run.jobs
    assert 1 == run.code


class Site:
    """A repository, a registry of images, and a host with both environments."""

    def __init__(self, runner, registry, host):
        self.runner, self.registry, self.host = runner, registry, host
        self.variables = {"REGISTRY": registry.address, "REGISTRY_USER": "robot", **host.variables}
        self.secrets = {"REGISTRY_PASSWORD": PASSWORD, **host.secrets}

    def act(self, event, digest="", secrets=None, branch="main", **variables):
        """Execute deploy.yml."""
        # What GitHub keeps, it keeps for each run.
        shutil.rmtree(self.runner.folder / "artifacts", ignore_errors=True)
        return self.runner.act(
            "deploy.yml",
            event,
            *(f"--matrix=python:{MAIN}", "--concurrent-jobs=2"),
            branch=branch,
            inputs={"digest": digest} if digest else {},
            variables=self.variables | variables,
            secrets=self.secrets if secrets is None else secrets,
        )

    def release(self, event, digest="", **variables):
        """Execute deploy.yml, which has to succeed; return the run and its record."""
        run = self.act(event, digest, **variables)
        assert 0 == run.code, run.text[-6000:]
        kept = self.runner.folder / "artifacts/deployment/deployment.json"
        return run, json.loads(kept.read_text(encoding="utf-8"))

    def serving(self):
        """What serves in staging and in production: image, and version of the model."""
        return [(self.host.image(name), self.host.version(name)) for name in ENVIRONMENTS]


@pytest.fixture(scope="module")
def site(default_project, tmp_path_factory):
    """A site whose repository is lighter than a new one: here the deployment is looked at."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "registry").mkdir()
    with (
        images.registry(folder / "registry") as registry,
        running(folder / "host") as host,
        repository(folder, default_project) as runner,
    ):
        leave_out(runner.repository, "$(RUN)mypy", "$(RUN)flake8")
        runner.lighten()
        runner.change("Makefile", "pytest -m image", "pytest -m image -k prediction")
        runner.change("params.yaml", "params: {} ", "params: {C: 0.5} ")
        said = f'STANDIN_GH={folder} exec {sys.executable} {STANDINS}/gh "$@"'
        runner.place("gh", f"#!/bin/sh\n{said}\n")
        yield Site(runner, registry, host)


@pytest.fixture(scope="module")
def pushed(site):
    """A push to main: its run, its record, and what serves."""
    return *site.release("push"), site.serving()


@pytest.fixture(scope="module")
def champion(site, pushed, default_project):
    """A push that takes the champion instead of training: its run, its record, what serves."""
    store = f"sqlite:///{shutil.copy(default_project / 'mlflow.db', site.runner.folder)}"
    crown = "import mlflow, sys; mlflow.MlflowClient(*sys.argv[1:2] * 2)"
    crown += ".set_registered_model_alias('penguins', 'champion', '1')"
    python = default_project / ".venv/bin/python"
    subprocess.run([python, "-c", crown, store], check=True, capture_output=True)
    site.runner.change("params.yaml", "model: train ", "model: models:/penguins@champion ")
    return *site.release("push", MLFLOW_TRACKING_URI=store), site.serving()


def test_a_push_serves(site, pushed):
    """The image that passed CI serves in staging and then in production, by its digest."""
    run, record, serving = pushed
    jobs = ["ready", "lint", f"test ({MAIN})", "train", "image", "gate", "scan", "push", "staging"]
    jobs += ["production", "record", "prepare", "publish"]
    assert dict.fromkeys(jobs, "success") == {job: run.jobs.get(job) for job in jobs}

    commit = record["commit"]
    # GitHub keeps capital letters in a repository's name, registries refuse them.
    name, digest = record["image"].split("@")
    assert f"{site.registry.address}/your-org/penguins" == name
    by_digest, manifest = site.registry.ask(f"your-org/penguins/manifests/{digest}")
    by_commit, _ = site.registry.ask(f"your-org/penguins/manifests/{commit}")
    assert {digest} == {by_digest, by_commit}
    tested = engine.docker("inspect", "--format={{.Id}}", f"model:{commit}")
    assert tested == manifest["config"]["digest"]

    card = json.loads(engine.docker("run", "--rm", f"model:{commit}", "cat", "bundle/card.json"))
    assert [(record["image"], card["version"])] * 2 == serving
    assert 0.5 == card["settings"]["training"]["params"]["C"]


def test_a_push_is_recorded(site, pushed):
    """The record says what serves where, what served before, and is shown with the run."""
    run, record, _ = pushed
    for name in ENVIRONMENTS:
        assert "success" == record[name]["result"]
        assert site.host.addresses[name] == record[name]["url"]
        assert f"Penguins {site_version(pushed)}" == record[name]["model"]
        assert "" == record[name]["previous"]
    assert "## Deployed" in run.text
    assert "Nothing served in production before." in run.text


def test_what_serves_is_released(site, pushed):
    """A version without a tag gets one, and a release with its bundle and its SBOM."""
    lines = (site.runner.folder / "calls.jsonl").read_text().splitlines()
    calls = [json.loads(line)["argv"] for line in lines]
    # No later commit has raised the version.
    first = site.runner.git("rev-list", "--max-parents=0", "HEAD")
    create = ["release", "create", "v0.1.0", "--target", first, "--title", "v0.1.0"]
    files = ["bundle-v0.1.0.tar.gz", "sbom/environment.cdx.json", "sbom/image.cdx.json"]
    assert [*create, "--notes-file", "-", *files] in calls


def site_version(deployed):
    """The version of the model that serves in production."""
    return deployed[2][1][1]


def test_no_secret_is_told(site, pushed, champion):
    """No log has a password or a line of the key, though act was told to hide nothing."""
    key = [line for line in site.secrets["DEPLOY_CREDENTIAL"].splitlines() if "-----" not in line]
    for deployed in (pushed, champion):
        assert [] == [line for line in (PASSWORD, *key) if line in deployed[0].text]


def test_the_champion_serves(site, pushed, champion, default_project):
    """With image.model in params.yaml the registry's champion serves, and nothing is trained."""
    run, record, serving = champion
    version = json.loads((default_project / "bundle/card.json").read_text("utf-8"))["version"]
    assert version != site_version(pushed)
    assert [(record["image"], version)] * 2 == serving
    assert f"fetch     version {version}, models:/penguins@champion" in run.text
    assert "Running stage" not in run.text
    assert not (site.runner.folder / "artifacts/reports").exists()
    before = pushed[1]["image"]
    assert [before] * 2 == [record[name]["previous"] for name in ENVIRONMENTS]
    assert f"gh workflow run deploy.yml -f digest={before.split('@')[1]}" in run.text


def test_a_digest_goes_back(site, pushed, champion):
    """A dispatch with the digest of an image puts that one into service, without building."""
    digest = pushed[1]["image"].split("@")[1]
    run, record = site.release("workflow_dispatch", digest)
    assert pushed[2] == site.serving()
    assert champion[1]["image"] == record["production"]["previous"]
    jobs = {"ready", "known", "staging", "production", "record"}
    assert dict.fromkeys(jobs, "success") == run.jobs
    assert "make image" not in run.text


def test_a_broken_release_stays_outside(site, pushed, tmp_path):
    """An image that does not start leaves what serves, turns the run red and says why."""
    name = pushed[1]["image"].split("@")[0]
    (tmp_path / "Dockerfile").write_text(
        f"FROM {pushed[1]['image']}\n"
        'CMD ["python", "-c", "raise SystemExit(\'the model has gone\')"]\n'
    )
    config = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), "DOCKER_BUILDKIT": "1"}
    login = ["login", "--username=robot", "--password-stdin", site.registry.address]
    engine.docker(*login, env=config, input=PASSWORD)
    engine.docker("build", f"--tag={name}:broken", tmp_path, env=config)
    try:
        engine.docker("push", f"{name}:broken", env=config)
    finally:
        engine.docker("rmi", f"{name}:broken")
    digest, _ = site.registry.ask("your-org/penguins/manifests/broken")
    before = site.serving()
    run = site.act("workflow_dispatch", digest)
    assert 1 == run.code
    assert "the new version is not well: the model has gone; what served before" in run.text
    # After a called workflow failed act ends, where GitHub goes on with `record`: see below.
    assert {"ready": "success", "known": "success", "staging": "failure"} == run.jobs
    assert before == site.serving()


def test_a_failure_is_recorded(tmp_path):
    """Where production was not reached the record says so, and offers no way back."""
    known = {
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "your-org/penguins",
        **dict.fromkeys(["GITHUB_SHA", "GITHUB_ACTOR", "GITHUB_RUN_ID"], "7"),
        "IMAGE": "registry.example/penguins@sha256:0",
        "STAGING": '{"result": "failure", "outputs": {}}',
        "PRODUCTION": '{"result": "skipped", "outputs": {}}',
    }
    script = TEMPLATE / ".github/record.sh"
    said = subprocess.check_output(
        ["bash", script], cwd=tmp_path, env={**os.environ, **known}, text=True
    )
    assert said.startswith("## Not deployed to production\n")
    assert "| staging | not deployed: failure |" in said
    assert "What served in production before goes on serving." in said
    assert "gh workflow run" not in said
    record = json.loads((tmp_path / "deployment.json").read_text())
    assert ["failure", "skipped"] == [record[name]["result"] for name in ENVIRONMENTS]


@pytest.mark.parametrize("event", ["push", "workflow_dispatch"])
@pytest.mark.parametrize("missing", ["DEPLOY_HOST", "DEPLOY_CREDENTIAL"])
def test_a_missing_setting_is_named_first(site, missing, event):
    """The first job says what is missing and where to set it; nothing else runs."""
    secrets = {name: value for name, value in site.secrets.items() if name != missing}
    emptied = {missing: ""} if missing in site.variables else {}
    run = site.act(event, secrets=secrets, **emptied)
    kind = "variable" if missing in site.variables else "secret"
    assert f"gh {kind} set {missing} --env staging" in run.text
    assert {"ready": "failure"} == run.jobs
    assert 1 == run.code


@pytest.mark.parametrize("digest", ["", f"sha256:{'0' * 64}"], ids=["build", "digest"])
def test_a_branch_is_not_deployed(site, digest):
    """Whoever dispatches another branch than main deploys nothing."""
    run = site.act("workflow_dispatch", digest, branch="topic")
    assert (0, {}) == (run.code, run.jobs), run.text


def test_a_wrong_digest_is_refused(site):
    """What is no digest is said before anything is touched."""
    run = site.act("workflow_dispatch", "latest")
    assert "digest is 'latest', expected sha256: and 64 hexadecimal digits" in run.text
    assert {"ready": "success", "known": "failure"} == run.jobs


def test_without_a_target(default_project, registry, tmp_path):
    """Where nothing is deployed a push to main ends with an image in the registry and a release."""
    project = generate(tmp_path, deploy="none")
    (project / ".venv").symlink_to(default_project / ".venv")
    (tmp_path / "runner").mkdir()
    with repository(tmp_path / "runner", project) as runner:
        leave_out(runner.repository, "$(RUN)mypy", "$(RUN)flake8")
        runner.lighten()
        said = f'STANDIN_GH={tmp_path} exec {sys.executable} {STANDINS}/gh "$@"'
        runner.place("gh", f"#!/bin/sh\n{said}\n")
        run = runner.act(
            "main.yml",
            "push",
            *(f"--matrix=python:{MAIN}", "--concurrent-jobs=2"),
            variables={"REGISTRY": registry.address, "REGISTRY_USER": "robot"},
            secrets={"REGISTRY_PASSWORD": PASSWORD},
        )
        assert 0 == run.code, run.text[-6000:]
        commit = runner.git("rev-parse", "HEAD")
        tested = engine.docker("inspect", "--format={{.Id}}", f"model:{commit}")
    assert {"success"} == set(run.jobs.values())
    _, manifest = registry.ask(f"your-org/penguins/manifests/{commit}")
    assert tested == manifest["config"]["digest"]
    calls = (tmp_path / "calls.jsonl").read_text().splitlines()
    assert ["release", "create", "v0.1.0"] in [json.loads(call)["argv"][:3] for call in calls]


@pytest.mark.skipif(len(PYTHONS) < 2, reason="no other Python")
def test_matrix(runner):
    """Another Python of the matrix installs the lock; test_projects.py does so with the third."""
    runner.lighten()
    other = next(version for version in PYTHONS if version != MAIN)
    run = runner.act("ci.yml", "push", "--job=test", f"--matrix=python:{other}", branch="topic")
    assert {f"test ({other})": "success"} == run.jobs
    assert "Installing poetry.lock into .venv" in run.text
    assert f"platform linux -- Python {other}." in run.text
    assert (runner.folder / f"artifacts/coverage-{other}/coverage.xml").is_file()
    declared = yaml.safe_load((runner.repository / ".github/workflows/ci.yml").read_text("utf-8"))
    assert ["3.11", "3.12", "3.13"] == declared["jobs"]["test"]["strategy"]["matrix"]["python"]
