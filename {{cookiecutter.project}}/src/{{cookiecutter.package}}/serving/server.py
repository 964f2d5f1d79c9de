"""The server: the processes around the app, and their address."""

import errno
import logging
import signal
import socket
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from uvicorn.supervisors import Multiprocess

from .. import ingestion
from ..errors import ServingError
from ..settings import DELIMITER, PREFIX, Serving, Settings
from . import logs
from .app import entrance
from .keys import Keys
from .transport import Protocol

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until interrupted; then answer what is under way.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    ServingError
        Where the address cannot be had, or the API keys cannot be read.
    """
    serving = settings.serving
    with listen(serving) as listener, suppress(KeyboardInterrupt), ExitStack() as exits:
        # The server raises what stopped it again, when it has stopped; that is no failure.
        exits.callback(
            signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler)
        )
        folder = Path(exits.enter_context(TemporaryDirectory())) if serving.workers > 1 else None
        config = uvicorn.Config(
            partial(entrance, settings, folder),
            factory=True,
            interface="asgi3",
            http=Protocol,
            # Nobody asks where a request came from: what proxies say of it need not be read.
            proxy_headers=False,
            workers=serving.workers,
            log_config=logs.configuration(serving),
            log_level=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=serving.shutdown_seconds,
        )
        host, port, *_ = listener.getsockname()
        if serving.keys:
            Keys(serving.keys)
        elif not ip_address(host).is_loopback:
            logger.warning("anybody who reaches %s may ask: serving.keys is null", host)
        exits.enter_context(ingestion.running(settings.events))
        if serving.workers == 1:
            config.load()
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"{settings.project.name}: page {address}/  API {address}/docs", flush=True)
        if serving.workers == 1:
            uvicorn.Server(config).run([listener])
        else:
            # That a worker died is told by its parent only, as news among others.
            logging.getLogger("uvicorn.error").setLevel(logging.INFO)
            Multiprocess(config, [listener]).run()


def listen(serving: Serving) -> socket.socket:
    """Take the address of the settings, or raise ServingError, saying what to set."""
    host, port = serving.host, serving.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise ServingError(f"host {host!r} is unknown; {_way_out('host')}") from error
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                problem, key = f"port {port} on {host} is taken", "port"
            case errno.EACCES:
                problem, key = f"port {port} on {host} needs more rights than this user has", "port"
            case errno.EADDRNOTAVAIL:
                problem, key = f"{host} is no address of this machine", "host"
            case _:
                raise
        raise ServingError(f"{problem}; {_way_out(key)}") from error
    # Connections inherit it. asyncio sets it on none of a socket made elsewhere: the body of an
    # answer, sent after its head, then waits 40 ms for the client to acknowledge the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _way_out(key: str) -> str:
    return f"set serving.{key} in params.yaml, or {PREFIX}SERVING{DELIMITER}{key.upper()}"
