"""A known vulnerability is accepted for a reason, and not for ever."""

from datetime import date, timedelta
from pathlib import Path

import yaml

ACCEPTED = Path(__file__).parents[1] / ".trivyignore.yaml"


def test_every_exception_ends() -> None:
    """What is accepted says why, and until when: half a year at most."""
    latest = date.today() + timedelta(days=183)
    endless = [
        entry
        for entries in yaml.safe_load(ACCEPTED.read_text("utf-8")).values()
        for entry in entries
        if not entry.get("statement")
        or not isinstance(entry.get("expired_at"), date)
        or entry["expired_at"] > latest
    ]
    assert [] == endless
