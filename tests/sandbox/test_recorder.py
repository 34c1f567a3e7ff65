"""The book of requests, here and over the control routes."""

from __future__ import annotations

import http.client
import json
import shlex
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_agenty.sandbox import RemoteSandbox
from tests.docs.pages import ROOT, blocks

BOOKS = "45l0wewqzk"


def test_a_request_is_recorded_without_its_key(client, controls):
    client.get("/jobs", params={"agent_id": BOOKS}, headers={"User-Agent": "me/1"})
    requests.get(f"{controls.url}/jobs?apiKey={controls.key}&limit=5", timeout=10)
    first, second = controls.requests
    assert (first.host, first.method, first.path, first.query) == ("api", "GET", "/jobs", {"agent_id": BOOKS})
    assert (first.key_in, first.key_valid, first.status) == ("header", True, 200)
    assert first.headers["user-agent"] == "me/1"
    assert first.agent_id == BOOKS
    assert (second.query, second.key_in, second.key_valid) == ({"limit": "5"}, "query", True)
    assert controls.key not in str(controls.requests)


def test_a_wrong_key_is_not_recorded_either(controls):
    requests.get(f"{controls.url}/jobs", headers={"X-Agenty-ApiKey": "a mistyped key"}, timeout=10)
    requests.get(f"{controls.url}/jobs?apikey=another", timeout=10)
    header, query = controls.requests
    assert (header.key_in, header.key_valid, query.key_in, query.key_valid) == ("header", False, "query", False)
    assert "mistyped" not in str(header)
    assert "another" not in str(query)


def test_a_start_is_recorded_with_its_body_and_a_job_with_its_id(client, controls):
    job_id = client.start().json()["job_id"]
    client.get(f"/jobs/{job_id}/logs")
    start, logs = controls.requests
    assert json.loads(start.body) == {"agent_id": BOOKS}
    assert start.agent_id == BOOKS
    assert (logs.job_id, logs.agent_id) == (job_id, BOOKS)


def test_connections_are_counted(client, sandbox):
    before = sandbox.connections["api"]
    for _ in range(3):
        client.get("/jobs")
    assert sandbox.connections["api"] == before + 1
    assert len({request.client_port for request in sandbox.requests}) == 1
    requests.get(sandbox.url, timeout=10)
    assert sandbox.connections["api"] == before + 2


def test_starts_and_stops_are_counted_when_they_are_accepted(client, controls):
    client.start("nosuchone1")
    job_id = client.start().json()["job_id"]
    client.get("/jobs/5/stop")
    client.get(f"/jobs/{job_id}/stop")
    client.get(f"/jobs/{job_id}/stop")
    assert (controls.starts, controls.started_jobs) == (1, [job_id])
    assert (controls.stops, controls.stopped_jobs) == (2, [job_id, job_id])


def test_clear_forgets_everything_but_jobs(client, controls):
    client.start()
    controls.fault("GET", "/jobs", status=500, times=None)
    controls.clear()
    assert (controls.requests, controls.starts, controls.stops) == ([], 0, 0)
    assert client.get("/jobs").status_code == 200
    assert len(controls.jobs) == 1


def test_the_connection_is_what_airflow_takes(controls):
    assert controls.connection == {"conn_type": "agenty", "host": controls.url, "password": controls.key}
    assert json.loads(controls.connection_json) == controls.connection


@pytest.mark.parametrize("suffix", ["", "/", "/v2"])
def test_a_remote_sandbox_finds_out_the_rest(sandbox, suffix):
    remote = RemoteSandbox(sandbox.url.removesuffix("/v2") + suffix, sandbox.key)
    for name in ("url", "key", "forbidden_key", "download_url", "connection"):
        assert getattr(remote, name) == getattr(sandbox, name)


def control(sandbox, path, body=None, method="POST", **headers):
    parts = urlsplit(sandbox.url)
    given = {"X-Agenty-ApiKey": sandbox.key, "Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request(method, path, body, {name: value for name, value in given.items() if value is not None})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def test_control_routes_are_not_recorded(sandbox):
    assert control(sandbox, "/_sandbox", method="GET")[1]["result"]["url"] == sandbox.url
    assert control(sandbox, "/_sandbox/started_jobs", method="GET", Content_Type=None) == (200, {"result": []})
    status, answer = control(sandbox, "/_sandbox/fault", b'{"method": "get", "path": "/jobs", "status": 503}')
    assert (status, answer) == (200, {"result": 1})
    assert control(sandbox, "/_sandbox/faults")[1]["result"][0]["method"] == "GET"
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "path", ["/_sandbox", "/_sandbox/", "/_sandbox/info", "/_sandbox/started_jobs", "/_sandbox/no"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("key", [None, "", "another", "forbidden"])
def test_nothing_is_told_without_the_key(sandbox, path, method, key):
    key = sandbox.forbidden_key if key == "forbidden" else key
    parts = urlsplit(sandbox.url)
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"X-Agenty-ApiKey": key})
    answer = requests.request(method, f"http://{parts.netloc}{path}", headers=headers, json={}, timeout=10)
    assert not answer.ok
    assert sandbox.key not in answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_key_does_not_count_in_the_query(sandbox):
    path = f"/_sandbox/info?apikey={sandbox.key}"
    assert control(sandbox, path, method="GET", X_Agenty_ApiKey=None)[0] == 401


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:80", "127.0.0.1.example", "[::2]:80", "10.0.0.1"])
def test_nothing_is_told_under_a_name_that_leads_here(sandbox, host):
    status, answer = control(sandbox, "/_sandbox/info", method="GET", Host=host)
    assert (status, answer["error"]) == (403, "PermissionError")


def test_a_name_that_is_none_is_refused(sandbox):
    assert control(sandbox, "/_sandbox/info", method="GET", Host="[")[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "[::1]:8000", "127.0.0.1"])
def test_this_machine_has_several_names(sandbox, host):
    assert control(sandbox, "/_sandbox/info", method="GET", Host=host)[0] == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "text/plain;application/json"]
)
def test_no_command_is_run_that_a_page_in_a_browser_can_send(sandbox, kind):
    body = json.dumps({"agent_id": BOOKS}).encode()
    assert control(sandbox, "/_sandbox/start_job", body, Content_Type=kind)[0] == 415
    assert sandbox.jobs == []


def test_a_wrong_key_is_told_to_a_remote_sandbox(sandbox):
    with pytest.raises(PermissionError, match="needs its key"):
        RemoteSandbox(sandbox.url, "another")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("plan", {"agent_id": BOOKS, "times": 1, "outcome": "aborted", "error": "Too far", "log": [["WARN", "Slow"]]}),
        ("downloads", {"ranges": False, "encoding": "gzip"}),
        ("script", {"statuses": ["queued", {"status": "running", "pages_processed": 3}]}),
        ("set_agent", {"agent_id": "q1w2e3r4t5", "data": "a\n1\n"}),
    ],
)
def test_a_command_takes_the_arguments_of_the_method(sandbox, command, arguments):
    assert control(sandbox, f"/_sandbox/{command}", json.dumps(arguments).encode()) == (200, {"result": None})


def test_a_status_is_set_with_fields_beside_it(sandbox):
    job_id = sandbox.start_job(BOOKS)
    body = json.dumps({"job_id": job_id, "status": "running", "pages_processed": 3, "name": "x"}).encode()
    assert control(sandbox, "/_sandbox/set_status", body)[0] == 200
    assert (sandbox.job(job_id)["pages_processed"], sandbox.job(job_id)["name"]) == (3, "x")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/_sandbox/nothing", b"{}", 404),
        ("/_sandbox/run", b"{}", 404),
        ("/_sandbox/_find", b"{}", 404),
        ("/_sandbox/__init__", b"{}", 404),
        ("/_sandbox/job", b'{"job_id": 1}', 404),
        ("/_sandbox/job", b"{}", 400),
        ("/_sandbox/job", b"{", 400),
        ("/_sandbox/job", b"[]", 400),
        ("/_sandbox/script", b'{"statuses": []}', 400),
        ("/_sandbox/script", b'{"statuses": [{"pages_total": 1}]}', 400),
        ("/_sandbox/start_job", b'{"agent_id": "nosuch"}', 404),
        ("/_sandbox/set_agent", b'{"agent_id": "x", "data": 5}', 400),
        ("/_sandbox/set_agent", b'{"agent_id": "x", "data": {"base64": "%"}}', 400),
        ("/_sandbox/plan", b'{"colour": 1}', 400),
        ("/_sandbox/plan", b'{"outcome": "queued"}', 400),
        ("/_sandbox/fault", b'{"method": "GET", "path": "/", "cut": "x"}', 400),
    ],
)
def test_control_calls_that_cannot_be_are_refused(sandbox, path, body, status):
    got, answer = control(sandbox, path, body)
    assert got == status
    assert answer["message"]


PAGE = ROOT / "docs" / "sandbox.md"
CURLS = [line for block in blocks(PAGE, "bash") for line in block.code.splitlines() if line.startswith("curl")]


@pytest.mark.parametrize("line", CURLS)
def test_the_calls_on_the_page_work_as_they_are_there(sandbox, line):
    line = line.replace("$ADDRESS", sandbox.url.removesuffix("/v2")).replace("$KEY", sandbox.key)
    _, *arguments = shlex.split(line)
    given = {"-H": [], "-d": []}
    while arguments[0] in given:
        given[arguments.pop(0)].append(arguments.pop(0))
    [address] = arguments
    headers = dict(header.split(": ") for header in given["-H"])
    body = given["-d"][0] if given["-d"] else None
    answer = requests.request("POST" if body else "GET", address, headers=headers, data=body, timeout=10)
    assert answer.status_code == 200, answer.text
    assert "result" in answer.json()
