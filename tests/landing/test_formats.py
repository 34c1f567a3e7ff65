"""Rows as the bytes of a file: what is in it, and what it takes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import boto3
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_provider_agenty.api.json_rows import decode_rows
from airflow_provider_agenty.exceptions import AgentyExportError, AgentyInputError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.landing.count_records import RecordCounter
from airflow_provider_agenty.landing.destinations import open_destination
from airflow_provider_agenty.landing.formats import EncodedRows, check_format
from airflow_provider_agenty.parameters import FORMATS
from tests.landing.conftest import LOG, files_in, land_source
from tests.s3_server import s3_server

AGENT = "45l0wewqzk"

each_format = pytest.mark.parametrize("file_format", FORMATS)


def in_pages(rows):
    return (rows[start : start + 3] for start in range(0, len(rows), 3))


def encoded(rows, file_format) -> bytes:
    rows = decode_rows(json.dumps(rows).encode(), keep_numbers=True).values
    source = EncodedRows(in_pages(rows), file_format, log=LOG)
    content = b"".join(source)
    assert source.rows == len(rows)
    return content


def table_of(rows) -> pyarrow.Table:
    return parquet.read_table(io.BytesIO(encoded(rows, "parquet")))


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


# Without halves of surrogate pairs, which have a test of their own, and a NUL, which not every csv module reads.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.none() | texts | st.booleans() | numbers | st.lists(texts | numbers, max_size=2)
rows_of_any_kind = st.lists(st.dictionaries(texts, values, min_size=1, max_size=5), max_size=8)
rows_of_text = st.lists(st.dictionaries(texts, texts, min_size=1, max_size=5), min_size=1, max_size=8)


class TestJsonLines:
    @given(rows_of_any_kind)
    def test_gives_the_rows_back(self, rows):
        lines = encoded(rows, "jsonl").split(b"\n")

        assert lines.pop() == b""
        assert [json.loads(line) for line in lines] == rows
        assert [list(json.loads(line)) for line in lines] == [list(row) for row in rows]

    def test_escapes_no_more_than_it_must(self):
        content = encoded([{"price": "£51.77 \u2028\t"}, {"price": "£\ud83d"}], "jsonl")

        assert content.decode() == '{"price":"£51.77 \u2028\\t"}\n{"price":"£\ufffd"}\n'


class TestCsv:
    @given(rows_of_text)
    def test_gives_the_rows_back(self, rows):
        columns = list(dict.fromkeys(name for row in rows for name in row))

        assert read_csv(encoded(rows, "csv")) == [columns, *([row.get(name, "") for name in columns] for row in rows)]

    @given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), values, min_size=1), min_size=1))
    def test_has_a_record_for_each_row(self, rows):
        counter = RecordCounter()
        counter.update(encoded(rows, "csv"))
        counter.finish()

        assert (counter.records, counter.blank_records) == (len(rows) + 1, 0)

    def test_writes_what_is_no_text_as_json(self):
        content = encoded([{"a": True, "b": None, "c": 1.0, "d": {"é": [None]}, "e": 2**70}], "csv")

        assert read_csv(content)[1] == ["true", "", "1.0", '{"é":[null]}', str(2**70)]

    def test_replaces_what_utf_8_cannot_hold(self):
        assert encoded([{"\ud83d": "£ \udcff."}], "csv").decode() == "\ufffd\r\n£ \ufffd.\r\n"

    def test_rows_without_columns_are_blank_lines(self):
        assert encoded([{}, {}], "csv") == b"\r\n" * 3

    def test_without_rows_has_no_byte(self):
        assert encoded([], "csv") == b""


class TestParquet:
    @pytest.mark.parametrize(
        ("seen", "kind", "held"),
        [
            ([True, None, False], "bool", [True, None, False]),
            ([1, None, -(2**63)], "int64", [1, None, -(2**63)]),
            ([1, 2**63], "string", ["1", str(2**63)]),
            ([1, -(2**63) - 1], "string", ["1", str(-(2**63) - 1)]),
            ([1, 2.5], "double", [1.0, 2.5]),
            ([2**53, 0.5], "double", [2.0**53, 0.5]),
            ([2**53 + 1, 0.5], "string", [str(2**53 + 1), "0.5"]),
            ([True, 1], "string", ["true", "1"]),
            ([True, 0.5], "string", ["true", "0.5"]),
            (["1", 1, None], "string", ["1", "1", None]),
            (["", None], "string", ["", None]),
            ([None, None], "string", [None, None]),
            ([["a"], {"b": "ü"}], "string", ['["a"]', '{"b":"ü"}']),
            (["£\ud83d"], "string", ["£\ufffd"]),
        ],
    )
    def test_what_all_rows_hold_decides_the_type(self, seen, kind, held):
        column = table_of([{"column": value} for value in seen])["column"]

        assert str(column.type) == kind
        assert column.to_pylist() == held

    @given(rows_of_text)
    def test_gives_the_rows_back(self, rows):
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = table_of(rows)

        assert table.column_names == columns
        assert [list(row.values()) for row in table.to_pylist()] == [
            [row.get(name) for name in columns] for row in rows
        ]

    def test_is_written_in_row_groups_with_one_type_for_all(self):
        rows = [{"number": number} for number in range(100_000)] + [{"late": "x"}]
        content = encoded(rows, "parquet")

        assert parquet.ParquetFile(io.BytesIO(content)).num_row_groups == 2
        assert parquet.read_table(io.BytesIO(content)).to_pydict() == {
            "number": [*range(100_000), None],
            "late": [None] * 100_000 + ["x"],
        }


class TestSpool:
    @pytest.mark.parametrize("file_format", ["csv", "parquet"])
    def test_how_rows_come_in_pages_changes_nothing(self, file_format):
        rows = [{"all": str(number), f"own {number % 7}": number} for number in range(30)]
        whole = b"".join(EncodedRows([rows], file_format, log=LOG))

        assert b"".join(EncodedRows([rows[:19], [], rows[19:]], file_format, log=LOG)) == whole
        if file_format == "csv":
            assert read_csv(whole)[10] == ["9", "", "", "9", "", "", "", ""]

    def test_is_gone_when_the_process_is_killed(self, tmp_path):
        script = textwrap.dedent(
            """
            import logging, os, signal, sys
            from airflow_provider_agenty.landing import formats

            def pages():
                yield from ([{"name": "x" * 1000}] * 50 for _ in range(100))
                os.kill(os.getpid(), signal.SIGKILL)

            b"".join(formats.EncodedRows(pages(), "csv", log=logging.getLogger(), spool_folder=sys.argv[1]))
            """
        )
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "spool")], check=False, capture_output=True)

        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (tmp_path / "spool").is_dir()
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize("file_format", ["csv", "parquet"])
    def test_a_disk_that_is_full(self, tmp_path, file_format):
        destination = open_destination(str(tmp_path / "lake" / "books"), default_name="unused")
        pages = ([{"name": "x" * 1000}] * 50 for _ in range(100))
        source = EncodedRows(pages, file_format, log=LOG, spool_folder=str(tmp_path / "spool"))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(AgentyExportError, match=r"Could not keep the rows of the result in .*spool"):
                land_source(source, destination, count_rows=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert files_in(tmp_path) == []
        assert not (tmp_path / "lake").exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(AgentyExportError, match="file/spool"):
            b"".join(EncodedRows([[{}]], "csv", log=LOG, spool_folder=str(tmp_path / "file" / "spool")))


@each_format
def test_each_format_can_be_had(file_format):
    check_format(file_format)


def test_a_format_whose_package_is_missing_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(AgentyInputError, match=r"airflow-provider-agenty\[parquet\]"):
        check_format("parquet")


@each_format
def test_memory_does_not_grow_with_the_result(tmp_path, file_format):
    script = textwrap.dedent(
        """
        import logging, sys
        from pathlib import Path
        from airflow_provider_agenty.landing.destinations import open_destination
        from airflow_provider_agenty.landing.land import LandingOptions, land
        from airflow_provider_agenty.landing.formats import EncodedRows

        def high_water():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

        def row(number):
            return {"name": f"Book {number}", "price": "£51.77", "in stock": number, "text": f"{number} " * 60}

        def pages(count):
            for number in range(0, count, 2500):
                yield [row(number + each) for each in range(2500)]

        def land_rows(count):
            name, path = sys.argv[1:]
            source = EncodedRows(pages(count), name, log=logging.getLogger(), spool_folder=f"{path}-spool")
            land(source, open_destination(path, default_name="unused"), LandingOptions(7, path, name),
                 expected_rows=count, log=logging.getLogger())

        land_rows(40_000)
        before = high_water()
        land_rows(140_000)
        print((high_water() - before) / 1024)
        """
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    path = tmp_path / f"books.{file_format}"
    done = subprocess.run(
        [sys.executable, "-c", script, file_format, str(path)], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    # As JSON the rows have 65 MB, as Python objects some more; a row group of Parquet takes what its size allows.
    assert float(done.stdout.split()[-1]) < 48


@pytest.fixture(scope="module")
def s3_endpoint():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch, tmp_path):
    """Give a bucket "rows", and a connection to it that no other module uses: Airflow keeps file systems for each."""
    access = {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "access-key", "password": "secret-key", "extra": access}
    monkeypatch.setenv("AIRFLOW_CONN_ROWS_LAKE", json.dumps(connection))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    s3 = boto3.resource("s3", **access, aws_access_key_id="access-key", aws_secret_access_key="secret-key")
    bucket = s3.create_bucket(Bucket="rows")
    yield bucket
    bucket.objects.delete()
    bucket.delete()


def stored_in(bucket) -> dict[str, bytes]:
    return {each.key: each.get()["Body"].read() for each in bucket.objects.all()}


@pytest.mark.agenty_sandbox(page_cap=25)
@each_format
def test_a_result_is_landed_in_s3(agenty_sandbox, bucket, tmp_path, file_format):
    job_id = agenty_sandbox.add_older_jobs(AGENT, 1)[0]
    hook = AgentyHook()
    expected = list(hook.iter_result(job_id))
    name = "today.parquet" if file_format == "parquet" else f"today.{file_format}.gz"
    landed = hook.download_result(
        job_id,
        f"s3://rows/books/{name}",
        format=file_format,
        storage_conn_id="rows_lake",
        spool_folder=str(tmp_path / "spool"),
    )

    stored = stored_in(bucket)
    assert list(stored) == [f"books/{name}"]
    content = stored[f"books/{name}"]
    assert (landed.path, landed.size, landed.rows) == (f"s3://rows/books/{name}", len(content), 60)
    if file_format == "jsonl":
        rows = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    elif file_format == "csv":
        rows = list(csv.DictReader(io.StringIO(gzip.decompress(content).decode(), newline="")))
    else:
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    assert rows == expected
    assert files_in(tmp_path) == []


@each_format
def test_a_refused_result_leaves_the_key_in_s3_as_it_was(agenty_sandbox, bucket, tmp_path, file_format):
    bucket.put_object(Key="books", Body=b"as it was")
    job_id = agenty_sandbox.add_older_jobs(AGENT, 1)[0]

    class RefusedError(Exception):
        pass

    def refuse(exported):
        raise RefusedError

    with pytest.raises(RefusedError):
        AgentyHook().download_result(
            job_id,
            "s3://rows/books",
            format=file_format,
            storage_conn_id="rows_lake",
            check=refuse,
            spool_folder=str(tmp_path / "spool"),
        )
    assert stored_in(bucket) == {"books": b"as it was"}
    assert files_in(tmp_path) == []
