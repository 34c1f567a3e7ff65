from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_agenty.api import starting
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"

Connect = Callable[..., AgentyHook]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy, CA bundle or netrc of whoever runs the tests have a say."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the waits between attempts in place of waiting."""
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", types.SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture(autouse=True)
def quick_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "POLICY", starting.StartPolicy(attempts=3, looks=2, first_wait=0.01))


@pytest.fixture(autouse=True)
def hook_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caplog hear what hooks say, whichever way Airflow's version logs."""
    monkeypatch.setattr(AgentyHook, "log", logging.getLogger("airflow_provider_agenty.hooks"))


@pytest.fixture
def sandbox(agenty_sandbox: Sandbox) -> Sandbox:
    return agenty_sandbox


@pytest.fixture
def connect(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Give a function that makes a hook whose connection leads to the sandbox, but for what it is given."""
    hooks: list[AgentyHook] = []

    def make(extra: dict[str, Any] | None = None, **fields: Any) -> AgentyHook:
        connection = {**sandbox.connection, **fields}
        connection["extra"] = {**connection.get("extra", {}), **(extra or {})}
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))
        hooks.append(AgentyHook())
        return hooks[-1]

    yield make
    for hook in hooks:
        hook.close()


@pytest.fixture
def hook(connect: Connect) -> AgentyHook:
    return connect()


@pytest.fixture
def finished_job(sandbox: Sandbox) -> int:
    """Give the id of a completed job of the sample agent with books."""
    return sandbox.add_older_jobs(BOOKS, 1)[0]


@dataclass
class Listener:
    """A plain HTTP server that notes what it is sent and answers as it is told."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"total": 0, "limit": 1, "offset": 0, "returned": 0, "result": []}'

    @property
    def everything(self) -> str:
        """All that came, as one text."""
        return repr(self.requests)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give another host than the API: also a proxy, since it answers any request line."""
    noted = Listener()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            noted.connections += 1
            super().setup()

        def do_GET(self) -> None:
            noted.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            self.send_response(noted.status)
            for name, value in {"Content-Length": str(len(noted.body)), **noted.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(noted.body)

        do_POST = do_CONNECT = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    noted.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield noted
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def closed_port() -> int:
    """Give a port of this machine on which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def texts_of() -> Callable[[BaseException], str]:
    """Give a function that returns all that can be read from an exception and from those behind it."""

    def texts(error: BaseException) -> str:
        found: list[str] = []
        pending: list[BaseException | None] = [error]
        seen: set[int] = set()
        while pending:
            current = pending.pop()
            if current is None or id(current) in seen:
                continue
            seen.add(id(current))
            found += [str(current), repr(current), repr(current.args), repr(vars(current))]
            pending += [current.__cause__, current.__context__]
            pending += [argument for argument in current.args if isinstance(argument, BaseException)]
        return "\n".join(found)

    return texts


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 that nobody has signed but itself."""

    certfile: str
    keyfile: str


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder: Path = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(str(folder / "cert.pem"), str(folder / "key.pem"))
