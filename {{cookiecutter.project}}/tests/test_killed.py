import json
import os
import subprocess
import sys

import pytest

from {{ cookiecutter.package }} import killed


@pytest.fixture
def locks(tmp_path, monkeypatch):
    """Write DVC's lock file, as held by a process."""
    monkeypatch.chdir(tmp_path)

    def write(process):
        holder = {"pid": process, "cmd": "dvc repro"}
        killed.LOCKS.parent.mkdir(parents=True, exist_ok=True)
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
