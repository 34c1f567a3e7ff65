"""Two HTTP servers in a thread of their own, and how a TCP connection is reached and ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
SEND_BUFFER_BYTES = 4 * 1024 * 1024
SECONDS_TO_START_OR_STOP = 30.0


class _Protocol(H11Protocol):
    """HTTP, with the transport in ``scope["state"]``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        # uvicorn's access log would write the key of query authentication into the log of the process.
        self.access_log = False
        # A download is served in writes of half a megabyte.
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)


def configure(app: ASGIApp, certfile: str | None = None, keyfile: str | None = None) -> uvicorn.Config:
    """Return how an application is served. A certificate that cannot be used is an error here."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        proxy_headers=False,
        date_header=False,
        timeout_keep_alive=75,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    config.load()
    return config


class ServerThread:
    """Serves applications, each on its port (0: a free one), until told to stop."""

    def __init__(self, *ports: tuple[uvicorn.Config, int]) -> None:
        self._listeners: list[tuple[uvicorn.Config, socket.socket]] = []
        try:
            for config, number in ports:
                self._listeners.append((config, _listen(number)))
        except OSError:
            for _, listener in self._listeners:
                listener.close()
            raise
        self.numbers = [listener.getsockname()[1] for _, listener in self._listeners]
        self._servers: list[asyncio.Server] = []
        self._state = ServerState()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agenty-sandbox", daemon=True)

    def start(self) -> None:
        """Return once it can be connected to."""
        self._thread.start()
        self._run(self._open())

    def stop(self) -> None:
        """End all connections at once, whatever they are doing, and the thread."""
        if self._thread.is_alive():
            self._run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS_TO_START_OR_STOP)

    async def _open(self) -> None:
        # uvicorn.Server would add signal handlers, ten ticks a second, and a patient end.
        for config, listener in self._listeners:
            protocol = partial(_Protocol, config, self._state, {})
            server = await self._loop.create_server(protocol, sock=listener, ssl=config.ssl, backlog=BACKLOG)
            self._servers.append(server)

    async def _close(self) -> None:
        for _, listener in self._listeners:
            shut_down(listener)
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            shut_down(connection.transport.get_extra_info("socket"))
            connection.transport.abort()
        # Aborted transports tell their protocols in the next round of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        unfinished = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


def _listen(number: int) -> socket.socket:
    # asyncio switches Nagle off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if number:
            # The port's last user may have ended just now. A free port needs no sharing.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, number))
        # Connections that come before the loop runs wait here instead of being refused.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def transport_of(scope: Scope) -> asyncio.Transport:
    """Return the transport over which a request came."""
    return cast("asyncio.Transport", scope["state"]["transport"])


async def hang_up(scope: Scope, receive: Receive) -> None:
    """End the connection of a request after what has been written."""
    transport = transport_of(scope)
    # A shutdown would drop what is not written yet.
    if transport.get_write_buffer_size() == 0:
        shut_down(transport.get_extra_info("socket"))
    transport.close()
    await disconnected(receive)


async def disconnected(receive: Receive) -> None:
    """Wait until uvicorn knows that the connection has ended. It complains about unfinished answers otherwise."""
    while (await receive())["type"] != "http.disconnect":
        pass


def shut_down(connection: socket.socket | None) -> None:
    """
    End a socket in all processes that have a copy of it; the transport of a closed connection has none.

    Airflow forks a process for each task. Closing only our copy would leave the connection open as long as that runs.
    """
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
