import asyncio
import socket

import uvicorn

from {{ cookiecutter.package }}.serving.transport import Gathered, Protocol


class Kept:
    """A transport that keeps what it is told."""

    def __init__(self):
        self.told = []

    def write(self, data):
        self.told.append(data)

    def close(self):
        self.told.append("closed")

    def is_closing(self):
        return "closed" in self.told


def turn(act, turns=1):
    """Let something be done with a transport in one turn of a loop; return what was told."""
    kept = Kept()

    async def run():
        act(Gathered(kept, asyncio.get_running_loop()), kept)
        for _ in range(turns):
            await asyncio.sleep(0)

    asyncio.run(run())
    return kept.told


def test_what_is_written_in_one_turn_leaves_together():
    """Head and body are one write; what comes in a later turn is another."""

    def act(gathered, _):
        loop = asyncio.get_running_loop()
        gathered.write(b"head, ")
        gathered.write(b"body")
        loop.call_soon(loop.call_soon, gathered.write, b"more")

    assert [b"head, body", b"more"] == turn(act, 5)


def test_closing_loses_nothing():
    """What was written goes before the end, once."""

    def act(gathered, _):
        gathered.write(b"last words")
        gathered.close()

    assert [b"last words", "closed"] == turn(act, 3)


def test_nothing_is_written_to_who_went_away():
    """A transport that was closed from the other side in the same turn is left alone."""

    def act(gathered, kept):
        gathered.write(b"to nobody")
        kept.close()

    assert ["closed"] == turn(act, 3)


def test_an_answer_is_one_packet():
    """Through uvicorn and a socket: the first read has the whole answer."""

    async def app(scope, _, send):
        assert "http" == scope["type"]
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"body"})

    async def ask(port):
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            answers = []
            for _ in range(20):
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                answers.append(await loop.sock_recv(client, 4096))
        return answers

    async def run():
        config = uvicorn.Config(app, http=Protocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            answers = await ask(listener.getsockname()[1])
            server.should_exit = True
            await serving
        return answers

    for answer in asyncio.run(run()):
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nbody")
