"""Below HTTP: reaching the TCP connection from an ASGI application, and ending it the hard way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from airflow_provider_agenty.sandbox.recorder import Recorder

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SEND_BUFFER_BYTES = 4 * 1024 * 1024


def protocol_for(host: str, recorder: Recorder) -> type[asyncio.Protocol]:
    """Return the HTTP protocol for one of the ports: it counts connections and hands on their transport."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(cast("asyncio.Transport", transport))
            # uvicorn gives each request a copy of this as scope["state"].
            self.app_state = {**self.app_state, "transport": transport}
            # Its access log would write the key of query authentication into the log of whoever embeds us.
            self.access_log = False
            self.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
            recorder.connection_made(host)

    return Protocol


def transport_of(scope: Scope) -> asyncio.Transport:
    """Return the transport over which a request came."""
    return cast("asyncio.Transport", scope["state"]["transport"])


async def send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Begin an answer."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def close(transport: asyncio.Transport) -> None:
    """End a connection in the ordinary way, after what has been written."""
    # A process that was forked meanwhile, as Airflow does for a task, has a copy of the socket: closing ours would
    # not end the connection as long as that process lives. A shutdown would drop what is not written yet.
    connection = transport.get_extra_info("socket") if transport.get_write_buffer_size() == 0 else None
    # A transport that is closed already has none.
    if connection is not None:
        shut_down(connection)
    transport.close()


def abort(transport: asyncio.Transport) -> None:
    """End a connection at once, whatever has been written."""
    connection = transport.get_extra_info("socket")
    # A transport that is closed already has none.
    if connection is not None:
        shut_down(connection)
    transport.abort()


def shut_down(connection: socket.socket) -> None:
    """End a socket in all processes that have a copy of it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


async def disconnected(receive: Receive) -> None:
    """Wait until the server knows that the connection has ended; it complains about unfinished answers otherwise."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def write_all(transport: asyncio.Transport, chunks: Iterable[bytes]) -> None:
    """Write past the HTTP layer, never further ahead of the client than the send buffer's size."""
    for chunk in chunks:
        # The transport tells its protocol when there is room again, not us.
        while transport.get_write_buffer_size() > SEND_BUFFER_BYTES and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if transport.is_closing():
            return
        transport.write(chunk)
