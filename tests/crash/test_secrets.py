"""
No secret in anything that Airflow has written, in all tests of this folder: this one comes last.

That is its logs, its database (XComs, rendered templates, serialized triggers, state stores, asset events) and the
standard output of each of its processes, all at DEBUG. Airflow hides what it knows to be secret in some of these, and
in others not: what is not handed to a log at all is in none.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote

import pytest

from tests.loopback import serving
from tests.secret_patterns import SIGNATURE, pattern_of

CONTENT = b"name,price\r\nA book,\xc2\xa351.77\r\n"


@dataclass
class Cloud:
    """A download host with links like those of Amazon: what is secret is in the query, and in the path."""

    url: str
    signature: str = field(default_factory=lambda: secrets.token_hex(32))
    folder: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    asked: int = 0

    @property
    def link(self) -> str:
        return f"{self.url}/{self.folder}/books.csv?{self.query}"

    @property
    def link_in_a_text(self) -> str:
        """A link whose path is nothing but a path: where a text has one, nobody can tell which part is secret."""
        return f"{self.url}/page?{self.query}"

    @property
    def query(self) -> str:
        return f"X-Amz-Credential=AKIA%2Fs3&X-Amz-Signature={self.signature}"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            genuine = cloud.folder in self.path and cloud.signature in self.path
            cloud.asked += genuine
            self.send_response_only(200 if genuine else 403)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

    with serving(Handler) as url:
        cloud = Cloud(url)
        yield cloud


@pytest.fixture(scope="module")
def needles(sandbox: Any, cloud: Cloud) -> dict[str, bytes]:
    """What must be nowhere, as patterns."""
    return {
        "the key": pattern_of(sandbox.key),
        "the key in part": re.escape(sandbox.key[-32:].encode()),
        "a signature": SIGNATURE,
        "a signature like Amazon's": re.escape(cloud.signature.encode()),
        "the path of a link": re.escape(cloud.folder.encode()),
    }


@pytest.mark.parametrize("connection", ["agenty_default", "agenty_query"])
def test_a_job_is_landed_by_its_links(scenario, cloud, tmp_path, until, connection):
    """With the key in the header and in the query; waited for in the triggerer, and looked at in a worker."""
    on = scenario
    on.sandbox.set_agent(on.agent_id, CONTENT)
    on.task_id = "in_triggerer"
    on.begin("secrets", connection=connection, folder=str(tmp_path))
    job_id = on.has_started()
    exported = on.sandbox.fault("GET", f"/jobs/{job_id}/export", body={"downloadlink": cloud.link}, times=None)
    on.sandbox.set_status(job_id, "running")
    on.sandbox.add_log(job_id, f"Downloading {cloud.link_in_a_text} with {on.sandbox.key}")
    on.reaches("deferred")
    on.complete(job_id)

    assert on.airflow.wait_for_run(on.run) == "success"
    assert (tmp_path / "export.csv").read_bytes() == CONTENT
    assert exported.hits
    assert cloud.asked


@pytest.mark.parametrize("dag_id", ["told_in_the_triggerer", "told_in_a_worker"])
def test_a_job_fails_with_a_reason_that_holds_secrets(scenario, cloud, dag_id):
    on = scenario
    on.task_id = "wait"
    job_id = on.sandbox.start_job(on.agent_id)
    on.sandbox.set_status(job_id, "running")
    on.begin(dag_id, job_id=job_id)
    on.reaches("deferred", "running")
    key = on.sandbox.key
    error = f"Refused {key}, {quote(key, safe='')} and {json.dumps(key)} at {cloud.link_in_a_text}"
    on.sandbox.set_status(job_id, "aborted", error=error)
    on.reaches("failed")

    assert "Refused" in on.log


@pytest.mark.parametrize("authentication", ["header", "query"])
def test_a_connection_is_tested_by_the_api_server(airflow, sandbox, authentication):
    connection = {
        "connection_id": "to_be_tested",
        "conn_type": "agenty",
        "host": sandbox.url,
        "password": sandbox.key,
        "extra": json.dumps({"auth": authentication}),
    }
    answer = airflow.call("POST", "connections/test", json=connection)

    assert answer["status"], answer


def test_asset_events_hold_figures_only(airflow, scenario, tmp_path):
    on = scenario
    on.task_id = "land"
    job_id = on.sandbox.start_job(on.agent_id)
    on.complete(job_id)
    on.begin("export", job_id=job_id, path=str(tmp_path / "landed.csv"))
    on.reaches("success")
    with closing(sqlite3.connect(f"file:{airflow.home}/airflow.db?mode=ro", uri=True, timeout=10)) as database:
        extras = [
            json.loads(extra)
            for (extra,) in database.execute(
                "select e.extra from asset_event e join asset a on a.id = e.asset_id where a.name = 'landed'"
            )
        ]

    assert extras
    assert all(extra.keys() == {"rows", "bytes", "sha256", "job_id", "collection", "credits"} for extra in extras)


def test_no_secret_is_in_anything_that_airflow_has_written(airflow, needles):
    written = [path for path in airflow.home.rglob("*") if path.is_file()]
    outputs = {component.log_path for component in (airflow.api_server, airflow.scheduler, airflow.triggerer)}
    assert outputs <= set(written)
    assert all(b"debug" in path.read_bytes() for path in outputs)
    assert any("logs" in path.parts for path in written)
    assert any(path.suffix == ".db" for path in written)

    leaks = []
    for path in written:
        content = path.read_bytes()
        for name, needle in needles.items():
            found = list(re.finditer(needle, content))
            if found:
                begin = max(content.rfind(b"\n", 0, found[0].start()) + 1, found[0].start() - 150)
                before = content[begin : found[0].start()]
                for each in needles.values():
                    before = re.sub(each, b"***", before)
                leaks.append(f"{path.relative_to(airflow.home)}: {name}, {len(found)} times, first behind {before!r}")
    assert not leaks, "\n".join(leaks)
