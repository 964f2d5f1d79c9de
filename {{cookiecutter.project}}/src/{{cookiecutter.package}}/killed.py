"""What a killed run leaves of DVC: locks that nobody holds any more, and files half-written."""

import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
from zc.lockfile import LockError, LockFile

RUNNING = Path(".dvc/tmp/lock")
LOCKS = Path(".dvc/tmp/rwlock")
RECORD = Path("dvc.lock")


def release() -> bool:
    """Remove what a killed DVC left, unless another one runs; say whether there was anything.

    DVC asks whether the process id of a lock exists, which is so for a killed process that nobody
    has waited for, as in a container without an init. It writes its record of stages in place;
    without that it finds in its cache of runs what is done.
    """
    if RUNNING.exists():
        with suppress(LockError), closing(LockFile(str(RUNNING))):
            locks = _locks()
            if any(_runs(holder["pid"]) for holder in _holders(locks or {})):
                return False
            left = [LOCKS] if locks != {} else []
            if _torn():
                left.append(RECORD)
            for path in left:
                path.unlink()
            return bool(left)
    return False


def _torn() -> bool:
    return RECORD.exists() and not RECORD.read_bytes().endswith(b"\n")


def _locks() -> dict[str, Any] | None:
    """Read who holds what; None where that cannot be read."""
    try:
        held: dict[str, Any] = json.loads(LOCKS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError:
        return None
    return held


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
