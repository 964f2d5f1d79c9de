import http.client
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from {{ cookiecutter.package }}.errors import ServingError
from {{ cookiecutter.package }}.serving import logs, server
from {{ cookiecutter.package }}.settings import Events, Serving

PACKAGE = "{{ cookiecutter.package }}"


def free_port():
    """Find a port that nobody uses, and that no client is given until it is."""
    while True:
        port = 10_000 + secrets.randbelow(10_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def visit(port, page):
    """Wait for the service, keep what it answers, and press Ctrl-C."""
    for _ in range(1200):
        with suppress(OSError):
            address = f"http://127.0.0.1:{port}/health/ready"
            with urllib.request.urlopen(address, timeout=1) as answer:
                page.append(answer.read())
                break
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


def test_serve_until_interrupted(road, capfd, monkeypatch):
    """The service says where it is, answers there, and ends in peace on Ctrl-C."""
    # The log of the tests stays pytest's.
    unchanged = {"version": 1, "incremental": True}
    monkeypatch.setattr(logs, "configuration", lambda _: unchanged)
    port = free_port()
    section = road.settings.serving.model_copy(update={"port": port})
    page = []
    visitor = threading.Thread(target=visit, args=(port, page), daemon=True)
    visitor.start()
    server.serve(road.settings.model_copy(update={"serving": section}))
    visitor.join()
    assert ["ok"] == [json.loads(answer)["status"] for answer in page]
    address = f"http://127.0.0.1:{port}"
    assert f"Garden: page {address}/  API {address}/docs\n" == capfd.readouterr().out


def test_taken_port_is_named_with_its_setting():
    """A port that somebody else listens on is reported in one line, with the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError) as caught:
            server.listen(Serving(port=port))
    assert (
        f"port {port} on 127.0.0.1 is taken; "
        "set serving.port in params.yaml, or APP_SERVING__PORT" == str(caught.value)
    )


def test_foreign_address_is_refused():
    """An address of another machine is reported, with the way out."""
    with pytest.raises(ServingError, match=r"192\.0\.2\.1 is no address of this machine; set serv"):
        server.listen(Serving(host="192.0.2.1"))


def test_unknown_host_is_refused():
    """A name that nobody knows is reported, with the way out."""
    with pytest.raises(
        ServingError, match=r"host 'nowhere\.invalid' is unknown.*APP_SERVING__HOST"
    ):
        server.listen(Serving(host="nowhere.invalid"))


def test_low_port_needs_rights(monkeypatch):
    """A port that only root may take is reported, with the way out."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ServingError, match=r"port 80 on 127\.0\.0\.1 needs more rights"):
        server.listen(Serving(port=80))


@pytest.mark.parametrize("key", [True, False], ids=["keys", "no keys"])
def test_open_door_is_told(road, tmp_path, monkeypatch, caplog, key):
    """Bound to more than this machine, a service without keys says so once, with the setting."""
    monkeypatch.setattr(logs, "configuration", lambda _: {"version": 1, "incremental": True})
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: None)
    file = tmp_path / "keys.txt"
    file.touch()
    changed = {"host": "0.0.0.0", "port": 0, "keys": file if key else None}  # noqa: S104
    section = road.settings.serving.model_copy(update=changed)
    update = {"serving": section, "events": Events(mode="off")}
    server.serve(road.settings.model_copy(update=update))
    told = [record.getMessage() for record in caplog.records if record.name == server.__name__]
    warning = "anybody who reaches 0.0.0.0 may ask: serving.keys is null"
    assert ([] if key else [warning]) == told


def test_connections_do_not_wait_for_acknowledgements():
    """What asyncio sets on no connection of a socket from elsewhere comes from the listener."""
    with (
        server.listen(Serving(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert 1 == accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.fixture(name="running")
def running_fixture(road, tmp_path):
    """The function that runs the service as users do, without events; yields process and port."""

    @contextmanager
    def run(**changed):
        port = free_port()
        section = road.settings.serving.model_copy(update={"port": port, **changed})
        update = {"serving": section, "events": Events(mode="off")}
        settings = road.settings.model_copy(update=update)
        params = tmp_path / "params.yaml"
        params.write_text(settings.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", PACKAGE, "serve", "--params", str(params)]
        (tmp_path / "tmp").mkdir()
        path = str(Path(server.__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "tmp")}
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
            try:
                page = []
                wait_for(lambda: page or answered(port, "/health/ready", page))
                yield process, port
            finally:
                process.kill()

    return run


def wait_for(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError


def answered(port, path, page):
    address = f"http://127.0.0.1:{port}{path}"
    with (
        suppress(OSError, http.client.HTTPException),
        urllib.request.urlopen(address, timeout=60) as answer,
    ):
        page.append(answer.read())
    return page


def predicted(port, body):
    """How many predictions the service counts, after one more on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", body, {"content-type": "application/json"})
    assert 200 == connection.getresponse().status
    connection.close()
    page = []
    families = text_string_to_metric_families(answered(port, "/metrics", page)[0].decode())
    (rows,) = (each.samples for each in families if each.name == "model_predictions")
    return next(each.value for each in rows if each.labels == {"role": "champion"})


def test_an_answer_is_one_packet(running):
    """Head and body leave together: twenty answers are twenty segments."""
    with running() as (_, port), socket.create_connection(("127.0.0.1", port), 10) as client:
        for _ in range(20):
            client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b'\r\n\r\n{"status":"ok"}')
        if sys.platform == "linux":
            # tcpi_data_segs_in: on a busy machine two segments may be read as one.
            told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
            assert (20,) == struct.unpack_from("I", told, 152)


def test_requests_under_way_are_answered_before_the_end(running, road):
    """What was begun before SIGTERM is answered; then the process ends as if nothing was wrong."""
    body = json.dumps({"rows": [road.predictor.examples[0]["row"]]}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    head += "content-type: application/json\r\n\r\n"
    with running() as (process, port):
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(8)]
        for client in clients:
            client.sendall(head.encode() + body[:20])
        # One answer more, so that all heads were read.
        answered(port, "/health/live", [])
        process.terminate()
        wait_for(lambda: refused(port))
        for client in clients:
            client.sendall(body[20:])
        answers = [received(client) for client in clients]
        assert 0 == process.wait(60)
        said = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert {"info"} == {line["level"] for line in said}
    for client in clients:
        client.close()
    assert [b"HTTP/1.1 200 OK"] * 8 == [answer[:15] for answer in answers]


def received(client):
    """All that is sent until the connection is closed."""
    return b"".join(iter(partial(client.recv, 4096), b""))


def refused(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return False
    return True


def workers(process):
    """The processes that answer, by their ids."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8")
    found = set()
    for pid in children.split():
        # One that was killed may be gone by now.
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(int(pid))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_workers(running, road, tmp_path):
    """Two workers count as one, also after one was killed and replaced; all end in peace."""
    body = json.dumps({"rows": [road.predictor.examples[0]["row"]]})
    with running(workers=2) as (process, port):
        wait_for(lambda: len(workers(process)) == 2)
        assert list(range(1, 11)) == [predicted(port, body) for _ in range(10)]
        before = workers(process)
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(workers(process) - before) == 1)
        assert list(range(11, 21)) == [predicted(port, body) for _ in range(10)]
        process.terminate()
        assert 0 == process.wait(60)
        messages = [json.loads(line)["message"] for line in process.stderr]
    assert f"Child process [{min(before)}] died" in messages
    assert [] == [path for path in (tmp_path / "tmp").iterdir() if path.is_dir()]
