"""Two HTTP servers in a thread of their own, started and ended at once."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from airflow_provider_agenty.sandbox import wire

if TYPE_CHECKING:
    from airflow_provider_agenty.sandbox.wire import App

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
START_SECONDS = 30.0


def configure(app: App, certfile: str | None = None, keyfile: str | None = None) -> uvicorn.Config:
    """Return how an application is served; a certificate that cannot be used is an error here."""
    config = uvicorn.Config(
        app,
        http=wire.Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    config.load()
    return config


class ServerThread:
    """
    Serves until told to stop.

    :param ports: what to serve on which port; 0: a free one.
    """

    def __init__(self, *ports: tuple[uvicorn.Config, int]) -> None:
        self._servers = [uvicorn.Server(config) for config, _ in ports]
        self._sockets: list[socket.socket] = []
        try:
            for _, number in ports:
                self._sockets.append(_listen(number))
        except OSError:
            for listener in self._sockets:
                listener.close()
            raise
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
                wire.shut_down(connection.transport.get_extra_info("socket"))
                connection.transport.abort()
        for listener in self._sockets:
            listener.close()
        # Two rounds: aborted transports tell their protocols in the next one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        unfinished = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


def _listen(number: int) -> socket.socket:
    # The protocol is named because asyncio switches Nagle off only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if number:
            # So that a port can be had again right after its last user. A free port is better had alone.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, number))
        # Connections that come before the loop runs wait here instead of being refused.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
