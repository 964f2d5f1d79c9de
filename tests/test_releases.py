"""From commits to a release: by the real Commitizen and git, and release.yml by act."""

import gzip
import hashlib
import json
import os
import subprocess
import tarfile
import tomllib

import engine
import pytest
from conftest import Workspace, environment
from runner import STANDINS, TOOLS

FIRST = (
    "- Generated: the pipeline from table to bundle, the service with its page, the image and CI."
)
DESCRIPTION = "A body.\n\n- [ ] `make format lint test` passes"


class Project(Workspace):
    """A copy of the project in which releases are prepared."""

    def __init__(self, project, folder):
        super().__init__(project, folder)
        self.git("tag", "v0.1.0")

    def say(self, *messages):
        """Make a commit without a change for each message."""
        for message in messages:
            self.git("commit", "--quiet", "--allow-empty", f"--message={message}")

    def release(self, **extra):
        """Run `make release`; return what it said."""
        return self.run("make", "--old-file=.venv/.installed", "release", **extra)

    @property
    def version(self):
        """Read the version of the project."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]["version"]

    @property
    def changelog(self):
        """Read the changelog, without its dates."""
        lines = (self.folder / "CHANGELOG.md").read_text().splitlines()
        return [" ".join(line.split()[:2]) if "## v" in line else line for line in lines if line]

    @property
    def status(self):
        """Ask git what has changed."""
        return self.git("status", "--porcelain").splitlines()


@pytest.fixture
def project(default_project, tmp_path):
    """A copy of the default project whose first version is released."""
    return Project(default_project, tmp_path / "penguins")


@pytest.mark.parametrize(
    ("messages", "version", "lines"),
    [
        (["fix: A (#1)"], "0.1.1", ["### Fix", "- A (#1)"]),
        (["feat(page): B", "fix: A"], "0.2.0", ["### Feat", "- **page**: B", "### Fix", "- A"]),
        (["feat!: C"], "0.2.0", ["### Feat", "- C"]),
        (["Whatever", f"fix: A\n\n{DESCRIPTION}", "docs: D"], "0.1.1", ["### Fix", "- A"]),
    ],
    ids=["fix", "feat", "breaking", "mixed"],
)
def test_commits_make_the_version(project, messages, version, lines):
    """Fixes raise the third number, features the second, and so does what breaks, before 1.0."""
    project.say(*messages)
    project.release()
    assert version == project.version
    expected = ["# Changelog", f"## v{version}", *lines, "## v0.1.0", FIRST]
    assert expected == project.changelog
    assert [" M CHANGELOG.md", " M pyproject.toml"] == project.status


def test_what_breaks_after_the_first_major_version(project):
    """Once the project says 1.0.0, a breaking change raises the first number."""
    pyproject = project.folder / "pyproject.toml"
    changed = pyproject.read_text().replace('version = "0.1.0"', 'version = "1.0.0"')
    pyproject.write_text(changed)
    project.commit()
    project.git("tag", "v1.0.0")
    project.say("feat!: C")
    project.release()
    assert "2.0.0" == project.version


@pytest.mark.parametrize("messages", [[], ["Whatever", "docs: D"]], ids=["none", "others"])
def test_nothing_to_release(project, messages):
    """Without a feature or fix since the last tag nothing changes, and nothing is red."""
    project.say(*messages)
    assert "Nothing to release: no feat or fix since v0.1.0\n" in project.release()
    assert [] == project.status


def test_a_version_that_waits(project):
    """A version without a tag is not raised again: first in a new project, then after a merge."""
    project.git("tag", "--delete", "v0.1.0")
    project.say("feat: B")
    assert "v0.1.0 has no tag yet: it is released when it serves\n" == project.release()
    assert ("0.1.0", []) == (project.version, project.status)


def test_one_release_after_another(project, tmp_path):
    """The next section has what came after the last tag, and stands above the others."""
    project.say("feat: B")
    project.release()
    project.commit()
    project.git("tag", "v0.2.0")
    output = tmp_path / "output"
    project.release(GITHUB_OUTPUT=str(output))
    assert not output.exists()
    project.say("fix: A")
    project.release(GITHUB_OUTPUT=str(output))
    assert "next=propose\n" == output.read_text()
    sections = ["## v0.2.1", "### Fix", "- A", "## v0.2.0", "### Feat", "- B", "## v0.1.0", FIRST]
    assert ["# Changelog", *sections] == project.changelog


def test_the_lock_outlives_a_release(project):
    """The version is no part of what the lock belongs to."""
    project.say("feat: B")
    project.release()
    words = [environment()["POETRY"], "check", "--lock"]
    run = subprocess.run(words, cwd=project.folder, capture_output=True, text=True)
    assert (0, "All set!\n") == (run.returncode, run.stdout)


def test_the_hook_refuses_other_messages(project):
    """After `pre-commit install` a message that no changelog can be made of is refused."""
    project.run(".venv/bin/pre-commit", "install")
    project.say("fix: A")
    words = ["git", "-c", "user.name=kit", "-c", "user.email=kit@localhost", "commit"]
    run = subprocess.run(
        [*words, "--allow-empty", "--message=Whatever"],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
    )
    assert 1 == run.returncode
    assert "commit validation: failed!" in run.stdout + run.stderr
    assert "fix: A" == project.git("log", "-1", "--format=%s").strip()


class Hub:
    """What the tests see of GitHub: a remote, the calls of gh, and the artifacts of the run."""

    def __init__(self, runner):
        self.runner, self.remote = runner, runner.folder / "remote.git"
        runner.git("init", "--quiet", "--bare", str(self.remote))
        # Act names the repository by the address that is fetched from.
        runner.git("remote", "set-url", "--push", "origin", self.remote.as_uri())
        runner.git("tag", "v0.1.0")
        self.answers()

    def keep(self, **artifacts):
        """Have artifacts of jobs that ran before."""
        for name, files in artifacts.items():
            folder = self.runner.folder / "artifacts" / name
            folder.mkdir(parents=True)
            for file, content in files.items():
                (folder / file).write_text(content)

    def answers(self, *entries):
        """Say what gh answers from now on, and forget its calls."""
        (self.runner.folder / "answers.json").write_text(json.dumps(entries))
        (self.runner.folder / "calls.jsonl").write_text("")

    @property
    def calls(self):
        """List the words that gh was called with, and what it was given."""
        lines = (self.runner.folder / "calls.jsonl").read_text().splitlines()
        calls = [(call["argv"], call["stdin"]) for call in map(json.loads, lines)]
        return [call for call in calls if call[0] != ["auth", "token"]]  # by act itself

    def run(self):
        """Execute release.yml as deploy.yml calls it."""
        return self.runner.act("release.yml", "workflow_call")

    def branch(self, *words):
        """Ask git about the remote's branch `release`."""
        return self.runner.git("--git-dir", str(self.remote), *words)


@pytest.fixture
def hub(runner, monkeypatch):
    """The default project on a stand-in of GitHub, its first version released."""
    if not engine.client() or not (TOOLS / "act").exists():
        pytest.skip("no act, or no Docker engine")
    monkeypatch.setenv("STANDIN_GH", str(runner.folder))
    monkeypatch.setenv("PATH", f"{STANDINS}{os.pathsep}{os.environ['PATH']}")
    return Hub(runner)


def test_propose(hub):
    """Features make a pull request of one commit on main, whose checks wait for approval."""
    hub.runner.git("commit", "--quiet", "--allow-empty", "--message=feat: B")
    main = hub.runner.git("rev-parse", "HEAD")
    run = hub.run()
    assert (0, {"prepare": "success", "propose": "success"}) == (run.code, run.jobs), run.text
    branch = hub.branch("log", "--format=%s|%an|%P", "-1", "release")
    assert f"bump: v0.2.0|github-actions[bot]|{main}" == branch
    changed = hub.branch("diff", "--name-only", main, "release").split()
    assert ["CHANGELOG.md", "pyproject.toml"] == changed
    assert 'version = "0.2.0"' in hub.branch("show", "release:pyproject.toml")
    listing = ["pr", "list", "--head", "release", "--base", "main", "--state", "open"]
    listing += ["--json", "number", "--jq", ".[].number"]
    create = ["pr", "create", "--head", "release", "--base", "main", "--title", "bump: v0.2.0"]
    notes = "\n### Feat\n\n- B\n"
    assert [
        (["auth", "setup-git"], None),
        (listing, None),
        ([*create, "--body-file", "-"], notes),
    ] == hub.calls


def test_publish(hub):
    """A version that serves without a tag is released with its notes, its bundle and its SBOM."""
    hub.runner.change("pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    commit = hub.runner.git("rev-parse", "HEAD")
    notes = "\n### Feat\n\n- B\n"
    hub.runner.change("CHANGELOG.md", "## v0.1.0", f"## v0.2.0 (2026-01-01)\n{notes}\n## v0.1.0")
    hub.keep(bundle={"card.json": "{}"}, sbom={"image.cdx.json": "{}", "environment.cdx.json": ""})
    archive, kept = "bundle-v0.2.0.tar.gz", hub.runner.folder / "kept"
    kept.mkdir()
    keep = {"call": "^release create", "run": f"cp {archive} sbom/* {kept}"}
    hub.answers(keep)
    run = hub.run()
    assert (0, {"prepare": "success", "publish": "success"}) == (run.code, run.jobs), run.text
    create = ["release", "create", "v0.2.0", "--target", commit, "--title", "v0.2.0"]
    files = [archive, "sbom/environment.cdx.json", "sbom/image.cdx.json"]
    assert [([*create, "--notes-file", "-", *files], notes)] == hub.calls
    assert {"environment.cdx.json", "image.cdx.json", archive} == {p.name for p in kept.iterdir()}
    with tarfile.open(kept / archive) as packed:
        assert ["bundle", "bundle/card.json"] == packed.getnames()


def test_a_pull_request_that_is_open_is_renewed(project, tmp_path):
    """The branch starts again from main, and title and text of the pull request follow."""
    gh, remote, patch = tmp_path / "gh", tmp_path / "remote.git", tmp_path / "release.patch"
    gh.mkdir()
    (gh / "answers.json").write_text(json.dumps([{"call": "^pr list", "out": "12\n"}]))
    project.git("init", "--quiet", "--bare", str(remote))
    project.git("remote", "add", "origin", str(remote))
    project.git("push", "--quiet", "origin", "HEAD:release")
    project.say("feat: B", "fix: A")
    main = project.git("rev-parse", "HEAD")
    project.release()
    patch.write_text(project.git("diff"))
    project.git("checkout", "--quiet", ".")
    path = f"{STANDINS}{os.pathsep}{os.environ['PATH']}"
    project.run(".github/release.sh", "propose", str(patch), PATH=path, STANDIN_GH=str(gh))
    assert main == project.git("--git-dir", str(remote), "rev-parse", "release^")
    notes = "\n### Feat\n\n- B\n\n### Fix\n\n- A\n"
    calls = [json.loads(line) for line in (gh / "calls.jsonl").read_text().splitlines()]
    renew = "api --method PATCH repos/{owner}/{repo}/pulls/12 --field title=bump: v0.2.0"
    assert [(f"{renew} --field body=@-", notes)] == [
        (" ".join(call["argv"]), call["stdin"]) for call in calls[2:]
    ]


def test_an_upload_that_fails(project, tmp_path):
    """The job is red, and without a tag, which GitHub makes last, the next run tries again."""
    (project.folder / "bundle").mkdir()
    refusal = {"call": "^release create", "code": 1, "err": "HTTP 502: upload failed\n"}
    (tmp_path / "answers.json").write_text(json.dumps([refusal]))
    run = subprocess.run(
        [".github/release.sh", "publish"],
        cwd=project.folder,
        env={
            **project.environment,
            "PATH": f"{STANDINS}{os.pathsep}{os.environ['PATH']}",
            "STANDIN_GH": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    assert (1, "HTTP 502: upload failed\n") == (run.returncode, run.stderr)
    assert "v0.1.0" == project.git("tag").strip()


def test_what_is_pushed_before_a_version_serves(project, tmp_path):
    """The tag is of the commit that raised the version, so what came after it is in the next."""
    project.say("feat: B")
    project.release()
    project.commit()
    raised = project.git("rev-parse", "HEAD").strip()
    project.say("feat: C")
    (project.folder / "bundle").mkdir()
    (tmp_path / "calls.jsonl").touch()
    path = f"{STANDINS}{os.pathsep}{os.environ['PATH']}"
    project.run(".github/release.sh", "publish", PATH=path, STANDIN_GH=str(tmp_path))
    words = json.loads((tmp_path / "calls.jsonl").read_text())["argv"]
    assert ["release", "create", "v0.2.0", "--target", raised] == words[:5]
    project.git("tag", "v0.2.0", raised)
    project.release()
    sections = ["## v0.3.0", "### Feat", "- C", "## v0.2.0", "### Feat", "- B", "## v0.1.0", FIRST]
    assert ["# Changelog", *sections] == project.changelog


def test_a_refused_pull_request(project, tmp_path):
    """Where workflows may open none, the branch is there, and a warning says what to set."""
    gh, remote, patch = tmp_path / "gh", tmp_path / "remote.git", tmp_path / "release.patch"
    gh.mkdir()
    refusal = {"call": "^pr create", "code": 1, "err": "GitHub Actions is not permitted to\n"}
    (gh / "answers.json").write_text(json.dumps([refusal]))
    project.git("init", "--quiet", "--bare", str(remote))
    project.git("remote", "add", "origin", str(remote))
    project.say("feat: B")
    project.release()
    patch.write_text(project.git("diff"))
    project.git("checkout", "--quiet", ".")
    path = f"{STANDINS}{os.pathsep}{os.environ['PATH']}"
    said = project.run(".github/release.sh", "propose", str(patch), PATH=path, STANDIN_GH=str(gh))
    assert "::warning::GitHub opens no pull request for the branch release: make github" in said
    assert (
        "bump: v0.2.0"
        == project.git("--git-dir", str(remote), "log", "-1", "--format=%s", "release").strip()
    )


def test_the_archive_is_reproducible(project, tmp_path):
    """The same bundle gives the same bytes, whoever packs it and when."""
    path = f"{STANDINS}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "calls.jsonl").touch()
    sums = []
    for mode, moment, names in ((0o600, 1, ("a", "b")), (0o644, 2, ("b", "a"))):
        bundle = project.folder / "bundle"
        bundle.mkdir()
        for name in names:
            (bundle / name).write_text(name)
            (bundle / name).chmod(mode)
            os.utime(bundle / name, (moment, moment))
        project.run(".github/release.sh", "publish", PATH=path, STANDIN_GH=str(tmp_path))
        packed = (project.folder / "bundle-v0.1.0.tar.gz").read_bytes()
        sums.append(hashlib.sha256(packed).hexdigest())
        project.run("rm", "-r", "bundle")
    assert sums[0] == sums[1]
    assert b"root" not in gzip.decompress(packed)
