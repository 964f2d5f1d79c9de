"""`make github` against a recording gh: each call, what it sends, and what it leaves alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import generate

STANDINS = Path(__file__).parent / "standins"
USER = {"call": r"^api user$", "out": '{"id": 7, "login": "ada"}'}
ADMIN = {"full_name": "Ada/penguins", "permissions": {"admin": True}}
REPOSITORY = {"call": r"^api repos/\{owner\}/\{repo\}$", "out": json.dumps(ADMIN)}
# Whatever else is asked for is not there yet.
NOTHING = {"call": r"^api repos/\S+$", "code": 1, "err": "gh: Not Found (HTTP 404)\n"}
NEW = [USER, REPOSITORY, NOTHING]
KEY = "-----BEGIN KEY-----\nc2VjcmV0LWtleQ==\n-----END KEY-----\n"
SETTINGS = """
# A comment, and a blank line.
DEPLOY_HOST=penguins.example
STAGING_DEPLOY_HOST = "staging.example"
DEPLOY_USER='deploy'
DEPLOY_KNOWN_HOSTS=penguins.example ssh-ed25519 AAAA=
DEPLOY_CREDENTIAL=@key
REGISTRY_PASSWORD=hunter2 "and" more
MLFLOW_TRACKING_URI=
"""
SECRETS = ("c2VjcmV0LWtleQ==", "hunter2")


class Hub:
    """A generated project with a gh that records, and answers as it is told."""

    def __init__(self, project, folder):
        self.project = Path(shutil.copytree(project, folder / "penguins", symlinks=True))
        self.folder = folder
        (self.project / "key").write_text(KEY)
        self.settings = self.project / ".github/settings.env"
        self.settings.write_text(SETTINGS)
        self.answers(NEW)

    def answers(self, entries):
        """Say what gh answers from now on, and forget the calls."""
        (self.folder / "answers.json").write_text(json.dumps(entries))
        (self.folder / "calls.jsonl").write_text("")

    def run(self, *command, path=None):
        """Run the setup, or a command that does; return the exit code and what was said."""
        run = subprocess.run(
            command or [sys.executable, ".github/repository.py"],
            cwd=self.project,
            env={
                "PATH": path or f"{STANDINS}{os.pathsep}{os.environ['PATH']}",
                "STANDIN_GH": str(self.folder),
            },
            capture_output=True,
            text=True,
        )
        return run.returncode, run.stdout, run.stderr

    @property
    def calls(self):
        """List the calls as text and what each was given."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [(" ".join(call["argv"]), call["stdin"]) for call in map(json.loads, lines)]

    @property
    def changes(self):
        """List the calls that change something, with what each sends, parsed where it is JSON."""
        return [
            (call.removeprefix("api --method "), json.loads(sent) if "--input" in call else sent)
            for call, sent in self.calls
            if re.search(r"--method|^(secret|variable) set", call)
        ]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that is deployed over SSH."""
    made = generate(tmp_path_factory.mktemp("github"), deploy="ssh")
    (made / ".venv").symlink_to(sys.prefix)
    return made


@pytest.fixture
def hub(project, tmp_path):
    """A copy of the project with a gh of its own."""
    return Hub(project, tmp_path)


FROM_MAIN = {"protected_branches": False, "custom_branch_policies": True}
MAIN = {"name": "main", "type": "branch"}
RULESET = {
    "name": "main",
    "target": "branch",
    "enforcement": "active",
    "bypass_actors": [],
    "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
    "rules": [
        {"type": "deletion"},
        {"type": "non_fast_forward"},
        {"type": "required_linear_history"},
        {
            "type": "pull_request",
            "parameters": {
                "allowed_merge_methods": ["squash"],
                "dismiss_stale_reviews_on_push": True,
                "require_code_owner_review": False,
                "require_last_push_approval": False,
                "required_approving_review_count": 0,
                "required_review_thread_resolution": True,
            },
        },
        {
            "type": "required_status_checks",
            "parameters": {
                "required_status_checks": [{"context": "gate", "integration_id": 15368}],
                "strict_required_status_checks_policy": False,
            },
        },
    ],
}


def test_a_new_repository(hub):
    """The first run makes every environment, value and protection, in so many calls."""
    code, _, warnings = hub.run()
    assert (0, "") == (code, warnings)
    at, of = "repos/Ada/penguins", "--repo Ada/penguins --env"
    names = ("monitoring", "production", "registry", "staging")
    environments = {
        f"PUT {at}/environments/{name} --input -": {"deployment_branch_policy": FROM_MAIN}
        for name in names
    } | {
        f"POST {at}/environments/{name}/deployment-branch-policies --input -": MAIN
        for name in names
    }
    hosts = "penguins.example ssh-ed25519 AAAA="
    values = {
        f"variable set DEPLOY_HOST {of} staging": "staging.example",
        f"variable set DEPLOY_HOST {of} production": "penguins.example",
        f"variable set DEPLOY_USER {of} staging": "deploy",
        f"variable set DEPLOY_USER {of} production": "deploy",
        f"variable set DEPLOY_KNOWN_HOSTS {of} staging": hosts,
        f"variable set DEPLOY_KNOWN_HOSTS {of} production": hosts,
        f"secret set DEPLOY_CREDENTIAL {of} staging": KEY,
        f"secret set DEPLOY_CREDENTIAL {of} production": KEY,
        f"secret set REGISTRY_PASSWORD {of} registry": 'hunter2 "and" more',
        f"secret set REGISTRY_PASSWORD {of} staging": 'hunter2 "and" more',
        f"secret set REGISTRY_PASSWORD {of} production": 'hunter2 "and" more',
    }
    protections = {
        f"POST {at}/rulesets --input -": RULESET,
        f"PUT {at}/vulnerability-alerts": None,
        f"PUT {at}/automated-security-fixes": None,
        f"PUT {at}/private-vulnerability-reporting": None,
        f"PUT {at}/actions/permissions --input -": {
            "enabled": True,
            "allowed_actions": "all",
            "sha_pinning_required": True,
        },
        f"PUT {at}/actions/permissions/workflow --input -": {
            "default_workflow_permissions": "read",
            "can_approve_pull_request_reviews": True,
        },
        f"POST {at}/pages --input -": {"build_type": "workflow"},
    }
    patched = f"PATCH {at} --input -"
    patches = [sent for call, sent in hub.changes if call == patched]
    enabled = {"status": "enabled"}
    scanning = {"secret_scanning": enabled, "secret_scanning_push_protection": enabled}
    assert [
        {
            "allow_merge_commit": False,
            "allow_rebase_merge": False,
            "allow_squash_merge": True,
            "delete_branch_on_merge": True,
            "squash_merge_commit_title": "PR_TITLE",
            "squash_merge_commit_message": "PR_BODY",
        },
        {"security_and_analysis": scanning},
    ] == patches
    made = [(call, sent) for call, sent in hub.changes if call != patched]
    assert environments | values | protections == dict(made)
    assert len(made) == len(dict(made))


def test_a_second_run(hub):
    """What is there is updated by its id, and what somebody added to it stays."""
    approvers = [{"type": "Team", "reviewer": {"id": 40}}]
    waits = {"type": "wait_timer", "wait_timer": 5}
    rules = [waits, {"prevent_self_review": True, "reviewers": approvers}]
    policies = {"branch_policies": [{"name": "main"}]}
    rulesets = [{"id": 41, "name": "others"}, {"id": 42, "name": "main"}]
    there = {
        "environments/production": {"protection_rules": rules},
        "environments/[a-z]+/deployment-branch-policies": policies,
        r"rulesets\?includes_parents=false&per_page=100": rulesets,
        "actions/permissions": {"enabled": True, "allowed_actions": "selected"},
        "pages": {"build_type": "legacy"},
    }
    found = [
        {"call": f"^api repos/Ada/penguins/{path}$", "out": json.dumps(answer)}
        for path, answer in there.items()
    ]
    hub.answers([USER, REPOSITORY, *found, NOTHING])
    code, _, warnings = hub.run()
    assert (0, "") == (code, warnings)
    made = dict(hub.changes)
    assert [] == [call for call in made if call.startswith("POST")]
    assert RULESET == made["PUT repos/Ada/penguins/rulesets/42 --input -"]
    assert {
        "wait_timer": 5,
        "prevent_self_review": True,
        "reviewers": [{"type": "Team", "id": 40}],
        "deployment_branch_policy": FROM_MAIN,
    } == made["PUT repos/Ada/penguins/environments/production --input -"]
    actions = made["PUT repos/Ada/penguins/actions/permissions --input -"]
    assert "selected" == actions["allowed_actions"]
    assert {"build_type": "workflow"} == made["PUT repos/Ada/penguins/pages --input -"]


def test_a_dry_run_changes_nothing(hub):
    """`make github DRY_RUN=1` prints each call that the real run makes, and makes none of them."""
    code, printed, warnings = hub.run("make", "github", "DRY_RUN=1")
    assert (0, "") == (code, warnings)
    assert [] == hub.changes
    shown = [line.split(" <<< ")[0] for line in printed.splitlines() if line.startswith("gh ")]
    hub.answers(NEW)
    assert 0 == hub.run("make", "github")[0]
    assert shown == [f"gh {call}" for call, _ in hub.calls if re.search("--method| set ", call)]
    assert "gh variable set DEPLOY_USER --repo Ada/penguins --env staging <<< deploy\n" in printed
    assert (
        "gh secret set DEPLOY_CREDENTIAL --repo Ada/penguins --env staging <<< (hidden)\n"
        in printed
    )


@pytest.mark.parametrize("words", [[], ["--dry-run"]], ids=["real", "dry"])
def test_secrets_stay_secret(hub, words):
    """No secret is a word of a command, which other users of a machine see, or is printed."""
    _, printed, warnings = hub.run(sys.executable, ".github/repository.py", *words)
    told = printed + warnings + "\n".join(call for call, _ in hub.calls)
    assert [] == [secret for secret in SECRETS if secret in told]
    given = "".join(sent or "" for _, sent in hub.calls)
    assert [not words] * 2 == [secret in given for secret in SECRETS]


def test_what_the_plan_has_not(hub):
    """A refused part is a warning that is said again at the end, and the rest is set up."""
    refuse = {"code": 1, "err": "gh: Upgrade to GitHub Enterprise (HTTP 422)\n"}
    no_environment = {"call": "--method PUT .*environments/production --input", **refuse}
    no_scanning = {"call": "private-vulnerability-reporting", **refuse}
    hub.answers([no_environment, no_scanning, *NEW])
    code, _, warnings = hub.run()
    assert 0 == code
    assert [
        "warning: environment production: Upgrade to GitHub Enterprise (HTTP 422)",
        "warning: private reports of flaws: Upgrade to GitHub Enterprise (HTTP 422)",
        "Not set in Ada/penguins, by its plan, its organisation or your rights in it: "
        "environment production; private reports of flaws",
    ] == warnings.splitlines()
    policies = "POST repos/Ada/penguins/environments/{}/deployment-branch-policies --input -"
    made = [policies.format(name) in dict(hub.changes) for name in ("production", "staging")]
    assert [False, True] == made
    assert "POST repos/Ada/penguins/pages --input -" in dict(hub.changes)


def test_what_the_organisation_decides(hub):
    """Where workflows may open no pull request, their token is held to reading all the same."""
    path = "PUT repos/Ada/penguins/actions/permissions/workflow --input -"
    refusal = {"code": 1, "err": "gh: Conflict (HTTP 409)\n"}
    hub.answers([{"call": f"--method {path}", **refusal, "times": 1}, *NEW])
    code, _, warnings = hub.run()
    assert 0 == code
    assert [
        "warning: a token that may propose: Conflict (HTTP 409)",
        "Not set in Ada/penguins, by its plan, its organisation or your rights in it: "
        "a token that may propose",
    ] == warnings.splitlines()
    assert [
        {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": True},
        {"default_workflow_permissions": "read"},
    ] == [sent for call, sent in hub.changes if call == path]
    assert "POST repos/Ada/penguins/pages --input -" in dict(hub.changes)


def test_a_failure_ends_the_run(hub):
    """What is no matter of plans, as a server that fails, is an error with a code of its own."""
    broken = {"call": "--method POST .*/rulesets", "code": 1, "err": "gh: Oops (HTTP 502)\n"}
    hub.answers([broken, *NEW])
    code, _, said = hub.run()
    expected = "error: ruleset main: a pull request with a green gate: Oops (HTTP 502)\n"
    assert (7, expected) == (code, said)
    assert "ruleset" in hub.calls[-1][0]


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        (
            [{"call": "^api user$", "code": 4, "err": "To get started: gh auth login\n"}],
            4,
            "error: gh is not logged in: gh auth login\n",
        ),
        (
            [{"call": "^api user$", "code": 1, "err": "gh: Bad credentials (HTTP 401)\n"}],
            4,
            "error: gh is not logged in: gh auth login\n",
        ),
        (
            [{"call": "^api user$", "code": 1, "err": "error connecting\ncheck your internet\n"}],
            7,
            "error: error connecting; check your internet\n",
        ),
        (
            [USER, {"call": "^api repos/", "code": 1, "err": "no git remotes found\n"}],
            5,
            "error: this folder is no repository on GitHub yet (no git remotes found): "
            "gh repo create --source . --private --push\n",
        ),
        (
            [USER, NOTHING],
            5,
            "error: GitHub does not show you this repository: Not Found (HTTP 404)\n",
        ),
        (
            [
                USER,
                {
                    "call": "^api repos/",
                    "out": json.dumps({**ADMIN, "permissions": {"admin": False}}),
                },
            ],
            5,
            "error: only an administrator of Ada/penguins can set it up\n",
        ),
    ],
    ids=["nobody", "expired", "offline", "no-remote", "not-there", "no-admin"],
)
def test_who_may_not(hub, answers, code, message):
    """Before anything is changed, one line says what is missing and what to do."""
    hub.answers(answers)
    assert (code, "", message) == hub.run()
    assert [] == hub.changes


def test_without_gh(hub):
    """Where gh is not installed, the line says where it is to be had."""
    message = "error: gh, GitHub's command line, is missing: cli.github.com\n"
    assert (3, "", message) == hub.run(path="/nowhere")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "DEPLOY_HOST=penguins.example\n",
            "",
            ".github/settings.env: DEPLOY_HOST is missing for production: the host that serves "
            "(.github/settings.env.example:6)",
        ),
        (
            "DEPLOY_CREDENTIAL=@key",
            "DEPLOY_CREDENTIAL=@none",
            ".github/settings.env:7: DEPLOY_CREDENTIAL: there is no file none",
        ),
        (
            "DEPLOY_HOST=",
            "DEPLOY_HSOT=",
            ".github/settings.env:3: there is no setting DEPLOY_HSOT; did you mean DEPLOY_HOST?",
        ),
        (
            "MLFLOW_TRACKING_URI=",
            "STAGING_MLFLOW_TRACKING_URI=x",
            ".github/settings.env:9: there is no setting STAGING_MLFLOW_TRACKING_URI; "
            "did you mean MLFLOW_TRACKING_URI?",
        ),
        ("DEPLOY_USER=", "DEPLOY_HOST=", ".github/settings.env:5: DEPLOY_HOST is set twice"),
        (
            "@key",
            KEY,
            ".github/settings.env:8 is not NAME=value; NAME=@file takes what a file holds",
        ),
    ],
    ids=["missing", "no-file", "misspelt", "nowhere", "twice", "pasted"],
)
def test_wrong_settings(hub, old, new, message):
    """A value that is missing, misspelt or no line is named with its place, and never repeated."""
    assert 1 == SETTINGS.count(old) or old in ("DEPLOY_HOST=", "DEPLOY_USER=")
    hub.settings.write_text(SETTINGS.replace(old, new, 1))
    code, _, said = hub.run()
    assert 6 == code
    assert f"error: {message}" in said.splitlines()
    assert [] == [secret for secret in SECRETS if secret in said]
    assert [] == hub.changes


def test_no_settings(hub):
    """Without settings.env the line says what to copy."""
    hub.settings.unlink()
    code, _, said = hub.run()
    expected = "there is no .github/settings.env: copy .github/settings.env.example and fill it in"
    assert (6, f"error: {expected}\n") == (code, said)


def test_settings_are_not_committed(hub):
    """Git ignores the file that holds secrets."""
    words = ["git", "check-ignore", ".github/settings.env"]
    assert ".github/settings.env\n" == subprocess.check_output(words, cwd=hub.project, text=True)


@pytest.mark.parametrize("deploy", ["ssh", "kubernetes", "none"])
def test_what_the_workflows_read(tmp_path, deploy):
    """The example explains every variable and secret that the workflows read, and no other."""
    folder = generate(tmp_path, deploy=deploy) / ".github"
    text = "\n".join(path.read_text() for path in folder.glob("workflows/*.yml"))
    read = set(re.findall(r"\b(vars|secrets)\.([A-Z_]+)", text))
    example = (folder / "settings.env.example").read_text()
    listed = re.findall(
        r"^# (variable|secret)(?: of [a-z, ]+)?: .+\n#?([A-Z_]+)=@?$", example, re.M
    )
    kinds = {"variable": "vars", "secret": "secrets"}
    explained = {(kinds[kind], name) for kind, name in listed}
    # An address may be a secret too, if somebody's address holds a password.
    assert {("secrets", "MLFLOW_TRACKING_URI")} >= read - explained
    assert set() == explained - read
    assert len(listed) == len(re.findall(r"^#?[A-Z_]+=", example, re.M))


@pytest.mark.parametrize("deploy", ["ssh", "kubernetes", "none"])
def test_what_the_pages_set(tmp_path, deploy):
    """Commands on the project's pages set a value where its workflows look for it."""
    project = generate(tmp_path, deploy=deploy)
    example = (project / ".github/settings.env.example").read_text()
    about = r"^# (variable|secret)(?: of ([a-z, ]+))?: .+\n#?([A-Z_]+)=@?$"
    places = {
        (kind, name): set(where.split(", ")) if where else {""}
        for kind, where, name in re.findall(about, example, re.M)
    }
    text = "\n".join(page.read_text() for page in project.glob("docs/**/*.md"))
    command = r"gh (variable|secret) set ([A-Z_]+)(?: --env ([a-z]+))?"
    found = {each for each in re.findall(command, text) if each[1] != "NAME"}
    assert found
    assert [] == [each for each in sorted(found) if each[2] not in places[each[:2]]]


def test_nothing_has_to_be_filled_in_where_nothing_is_deployed(tmp_path):
    """With deploy=none there is one environment, and no settings.env is needed."""
    hub = Hub(generate(tmp_path / "out", deploy="none"), tmp_path)
    hub.settings.unlink()
    assert 0 == hub.run()[0]
    made = [call for call, _ in hub.changes]
    assert "PUT repos/Ada/penguins/environments/registry --input -" in made
    assert [] == [call for call in made if re.search("staging|production|^variable|^secret", call)]
