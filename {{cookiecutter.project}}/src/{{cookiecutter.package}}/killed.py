"""What a killed run leaves: locks of DVC, which are valid to it while their holders' ids exist."""

import json
from pathlib import Path
from typing import Any

import psutil

LOCKS = Path(".dvc/tmp/rwlock")


def release() -> bool:
    """Remove DVC's locks where none of their holders runs any more; say whether there were any.

    DVC asks whether a process id exists, which is so for a killed process that nobody has waited
    for, as in a container without an init.
    """
    try:
        held = json.loads(LOCKS.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    if not held or any(_runs(holder["pid"]) for holder in _holders(held)):
        return False
    LOCKS.unlink()
    return True


def _holders(held: dict[str, Any]) -> list[dict[str, Any]]:
    """List who holds a file: one that writes it, or some that read it."""
    found = []
    for kinds in held.values():
        for holders in kinds.values():
            found += holders if isinstance(holders, list) else [holders]
    return [holder for holder in found if holder]


def _runs(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
