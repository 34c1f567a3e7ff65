"""Faults: which requests go wrong, and how."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty.sandbox import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_agenty.sandbox.recorder import RecordedRequest
    from airflow_provider_agenty.sandbox.wire import App, Message, Receive, Scope, Send

MOMENTS = (None, "before", "after")
_PLACEHOLDER = re.compile(r"\\\*\\\*|\\\*|\\\{[^/{}]*\\\}")
_TICK = 0.01
_SLOW_TICK = 0.05


class _CutOff(Exception):  # noqa: N818 - not an error: the way out of an answer that has been cut
    """The rest of an answer is not wanted any more."""


@dataclass(kw_only=True, eq=False)
class Fault:
    """Something that goes wrong with requests of one kind. See :meth:`Sandbox.fault` for each field."""

    method: str
    path: str
    host: str = "api"
    job_id: int | None = None
    agent_id: str | None = None
    times: int | None = 1
    after: int = 0
    drop: str | None = None
    reset: bool = False
    hold: str | None = None
    delay_before: float = 0.0
    delay_after: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    acted: bool = False
    redirect: str | None = None
    cut: int | None = None
    truncate: int | None = None
    content_length: int | None = None
    bytes_per_second: float | None = None
    content: bytes | None = None
    expired: bool = False

    seen: int = 0
    hits: int = 0
    holding: int = 0
    released: bool = False
    removed: bool = False

    def __post_init__(self) -> None:
        if self.drop not in MOMENTS or self.hold not in MOMENTS:
            raise ValueError("drop and hold say when: 'before' the request is acted on, or 'after'.")
        if self.host not in ("api", "downloads"):
            raise ValueError("host must be 'api' or 'downloads'.")
        if self.bytes_per_second is not None and self.bytes_per_second <= 0:
            raise ValueError("bytes_per_second must be more than 0.")
        for name in ("after", "delay_before", "delay_after", "cut", "truncate", "content_length"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative.")
        if not any(
            (
                self.drop,
                self.hold,
                self.delay_before,
                self.delay_after,
                self.answers,
                self.cut is not None,
                self.truncate is not None,
                self.content_length is not None,
                self.bytes_per_second,
                self.content is not None,
                self.expired,
            )
        ):
            raise ValueError("The fault does nothing: say what is to go wrong.")
        self._pattern = path_pattern(self.path)

    @property
    def answers(self) -> bool:
        """Whether it gives an answer of its own."""
        return self.status is not None or self.body is not None or self.redirect is not None

    def matches(self, request: RecordedRequest) -> bool:
        """Return whether a request is of the kind that it is about."""
        return (
            not self.removed
            and self.host == request.host
            and self.method in ("*", request.method)
            and self.job_id in (None, request.job_id)
            and self.agent_id in (None, request.agent_id)
            and self._pattern.fullmatch(request.path) is not None
        )

    def takes(self) -> bool:
        """Count a request that matched; return whether it is one of those that go wrong."""
        self.seen += 1
        return self.seen > self.after and (self.times is None or self.seen <= self.after + self.times)

    def release(self) -> None:
        """Let go of the requests that are held, and hold no more."""
        self.released = True

    def wait(self, hits: int = 1, timeout: float = 30.0) -> None:
        """
        Wait until it has struck.

        :param hits: how often.
        :param timeout: seconds after which to give up.
        :raises TimeoutError: it has not struck that often by then.
        """
        wait_until(
            lambda: self.hits >= hits, timeout, f"the fault {self.method} {self.path} has not struck {hits} times"
        )

    def remove(self) -> None:
        """Switch it off; what it holds goes on."""
        self.removed = self.released = True


def wait_until(condition: Callable[[], bool], timeout: float, problem: str) -> None:
    """
    Wait for something that another thread brings about.

    :raises TimeoutError: it has not come about after so many seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"After {timeout:g} s {problem}.")
        time.sleep(_TICK)


def path_pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of a path in which ``*`` and ``{id}`` stand for one segment, ``**`` for any number."""
    return re.compile(_PLACEHOLDER.sub(_as_regex, re.escape(path)))


def _as_regex(match: re.Match[str]) -> str:
    return ".*" if match[0] == r"\*\*" else "[^/]*"


class Faults:
    """The faults that are switched on. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Switch a fault on."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            for fault in self._faults:
                fault.remove()
            self._faults.clear()

    def around(self, app: App, request: RecordedRequest) -> App:
        """Return the application as this request shall find it."""
        with self._lock:
            taken = [fault for fault in self._faults if fault.matches(request) and fault.takes()]
        # The fault that was switched on first is the outermost.
        for fault in reversed(taken):
            app = _Faulty(app, fault)
        return app


class _Faulty:
    """An application with one fault around it, for one request."""

    def __init__(self, app: App, fault: Fault) -> None:
        self._app = app
        self._fault = fault
        self._counted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        transport = wire.transport_of(scope)
        if fault.hold == "before":
            await self._hold()
        if fault.delay_before:
            await asyncio.sleep(fault.delay_before)
        if fault.content is not None:
            scope["state"]["content"] = fault.content
        if fault.expired:
            scope["state"]["expired"] = True
        try:
            await self._respond(scope, receive, self._spoiled(send, transport))
        except _CutOff:
            await self._close(transport, receive)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if fault.drop == "before":
            raise self._dropped()
        if fault.drop == "after":
            await self._collect(scope, receive)
            await self._wait_after()
            raise self._dropped()
        if fault.answers:
            if fault.acted:
                await self._collect(scope, receive)
            await self._answer(send)
        elif fault.truncate is not None:
            await self._send_truncated(await self._collect(scope, receive), send)
        else:
            await self._app(scope, receive, send)

    async def _collect(self, scope: Scope, receive: Receive) -> list[Message]:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        return answer

    async def _wait_after(self) -> None:
        if self._fault.hold == "after":
            await self._hold()
        if self._fault.delay_after:
            await asyncio.sleep(self._fault.delay_after)

    def _spoiled(self, send: Send, transport: asyncio.Transport) -> Send:
        """Return a ``send`` that waits, lies about the length, cuts the body or slows it down."""
        fault = self._fault
        sent = 0
        allowed = min((each for each in (fault.cut, fault.content_length) if each is not None), default=None)

        async def spoiled(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                await self._wait_after()
                self._hit()
                await send(self._with_length(message))
                return
            body = bytes(message.get("body", b""))
            more = message.get("more_body", False)
            kept = body if allowed is None else body[: max(0, allowed - sent)]
            sent += len(kept)
            missing = fault.content_length is not None and not more and sent < fault.content_length
            ends_early = len(kept) < len(body) or missing or (fault.cut is not None and sent >= fault.cut)
            await self._send_body(kept, send, more=more or ends_early)
            if ends_early:
                # HTTP ends where the announced length ends; what is beyond it has to go past the HTTP layer.
                if fault.cut is None and len(kept) < len(body):
                    transport.write(body[len(kept) :])
                raise _CutOff

        return spoiled

    def _with_length(self, start: Message) -> Message:
        if self._fault.content_length is None:
            return start
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        return {**start, "headers": [*headers, (b"content-length", b"%d" % self._fault.content_length)]}

    async def _send_body(self, body: bytes, send: Send, *, more: bool) -> None:
        rate = self._fault.bytes_per_second
        if rate is not None:
            step = max(1, int(rate * _SLOW_TICK))
            for position in range(0, len(body), step):
                piece = body[position : position + step]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(len(piece) / rate)
            body = b""
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _send_truncated(self, answer: list[Message], send: Send) -> None:
        body = b"".join(bytes(message.get("body", b"")) for message in answer[1:])[: self._fault.truncate]
        headers = [(name, value) for name, value in answer[0]["headers"] if name.lower() != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({**answer[0], "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, send: Send) -> None:
        fault = self._fault
        body, kind = _encoded(fault.body)
        headers = {"content-type": kind, **{name.lower(): value for name, value in fault.headers.items()}}
        status = fault.status or 200
        if fault.redirect is not None:
            headers["location"] = fault.redirect
            status = fault.status or 302
        headers.setdefault("content-length", str(len(body)))
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _hold(self) -> None:
        # What is held goes on when it is released, whether or not the client is still there: that is how a
        # request arrives later than its sender believes. Only the end of the server ends it otherwise.
        self._fault.holding += 1
        self._hit()
        try:
            # Not an asyncio.Event: it is released from other threads.
            while not self._fault.released:  # noqa: ASYNC110
                await asyncio.sleep(_TICK)
        finally:
            self._fault.holding -= 1

    def _dropped(self) -> _CutOff:
        self._hit()
        return _CutOff()

    def _hit(self) -> None:
        if not self._counted:
            self._counted = True
            self._fault.hits += 1

    async def _close(self, transport: asyncio.Transport, receive: Receive) -> None:
        if self._fault.reset:
            wire.reset(transport)
        else:
            wire.close(transport)
        await wire.disconnected(receive)


def _encoded(body: Any) -> tuple[bytes, str]:
    if body is None:
        return b"", "text/plain; charset=utf-8"
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        kind = "text/html" if body.lstrip().startswith("<") else "text/plain"
        return body.encode("utf-8", "backslashreplace"), f"{kind}; charset=utf-8"
    return json.dumps(body).encode(), "application/json; charset=utf-8"
