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
    assert list(parse_csv(io.StringIO(text, newline=""))) == as_the_csv_module_reads(text)


@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=1))
def test_rows_come_back_as_they_were_written(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], *rows])
    assert [list(row.values()) for row in parse_csv([text.getvalue()])] == rows


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
