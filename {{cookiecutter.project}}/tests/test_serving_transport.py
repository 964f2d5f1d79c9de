import asyncio

from {{ cookiecutter.package }}.serving.transport import Gathered


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
