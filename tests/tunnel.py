"""A proxy that leads every tunnel, whatever host is asked for, to one port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.loopback import LoopbackServer, read_head


class Tunnel(LoopbackServer):
    """Answers ``CONNECT`` and passes bytes on, to and from a port of this machine."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._to = port
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._to)) as server:
            if not (head := read_head(connection)):
                return
            self.asked.append(head.split("\r\n")[0])
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=_pass_on, args=(server, connection), daemon=True)
            back.start()
            _pass_on(connection, server)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
