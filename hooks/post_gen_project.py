"""Keep the files that the answers ask for, place the lock and make the first commit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ANSWERS = r"""{{ cookiecutter | jsonify }}"""


def apply_options(root, answers):
    """Remove every file that belongs to an option value not chosen."""
    for option, values in answers["_optional"].items():
        kept = values[answers[option]]
        for path in {path for paths in values.values() for path in paths}.difference(kept):
            target = root / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    (root / f"LICENSE-{answers['license']}").rename(root / "LICENSE")


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


def main():
    """Finish the generated project in the working directory."""
    answers = json.loads(ANSWERS)
    root = Path.cwd()
    apply_options(root, answers)
    place_lock(root, answers)
    if word := commit(root, answers):
        print(word)
    print(f"\nNext:\n  cd {answers['project']}\n  make serve")


if __name__ == "__main__":
    sys.exit(main())
