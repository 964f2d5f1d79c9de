"""Set up this repository on GitHub: `make github`; `make github DRY_RUN=1` shows each call.

Makes the environments, sets the variables and secrets of settings.env, protects main and turns on
what GitHub has for safety. What is set by hand beside that stays, so it may run any time again.
"""

import difflib
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

EXAMPLE = Path(".github/settings.env.example")
SETTINGS = Path(".github/settings.env")
ABOUT = re.compile(r"# (variable|secret)(?: of ([a-z, ]+))?: (.+)")
ASSIGNMENT = re.compile(r"(#?)([A-Z][A-Z0-9_]*) *= *(.*)")
# A plan without the feature answers with one of these, and so does GitHub where rights are missing
# or the organisation has decided.
REFUSED = re.compile(r"HTTP (403|404|409|422)")
GITHUB_ACTIONS = 15368  # the app whose check it has to be: any other could report a "gate" too

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
                # Nobody can approve their own: raise it where there are two of you.
                "required_approving_review_count": 0,
                "required_review_thread_resolution": True,
            },
        },
        {
            "type": "required_status_checks",
            "parameters": {
                "required_status_checks": [{"context": "gate", "integration_id": GITHUB_ACTIONS}],
                "strict_required_status_checks_policy": False,
            },
        },
    ],
}
MERGING = {
    "allow_merge_commit": False,
    "allow_rebase_merge": False,
    "allow_squash_merge": True,
    "delete_branch_on_merge": True,
    # The title of a pull request becomes a commit of main, and so a line of the changelog.
    "squash_merge_commit_title": "PR_TITLE",
    "squash_merge_commit_message": "PR_BODY",
}


class SetupError(Exception):
    """What ends the run, with the exit code that says so."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Setting:
    """A variable or secret that settings.env.example describes."""

    kind: str
    name: str
    places: tuple[str, ...]  # environments; none: the repository
    required: bool
    description: str
    line: int


def known_settings():
    """Read settings.env.example, the list of all settings; one with # in front is optional."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for number, (above, line) in enumerate(pairwise(lines), 2):
        about, assigned = ABOUT.fullmatch(above), ASSIGNMENT.fullmatch(line)
        if about and assigned:
            kind, places, description = about.groups()
            places = tuple((places or "").replace(",", " ").split())
            yield Setting(kind, assigned[2], places, not assigned[1], description, number)


def read_settings(names, problems):
    """Read NAME=value lines; no problem repeats a value, which may be a part of a secret."""
    values = {}
    text = SETTINGS.read_text(encoding="utf-8") if SETTINGS.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        place, assigned = f"{SETTINGS}:{number}", ASSIGNMENT.fullmatch(line.strip())
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not assigned:
            problems.append(f"{place} is not NAME=value; NAME=@file takes what a file holds")
            continue
        _, name, value = assigned.groups()
        value = value.strip()
        path = Path(value[1:]).expanduser()
        if value in ("", "@"):
            continue
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"{EXAMPLE} has all there are"
            problems.append(f"{place}: there is no setting {name}; {hint}")
        elif name in values:
            problems.append(f"{place}: {name} is set twice")
        elif not value.startswith("@"):
            values[name] = value[1:-1] if re.fullmatch(r"""(["']).*\1""", value) else value
        elif not path.is_file():
            problems.append(f"{place}: {name}: there is no file {path}")
        else:
            values[name] = path.read_text(encoding="utf-8")
    return values


def assign(settings):
    """Say which value each setting has in which environment, or all that is wrong at once.

    Raises
    ------
    SetupError
        A value is missing, or settings.env has what nobody reads.
    """
    problems, assigned = [], []
    names = {one.name for one in settings} | {
        f"{place.upper()}_{one.name}" for one in settings for place in one.places
    }
    values = read_settings(names, problems)
    for one in settings:
        for place in one.places or (None,):
            own = f"{place.upper()}_{one.name}" if place else one.name
            value = values.get(own) or values.get(one.name)
            if value:
                assigned.append((one, place, value))
            elif one.required:
                problems.append(
                    f"{SETTINGS}: {one.name} is missing{f' for {place}' if place else ''}: "
                    f"{one.description} ({EXAMPLE}:{one.line})"
                )
    if problems:
        if not SETTINGS.exists():
            problems = [f"there is no {SETTINGS}: copy {EXAMPLE} and fill it in"]
        raise SetupError(6, "\n".join(f"error: {problem}" for problem in problems))
    return assigned


def gh(*words, stdin=None):
    """Run gh; a secret goes in by standard input, as other users see the words of a command."""
    return subprocess.run(["gh", *words], input=stdin, capture_output=True, text=True, check=False)


def said(run):
    """Return in one line what gh says of a failure."""
    lines = [line.strip().removeprefix("gh: ") for line in run.stderr.splitlines()]
    return "; ".join(filter(None, lines)) or f"gh ended with {run.returncode}"


def log_in():
    """See that gh is there, and somebody logged in.

    Raises
    ------
    SetupError
        There is no gh, nobody is logged in, or GitHub does not answer.
    """
    if not shutil.which("gh"):
        raise SetupError(3, "error: gh, GitHub's command line, is missing: cli.github.com")
    run = gh("api", "user")
    if run.returncode == 4 or "HTTP 401" in run.stderr:  # 4: nobody was ever logged in
        raise SetupError(4, "error: gh is not logged in: gh auth login")
    if run.returncode:
        raise SetupError(7, f"error: {said(run)}")


class Repository:
    """The repository that origin names: asks, changes, and remembers what GitHub refused."""

    def __init__(self, dry):
        self.dry = dry
        self.refused = []
        run = gh("api", "repos/{owner}/{repo}")  # gh fills these in from the remote
        if run.returncode and "HTTP" not in run.stderr:
            raise SetupError(
                5,
                f"error: this folder is no repository on GitHub yet ({said(run)}): "
                "gh repo create --source . --private --push",
            )
        if run.returncode:
            raise SetupError(5, f"error: GitHub does not show you this repository: {said(run)}")
        found = json.loads(run.stdout)
        self.name = found["full_name"]
        if not found["permissions"]["admin"]:
            raise SetupError(5, f"error: only an administrator of {self.name} can set it up")

    def ask(self, path):
        """Return what GitHub has there, or nothing."""
        run = gh("api", f"repos/{self.name}/{path}")
        if run.returncode == 0:
            return json.loads(run.stdout)
        if REFUSED.search(run.stderr):
            return {}
        raise SetupError(7, f"error: {path}: {said(run)}")

    def change(self, what, method, path, body=None):
        """Ask for a change; a refusal is a warning, as what remains can still be done."""
        words = ["api", "--method", method, f"repos/{self.name}/{path}".rstrip("/")]
        if body is None:
            return self.run(what, words)
        text = json.dumps(body, indent=2)
        return self.run(what, [*words, "--input", "-"], text, text)

    def set(self, setting, place, value):
        """Set a variable or a secret."""
        words = [setting.kind, "set", setting.name, "--repo", self.name]
        words += ["--env", place] if place else []
        what = f"{setting.kind} {setting.name}{f' of {place}' if place else ''}"
        return self.run(what, words, value, value if setting.kind == "variable" else "(hidden)")

    def run(self, what, words, stdin=None, shown=""):
        """Run one call that changes something, or only show it."""
        if self.dry:
            print(f"gh {shlex.join(words)}", *([f"<<< {shown}"] if stdin else []))
            return True
        run = gh(*words, stdin=stdin)
        if run.returncode == 0:
            print(what)
        elif REFUSED.search(run.stderr):
            print(f"warning: {what}: {said(run)}", file=sys.stderr)
            self.refused.append(what)
        else:
            raise SetupError(7, f"error: {what}: {said(run)}")
        return run.returncode == 0


def make_environment(repository, name):
    """Let an environment be used from main alone; who approves and how long it waits stay."""
    path = f"environments/{name}"
    only_main = {"protected_branches": False, "custom_branch_policies": True}
    body = {"deployment_branch_policy": only_main}
    # What the request leaves out is taken away.
    for rule in repository.ask(path).get("protection_rules", []):
        body |= {key: rule[key] for key in ("wait_timer", "prevent_self_review") if key in rule}
        if "reviewers" in rule:
            body["reviewers"] = [
                {"type": one["type"], "id": one["reviewer"]["id"]} for one in rule["reviewers"]
            ]
    made = repository.change(f"environment {name}", "PUT", path, body)
    policies = f"{path}/deployment-branch-policies"
    found = repository.ask(policies).get("branch_policies", [])
    if made and "main" not in [policy["name"] for policy in found]:
        branch = {"name": "main", "type": "branch"}
        repository.change(f"environment {name} from main alone", "POST", policies, branch)


def protect(repository):
    """Let main change by pull requests that are green, and by nothing else."""
    repository.change("squash merges, merged branches go", "PATCH", "", MERGING)
    found = repository.ask("rulesets?includes_parents=false&per_page=100")
    ids = [ruleset["id"] for ruleset in found if ruleset["name"] == RULESET["name"]]
    method, path = ("PUT", f"rulesets/{ids[0]}") if ids else ("POST", "rulesets")
    repository.change("ruleset main: a pull request with a green gate", method, path, RULESET)


def turn_on(repository):
    """Turn on what GitHub has for safety, and Pages."""
    scanning = {
        "secret_scanning": {"status": "enabled"},
        "secret_scanning_push_protection": {"status": "enabled"},
    }
    repository.change("secret scanning", "PATCH", "", {"security_and_analysis": scanning})
    repository.change("Dependabot alerts", "PUT", "vulnerability-alerts")
    repository.change("Dependabot security updates", "PUT", "automated-security-fixes")
    repository.change("private reports of flaws", "PUT", "private-vulnerability-reporting")
    allowed = repository.ask("actions/permissions").get("allowed_actions", "all")
    actions = {"enabled": True, "allowed_actions": allowed, "sha_pinning_required": True}
    repository.change("actions only by commit", "PUT", "actions/permissions", actions)
    path = "actions/permissions/workflow"
    token = {"default_workflow_permissions": "read"}
    # The second lets release.yml open its pull request.
    proposing = token | {"can_approve_pull_request_reviews": True}
    if not repository.change("a token that may propose", "PUT", path, proposing):
        repository.change("a token that may read", "PUT", path, token)
    method = "PUT" if repository.ask("pages") else "POST"
    repository.change("Pages", method, "pages", {"build_type": "workflow"})


def main(arguments):
    """Set everything up; return the exit code."""
    if unknown := set(arguments) - {"--dry-run"}:
        raise SetupError(2, f"error: unknown: {' '.join(sorted(unknown))}; there is --dry-run")
    settings = list(known_settings())
    log_in()
    assigned = assign(settings)
    repository = Repository(dry=bool(arguments))
    for name in sorted({place for one in settings for place in one.places}):
        make_environment(repository, name)
    for setting, place, value in assigned:
        repository.set(setting, place, value)
    protect(repository)
    turn_on(repository)
    if repository.refused:
        print(
            f"Not set in {repository.name}, by its plan, its organisation or your rights in it:",
            "; ".join(repository.refused),
            file=sys.stderr,
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetupError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
