"""Stands in for a marketplace action: records its inputs and does what a job needs of it.

Called with the action's name; the inputs come as JSON in INPUTS, what it may use in STANDIN_*.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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
    """Bring back the environment of the project that the tests installed, if it has this Python."""
    saved = Path(os.environ["STANDIN_VENV"])
    config = (saved / "pyvenv.cfg").read_text()
    python = inputs["key"].split("-")[2]
    if f"version = {python}\n" not in config or ".venv" not in inputs["path"].split():
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
    """Keep a file, or the content of a folder."""
    source, kept = WORKSPACE / inputs["path"], ARTIFACTS / inputs["name"]
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


if __name__ == "__main__":
    name, given = sys.argv[1], json.loads(os.environ["INPUTS"])
    record(name, given)
    globals()[name.replace("-", "_")](given)
