import json
import os
import subprocess
import sys

import pytest
from zc.lockfile import LockFile

from {{ cookiecutter.package }} import killed


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder in which DVC ran."""
    monkeypatch.chdir(tmp_path)
    killed.RUNNING.parent.mkdir(parents=True)
    killed.RUNNING.touch()


@pytest.fixture
def locks():
    """Write DVC's lock file, as held by a process."""

    def write(process):
        holder = {"pid": process, "cmd": "dvc repro"}
        held = {"data/a": {"write": holder}, "data/b": {"read": [holder]}}
        killed.LOCKS.write_text(json.dumps(held), encoding="utf-8")

    return write


def test_locks_of_a_killed_process_go(locks):
    """A process that ended, even one that nobody has waited for, holds nothing."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        # The end of its output is the end of the process, which stays a zombie until it is asked.
        ended.stdout.read()
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        locks(ended.pid)
        assert killed.release()
    assert not killed.LOCKS.exists()
    assert not killed.release()


def test_locks_of_a_running_process_stay(locks):
    """Who runs keeps what it holds."""
    locks(os.getpid())
    assert not killed.release()
    assert killed.LOCKS.exists()


def test_locks_that_cannot_be_read_go(locks):
    """DVC stops at a file of locks that was half-written."""
    locks(1)
    killed.LOCKS.write_bytes(killed.LOCKS.read_bytes()[:-9])
    assert killed.release()
    assert not killed.LOCKS.exists()


@pytest.mark.parametrize("torn", ["", "schema: '2.0'\nstages:\n  snapshot:\n    cmd: pyth"])
def test_a_torn_record_goes(torn):
    """So does a record that does not end as DVC ends it."""
    killed.RECORD.write_text(torn, encoding="utf-8")
    assert killed.release()
    assert not killed.RECORD.exists()


def test_a_whole_record_stays():
    """A record that DVC, or somebody who resolves a conflict, wrote to its end is nobody's rest."""
    killed.RECORD.write_text("schema: '2.0'\n", encoding="utf-8")
    assert not killed.release()
    assert killed.RECORD.exists()


def test_nothing_goes_while_dvc_runs(locks):
    """What is half-written may be in work."""
    killed.RECORD.touch()
    locks(os.getpid())
    assert not killed.release()
    killed.LOCKS.write_bytes(b"")
    running = LockFile(str(killed.RUNNING))
    assert not killed.release()
    running.close()
    assert killed.release()
    assert not killed.RECORD.exists()
    assert not killed.LOCKS.exists()
