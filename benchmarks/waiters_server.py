"""
The server of the benchmark of waiting: the sandbox, and beside it just enough of dbt Cloud and Airbyte, over TLS.

All three tell of jobs that end at the same times.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tests.certificate import write_certificate

AGENT = "benchmark"
DBT_RUNNING, DBT_SUCCESS = 3, 10


class Servers:
    """All of them, steered from another process; the certificate is in the folder."""

    def __init__(self, folder: Path) -> None:
        from airflow_provider_agenty.sandbox import Sandbox

        certificate = {"certfile": str(folder / "certificate.pem"), "keyfile": str(folder / "key.pem")}
        self._sandbox = Sandbox({AGENT: [{"name": "A book"}]}, **certificate).start()
        self._peers = Peers(certificate)

    def addresses(self) -> dict[str, Any]:
        return {"agenty": self._sandbox.connection, "peers": self._peers.port}

    def start_jobs(self, seconds: list[float]) -> list[tuple[int, float]]:
        """Start a job for each of these durations; return their ids and when they will end."""
        jobs = []
        for each in seconds:
            self._sandbox.plan(agent_id=AGENT, times=1, seconds=each)
            job_id = self._sandbox.start_job(AGENT)
            jobs.append((job_id, time.time() + each))
        self._peers.ends.update(jobs)
        return jobs

    def scatter_jobs(self, older: int, running: int) -> list[int]:
        """Fill the account with old jobs, of which some, evenly scattered, still run; return the ids of those."""
        listed = self._sandbox.add_older_jobs(AGENT, older)
        step = older // running
        scattered = listed[step - 1 :: step][:running]
        for job_id in scattered:
            self._sandbox.set_status(job_id, "running")
        return scattered

    def complete_jobs(self, job_ids: list[int]) -> None:
        for job_id in job_ids:
            self._sandbox.set_status(job_id, "completed")

    def requests(self) -> list[str]:
        """Return the requests that Agenty got: the path, and the offset behind it."""
        return [f"{each.path}?{each.query.get('offset', '')}" for each in self._sandbox.requests]

    def counts(self) -> dict[str, int]:
        """Return how many requests and TCP connections there were, at all servers together."""
        return {
            "requests": len(self._sandbox.requests) + self._peers.requests,
            "connections": self._sandbox.connections["api"] + self._peers.connections,
        }


class Peers:
    """Answers dbt Cloud's ``GET …/runs/{id}/`` and Airbyte's ``GET /v1/jobs/{id}``."""

    def __init__(self, certificate: dict[str, str]) -> None:
        import uvicorn
        from uvicorn.protocols.http.auto import AutoHTTPProtocol

        self.ends: dict[int, float] = {}
        self.requests = 0
        self.connections = 0
        peers = self

        class Counting(AutoHTTPProtocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                peers.connections += 1

        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer,
            http=Counting,
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=600,
            ssl_certfile=certificate["certfile"],
            ssl_keyfile=certificate["keyfile"],
        )
        threading.Thread(target=uvicorn.Server(config).run, args=([listener],), daemon=True).start()

    async def _answer(self, scope: Any, _receive: Any, send: Any) -> None:
        self.requests += 1
        job_id = int(scope["path"].rstrip("/").rpartition("/")[2])
        is_over = time.time() >= self.ends[job_id]
        if "/runs/" in scope["path"]:
            answer: dict[str, Any] = {"data": {"id": job_id, "status": DBT_SUCCESS if is_over else DBT_RUNNING}}
        else:
            answer = {
                "jobId": job_id,
                "status": "succeeded" if is_over else "running",
                "jobType": "sync",
                "connectionId": "c",
                "startTime": "2026-01-01T00:00:00Z",
            }
        body = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def write_bundle(folder: Path) -> Path:
    """Write a certificate for loopback, and a bundle of the usual CAs and this one; return the bundle."""
    import certifi

    certificate = Path(write_certificate(folder).certfile)
    bundle = folder / "bundle.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + certificate.read_bytes())
    return bundle
