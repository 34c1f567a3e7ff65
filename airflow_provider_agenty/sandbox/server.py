"""Two HTTP servers in a thread of their own, started and ended at once."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from airflow_provider_agenty.sandbox import wire

if TYPE_CHECKING:
    from airflow_provider_agenty.sandbox.recorder import Recorder
    from airflow_provider_agenty.sandbox.wire import App

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
KEEP_ALIVE_SECONDS = 75
START_SECONDS = 30.0


@dataclass
class Port:
    """
    One of the ports.

    :param host: ``"api"`` or ``"downloads"``.
    :param app: what answers on it.
    :param number: its number; 0: a free one.
    :param certfile: certificate for TLS, with its key in ``keyfile``; ``None``: plain HTTP.
    """

    host: str
    app: App
    number: int = 0
    certfile: str | None = None
    keyfile: str | None = None


class ServerThread:
    """
    Serves ports until told to stop.

    :param ports: what to serve.
    :param recorder: is told of each connection.
    """

    def __init__(self, ports: list[Port], recorder: Recorder) -> None:
        self._servers = [uvicorn.Server(_config(port, recorder)) for port in ports]
        self._sockets = _listen(ports)
        self.numbers = [each.getsockname()[1] for each in self._sockets]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="agenty-sandbox", daemon=True)

    def start(self) -> None:
        """
        Return once it can be connected to.

        :raises RuntimeError: it could not start.
        """
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._failure is not None:
            raise RuntimeError("The sandbox's servers could not start.") from self._failure

    def stop(self) -> None:
        """End all connections at once, whatever they are doing, and the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open())
            self._ready.set()
            self._loop.run_forever()
        except BaseException as failure:
            self._failure = failure
            self._ready.set()
        finally:
            self._loop.run_until_complete(self._close())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _open(self) -> None:
        for server, listener in zip(self._servers, self._sockets, strict=True):
            # What uvicorn.Server.serve does, without its signal handlers and its ten ticks a second.
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets=[listener])

    async def _close(self) -> None:
        for listener in self._sockets:
            wire.shut_down(listener)
        for server in self._servers:
            for listening in getattr(server, "servers", ()):
                listening.close()
            for connection in list(server.server_state.connections):
                wire.abort(connection.transport)
        for listener in self._sockets:
            listener.close()
        # Two rounds: aborted transports tell their protocols in the next one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        unfinished = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


def _listen(ports: list[Port]) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    try:
        for port in ports:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listeners.append(listener)
            # The protocol is named above because asyncio switches Nagle off only where it is.
            if port.number:
                # So that a port can be had again right after its last user. A free port is better had alone.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, port.number))
            # Connections that come before the loop runs wait here instead of being refused.
            listener.listen(BACKLOG)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _config(port: Port, recorder: Recorder) -> uvicorn.Config:
    config = uvicorn.Config(
        port.app,
        http=wire.protocol_for(port.host, recorder),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=port.certfile,
        ssl_keyfile=port.keyfile,
    )
    # Here, so that a certificate that cannot be used is known before anything is started.
    config.load()
    return config
