"""`make demo`, the first thing that anybody runs."""

import re
import socket
import subprocess
import sys

from conftest import KIT, copy_kit, environment


def demo(kit):
    """Run the script of a copy of the kit."""
    words = [sys.executable, "scripts/demo.py"]
    return subprocess.run(words, cwd=kit, env=environment(), capture_output=True, text=True)


def test_demo_walks_the_whole_road(kit_repository):
    """It prints a prediction beside the truth, says how to go on, and leaves nothing running."""
    for name in (".venv", ".poetry"):
        if (KIT / name).exists():
            (kit_repository / name).symlink_to(KIT / name)
    run = demo(kit_repository)
    assert 0 == run.returncode, run.stdout + run.stderr
    said = dict(re.findall(r"^ {3}(row|prediction|truth) +(.+)$", run.stdout, re.MULTILINE))
    assert said["truth"] == said["prediction"]
    assert run.stdout.endswith("cd demo/penguins && make serve, then http://127.0.0.1:8000\n")
    port = int(re.search(r"http://127\.0\.0\.1:(\d+) and ask", run.stdout)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))


def test_demo_replaces_only_its_own_folder(tmp_path):
    """A folder of that name that somebody else made stays as it is."""
    kit = copy_kit(tmp_path / "kit")
    (kit / "demo").mkdir()
    (kit / "demo/mine").touch()
    run = demo(kit)
    assert "was not made by `make demo`: move it away first" in run.stderr
    assert 1 == run.returncode
    assert (kit / "demo/mine").exists()
