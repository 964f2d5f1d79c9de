"""Linters and schemas find nothing in what is generated, nor in the kit's own workflows.

What act does not evaluate (permissions, triggers, concurrency) is compared with what is meant.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import KIT, TEMPLATE, generate
from test_locks import pins

from scripts.locks import combinations

TOOLS = Path(sys.executable).parent
PINNED = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # v(?P<version>[\d.]+)$")
# Each pair with a target, so that every value of every option is looked at.
COMBINATIONS = [
    (*pair, deploy)
    for pair, deploy in zip(combinations(), ("ssh", "kubernetes", "none", "ssh"), strict=True)
]
ANSWERED = ("manager", "quality", "deploy")

READ = {"contents": "read"}
SCANNED = {"contents": "read", "actions": "read", "security-events": "write"}
COMPARED = {"contents": "read", "actions": "read"}
PULLED = {"contents": "read", "packages": "read"}
ATTESTED = {"attestations": "write", "id-token": "write", "packages": "write"}
PUBLISHED = {**SCANNED, **ATTESTED}
MONITORED = {"actions": "read", "contents": "write", "issues": "write"}
RELEASED = {"contents": "write", "pull-requests": "write"}
PERMISSIONS = {
    "ci.yml": {
        **dict.fromkeys(["lint", "test", "train"], READ),
        "image": COMPARED,
        "gate": {},
    },
    "main.yml": {"ci": COMPARED, "publish": PUBLISHED, "release": RELEASED},
    "deploy.yml": {
        "ready": PULLED,
        "known": {},
        "ci": COMPARED,
        "publish": PUBLISHED,
        "staging": PULLED,
        "production": PULLED,
        "record": READ,
        "release": RELEASED,
    },
    "publish.yml": {
        "sbom": READ,
        "scan": SCANNED,
        "push": {"packages": "write"},
        "attest": ATTESTED,
    },
    "site.yml": {"build": READ, "publish": {"id-token": "write", "pages": "write"}},
    "retrain.yml": {
        "retrain": READ,
        "propose": RELEASED | {"issues": "write"},
        "deploy": {"actions": "write", "contents": "read"},
    },
    "security.yml": {"review": READ, "audit": READ, "secrets": READ, "codeql": SCANNED},
    "release.yml": {
        "prepare": READ,
        "propose": RELEASED,
        "publish": {"contents": "write"},
    },
    "target-ssh.yml": {"target": PULLED},
    "target-kubernetes.yml": {"target": READ},
    "monitor.yml": {"monitor": MONITORED},
}
FROM_MAIN = "github.ref == 'refs/heads/main'"
KIT_PERMISSIONS = {
    "ci.yml": {"test": READ, "gate": {}},
    "canary.yml": {"canary": READ, "viewers": READ},
    "locks.yml": {
        "resolve": READ,
        "propose": {"contents": "write", "pull-requests": "write"},
    },
}


def run(tool, *arguments, folder):
    """Run a linter of the kit's environment in a folder; return its exit code and what it said."""
    found = subprocess.run(
        [TOOLS / tool, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return found.returncode, found.stdout


def load(path):
    """Parse a YAML file, with the key `on` as text."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def workflows(root):
    """Parse all workflows of a repository, by file name."""
    return {path.name: load(path) for path in sorted((root / ".github/workflows").iterdir())}


def steps(root):
    """List the steps of all jobs and composite actions of a repository."""
    jobs = [job for flow in workflows(root).values() for job in flow["jobs"].values()]
    actions = [load(path)["runs"] for path in (root / ".github").glob("actions/*/action.yml")]
    return [step for part in [*jobs, *actions] for step in part.get("steps", [])]


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def project(request, tmp_path_factory):
    """A project of each manager and quality, with a target."""
    answers = dict(zip(ANSWERED, request.param, strict=True))
    return generate(tmp_path_factory.mktemp("static"), **answers)


@pytest.fixture(scope="module", params=[*COMBINATIONS, ("kit",)], ids="-".join)
def repository(request, tmp_path_factory):
    """A project of each manager and quality, and the kit's own workflows."""
    folder = tmp_path_factory.mktemp("static")
    if request.param != ("kit",):
        return generate(folder, **dict(zip(ANSWERED, request.param, strict=True)))
    shutil.copytree(KIT / ".github", folder / ".github")
    # Both linters look for the root of a repository.
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def test_actionlint(repository):
    """Actionlint and, through it, shellcheck find nothing."""
    assert (0, "") == run("actionlint", folder=repository)


def test_action_inputs(repository, tmp_path):
    """The inputs that steps give to actions exist: actionlint knows them by major version only."""
    copy = shutil.copytree(repository / ".github", tmp_path / ".github").parent
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    for path in copy.glob(".github/**/*.yml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"@[0-9a-f]{40} # (v\d+)[\d.]*", r"@\1", text), encoding="utf-8")
    # The newest release says Node 20, for which GitHub's runners take 24.
    known = '-ignore=runtime "node20" is deprecated.*dependency-review-action'
    assert (0, "") == run("actionlint", known, folder=copy)


def test_zizmor(repository):
    """Zizmor finds nothing, however picky."""
    code, said = run(
        "zizmor",
        "--offline",
        "--color=never",
        "--persona=auditor",
        "--quiet",
        ".",
        folder=repository,
    )
    assert (0, "No findings to report. Good job!") == (code, said.strip())


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/*.yml"),
        ("vendor.github-actions", ".github/actions/*/action.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/*.yml"),
        ("vendor.compose-spec", "compose.yaml"),
    ],
)
def test_schema(project, schema, pattern):
    """Files that a service reads have the shape that it expects."""
    paths = sorted(project.glob(pattern))
    assert paths
    assert (0, "ok -- validation done\n") == run(
        "check-jsonschema", "--builtin-schema", schema, *paths, folder=project
    )


def test_kit_schemas():
    """The kit's own workflows have the shape that GitHub expects."""
    flows = sorted(KIT.glob(".github/workflows/*.yml"))
    for schema, paths in {
        "vendor.github-workflows": flows,
        "custom.github-workflows-require-timeout": flows,
        "vendor.dependabot": [KIT / ".github/dependabot.yml"],
    }.items():
        code, said = run("check-jsonschema", "--builtin-schema", schema, *paths, folder=KIT)
        assert (0, "ok -- validation done\n") == (code, said)


def test_hadolint(project):
    """Hadolint finds nothing in the Dockerfile."""
    assert (0, "") == run("hadolint", "Dockerfile", folder=project)


def test_compose(project):
    """Compose reads compose.yaml, and the service it starts has no rights."""
    code, said = run("docker-compose", "config", "--format=json", folder=project)
    assert 0 == code, said
    api = json.loads(said)["services"]["api"]
    assert "penguins:local" == api["image"]
    assert api["read_only"] is True
    assert ["ALL"] == api["cap_drop"]
    assert ["no-new-privileges:true"] == api["security_opt"]
    assert ["/tmp"] == api["tmpfs"]
    assert [("volume", "events", "/app/events")] == [
        (volume["type"], volume["source"], volume["target"]) for volume in api["volumes"]
    ]
    assert [("127.0.0.1", "8000", 8000)] == [
        (port["host_ip"], port["published"], port["target"]) for port in api["ports"]
    ]


def test_compose_has_a_server_for_a_team(project):
    """Behind a profile there is MLflow on PostgreSQL, only on this machine, and without rights."""
    words = ["docker-compose", "--profile", "mlflow", "config", "--format=json"]
    code, said = run(*words, folder=project)
    assert 0 == code, said
    services = json.loads(said)["services"]
    assert {"api", "mlflow", "postgres"} == set(services)
    assert "postgresql+psycopg://mlflow@postgres/mlflow" in services["mlflow"]["command"]
    assert ["127.0.0.1"] == [port["host_ip"] for port in services["mlflow"]["ports"]]
    assert "ports" not in services["postgres"]
    assert [["ALL"]] * 3 == [service["cap_drop"] for service in services.values()]
    (version,) = pins("poetry", "black")["mlflow"]
    assert f"mlflow=={version}" in services["mlflow"]["build"]["dockerfile_inline"]


@pytest.mark.parametrize("root", [TEMPLATE, KIT], ids=["template", "kit"])
def test_shell(root):
    """Nothing is interpolated into a shell, and no workflow knows that it is being tested."""
    for step in steps(root):
        assert "${{" not in step.get("run", ""), step
    for path in root.glob(".github/**/*.yml"):
        assert "env.ACT" not in path.read_text(encoding="utf-8")


def test_pins():
    """Every action is pinned to a commit with its version beside it, the same one everywhere."""
    pins = {}
    for root in (TEMPLATE, KIT):
        for path in root.glob(".github/**/*.yml"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if "uses: " not in line or "uses: ./" in line:
                    continue
                found = PINNED.search(line)
                assert found, f"{path.name}: {line.strip()}"
                pins.setdefault(found["action"], set()).add((found["commit"], found["version"]))
    assert {} == {action: pin for action, pin in pins.items() if len(pin) > 1}


@pytest.mark.parametrize(
    ("root", "expected"), [(TEMPLATE, PERMISSIONS), (KIT, KIT_PERMISSIONS)], ids=["template", "kit"]
)
def test_permissions(root, expected):
    """Nothing is permitted by default, and each job gets what it needs."""
    flows = workflows(root)
    assert [{}] * len(flows) == [flow["permissions"] for flow in flows.values()]
    assert expected == {
        name: {job: part["permissions"] for job, part in flow["jobs"].items()}
        for name, flow in flows.items()
    }


def test_triggers():
    """A push to main runs CI once, as a part of what deploys it; all else runs ci.yml alone."""
    flows = workflows(TEMPLATE)
    ci, deploy, main = (flows[f"{name}.yml"]["on"] for name in ("ci", "deploy", "main"))
    assert {"push", "pull_request", "workflow_call"} == set(ci)
    assert {"branches-ignore": ["main"]} == ci["push"]
    assert {"branches": ["main"]} == deploy["push"] == main["push"]
    assert {"push", "workflow_dispatch"} == set(deploy) == set(main)
    assert ["digest"] == list(deploy["workflow_dispatch"]["inputs"])
    for name in ("deploy.yml", "main.yml"):
        jobs = flows[name]["jobs"]
        assert "./.github/workflows/ci.yml" == jobs["ci"]["uses"]
        publish = jobs["publish"]
        assert ("ci", None) == (publish["needs"], publish.get("if"))


def test_order():
    """Production comes after staging, and staging after what was published or is known."""
    jobs = workflows(TEMPLATE)["deploy.yml"]["jobs"]
    assert {
        "ready": ("", FROM_MAIN),
        "known": ("", f"{FROM_MAIN} && inputs.digest"),
        "ci": ("ready", "${{ !inputs.digest }}"),
        "publish": ("ci", ""),
        "staging": (
            ["ready", "known", "publish"],
            "${{ !cancelled() && needs.ready.result == 'success' && "
            "(needs.publish.result == 'success' || needs.known.result == 'success') }}",
        ),
        "production": (
            ["known", "publish", "staging"],
            "${{ !cancelled() && needs.staging.result == 'success' }}",
        ),
        "record": (
            ["known", "publish", "staging", "production"],
            "${{ !cancelled() && needs.staging.result != 'skipped' }}",
        ),
        "release": (
            "production",
            "${{ !cancelled() && needs.production.result == 'success' && !inputs.digest }}",
        ),
    } == {name: (job.get("needs", ""), job.get("if", "")) for name, job in jobs.items()}
    assert ["staging", "staging", "production"] == [
        job["with"]["environment"] for job in jobs.values() if "target.yml" in job.get("uses", "")
    ]
    assert FROM_MAIN == workflows(TEMPLATE)["main.yml"]["jobs"]["ci"]["if"]


def test_a_release_that_fails():
    """It does not turn the run red, by which a deployment is known to have succeeded."""
    jobs = workflows(TEMPLATE)["release.yml"]["jobs"]
    assert ["true"] * 3 == [job.get("continue-on-error") for job in jobs.values()]


def test_environments():
    """What deploys does so in the environment of its input, whose protection then counts."""
    flows = workflows(TEMPLATE)
    for name in ("target-ssh.yml", "target-kubernetes.yml"):
        (job,) = flows[name]["jobs"].values()
        assert "${{ inputs.environment }}" == job["environment"]["name"]
    assert "registry" == flows["deploy.yml"]["jobs"]["known"]["environment"]


def test_secrets():
    """A job that calls a workflow hands over by its name each secret that is asked for."""
    flows = workflows(TEMPLATE)
    places = [(name, job) for name, flow in flows.items() for job in flow["jobs"].items()]
    called = [(name, job) for name, (_, job) in places if "uses" in job]
    assert called
    for _, job in called:
        name = Path(job["uses"]).name
        for path in {"target.yml": ("target-ssh.yml", "target-kubernetes.yml")}.get(name, (name,)):
            asked = (flows[path]["on"]["workflow_call"] or {}).get("secrets", {})
            given = job.get("secrets", {})
            assert {each: f"${{{{ secrets.{each} }}}}" for each in asked} == given


def test_every_job_is_executed_by_something():
    """The page of the kit says of each job what executes it, and of no job that is not there."""
    page = (KIT / "docs/workflows.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+\.yml) \| (\S+) \| (\S.*?) \|.*\|$", page, re.MULTILINE)
    jobs = {(name, job) for name, flow in workflows(TEMPLATE).items() for job in flow["jobs"]}
    assert jobs == {(name, job) for name, job, _ in rows}
    assert len(jobs) == len(rows)


def test_concurrency():
    """A newer push replaces a running check, and never a running deployment."""
    flows = workflows(TEMPLATE)
    assert {
        "group": "ci-${{ github.workflow }}-${{ github.ref }}",
        "cancel-in-progress": "${{ github.workflow == 'ci' }}",
    } == flows["ci.yml"]["concurrency"]
    for name in ("deploy.yml", "main.yml"):
        assert {"group": "deploy", "cancel-in-progress": "false"} == flows[name]["concurrency"]
    for name in ("target-ssh.yml", "target-kubernetes.yml"):
        assert {
            "group": "target-${{ inputs.environment }}",
            "cancel-in-progress": "false",
        } == flows[name]["concurrency"]
    assert {
        "group": "site-${{ github.ref }}",
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    } == flows["site.yml"]["concurrency"]


@pytest.mark.parametrize("root", [TEMPLATE, KIT], ids=["template", "kit"])
def test_jobs_can_run_again(root):
    """What a job kept is no obstacle when it runs again: GitHub counts that as the same run."""
    uploads = [step for step in steps(root) if "/upload-artifact@" in step.get("uses", "")]
    assert uploads
    assert ["true"] * len(uploads) == [step["with"].get("overwrite") for step in uploads]


@pytest.mark.parametrize("root", [TEMPLATE, KIT], ids=["template", "kit"])
def test_gate(root):
    """The gate waits for every other job, and runs whatever became of them."""
    jobs = workflows(root)["ci.yml"]["jobs"]
    needs = jobs["gate"]["needs"]
    assert set(jobs) - {"gate"} == set([needs] if isinstance(needs, str) else needs)
    assert "always()" == jobs["gate"]["if"]


@pytest.mark.parametrize("result", ["success", "failure", "cancelled", "skipped"])
def test_one_job_closes_the_gate(result):
    """Whatever is no success of a single job is none of the run."""
    (step,) = workflows(TEMPLATE)["ci.yml"]["jobs"]["gate"]["steps"]
    results = {"RESULTS": f"success {result} success"}
    done = subprocess.run(["bash", "-c", step["run"]], env=results, capture_output=True)
    assert (result == "success") == (done.returncode == 0)


def test_shell_scripts(project):
    """Shellcheck finds nothing in the scripts that workflows and the Makefile call."""
    scripts = sorted([*project.glob(".github/*.sh"), *project.glob("deploy/*.sh")])
    assert project / ".github/release.sh" in scripts
    assert (0, "") == run("shellcheck", *scripts, folder=project)


def test_the_setup_of_the_repository(project):
    """Ruff finds nothing in the script behind `make github`, which `make lint` does not see."""
    settings = ["--isolated", "--line-length=100"]
    rules = "--select=B,C4,E,F,I,N,RUF,SIM,UP,W"
    path = ".github/repository.py"
    checked = run("ruff", "check", "--quiet", *settings, rules, path, folder=project)
    assert (0, "") == checked
    formatted = run("ruff", "format", "--quiet", "--diff", *settings, path, folder=project)
    assert (0, "") == formatted


def test_poetry_version(project):
    """One version of Poetry makes the locks, the environment and the image."""
    files = [project / "Makefile", project / "Dockerfile", KIT / "Makefile"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert 1 == len(set(re.findall(r"(?:poetry==|POETRY_VERSION := )(\d[\d.]*)", text)))


def test_hooks(project):
    """Pre-commit runs the tools of `make format` and `make lint`, from the same environment."""
    hooks = load(project / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    tools = set(re.findall(r"\$\(RUN\)(black|flake8|isort|mypy|pylint|ruff)\b", makefile))
    before = [hook["entry"].split()[0] for hook in hooks if "stages" not in hook]
    assert {f".venv/bin/{tool}" for tool in tools} == set(before)


def test_pre_commit(default_project):
    """All hooks pass on a new project and change nothing."""
    pre_commit = default_project / ".venv/bin/pre-commit"
    # Of the sources, which have been linted elsewhere, a few.
    files = ["params.yaml", "README.md", "src/penguins/settings.py", "tests/test_settings.py"]
    run = subprocess.run(
        [pre_commit, "run", "--files", *files], cwd=default_project, capture_output=True, text=True
    )
    assert 0 == run.returncode, run.stdout
    assert 5 == run.stdout.count("Passed")


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_python(tmp_path, python):
    """The answer `python` chooses the version of the image, the devcontainer and the main jobs."""
    project = generate(tmp_path, python=python)
    dockerfile = (project / "Dockerfile").read_text(encoding="utf-8")
    container = json.loads((project / ".devcontainer/devcontainer.json").read_text("utf-8"))
    assert f"\nFROM python:{python}-slim-bookworm AS base\n" in dockerfile
    assert f"mcr.microsoft.com/devcontainers/python:{python}-bookworm" == container["image"]
    assert f"{python}\n" == (project / ".python-version").read_text("utf-8")
