"""What an agent has scraped, as rows."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_agenty.sandbox import Sandbox
from airflow_provider_agenty.sandbox.content import parse_csv

BOOKS = "45l0wewqzk"


def as_the_csv_module_reads(text):
    records = csv.reader(io.StringIO(text, newline=""))
    header = next(records, [])
    return [dict(zip(header, record, strict=False)) for record in records if record]


@given(st.text(alphabet='ab ,"\r\n', max_size=40))
def test_rows_are_those_of_the_csv_module(text):
    assert list(parse_csv(text)) == as_the_csv_module_reads(text)


@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=1))
def test_rows_come_back_as_they_were_written(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], *rows])
    assert [list(row.values()) for row in parse_csv(text.getvalue())] == rows


@pytest.mark.parametrize("source", ["rows", "bytes", "folder"])
def test_a_long_cell_is_served_whatever_limit_the_process_has(new_client, tmp_path, source):
    long = "x" * 140_000
    (tmp_path / f"{BOOKS}.csv").write_text(f"page\n{long}\n")
    agents = {"rows": {BOOKS: [{"page": long}]}, "bytes": {BOOKS: f"page\n{long}\n"}, "folder": tmp_path}[source]
    before = csv.field_size_limit()
    with Sandbox(agents, seconds=0) as sandbox:
        client = new_client(sandbox)
        answer = client.get(f"/jobs/{client.start().json()['job_id']}/result")
    assert answer.json()["result"] == [{"page": long}]
    assert csv.field_size_limit() == before


def test_text_that_is_none_is_in_the_result_as_json_can_say_it(client, sandbox):
    sandbox.set_agent(BOOKS, [{"name": "half: \ud83d"}])
    job_id = sandbox.add_older_jobs(BOOKS, 1)[0]
    answer = client.get(f"/jobs/{job_id}/result")
    assert b'"half: \\ud83d"' in answer.content
    assert answer.json()["result"] == [{"name": "half: \ud83d"}]
    exported = client.session.get(client.link(job_id), headers={"X-Agenty-ApiKey": None}, timeout=10)
    assert exported.content == b"name\r\nhalf: \xed\xa0\xbd\r\n"


def test_text_that_is_none_can_be_an_input(client, sandbox):
    client.put(f"/inputs/{BOOKS}", {"type": "url", "data": ["https://example.com/\ud83d"]})
    job_id = client.start().json()["job_id"]
    sandbox.set_status(job_id, "completed")
    assert client.get(f"/jobs/{job_id}/result").json()["result"][0]["url"] == "https://example.com/\ud83d"
    assert client.get(f"/inputs/{BOOKS}").json()["data"] == ["https://example.com/\ud83d"]


def test_bytes_that_are_no_utf_8_are_replaced_in_the_result(client, sandbox):
    sandbox.set_agent(BOOKS, b"name\ncaf\xe9 \xed\xa0\xbd\n")
    job_id = sandbox.add_older_jobs(BOOKS, 1)[0]
    assert client.get(f"/jobs/{job_id}/result").json()["result"][0]["name"].startswith("caf\ufffd")
