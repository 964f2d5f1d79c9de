import json
import shutil
import socketserver
import ssl
import subprocess
import threading
from contextlib import contextmanager
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from {{ cookiecutter.package }} import checks, store
from {{ cookiecutter.package }}.checks import Finding, Model, Window
from {{ cookiecutter.package }}.errors import StoreError
from {{ cookiecutter.package }}.monitoring import alerts
from {{ cookiecutter.package }}.monitoring.account import Account, failed
from {{ cookiecutter.package }}.monitoring.monitor import Outcome

MODEL = Model("Garden", "1")
LOGIN = {"user": "monitor", "password": "geheim"}
HIGHER = Finding("height", "shape", 0.3, 1e-9, True, 100, "higher")


@contextmanager
def serving(server):
    """Run a server in a thread for a while."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hook():
    """A webhook that keeps what it is sent, and answers with its `status`."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):  # pylint: disable=invalid-name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.status = [], 200
    with serving(server):
        server.address = f"http://127.0.0.1:{server.server_port}/services/secret"
        yield server


class Post(socketserver.StreamRequestHandler):
    """As much of SMTP as it takes: EHLO, STARTTLS where there is a certificate, AUTH, a letter."""

    def handle(self):
        self.secure = False
        self.answer("220 post")
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            getattr(self, verb.lower(), self.other)(rest)

    def answer(self, *lines):
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def other(self, _):
        self.answer("250 fine")

    def ehlo(self, _):
        offered = ["250-post"]
        if self.server.certificate and not self.secure:
            offered.append("250-STARTTLS")
        self.answer(*offered, "250 AUTH PLAIN")

    def starttls(self, _):
        self.answer("220 go on")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server.certificate)
        self.request = context.wrap_socket(self.request, server_side=True)
        self.setup()
        self.secure = True

    def finish(self):
        super().finish()
        self.request.close()

    def auth(self, rest):
        self.server.login = rest
        self.answer("235 welcome")

    def data(self, _):
        self.answer("354 write")
        lines = []
        while (line := self.rfile.readline().decode()) != ".\r\n":
            lines.append(line)
        letter = message_from_string("".join(lines), policy=policy.default)
        self.server.letters.append((self.secure, letter))
        self.answer("250 fine")

    def quit(self, _):
        self.answer("221 bye")


@pytest.fixture
def post():
    """A mail server that keeps its letters."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Post)
    server.letters, server.certificate, server.login = [], None, None
    with serving(server):
        yield server


@pytest.fixture
def story(settings_with, tmp_path, monkeypatch, hook):
    """A monitor whose next look finds what is wanted; give back what it says."""
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path}/store.db"

    class Story:
        def __init__(self):
            self.last = None
            self.sections = {"events": {"store": address}, "alerts": {"webhook": hook.address}}

        def look(self, alarm, confirmed=False, model=MODEL):
            settings = settings_with(**self.sections)
            findings = (HIGHER,) if alarm else ()
            streak = {"column": "height", "checks": 2, "since": 0.0}
            window = Window(model, "drift", "checked", 100, 100, alarm=alarm, confirmed=confirmed)
            with store.opened(address) as opened:
                with opened.reading() as connection:
                    before = checks.read(connection, model, "drift", 1)
                window = Window(
                    **vars(window)
                    | {"findings": findings}
                    | {"detail": {"confirmed": [streak] if confirmed else []}}
                )
                written = checks.write(opened, window, before[-1].id if before else None)
            return self.tell(written, settings)

        def tell(self, window, settings=None):
            status = "drift" if window.confirmed else "suspected" if window.alarm else "steady"
            performed = Window(window.model, "performance", "no truths")
            outcome = Outcome(window.model, status, window, performed)
            self.last = window
            settings = settings or settings_with(**self.sections)
            return list(alerts.tell(Account(3600.0, "Garden", outcome), settings))

        def fail(self):
            settings = settings_with(**self.sections)
            return list(alerts.tell(failed(settings, StoreError("it is away")), settings))

    return Story()


def texts(hook):
    """First lines of the messages that a webhook got."""
    return [content["text"].splitlines()[0] for _, content in hook.got]


BEGAN = "*Garden: height is higher than in training since 00:00 UTC today; confirmed in 2 checks*"
OVER = "*Garden: the drift is over*"


def test_an_episode_is_told_when_it_begins_and_when_it_ends(story, hook):
    """Not at a suspicion, once when it is confirmed however long it lasts, once when it is over."""
    for alarm, confirmed, expected in (
        (False, False, []),
        (True, False, []),
        (True, True, [BEGAN]),
        (True, True, [BEGAN]),
        (True, False, [BEGAN]),
        (True, True, [BEGAN]),
        (False, False, [BEGAN, OVER]),
        (False, False, [BEGAN, OVER]),
        (True, False, [BEGAN, OVER]),
        (True, True, [BEGAN, OVER, BEGAN]),
    ):
        story.look(alarm, confirmed)
        assert expected == texts(hook)
    assert {"application/json"} == {kind for kind, _ in hook.got}
    assert [{"text"}] * 3 == [set(content) for _, content in hook.got]


def test_a_model_that_follows_ends_the_episode(story, hook):
    """What began with one version is over when its successor had a check without an alarm."""
    story.look(True, confirmed=True)
    story.look(False, model=Model("Garden", "2"))
    assert [BEGAN, OVER] == texts(hook)


def test_looking_again_tells_nothing_new(story, hook):
    """A second monitor, or the same one without new events, is silent."""
    story.look(True, confirmed=True)
    assert [] == story.tell(story.last)
    assert [BEGAN] == texts(hook)


def test_a_channel_that_fails_is_tried_again(story, hook, post):
    """One line says so; the others are told, and not told again when it gets its own."""
    story.sections["alerts"] |= {
        "email_to": ["ada@localhost"],
        "smtp": {"host": "127.0.0.1", "port": post.server_address[1], "starttls": False},
    }
    hook.status = 503
    said = story.look(True, confirmed=True)
    about = BEGAN.strip("*")
    refused = "and is tried again: it answers 503 Service Unavailable"
    assert [f"warning: webhook did not get {about!r}, {refused}", f"told email: {about}"] == said
    hook.status = 200
    assert ["told webhook: " + BEGAN.strip("*")] == story.tell(story.last)
    assert (2, 1) == (len(hook.got), len(post.letters))


def test_nobody_answers(story, hook):
    """A channel that is not there costs a line, and nothing else."""
    story.sections["alerts"] = {"webhook": "http://127.0.0.1:9/"}
    (said,) = story.look(True, confirmed=True)
    assert said.startswith("warning: webhook did not get ")
    assert [] == hook.got


class Other(socketserver.StreamRequestHandler):
    """A server of another kind, such as SSH."""

    def handle(self):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.rfile.read()


def test_what_answers_is_no_webhook(story):
    """An address at which something else listens costs a line, too."""
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other)) as server:
        story.sections["alerts"] = {"webhook": f"http://127.0.0.1:{server.server_address[1]}/"}
        (said,) = story.look(True, confirmed=True)
    assert said.startswith("warning: webhook did not get ")
    assert said.endswith("and is tried again: it answers no HTTP: SSH-2.0-OpenSSH_9.2")


def test_a_monitor_that_cannot_look(story, hook):
    """It says so once, and once that it looks again, though the store cannot remember it."""
    blind = "*Garden: the monitor could not look*"
    story.fail()
    story.fail()
    assert [blind] == texts(hook)
    story.look(False)
    story.look(False)
    assert [blind, "*Garden: the monitor looks again*"] == texts(hook)


def test_names_are_no_mentions(story, hook):
    """What a client named is text in the chat, too."""
    name = "<!channel> & <https://phish.example|here>"
    story.look(True, confirmed=True, model=Model(name, "1"))
    assert "*&lt;!channel&gt; &amp; &lt;https://phish.example|here&gt;: height" in texts(hook)[0]


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """A certificate of localhost that this process trusts."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("no openssl")
    key, crt = tmp_path / "key.pem", tmp_path / "crt.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [openssl, *words, *names, "-days", "2", "-keyout", key, "-out", crt],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(crt))
    return crt, key


def by_mail(story, post, **smtp):
    """Have messages sent by this server alone."""
    own = {"host": "localhost", "port": post.server_address[1], **smtp}
    story.sections["alerts"] = {"email_to": ["ada@localhost"], "smtp": own}


def test_a_letter_is_encrypted(story, post, certificate):
    """STARTTLS comes before the password and the letter."""
    post.certificate = certificate
    by_mail(story, post, **LOGIN, sender="monitor@localhost")
    story.look(True, confirmed=True)
    ((secure, letter),) = post.letters
    assert secure
    assert post.login is not None
    assert BEGAN.strip("*") == letter["Subject"]
    assert ("monitor@localhost", "ada@localhost") == (letter["From"], letter["To"])
    assert "- height is higher than in training" in letter.get_content()


def test_no_letter_goes_out_in_the_clear(story, post):
    """A server without STARTTLS gets neither letter nor password, unless the settings allow it."""
    by_mail(story, post, **LOGIN)
    (said,) = story.look(True, confirmed=True)
    assert said.startswith("warning: email did not get ")
    assert said.endswith("STARTTLS extension not supported by server.")
    assert ([], None) == (post.letters, post.login)
    by_mail(story, post, starttls=False)
    story.tell(story.last)
    assert [False] == [secure for secure, _ in post.letters]
