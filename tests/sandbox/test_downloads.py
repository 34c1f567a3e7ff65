"""The download port: links, bytes, ranges, encodings."""

from __future__ import annotations

import gzip
import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import airflow_provider_agenty.sandbox
from airflow_provider_agenty.sandbox import Sandbox
from airflow_provider_agenty.sandbox.agent import load_agents
from tests.repeated_csv import RepeatedCsv
from tests.sandbox.conftest import fetch

SAMPLES = Path(airflow_provider_agenty.sandbox.__file__).with_name("agents")
BOOKS = "45l0wewqzk"
RETAILERS = "w9qmlp5475"


def raw(link, method="GET", **headers):
    """Everything that comes over the wire, nothing decoded."""
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request(method, f"{parts.path}?{parts.query}", headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_the_file_comes_byte_for_byte(client, sandbox):
    for agent, collection, name in ((BOOKS, 1, ""), (RETAILERS, 1, ""), (RETAILERS, 2, ".2")):
        job_id = client.start(agent).json()["job_id"]
        sandbox.set_status(job_id, "completed")
        answer = fetch(client.link(job_id, collection=collection))
        expected = (SAMPLES / f"{agent}{name}.csv").read_bytes()
        assert answer.content == expected
        assert answer.headers["content-length"] == str(len(expected))
        assert answer.headers["content-type"] == "text/csv"


def test_modified_0_gives_the_default_result(client, sandbox):
    job_id = client.start(RETAILERS).json()["job_id"]
    sandbox.set_status(job_id, "completed")
    assert fetch(client.link(job_id, modified=0)).content == (SAMPLES / f"{RETAILERS}.default.csv").read_bytes()


def test_the_file_is_called_what_was_asked_for(client, finished):
    assert urlsplit(client.link(finished)).path == f"/Job_{finished}/export1.csv"
    assert urlsplit(client.link(finished, filename="output")).path == f"/Job_{finished}/output1.csv"
    named = client.link(finished, filename="Bücher & mehr #1.csv")
    assert urlsplit(named).path.startswith(f"/Job_{finished}/B%C3%BCcher%20%26%20mehr%20%231")
    assert fetch(named).status_code == 200


def test_logs_are_exported_too(client, clock):
    job_id = client.start().json()["job_id"]
    clock.now += 200
    assert fetch(client.link(job_id, type="logs")).text == client.get(f"/jobs/{job_id}/logs").text


def test_a_link_is_a_credential_of_its_own(client, sandbox, finished):
    link = client.link(finished)
    assert sandbox.key not in link
    assert urlsplit(link).netloc != urlsplit(sandbox.url).netloc
    for wrong in (link[:-1], link.split("?")[0], link.replace("export1", "export2"), link.replace("signature=", "s=")):
        answer = fetch(wrong)
        assert answer.status_code == 403
        assert answer.text.startswith("<?xml")


def test_links_differ_and_are_not_in_the_book_of_requests(client, sandbox, finished):
    first, second = client.link(finished), client.link(finished)
    assert first != second
    fetch(first)
    book = str(sandbox.requests)
    assert urlsplit(first).query.partition("=")[2] not in book
    assert sandbox.requests[-1].path == urlsplit(first).path


def test_links_expire(client, clock, sandbox, finished):
    link = client.link(finished)
    clock.now += 299
    assert fetch(link).status_code == 200
    clock.now += 2
    assert (fetch(link).status_code, "expired" in fetch(link).text) == (403, True)
    another = client.link(finished)
    sandbox.expire_links()
    assert fetch(another).status_code == 403
    assert fetch(client.link(finished)).status_code == 200


def test_a_request_that_brings_the_key_is_refused_and_noted(client, sandbox, finished):
    link = client.link(finished)
    attempts = [
        ("header", link, {"X-Agenty-ApiKey": sandbox.key}),
        ("query", f"{link}&apikey={sandbox.key}", {}),
        ("elsewhere", link, {"Authorization": f"Bearer {sandbox.key}"}),
        ("elsewhere", f"{link}&token={sandbox.key}", {}),
    ]
    for place, url, headers in attempts:
        answer = fetch(url, **headers)
        assert answer.status_code == 400
        assert "KeyLeaked" in answer.text
        assert sandbox.requests[-1].key_in == place
        assert sandbox.key not in str(sandbox.requests[-1])


class TestRanges:
    def test_a_range_of_bytes(self, client, finished):
        link = client.link(finished)
        whole = fetch(link).content
        for given, start, stop in (("0-9", 0, 10), ("100-", 100, len(whole)), ("-7", len(whole) - 7, len(whole))):
            answer = fetch(link, Range=f"bytes={given}")
            assert answer.status_code == 206
            assert answer.content == whole[start:stop]
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"

    def test_if_range_decides(self, client, finished):
        link = client.link(finished)
        etag = fetch(link).headers["etag"]
        assert fetch(link, Range="bytes=5-", **{"If-Range": etag}).status_code == 206
        assert fetch(link, Range="bytes=5-", **{"If-Range": '"other"'}).status_code == 200

    def test_beyond_the_end_is_416(self, client, finished):
        link = client.link(finished)
        size = len(fetch(link).content)
        answer = fetch(link, Range=f"bytes={size}-")
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")

    def test_can_be_switched_off(self, client, sandbox, finished):
        sandbox.downloads(ranges=False, etag=False)
        answer = fetch(client.link(finished), Range="bytes=5-")
        assert answer.status_code == 200
        assert "etag" not in answer.headers
        assert "accept-ranges" not in answer.headers

    def test_without_an_etag_if_range_never_fits(self, client, sandbox, finished):
        etag = fetch(client.link(finished)).headers["etag"]
        sandbox.downloads(etag=False)
        assert fetch(client.link(finished), Range="bytes=5-", **{"If-Range": etag}).status_code == 200


class TestEncodingAndLength:
    def test_gzip(self, client, sandbox, finished):
        sandbox.downloads(gzip=True)
        expected = (SAMPLES / f"{BOOKS}.csv").read_bytes()
        response, body = raw(client.link(finished), **{"Accept-Encoding": "gzip"})
        assert response.headers["content-encoding"] == "gzip"
        assert (response.headers["transfer-encoding"], response.headers["content-length"]) == ("chunked", None)
        assert gzip.decompress(body) == expected
        response, body = raw(client.link(finished))
        assert (response.headers["content-encoding"], body) == (None, expected)

    def test_head(self, client, finished):
        response, body = raw(client.link(finished), "HEAD")
        assert response.headers["content-length"] == str((SAMPLES / f"{BOOKS}.csv").stat().st_size)
        assert body == b""

    def test_an_option_that_is_none_is_refused(self, sandbox):
        with pytest.raises(TypeError, match="speed"):
            sandbox.downloads(speed=1)


class TestContents:
    def test_a_generated_file_has_the_size_rows_and_bytes_it_says(self, new_client):
        rows = [{"a": "1", "b": 'x "y"'}, {"a": "2\n", "b": "£"}]
        content = RepeatedCsv(3_000_000, rows)
        assert 2_999_900 < content.size <= 3_000_000
        with Sandbox({"q1w2e3r4t5": content}) as sandbox:
            client = new_client(sandbox)
            job_id = client.start("q1w2e3r4t5").json()["job_id"]
            sandbox.set_status(job_id, "completed")
            link = client.link(job_id)
            body = fetch(link).content
            assert len(body) == content.size
            page = client.get(f"/jobs/{job_id}/result", params={"limit": 3, "offset": 1}).json()
            assert page["result"] == [rows[1], rows[0], rows[1]]
            parsed = load_agents({"a": body})["a"].content(1, modified=True)
            assert parsed.row_count == page["total"] == content.row_count
            assert parsed.rows(0, 2) == rows
            for start in (0, 3, 4, 17, 999_999, content.size - 5):
                assert fetch(link, Range=f"bytes={start}-").content == body[start:]

    def test_a_file_may_be_edited_while_the_sandbox_runs(self, tmp_path, new_client):
        file = tmp_path / "q1w2e3r4t5.csv"
        file.write_bytes(b"a\n1\n")
        with Sandbox(tmp_path) as sandbox:
            client = new_client(sandbox)
            job_id = client.start("q1w2e3r4t5").json()["job_id"]
            sandbox.set_status(job_id, "completed")
            before = fetch(client.link(job_id))
            assert client.get(f"/jobs/{job_id}/result").json()["total"] == 1
            file.write_bytes(b"a\n1\n2\n")
            after = fetch(client.link(job_id))
            assert (before.content, after.content) == (b"a\n1\n", b"a\n1\n2\n")
            assert before.headers["etag"] != after.headers["etag"]
            assert client.get(f"/jobs/{job_id}/result").json()["total"] == 2

    def test_an_empty_file(self, new_client):
        with Sandbox({"q1w2e3r4t5": b""}) as sandbox:
            client = new_client(sandbox)
            job_id = client.start("q1w2e3r4t5").json()["job_id"]
            sandbox.set_status(job_id, "completed")
            answer = fetch(client.link(job_id))
            assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
            assert client.get(f"/jobs/{job_id}/result").json()["total"] == 0

    def test_an_agent_can_be_set_while_it_runs_and_older_jobs_keep_theirs(self, client, sandbox, finished):
        sandbox.set_agent(BOOKS, b"name\nNew\n")
        sandbox.set_agent(BOOKS, [{"x": "1"}], collection=2)
        sandbox.set_agent("q1w2e3r4t5", "a\n1\n")
        job_id = client.start().json()["job_id"]
        sandbox.set_status(job_id, "completed")
        assert fetch(client.link(job_id)).content == b"name\nNew\n"
        assert fetch(client.link(job_id, collection=2)).content == b"x\r\n1\r\n"
        assert client.get(f"/jobs/{finished}/result").json()["total"] == 60
        assert client.start("q1w2e3r4t5").status_code == 200

    def test_a_folder_with_a_description(self, tmp_path):
        (tmp_path / "q1w2e3r4t5.10.csv").write_bytes(b"a\n")
        (tmp_path / "q1w2e3r4t5.json").write_text('{"name": "N", "pages": 5, "outcome": "aborted", "urls": ["u"]}')
        (tmp_path / "notes.txt").write_text("left alone")
        agents = load_agents(tmp_path)
        agent = agents["q1w2e3r4t5"]
        assert list(agents) == ["q1w2e3r4t5"]
        assert (agent.name, agent.plan.pages, agent.plan.outcome, agent.input.data) == ("N", 5, "aborted", ("u",))
        assert list(agent.collections) == [10]
        (tmp_path / "q1w2e3r4t5.json").write_text('{"colour": 1}')
        with pytest.raises(ValueError, match=r"q1w2e3r4t5\.json.*colour"):
            load_agents(tmp_path)

    def test_an_empty_folder_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="no agent"):
            load_agents(tmp_path)

    def test_samples_are_what_they_should_be(self):
        agents = load_agents()
        books = agents[BOOKS].content(1, modified=True)
        assert books.row_count == 60
        assert all(row["price"].startswith("£") for row in books.rows(0, 60))
        assert len(agents[RETAILERS].collections) == 2
