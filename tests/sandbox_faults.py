"""Faults that only our own tests need, for :meth:`Sandbox.add_fault`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_agenty.sandbox import Fault
from airflow_provider_agenty.sandbox.server import disconnected, transport_of

_SLOW_TICK = 0.05


@dataclass(eq=False)
class SlowBody(Fault):
    """A body that comes at a speed of ``bytes_per_second``."""

    bytes_per_second: float = 1_000

    def does_something(self) -> bool:
        return True

    def around(self, app: ASGIApp) -> ASGIApp:
        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_slowly(message: Message) -> None:
                body = message.pop("body", b"")
                step = max(1, int(self.bytes_per_second * _SLOW_TICK))
                for position in range(0, len(body), step):
                    piece = body[position : position + step]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await asyncio.sleep(len(piece) / self.bytes_per_second)
                await send(message)

            await app(scope, receive, send_slowly)

        return super().around(slow)


@dataclass(eq=False)
class Reset(Fault):
    """A connection that ends with a reset (RST), ``drop`` says when."""

    def around(self, app: ASGIApp) -> ASGIApp:
        async def reset(scope: Scope, receive: Receive, _send: Send) -> None:
            async def nowhere(_message: Message) -> None:
                pass

            if self.drop == "after":
                await app(scope, receive, nowhere)
            self.hits += 1
            transport = transport_of(scope)
            linger = struct.pack("ii", 1, 0)
            # The client may have gone.
            with contextlib.suppress(OSError):
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
            await disconnected(receive)

        return reset


@dataclass(eq=False)
class Reworded(Fault):
    """JSON answers that ``change`` has put otherwise."""

    change: Callable[[Any], Any] = lambda answer: answer

    def does_something(self) -> bool:
        return True

    def around(self, app: ASGIApp) -> ASGIApp:
        async def reworded(scope: Scope, receive: Receive, send: Send) -> None:
            messages: list[Message] = []

            async def keep(message: Message) -> None:
                messages.append(message)

            await app(scope, receive, keep)
            body = json.dumps(self.change(json.loads(b"".join(message.get("body", b"") for message in messages))))
            await Response(body, messages[0]["status"], media_type="application/json")(scope, receive, send)

        return super().around(reworded)
