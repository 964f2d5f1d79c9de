"""Alerts: a message when something begins to matter and one when it is over, each of them once."""

import http.client
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

from .. import checks
from ..artifacts import write_json
from ..checks import CHECKED, Window
from ..settings import Alerts, Settings
from ..store import Store, opened
from . import sentences
from .account import Account

TIMEOUT = 10
# That the monitor cannot look is remembered here: the store may be what it cannot reach.
BLIND = Path(".cache/monitoring/blind.json")
Send = Callable[[str, str], None]


def tell(account: Account, settings: Settings) -> Iterator[str]:
    """Send what has not been told yet.

    That is: an episode of drift or of errors when it is confirmed; its end, with the first check
    without an alarm; that the monitor cannot look, and that it can again.

    Parameters
    ----------
    account : Account
    settings : Settings

    Yields
    ------
    str
        A line for each message that went out, and for each that did not: such are tried again the
        next time, and the other channels get theirs.
    """
    ways = dict(channels(settings.alerts))
    if account.outcome is None:
        yield from _blind(account, ways)
        return
    yield from _seeing(account, ways)
    if not ways:
        return
    with opened(settings.events.store) as store:
        for window in (account.outcome.drift, account.outcome.performance):
            if window.state == CHECKED:
                for channel, send in ways.items():
                    yield from _episode(store, account, window, channel, send)


def channels(settings: Alerts) -> Iterator[tuple[str, Send]]:
    """Return the ways that are set up, by name."""
    if settings.webhook is not None and settings.webhook.get_secret_value():
        yield "webhook", lambda subject, body: _post(settings, subject, body)
    if settings.email_to:
        yield "email", lambda subject, body: _mail(settings, subject, body)


def _episode(
    store: Store, account: Account, window: Window, channel: str, send: Send
) -> Iterator[str]:
    """Tell one channel of an episode that began, or of the one that it was told of last."""
    kind = f"alert {channel} {window.kind}"
    with store.reading() as connection:
        began = checks.began(connection, window.model, window.kind)
        last = next(iter(checks.actions(connection, kind)), None)
    detail: dict[str, Any] = {"model": vars(window.model), "window": window.id}
    if began is not None:
        key = f"{kind} {began}"
        subject, body = message(account)
    elif last and last["detail"].get("event") == "began" and not window.alarm:
        key, detail["event"] = f"{last['key']} over", "over"
        subject, body = _over(account, window)
    else:
        return
    detail.setdefault("event", "began")
    if checks.claim(store, key, kind, detail):
        failure = _try(send, subject, body)
        if failure:
            checks.release(store, key)
        yield _line(channel, subject, failure)


def message(account: Account) -> tuple[str, str]:
    """Say what is the matter: a subject and a text."""
    lines = [
        f"{sentences.headline(account)}.",
        *(f"- {each}" for each in sentences.changes(account)),
        "",
        sentences.NEXT[account.status],
        "The report: reports/monitoring.html",
    ]
    return f"{_name(account)}: {sentences.headline(account)}", "\n".join(lines)


def _over(account: Account, window: Window) -> tuple[str, str]:
    what = {"drift": "The drift is over", "performance": "It errs no more than in training"}
    said = f"{what[window.kind]}: the last check has no alarm."
    return f"{_name(account)}: {what[window.kind].lower()}", f"{said}\n{_version(account)}"


def _blind(account: Account, ways: dict[str, Send]) -> Iterator[str]:
    """Tell each channel once that nobody looks."""
    known = _remembered()
    subject = f"{account.project}: the monitor could not look"
    body = f"{account.error}.\n\n{sentences.NEXT['failed']}"
    for channel, send in ways.items():
        if channel not in known:
            failure = _try(send, subject, body)
            if not failure:
                known.append(channel)
                write_json(known, BLIND)
            yield _line(channel, subject, failure)


def _seeing(account: Account, ways: dict[str, Send]) -> Iterator[str]:
    """Tell those who heard of it that somebody looks again."""
    known = _remembered()
    subject = f"{_name(account)}: the monitor looks again"
    body = f"{sentences.headline(account)}.\n{_version(account)}"
    for channel in list(known):
        failure = _try(ways[channel], subject, body) if channel in ways else ""
        if not failure:
            known.remove(channel)
            write_json(known, BLIND)
        if channel in ways:
            yield _line(channel, subject, failure)
    if not known:
        BLIND.unlink(missing_ok=True)


def _remembered() -> list[str]:
    try:
        found = json.loads(BLIND.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _try(send: Send, subject: str, body: str) -> str:
    """Send a message; return why it did not go out, in one line."""
    try:
        send(subject, body)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _post(settings: Alerts, subject: str, body: str) -> None:
    """Post to a webhook as Slack, Mattermost, Rocket.Chat and others take it."""
    address = settings.webhook.get_secret_value() if settings.webhook else ""
    if not address.startswith(("http://", "https://")):
        raise ValueError("alerts.webhook is no address; expected https://…")
    data = json.dumps({"text": _escaped(f"*{subject}*\n{body}")}).encode()
    request = urllib.request.Request(  # noqa: S310
        address, data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            answer.read()
    except urllib.error.HTTPError as error:
        raise OSError(f"it answers {error.code} {error.reason}") from error
    except http.client.HTTPException as error:
        raise OSError(f"it answers no HTTP: {error!s:.100}") from error


def _mail(settings: Alerts, subject: str, body: str) -> None:
    """Send an e-mail, encrypted by STARTTLS unless the settings say otherwise."""
    smtp = settings.smtp
    if smtp.host is None:
        raise ValueError("alerts.smtp.host is null: name a mail server")
    letter = EmailMessage()
    letter["Subject"] = " ".join(subject.split())
    letter["From"] = smtp.sender or settings.email_to[0]
    letter["To"] = ", ".join(settings.email_to)
    letter["Date"] = formatdate()
    letter["Message-ID"] = make_msgid(domain="monitor.invalid")
    letter.set_content(body)
    with smtplib.SMTP(smtp.host, smtp.port, timeout=TIMEOUT) as server:
        if smtp.starttls:
            server.starttls(context=ssl.create_default_context())
        if smtp.user is not None:
            server.login(smtp.user, smtp.password.get_secret_value() if smtp.password else "")
        server.send_message(letter)


def _escaped(text: str) -> str:
    """Escape what Slack reads as a mention or a link: names of columns come from outside."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _name(account: Account) -> str:
    return account.outcome.model.name if account.outcome else account.project


def _version(account: Account) -> str:
    return f"Version {account.outcome.model.version} serves." if account.outcome else ""


def _line(channel: str, subject: str, failure: str) -> str:
    if failure:
        return f"warning: {channel} did not get {subject!r}, and is tried again: {failure}"
    return f"told {channel}: {subject}"
