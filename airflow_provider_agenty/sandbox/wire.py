"""Below HTTP: reaching the TCP connection from an ASGI application, and ending it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SEND_BUFFER_BYTES = 4 * 1024 * 1024


class Protocol(H11Protocol):
    """HTTP, with the transport at hand in ``scope["state"]``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hand the transport on: uvicorn gives each request a copy of this."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        # Its access log would write the key of query authentication into the log of whoever embeds us.
        self.access_log = False
        # A download is served in writes of half a megabyte.
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)


def transport_of(scope: Scope) -> asyncio.Transport:
    """Return the transport over which a request came."""
    return cast("asyncio.Transport", scope["state"]["transport"])


async def send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Begin an answer."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def close(transport: asyncio.Transport) -> None:
    """End a connection after what has been written."""
    # A shutdown would drop what is not written yet.
    if transport.get_write_buffer_size() == 0:
        shut_down(transport.get_extra_info("socket"))
    transport.close()


def shut_down(connection: socket.socket | None) -> None:
    """
    End a socket in all processes that have a copy of it.

    A process that was forked meanwhile, as Airflow does for a task, has one: closing ours would not end the connection
    as long as that process lives. The transport of a closed connection has none.
    """
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


async def disconnected(receive: Receive) -> None:
    """Wait until the server knows that the connection has ended; it complains about unfinished answers otherwise."""
    while (await receive())["type"] != "http.disconnect":
        pass
