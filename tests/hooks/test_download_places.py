"""Where a link may lead that an API elsewhere names."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from tests.loopback import HttpServer, running
from tests.over_the_wire import Certificate
from tests.tunnel import Tunnel

ROWS = b"name\r\nBook\r\n"


class Api(HttpServer):
    """As much of the API as an export needs, over TLS; its files too, below ``/files``."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(ApiHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certfile, certificate.keyfile)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.link = "https://files.example/files/books.csv?signature=s3cr3t-signature"
        self.redirect = ""
        self.paths: list[str] = []


class ApiHandler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self.server.paths.append(self.requestline.split()[1])  # http.server changes self.path
        path = self.path.partition("?")[0]
        if path.startswith("/files"):
            self.send_response(302 if self.server.redirect else 200)
            self.send_header("Location", self.server.redirect)
            return self._send(ROWS)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if path.endswith("/export"):
            return self._send(json.dumps({"downloadlink": self.server.link}).encode())
        if path.endswith("/result"):
            return self._send(json.dumps({"total": 1, "limit": 1, "offset": 0, "result": [{"name": "Book"}]}).encode())
        return self._send(json.dumps({"job_id": 7, "agent_id": "45l0wewqzk", "status": "completed"}).encode())

    def _send(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class PrivateService(HttpServer):
    """What listens on the worker's loopback, and is nobody's business."""

    def __init__(self) -> None:
        super().__init__(PrivateHandler)
        self.paths: list[str] = []


class PrivateHandler(BaseHTTPRequestHandler):
    server: PrivateService

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ROWS)


@pytest.fixture
def api(certificate: Certificate) -> Iterator[Api]:
    with running(Api(certificate)) as server:
        yield server


@pytest.fixture
def private() -> Iterator[PrivateService]:
    with running(PrivateService()) as server:
        yield server


@pytest.fixture
def hook_of_an_api_elsewhere(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentyHook]:
    tunnel = Tunnel(api.server_address[1])
    extra = {"proxies": tunnel.url, "verify": False, "max_attempts": 1, "timeout": 5}
    connection = {"conn_type": "agenty", "host": "https://api.example/v2", "password": "a-key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))
    with AgentyHook() as hook:
        yield hook
    tunnel.close()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
class TestApiElsewhere:
    def test_files_of_a_host_elsewhere_are_landed(self, hook_of_an_api_elsewhere, api, tmp_path: Path) -> None:
        api.link = "https://files.example//files/%7Ebooks.csv?signature=%2fs3cr3t"
        exported = hook_of_an_api_elsewhere.download_export(7, str(tmp_path / "books.csv"), verify_rows=True)
        assert exported.rows == 1
        assert api.paths[-1] == "//files/%7Ebooks.csv?signature=%2fs3cr3t"

    @pytest.mark.parametrize(
        ("link", "masks"),
        [
            ("https://files.example/x.csv?The file has", []),
            ("https://files.example/x.csv?job=7", []),
            ("https://files.example/0123456789abcdef/x.csv", ["0123456789abcdef"]),
        ],
    )
    def test_only_what_looks_like_a_secret_is_masked(
        self, hook_of_an_api_elsewhere, api, monkeypatch: pytest.MonkeyPatch, link: str, masks: list[str]
    ) -> None:
        hook_of_an_api_elsewhere.settings  # noqa: B018 - the key is masked when the connection is read
        masked: list[str] = []
        monkeypatch.setattr("airflow_provider_agenty.landing.links.mask_secret", masked.append)
        api.link = link
        assert hook_of_an_api_elsewhere.get_export_link(7) == link
        assert masked == masks

    @pytest.mark.parametrize("place", ["http://127.0.0.1:{}/admin", "https://127.1:{}/admin", "https://localhost:{}/"])
    @pytest.mark.parametrize("by", ["link", "redirect"])
    def test_services_of_the_worker_are_not_asked(
        self, hook_of_an_api_elsewhere, api, private, tmp_path: Path, place: str, by: str
    ) -> None:
        setattr(api, by, place.format(private.server_address[1]))
        with pytest.raises(AgentyExportError, match="The link was not followed"):
            hook_of_an_api_elsewhere.download_export(7, str(tmp_path / "books.csv"))
        assert private.paths == []
        assert list(tmp_path.iterdir()) == []


def test_an_api_on_this_machine_over_tls_leads_to_no_plain_http(
    api: Api, private: PrivateService, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = f"https://127.0.0.1:{api.server_address[1]}/v2"
    extra = {"verify": certificate.certfile, "max_attempts": 1, "timeout": 5}
    connection = {"conn_type": "agenty", "host": host, "password": "a-key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))
    with AgentyHook() as hook:
        api.link = f"https://127.0.0.1:{api.server_address[1]}/files/books.csv"
        assert hook.download_export(7, str(tmp_path / "books.csv")).rows == 1
        api.link = f"http://127.0.0.1:{private.server_address[1]}/admin"
        with pytest.raises(AgentyExportError, match="over plain http"):
            hook.download_export(7, str(tmp_path / "other.csv"))
    assert private.paths == []
