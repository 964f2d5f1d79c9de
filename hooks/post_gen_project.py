"""Keep the files that the answers ask for, place the lock and make the first commit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ANSWERS = r"""{{ cookiecutter | jsonify }}"""


def apply_options(root, answers):
    """Remove what belongs to values not chosen; what is named after a chosen one loses that name.

    ``LICENSE-MIT`` becomes ``LICENSE``, ``deploy-ssh`` becomes ``deploy``.
    """
    for option, values in answers["_optional"].items():
        kept = values[answers[option]]
        for path in {path for paths in values.values() for path in paths}.difference(kept):
            target = root / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        for path in kept:
            name = Path(path).name.replace(f"-{answers[option]}", "")
            (root / path).rename((root / path).with_name(name))


def place_lock(root, answers):
    """Move the lock of the chosen combination to the top."""
    for lock in (root / ".locks" / f"{answers['manager']}-{answers['quality']}").iterdir():
        lock.rename(root / lock.name)
    shutil.rmtree(root / ".locks")


def commit(root, answers):
    """Make the folder a repository with one commit; say why if it does not become one."""
    if "_commit" in answers:
        # cruft adds its record after this hook, and compares generated folders file by file.
        return (
            "No repository: cruft adds .cruft.json first, then: git init && git add . && git commit"
        )
    if not shutil.which("git"):
        return "No repository: git is missing."

    def git(*words):
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)

    # 1: inside a repository that does not ignore the folder; 0: ignored there; 128: outside of any.
    if git("check-ignore", "--quiet", ".").returncode == 1:
        return "No repository: this folder lies inside one."
    name = ("-c", f"user.name={answers['author']}", "-c", "user.email=nobody@localhost")
    identity = () if git("var", "GIT_AUTHOR_IDENT").returncode == 0 else name
    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    made = git(*identity, "commit", "--quiet", "--message", "Generate the project")
    return f"No commit: {made.stderr.strip()}" if made.returncode else ""


def compared():
    """Say whether cruft renders this only to compare it, where the system shows its command."""
    shown = Path(f"/proc/{os.getppid()}/cmdline")
    words = shown.read_text().split("\0") if shown.exists() else []
    return bool({"update", "diff"}.intersection(words))


def main():
    """Finish the generated project in the working directory."""
    answers = json.loads(ANSWERS)
    root = Path.cwd()
    apply_options(root, answers)
    place_lock(root, answers)
    if "_commit" in answers and compared():
        return
    if word := commit(root, answers):
        print(word)
    print(f"\nNext:\n  cd {answers['project']}\n  make serve")


if __name__ == "__main__":
    sys.exit(main())
