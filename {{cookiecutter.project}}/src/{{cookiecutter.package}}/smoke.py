"""The smoke test: what a running service has to answer before anybody depends on it."""

import json
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import contract as contracts
from .bundle import CONTRACT, EXAMPLES, same, verify
from .errors import SmokeError

# Requests of a test are known by it, in logs and in the store of events.
PREFIX = "smoke-"
TIMEOUT = 10
UNKNOWN = "no_such_column"


def smoke(url: str, bundle: Path, key: str | None = None, seconds: float = 60) -> str:
    """Ask a service for what its bundle promises.

    It has to be ready, to serve this version under this contract, to answer the stored examples as
    they are stored, and to refuse a row that breaks the contract.

    Parameters
    ----------
    url : str
        Where it is, such as ``http://127.0.0.1:8000``.
    bundle : Path
        What it should serve.
    key : str or None
        For a service with API keys.
    seconds : float
        How long to wait until it is ready.

    Returns
    -------
    str
        What was found good, in a line.

    Raises
    ------
    BundleError
        Where the bundle cannot be read.
    SmokeError
        At the first thing that is not as promised.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SmokeError(f"{url!r} is no address of a service; expected http://… or https://…")
    card = verify(bundle)
    contract = json.loads(json.dumps(asdict(contracts.read(bundle / CONTRACT))))
    examples = json.loads((bundle / EXAMPLES).read_text(encoding="utf-8"))
    service = Service(url.rstrip("/"), key)
    service.wait(seconds)
    try:
        count = _compare(service, card["version"], contract, examples)
    except (KeyError, TypeError, ValueError) as error:
        raise SmokeError(f"{url} answers as nobody expects: {error!r}") from error
    return f"{url} serves {card['name']} {card['version']}; {count} examples answered as stored"


def _compare(
    service: "Service", expected: str, contract: Any, examples: list[dict[str, Any]]
) -> int:
    """Compare a ready service with its bundle; return how many examples there were."""
    model = service.ask("/model")
    if (version := model["card"]["version"]) != expected:
        raise SmokeError(f"{service.url} serves version {version}, expected {expected}")
    if model["contract"] != contract:
        raise SmokeError(f"{service.url} serves version {version} under another contract")
    if examples:
        rows = [example["row"] for example in examples]
        answers = service.ask("/predict", {"rows": rows})["predictions"]
        for number, (example, answer) in enumerate(zip(examples, answers, strict=True)):
            for name, stored in example["prediction"].items():
                if name != "warnings" and not same(stored, answer[name]):
                    raise SmokeError(
                        f"{service.url}: {name} of example {number} is {answer[name]}, "
                        f"was {stored} when the bundle was made"
                    )
    service.ask("/predict", {"rows": [{UNKNOWN: 1}]}, expected=422)
    return len(examples)


class Service:
    """A service somewhere, asked under an id by which a test is known.

    Parameters
    ----------
    url : str
    key : str or None
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["X-API-Key"] = key

    def wait(self, seconds: float) -> None:
        """Return once it is ready; raise SmokeError with its last word after `seconds`."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.ask("/health/ready")
                return
            except SmokeError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def ask(self, path: str, body: Any = None, expected: int = 200) -> Any:
        """Send a request; return the parsed answer, or raise SmokeError for another status."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "X-Request-ID": f"{PREFIX}{uuid.uuid4().hex}"}
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310
        status, said = 0, ""
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                status, said = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, said = error.code, error.read().decode(errors="replace")
        except (OSError, ValueError) as error:
            raise SmokeError(f"{self.url}{path} does not answer: {error}") from error
        if status != expected:
            raise SmokeError(
                f"{self.url}{path} answers {status}, expected {expected}: {said[:300]}"
            )
        with suppress(ValueError):
            return json.loads(said)
        raise SmokeError(f"{self.url}{path} answers no JSON: {said[:300]}")
