"""Stands in for a marketplace action: records its inputs and does what a job needs of it.

Called with the action's name; the inputs come as JSON in INPUTS, what it may use in STANDIN_*.
"""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

WORKSPACE = Path(os.environ["GITHUB_WORKSPACE"])
ARTIFACTS = Path(os.environ["STANDIN_ARTIFACTS"])


def record(action, inputs):
    """Append the call to the trace that the tests read."""
    entry = {"action": action, "job": os.environ["GITHUB_JOB"], "inputs": inputs}
    with open(os.environ["STANDIN_TRACE"], "a", encoding="utf-8") as trace:
        trace.write(json.dumps(entry) + "\n")


def tell(channel, *lines):
    """Write to one of the files through which a step speaks to the runner."""
    with open(os.environ[channel], "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def setup_python(inputs):
    """Pick the interpreter that was asked for, by version or by file."""
    file = inputs["python-version-file"]
    wanted = inputs["python-version"] or (WORKSPACE / file).read_text().strip()
    python = json.loads(os.environ["STANDIN_PYTHONS"])[wanted]
    script = "import platform, sys; print(platform.python_version()); print(sys.executable)"
    version, path = subprocess.check_output([python, "-c", script], text=True).split("\n")[:2]
    tell("GITHUB_PATH", Path(path).parent)
    tell("GITHUB_OUTPUT", f"python-version={version}", f"python-path={path}")


def cache(inputs):
    """Bring back what the key names: the environment, or a folder that later runs find again."""
    if ".venv" in inputs["path"].split():
        environment(inputs["key"])
    else:
        kept, path = Path(os.environ["STANDIN_CACHE"], inputs["key"]), WORKSPACE / inputs["path"]
        kept.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(kept)


def environment(key):
    """Bring back the environment of the project that the tests installed, if it has this Python."""
    saved = Path(os.environ["STANDIN_VENV"])
    config = (saved / "pyvenv.cfg").read_text()
    python = key.split("-")[2]
    if f"version = {python}\n" not in config:
        return
    # Linked, as a gigabyte is slow to copy: nothing writes into an installed file in place.
    shutil.copytree(saved, WORKSPACE / ".venv", symlinks=True, copy_function=os.link)
    # A real runner has one workspace for all runs; here each job has its own, and an environment
    # names its place: in scripts, and where it lists what to remove before a new installation.
    packages = next(WORKSPACE.glob(".venv/lib/python*/site-packages"))
    named = [
        *WORKSPACE.glob(".venv/bin/*"),
        *packages.glob("*.pth"),
        *packages.glob("*.dist-info/*"),
    ]
    old, new = str(saved.parent).encode(), str(WORKSPACE).encode()
    for path in named:
        if path.is_file() and not path.is_symlink() and old in (content := path.read_bytes()):
            mode = path.stat().st_mode
            path.unlink()
            path.write_bytes(content.replace(old, new))
            path.chmod(mode)
    tell("GITHUB_OUTPUT", "cache-hit=true")


def upload_artifact(inputs):
    """Keep a file, or the content of a folder; a job that runs again has to say that it may."""
    source, kept = WORKSPACE / inputs["path"], ARTIFACTS / inputs["name"]
    if kept.exists() and inputs["overwrite"] != "true":
        sys.exit("(409) Conflict: an artifact with this name already exists on the workflow run")
    shutil.rmtree(kept, ignore_errors=True)
    if source.is_dir() and any(source.iterdir()):
        shutil.copytree(source, kept)
    elif source.is_file():
        kept.mkdir()
        shutil.copyfile(source, kept / source.name)
    elif inputs["if-no-files-found"] == "error":
        sys.exit(f"No files were found with the provided path: {inputs['path']}")


def download_artifact(inputs):
    """Bring back what another job kept, as new files."""
    shutil.copytree(
        ARTIFACTS / inputs["name"],
        WORKSPACE / inputs["path"],
        dirs_exist_ok=True,
        copy_function=shutil.copyfile,
    )


def trivy_action(inputs):
    """Find what the test has sown, as far as the severity and the list of exceptions let it."""
    target = WORKSPACE / (inputs["input"] or inputs["scan-ref"])
    if not target.exists():
        sys.exit(f"FATAL no such file or directory: {target}")
    if inputs["output"]:
        bom = {"bomFormat": "CycloneDX", "metadata": {"component": {"name": target.name}}}
        found = {"cyclonedx": bom, "sarif": {"runs": []}}[inputs["format"]]
        (WORKSPACE / inputs["output"]).write_text(json.dumps(found))
        return
    accepted = set()
    if inputs["trivyignores"]:
        entries = yaml.safe_load((WORKSPACE / inputs["trivyignores"]).read_text())
        today = datetime.datetime.now(datetime.UTC).date()
        accepted = {e["id"] for e in entries["vulnerabilities"] if e["expired_at"] > today}
    if target.is_dir() and "secret" in inputs["scanners"]:
        for path in filter(Path.is_file, target.rglob("*")):
            if re.search(rb"\bAKIA[0-9A-Z]{16}\b", path.read_bytes()):
                print(f"aws-access-key-id {path.name}", flush=True)
                sys.exit(int(inputs["exit-code"] or 0))
    for finding in os.environ.get("STANDIN_FINDINGS", "").split():
        identifier, severity = finding.split(":")
        asked = inputs["severity"] or severity
        if severity in asked.split(",") and identifier not in accepted:
            print(f"{identifier} {severity}", flush=True)
            sys.exit(int(inputs["exit-code"] or 0))


def attest(inputs):
    """Need what the action needs: the files that are named."""
    for name in ("sbom-path", "predicate-path"):
        if inputs[name]:
            json.loads((WORKSPACE / inputs[name]).read_text())
    if inputs["subject-path"] and not list(WORKSPACE.glob(inputs["subject-path"])):
        sys.exit(f"Could not find subject at path {inputs['subject-path']}")


def codeql_upload_sarif(inputs):
    """Need the file that is named."""
    json.loads((WORKSPACE / inputs["sarif_file"]).read_text())


def only_recorded(inputs):
    """Do nothing but have been called: what it does happens on GitHub."""


dependency_review_action = codeql_init = codeql_analyze = only_recorded


def upload_pages_artifact(inputs):
    """Keep the site."""
    shutil.copytree(WORKSPACE / inputs["path"], ARTIFACTS / "github-pages")


def deploy_pages(inputs):
    """Publish the site that was kept, which has to be there."""
    shutil.copytree(ARTIFACTS / "github-pages", ARTIFACTS / "published")
    tell("GITHUB_OUTPUT", "page_url=https://pages.example/")


if __name__ == "__main__":
    name, given = sys.argv[1], json.loads(os.environ["INPUTS"])
    record(name, given)
    globals()[name.replace("-", "_")](given)
