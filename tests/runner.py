"""Act, which executes workflows on this machine, against stand-ins of the marketplace actions."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import engine
import yaml
from conftest import copy_project, environment, interpreters, leave_out

TOOLS = Path(sys.executable).parent
STANDINS = Path(__file__).parent / "standins"
PASSWORD = "correct-horse"
PYTHONS = interpreters()
# The Python of the main jobs: the answer's, or what this machine has.
MAIN = "3.12" if "3.12" in PYTHONS else next(iter(PYTHONS), None)
LEAKS = ("GITHUB_", "ACTIONS_", "RUNNER_", "APP_", "PYTEST_", "COV_", "MAKE", "MFLAGS", "VIRTUAL_")
# An action, also one in a folder of its repository, which act maps as a whole.
PIN = re.compile(r"uses: (?P<owner>[\w.-]+)/(?P<name>[\w.-]+)[\w./-]*@(?P<commit>[0-9a-f]{40})")

# Act reads what a step says from a terminal, and where the step fails does not read to the end.
BASH = f"""#!{shutil.which("bash")}
{shutil.which("bash")} "$@"
code=$?
[ $code = 0 ] || sleep 0.5
exit $code
"""


@dataclass
class Run:
    """One execution of a workflow: what became of its jobs and steps, and what was said."""

    code: int
    jobs: dict
    failed: set
    outputs: dict
    trace: list
    text: str


class Runner:
    """A copy of the project as a repository on GitHub, and act to run its workflows."""

    def __init__(self, folder, project):
        self.folder = folder
        self.repository = folder / "penguins"
        copy_project(project, self.repository)
        (self.repository / ".python-version").write_text(f"{MAIN}\n")
        self.venv = project / ".venv"
        self.place("bash", BASH)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", "https://github.com/Your-Org/Penguins.git")
        self.commit()

    def git(self, *arguments):
        """Run git in the repository."""
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        command = ["git", *identity, *arguments]
        return subprocess.check_output(command, cwd=self.repository, text=True).strip()

    def commit(self):
        """Commit everything, so that this state has a name of its own."""
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={self.folder}")
        return self.git("rev-parse", "HEAD")

    def change(self, path, old, new):
        """Replace a text in a file and commit."""
        file = self.repository / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")
        return self.commit()

    def lighten(self):
        """Leave out most tests and the slowest linter where the run is not about their verdict."""
        for path in self.repository.glob("tests/test_*.py"):
            if path.stem not in ("test_image", "test_settings"):
                path.unlink()
        leave_out(self.repository, "$(RUN)pylint")
        # In the Makefile, as for another pyproject.toml every job would install anew.
        self.change("Makefile", "--cov-report=xml", "--cov-report=xml --cov-fail-under=0")

    def place(self, program, text):
        """Put a program in front of those on PATH, for the jobs as well."""
        path = self.folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def act(self, workflow, event, *arguments, branch="main", **given):
        """Execute a workflow as the event would, with `inputs`, `variables` and `secrets`.

        The log hides no secret, so that a test can look for them.
        """
        payload = self.folder / "event.json"
        sent = {"ref": f"refs/heads/{branch}", "inputs": given.get("inputs", {})}
        payload.write_text(json.dumps(sent))
        for name in ("home", "artifacts"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "trace.jsonl").write_text("")
        for name in ("variables", "secrets"):
            (self.folder / f"{name}.yml").write_text(yaml.safe_dump(given.get(name, {})))
        docker = engine.environment(self.folder)
        known = {
            "STANDIN": STANDINS / "standin.py",
            "STANDIN_PYTHON": sys.executable,
            "STANDIN_PYTHONS": json.dumps(PYTHONS),
            "STANDIN_TRACE": self.folder / "trace.jsonl",
            "STANDIN_ARTIFACTS": self.folder / "artifacts",
            "STANDIN_CACHE": self.folder / "cache",
            "STANDIN_VENV": self.venv,
            "DOCKER_BUILD_FLAGS": docker["DOCKER_BUILD_FLAGS"],
            "DOCKER_CONFIG": docker["DOCKER_CONFIG"],
        }
        run = subprocess.run(
            [
                *(TOOLS / "act", event, f"--workflows=.github/workflows/{workflow}"),
                *(f"--eventpath={payload}", "--platform=ubuntu-latest=-self-hosted"),
                *("--no-cache-server", "--strict", "--json", "--concurrent-jobs=1"),
                *(f"--local-repository={pin}" for pin in self.standins()),
                *(f"--env={name}={value}" for name, value in known.items()),
                f"--var-file={self.folder}/variables.yml",
                *(f"--secret-file={self.folder}/secrets.yml", "--insecure-secrets"),
                *arguments,
            ],
            cwd=self.repository,
            env=self.environment(docker),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        (self.folder / "act.log").write_text(run.stdout)
        trace = (self.folder / "trace.jsonl").read_text().splitlines()
        return read(run.returncode, run.stdout, [json.loads(line) for line in trace])

    def standins(self):
        """Put a stand-in in the place of every pinned action; checkout needs none."""
        text = "\n".join(path.read_text() for path in self.repository.glob(".github/**/*.yml"))
        for owner, name, commit in sorted(set(PIN.findall(text))):
            if name != "checkout":
                assert (STANDINS / "actions" / name).is_dir(), f"no stand-in for {owner}/{name}"
                yield f"{owner}/{name}@{commit}={STANDINS / 'actions' / name}"

    def environment(self, docker):
        """Start from a clean environment: the host's own would leak into the jobs."""
        home = self.folder / "home"
        kept = {
            name: value
            for name, value in environment().items()
            if not name.startswith(LEAKS) and name != "CI"
        }
        caches = {
            "PIP_CACHE_DIR": Path.home() / ".cache/pip",
            "POETRY_CACHE_DIR": Path.home() / ".cache/pypoetry",
        }
        own = {"HOME": home, "XDG_CACHE_HOME": home, "ACT_DISABLE_VERSION_CHECK": 1}
        own |= {"REGISTRY_PASSWORD": PASSWORD, **docker}
        return {name: str(value) for name, value in (kept | caches | own).items()}


def job_of(entry):
    """Name the job of a line of act's log."""
    places = entry.get("job", "").split("/")
    if entry.get("matrix"):
        # Where there are several, act numbers the jobs of a matrix.
        return re.sub(r"-\d+ *$", "", places[-1])
    # One workflow is called for both environments: there the caller's name tells which.
    return places[0] if entry.get("jobID") == "target" else entry.get("jobID", "")


def read(code, text, trace):
    """Read act's log."""
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    jobs, failed, outputs = {}, set(), {}
    for entry in entries:
        job = job_of(entry)
        if "jobResult" in entry:
            jobs[job] = entry["jobResult"]
        if entry.get("stepResult") == "failure":
            failed.add((job, entry["step"].removeprefix("Main ")))
        if entry.get("command") == "set-output":
            outputs[entry["name"]] = entry["arg"]
    # What is no JSON is act's own: why it did not start, or broke off.
    own = [line for line in text.splitlines() if not line.startswith("{")]
    said = [*(entry.get("msg", "") for entry in entries), *own]
    return Run(code, jobs, failed, outputs, trace, "\n".join(said) + "\n")


@contextlib.contextmanager
def repository(folder, project):
    """Copy a project for a while; its images go at the end."""
    runner = Runner(folder, project)
    yield runner
    commits = runner.git("log", "--format=%H").split()
    for name in engine.docker("images", "--format={{.Repository}}:{{.Tag}}").split():
        if name.split(":")[-1] in commits:
            engine.docker("rmi", "--force", name)
    for name in ("home", "artifacts", "images"):
        shutil.rmtree(folder / name, ignore_errors=True)
