"""What goes into a release is listed, judged and signed, and is the same whenever it is built."""

import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import threading
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import engine
import pytest
import yaml
from conftest import TEMPLATE, generate
from runner import PASSWORD, TOOLS

from scripts.demo import environment

docker = pytest.mark.skipif(not engine.client(), reason="no Docker engine with BuildKit")
act = pytest.mark.skipif(not (TOOLS / "act").exists(), reason="no act")

CALLER = """
on: workflow_dispatch
jobs:
  publish:
    uses: ./.github/workflows/publish.yml
    secrets:
      REGISTRY_PASSWORD: ${{ secrets.REGISTRY_PASSWORD }}
"""
# Other tests install the environment; listing it needs no more than the folder.
SETUP = """
runs:
  using: composite
  steps:
    - run: mkdir .venv
      shell: bash
"""
SCAN = {"input": "image.tar", "scanners": "vuln,secret", "trivyignores": ".trivyignore.yaml"}
# In two parts, so that nobody takes it for a key here.
KEY = "AKIA" + "IOSFODNN7EXAMPLE"
VULNERABILITY = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-12345"],
    "affected": [
        {
            "package": {"name": "msgspec", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}
STALE = """
import importlib.util, pathlib, sys
import penguins.inference, penguins.serving.server
for module in list(sys.modules.values()):
    if cached := getattr(module, "__cached__", None):
        source, compiled = pathlib.Path(module.__file__).stat(), pathlib.Path(cached).read_bytes()
        flags, date, size = (int.from_bytes(compiled[i : i + 4], "little") for i in (4, 8, 12))
        if (flags, date, size) != (0, int(source.st_mtime), source.st_size):
            print(module.__name__)
"""


def accept(project, days):
    """Accept the sown finding until so many days from now."""
    until = datetime.now(UTC).date() + timedelta(days=days)
    entry = {"id": "CVE-2026-12345", "expired_at": until, "statement": "Sown."}
    (project / ".trivyignore.yaml").write_text(yaml.safe_dump({"vulnerabilities": [entry]}))


def execute(runner, workflow, event, *arguments, private=False):
    """Execute a workflow in a public or a private repository."""
    payload = runner.folder / "payload.json"
    payload.write_text(json.dumps({"repository": {"private": private}}))
    return runner.act(workflow, event, f"--eventpath={payload}", *arguments)


def publish(runner, registry, *arguments, private=False):
    """Execute publish.yml as ci leaves it to: with a bundle, and an image that is small here."""
    (runner.repository / ".github/workflows/caller.yml").write_text(CALLER)
    (runner.repository / ".github/actions/setup/action.yml").write_text(SETUP)
    image = f"model:{runner.commit()}"
    for name in ("image", "bundle"):
        (runner.folder / "artifacts" / name).mkdir(parents=True)
    bundle = runner.folder / "artifacts/bundle"
    (bundle / "card.json").write_text('{"version": "1"}')
    content = subprocess.Popen(
        ["tar", "--create", f"--directory={bundle}", "."], stdout=subprocess.PIPE
    )
    engine.docker("import", "-", image, stdin=content.stdout)
    engine.docker("save", f"--output={runner.folder / 'artifacts/image/image.tar'}", image)
    return execute(
        runner,
        "caller.yml",
        "workflow_dispatch",
        *(f"--var=REGISTRY={registry.address}", "--var=REGISTRY_USER=robot"),
        *("--secret=REGISTRY_PASSWORD", *arguments),
        private=private,
    )


def given(run, action, job=None):
    """List what an action was given each time, without what was left out."""
    return [
        {name: value for name, value in entry["inputs"].items() if value}
        for entry in run.trace
        if entry["action"] == action and job in (None, entry["job"])
    ]


@docker
@act
def test_publish(runner, registry):
    """The image of ci is listed, judged, pushed, and attested by the digest that it got."""
    run = publish(runner, registry)
    assert 0 == run.code, run.text[-5000:]
    jobs = ("sbom", "scan", "push", "attest")
    assert dict.fromkeys(jobs, "success") == {job: run.jobs[job] for job in jobs}
    order = [entry["job"] for entry in run.trace]
    assert order.index("scan") < order.index("push") < order.index("attest")
    assert PASSWORD not in run.text

    name, digest = run.outputs["image"].split("@")
    assert f"{registry.address}/your-org/penguins" == name
    commit = runner.git("rev-parse", "HEAD")
    pushed, manifest = registry.ask(f"your-org/penguins/manifests/{commit}")
    assert pushed == digest
    saved = engine.docker("inspect", "--format={{.Id}}", f"model:{commit}")
    assert saved == manifest["config"]["digest"]

    listed = {"format": "cyclonedx", "output": "sbom/environment.cdx.json"}
    assert [
        {"input": "image.tar", "format": "cyclonedx", "output": "sbom/image.cdx.json"},
        {"scan-type": "rootfs", "scan-ref": ".venv"} | listed,
    ] == given(run, "trivy-action", "sbom")
    assert [
        SCAN | {"format": "sarif", "output": "image.sarif"},
        SCAN | {"severity": "HIGH,CRITICAL", "ignore-unfixed": "true", "exit-code": "1"},
    ] == given(run, "trivy-action", "scan")
    assert [{"sarif_file": "image.sarif", "category": "image"}] == given(run, "codeql-upload-sarif")
    beside = {"push-to-registry": "true", "create-storage-record": "false"}
    image = {"subject-name": name, "subject-digest": digest} | beside
    bundle = {"subject-path": "bundle/*"}
    card = {
        "predicate-type": "https://github.com/Your-Org/Penguins/model-card",
        "predicate-path": "bundle/card.json",
    }
    assert [
        image,
        image | {"sbom-path": "sbom/image.cdx.json"},
        bundle | card,
        bundle | {"sbom-path": "sbom/environment.cdx.json"},
    ] == given(run, "attest")


@docker
@act
@pytest.mark.parametrize(
    ("severity", "days", "result"),
    [("HIGH", None, "failure"), ("CRITICAL", 0, "failure"), ("HIGH", 2, "success")],
    ids=["new", "expired", "accepted"],
)
def test_scan(runner, registry, severity, days, result):
    """A severe finding stops the push, unless it is accepted until a day that has not come."""
    if days is not None:
        accept(runner.repository, days)
    sown = f"CVE-2026-1:MEDIUM CVE-2026-12345:{severity}"
    run = publish(runner, registry, f"--env=STANDIN_FINDINGS={sown}")
    assert result == run.jobs["scan"]
    done = {"push", "attest"} if result == "success" else set()
    assert done == {job for job in ("push", "attest") if run.jobs.get(job) == "success"}
    assert bool(done) == ("image" in run.outputs)
    # Also the run that is red has told the Security tab why.
    assert 1 == len(given(run, "codeql-upload-sarif"))


@docker
@act
@pytest.mark.parametrize(("bought", "attested"), [("CODE_SCANNING", 0), ("ATTEST", 4)])
def test_private(runner, registry, bought, attested):
    """A private repository publishes, and leaves out what GitHub sells unless it was bought."""
    run = publish(runner, registry, f"--var={bought}=true", private=True)
    assert 0 == run.code, run.text[-5000:]
    assert run.outputs["image"].startswith(f"{registry.address}/your-org/penguins@sha256:")
    assert attested == len(given(run, "attest"))
    shown = int(bought == "CODE_SCANNING")
    assert shown == len(given(run, "codeql-upload-sarif"))
    assert 1 + shown == len(given(run, "trivy-action", "scan"))


class Vulnerabilities(BaseHTTPRequestHandler):
    """What OSV answers where one version of one package is known to be vulnerable."""

    def do_POST(self):
        """Answer a query for a package."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        self.server.asked.add(name)
        body = json.dumps({"vulns": [VULNERABILITY]} if name in self.server.vulnerable else {})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        """Stay silent."""


@contextlib.contextmanager
def osv(*vulnerable):
    """Run a service of vulnerabilities for a while; also return how pip-audit is told of it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vulnerabilities)
    server.vulnerable, server.asked = vulnerable, set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server, f"--vulnerability-service osv --osv-url {url}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def project(default_project, tmp_path):
    """A project that borrows the environment of the default one."""
    made = generate(tmp_path)
    (made / ".venv").symlink_to(default_project / ".venv")
    return made


def audit(project, flags):
    """Run `make audit` without installing; return its exit code and what it said."""
    run = subprocess.run(
        ["make", "--old-file=.venv/.installed", "audit"],
        cwd=project,
        env=environment(AUDIT_FLAGS=flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.returncode, run.stdout


@pytest.mark.parametrize("days", [None, 2, 0], ids=["new", "accepted", "expired"])
def test_audit(project, days):
    """A vulnerable package turns the audit red, which names it and its remedy, or is accepted."""
    if days is not None:
        accept(project, days)
    with osv("msgspec") as (server, flags):
        code, said = audit(project, flags)
    # What serves, what trains, and what checks.
    assert {"onnxruntime", "mlflow", "pytest"} <= server.asked
    if days:
        # Poetry and pip do not tell alike that the project itself is no package of others.
        assert (0, "No known vulnerabilities found, 1 ignored") == (code, said.splitlines()[0])
        return
    assert 2 == code
    assert "Found 1 known vulnerability in 1 package" in said
    (row,) = (line for line in said.splitlines() if line.startswith("msgspec "))
    assert ["CVE-2026-12345", "99.1"] == row.split()[2:]


def test_an_exception_without_an_end(tmp_path):
    """The project's own tests refuse an accepted finding without a date, a reason, or an end."""
    check = runpy.run_path(str(TEMPLATE / "tests/test_trivyignore.py"))["test_every_exception_ends"]
    check.__globals__["ACCEPTED"] = tmp_path / ".trivyignore.yaml"
    accept(tmp_path, 30)
    check()
    today = datetime.now(UTC).date()
    for entry in (
        {"id": "CVE-1", "statement": "No date."},
        {"id": "CVE-2", "expired_at": "soon", "statement": "Not a date."},
        {"id": "CVE-3", "expired_at": today},
        {"id": "CVE-4", "expired_at": today + timedelta(days=200), "statement": "For ever."},
    ):
        accepted = {"vulnerabilities": [], "secrets": [entry]}
        (tmp_path / ".trivyignore.yaml").write_text(yaml.safe_dump(accepted))
        with pytest.raises(AssertionError):
            check()


@docker
@act
def test_security_of_a_pull_request(runner):
    """A vulnerable package and a secret that was removed again each turn a job red."""
    file = runner.repository / "params.yaml"
    kept = file.read_text()
    file.write_text(f"{kept}# {KEY}\n")
    runner.commit()
    file.write_text(kept)
    runner.commit()
    with osv("msgspec") as (_, flags):
        run = execute(runner, "security.yml", "pull_request", f"--env=AUDIT_FLAGS={flags}")
    languages = ("python", "javascript-typescript", "actions")
    green = ("review", *(f"codeql ({language})" for language in languages))
    red = ("audit", "secrets")
    assert dict.fromkeys(green, "success") | dict.fromkeys(red, "failure") == run.jobs
    assert {("audit", "make audit"), ("secrets", "Refuse secrets")} <= run.failed
    assert re.search(r"msgspec.*CVE-2026-12345.* 99\.1", run.text)
    assert [
        {
            "fail-on-severity": "moderate",
            "fail-on-scopes": "runtime, development, unknown",
            "deny-licenses": "AGPL-1.0-only, AGPL-1.0-or-later, AGPL-3.0-only, AGPL-3.0-or-later, "
            "SSPL-1.0",
        }
    ] == given(run, "dependency-review-action")
    # The jobs of a matrix come in any order.
    ways = {"build-mode": "none", "queries": "security-extended"}
    begun, done = given(run, "codeql-init"), given(run, "codeql-analyze")
    assert [ways | {"languages": name} for name in sorted(languages)] == sorted(
        begun, key=lambda inputs: inputs["languages"]
    )
    assert {f"/language:{name}" for name in languages} == {inputs["category"] for inputs in done}


@docker
@act
def test_security_of_a_private_repository(runner):
    """What GitHub sells is left out; a new project has no secret in its history."""
    runs = {
        job: execute(runner, "security.yml", "pull_request", f"--job={job}", private=True)
        for job in ("secrets", "review", "codeql")
    }
    results = {job: set(run.jobs.values()) - {"skipped"} for job, run in runs.items()}
    assert {"secrets": {"success"}, "review": set(), "codeql": set()} == results
    secrets = {"scan-type": "fs", "scan-ref": "history", "scanners": "secret"}
    assert [secrets | {"trivyignores": ".trivyignore.yaml", "exit-code": "1"}] == given(
        runs["secrets"], "trivy-action"
    )
    bought = execute(
        runner,
        *("security.yml", "pull_request", "--job=codeql", "--var=CODE_SCANNING=true"),
        private=True,
    )
    assert {"success"} == set(bought.jobs.values())


@docker
def test_layers(default_project, tmp_path):
    """Two clones of a commit, of other dates and rights, give the same layers, all of one date."""
    variables, layers = engine.environment(tmp_path), []
    images = ("kit-supply-first:local", "kit-supply-second:local")
    commit = uuid.uuid4()
    build = f"docker build {variables['DOCKER_BUILD_FLAGS']} --build-arg SKLEARN= --tag"
    for image, mode, date in zip(images, (0o644, 0o664), (1.7e9, 1.8e9), strict=True):
        clone = tmp_path / image.partition(":")[0]
        for name in ("src", "bundle"):
            shutil.copytree(default_project / name, clone / name)
        shutil.copy(default_project / "params.yaml", clone)
        with (clone / "src/penguins/__init__.py").open("a") as file:
            file.write(f"COMMIT = {str(commit)!r}\n")
        for path in filter(Path.is_file, clone.rglob("*")):
            path.chmod(mode)
            os.utime(path, (date, date))
        for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "poetry.lock"):
            shutil.copy(default_project / name, clone)
        words = shlex.split(f"{build} {image} {clone}")
        run = subprocess.run(words, env=variables, capture_output=True, text=True)
        assert 0 == run.returncode, run.stderr[-4000:]
        # Nothing was left from the build before: other rights are another source.
        (step,) = re.findall(r"^(#\d+) \[build .*\] RUN find /app/", run.stderr, re.MULTILINE)
        assert f"{step} CACHED" not in run.stderr
        said = engine.docker("inspect", "--format={{json .RootFS.Layers}}", image)
        layers.append(json.loads(said))
    try:
        assert layers[0][-2:] == layers[1][-2:]
        find = ["find", "/app", "/opt/venv", "-newermt", "1980-01-01"]
        assert "" == engine.docker("run", "--rm", image, *find)
        assert "" == engine.docker("run", "--rm", image, "python", "-c", STALE)
    finally:
        engine.docker("rmi", "--force", *images)


def test_base_image(tmp_path):
    """Dependabot can read the base image, which is named as such, and keeps to its Python."""
    project = generate(tmp_path, python="3.13")
    stages = re.findall(r"^FROM (.*)$", (project / "Dockerfile").read_text(), re.MULTILINE)
    base = "${PYTHON_IMAGE}"
    assert [
        "python:3.13-slim-bookworm AS base",
        f"{base} AS build",
        "build AS monitoring",
        f"{base} AS runtime",
        "runtime AS monitor",
        "runtime",
    ] == stages
    updates = yaml.safe_load((project / ".github/dependabot.yml").read_text())["updates"]
    by_ecosystem = {update["package-ecosystem"]: update for update in updates}
    assert {"pip", "github-actions", "docker"} == set(by_ecosystem)
    assert {7} == {update["cooldown"]["default-days"] for update in updates}
    assert [1, 1, 1] == [len(update["groups"]) for update in updates]
    kept = ["version-update:semver-major", "version-update:semver-minor"]
    assert [{"dependency-name": "python", "update-types": kept}] == by_ecosystem["docker"]["ignore"]
