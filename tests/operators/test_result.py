"""Landing the paged result: each file_format, and the promises that hold for an export too."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import logging
import sys
from itertools import islice
from pathlib import Path

import pytest
from pyarrow import parquet

from airflow_provider_agenty.airflow_compat import AirflowFailException, AirflowSkipException
from airflow_provider_agenty.api import result_pages
from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyDestinationError,
    AgentyExportError,
    AgentyInputError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyResultOperator
from airflow_provider_agenty.parameters import FORMATS
from airflow_provider_agenty.sandbox.agent import SAMPLE_AGENTS
from airflow_provider_agenty.sandbox.content import Content, parse_csv

AGENT = "45l0wewqzk"
RETAILERS = "w9qmlp5475"
EMPTY = {AGENT: b"name,price\r\n"}
MANY = {AGENT: [{"name": f"Book {number}", "price": f"£{number}"} for number in range(950)]}


class UnevenRows(Content):
    """Rows that have other keys each, which a CSV can't give."""

    ROWS = (
        {"name": 'A "quoted" book', "price": "£51.77", "# in stock": 3},
        {"name": "Zeilen\r\numbruch, Komma", "price": None},
        {"price": "", "rating": 4.5, "name": "本"},
        {"late": True, "# in stock": 7, "rating": 4, "mixed": 1},
        {"late": False, "mixed": "one", "tags": ["a", "ü"]},
    )

    def __init__(self) -> None:
        super().__init__(b"name\r\n" + b"x\r\n" * len(self.ROWS))

    def rows(self, start, stop):
        return [dict(row) for row in self.ROWS[start:stop]]


uneven = pytest.mark.agenty_sandbox(agents={AGENT: UnevenRows()}, page_cap=2)
many = pytest.mark.agenty_sandbox(agents=MANY, page_cap=100)
empty = pytest.mark.agenty_sandbox(agents=EMPTY)
each_format = pytest.mark.parametrize("file_format", FORMATS)


def land(job_id, path, **parameters):
    return AgentyResultOperator(task_id="land", job_id=job_id, path=str(path), **parameters)


def json_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def finished_job(agenty_sandbox) -> int:
    return agenty_sandbox.add_older_jobs(AGENT, 1)[0]


@pytest.fixture
def destination(tmp_path) -> Path:
    """Give a file that is there already, which only a landing may change."""
    path = tmp_path / "lake" / "books"
    path.parent.mkdir()
    path.write_bytes(b"as it was")
    return path


@pytest.fixture
def spool(tmp_path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def is_untouched(destination, spool):
    def is_untouched() -> bool:
        nothing_else = list(destination.parent.iterdir()) == [destination]
        return destination.read_bytes() == b"as it was" and nothing_else and not list(spool.rglob("*"))

    return is_untouched


def result_requests(sandbox):
    return [request for request in sandbox.requests if request.path.endswith("/result")]


class TestFormats:
    @uneven
    def test_json_lines_are_the_rows_as_they_came(self, finished_job, tmp_path, make_context):
        path = tmp_path / "books.jsonl"
        task = land(finished_job, path)

        landed = task.execute(make_context(task))
        assert path.read_bytes().split(b"\n") == [
            '{"name":"A \\"quoted\\" book","price":"£51.77","# in stock":3}'.encode(),
            b'{"name":"Zeilen\\r\\numbruch, Komma","price":null}',
            '{"price":"","rating":4.5,"name":"本"}'.encode(),
            b'{"late":true,"# in stock":7,"rating":4,"mixed":1}',
            '{"late":false,"mixed":"one","tags":["a","ü"]}'.encode(),
            b"",
        ]
        assert landed == {
            "path": str(path),
            "size": path.stat().st_size,
            "rows": 5,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "job_id": finished_job,
            "collection": 1,
        }

    @uneven
    def test_csv_has_the_columns_of_all_rows(self, finished_job, tmp_path, make_context):
        path = tmp_path / "books.csv"
        task = land(finished_job, path, format="csv")

        landed = task.execute(make_context(task))
        assert path.read_bytes().decode() == (
            "name,price,# in stock,rating,late,mixed,tags\r\n"
            '"A ""quoted"" book",£51.77,3,,,,\r\n'
            '"Zeilen\r\numbruch, Komma",,,,,,\r\n'
            "本,,,4.5,,,\r\n"
            ",,7,4,true,1,\r\n"
            ',,,,false,one,"[""a"",""ü""]"\r\n'
        )
        assert landed["rows"] == 5
        assert landed["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    @uneven
    def test_parquet_has_types_where_all_values_agree(self, finished_job, tmp_path, make_context):
        path = tmp_path / "books.parquet"
        task = land(finished_job, path, format="parquet")

        landed = task.execute(make_context(task))
        table = parquet.read_table(path)
        assert {field.name: str(field.type) for field in table.schema} == {
            "name": "string",
            "price": "string",
            "# in stock": "int64",
            "rating": "double",
            "late": "bool",
            "mixed": "string",
            "tags": "string",
        }
        assert table.column_names[:3] == ["name", "price", "# in stock"]
        assert table.to_pydict() == {
            "name": ['A "quoted" book', "Zeilen\r\numbruch, Komma", "本", None, None],
            "price": ["£51.77", None, "", None, None],
            "# in stock": [3, None, None, 7, None],
            "rating": [None, None, 4.5, 4.0, None],
            "late": [None, None, None, True, False],
            "mixed": [None, None, None, "1", "one"],
            "tags": [None, None, None, None, '["a","ü"]'],
        }
        assert landed["rows"] == 5
        assert landed["size"] == path.stat().st_size
        assert landed["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    @pytest.mark.parametrize(
        ("parameters", "source"),
        [
            ({}, f"{RETAILERS}.csv"),
            ({"collection": "2"}, f"{RETAILERS}.2.csv"),
            ({"modified": False}, f"{RETAILERS}.default.csv"),
        ],
    )
    def test_the_collection_that_is_meant(self, agenty_sandbox, tmp_path, make_context, parameters, source):
        job_id = agenty_sandbox.add_older_jobs(RETAILERS, 1)[0]
        with (SAMPLE_AGENTS / source).open(encoding="utf-8-sig", newline="") as file:
            expected = list(parse_csv(file.read()))
        written = {}
        for file_format in FORMATS:
            written[file_format] = tmp_path / f"retailers.{file_format}"
            task = land(job_id, written[file_format], format=file_format, **parameters)
            assert task.execute(make_context(task))["rows"] == len(expected)

        assert json_lines(written["jsonl"]) == expected
        with written["csv"].open(encoding="utf-8", newline="") as file:
            assert list(csv.DictReader(file)) == expected
        assert parquet.read_table(written["parquet"]).to_pylist() == expected

    @many
    @each_format
    def test_pages_are_as_large_as_the_server_makes_them(
        self, agenty_sandbox, finished_job, tmp_path, make_context, file_format
    ):
        path = tmp_path / f"books.{file_format}"
        task = land(finished_job, path, format=file_format)

        assert task.execute(make_context(task))["rows"] == 950
        rows = {
            "jsonl": json_lines,
            "csv": lambda path: list(csv.DictReader(path.open(encoding="utf-8", newline=""))),
            "parquet": lambda path: parquet.read_table(path).to_pylist(),
        }[file_format](path)
        assert rows == MANY[AGENT]
        # One for the total.
        assert len(result_requests(agenty_sandbox)) == 1 + 10

    @pytest.mark.parametrize("file_format", ["jsonl", "csv"])
    def test_gz_compresses_on_the_way(self, finished_job, tmp_path, make_context, file_format):
        landed = {}
        for end in ("", ".gz"):
            task = land(finished_job, tmp_path / f"books.{file_format}{end}", format=file_format)
            landed[end] = task.execute(make_context(task))

        content = (tmp_path / f"books.{file_format}").read_bytes()
        compressed = (tmp_path / f"books.{file_format}.gz").read_bytes()
        assert gzip.decompress(compressed) == content
        assert landed[".gz"] == {**landed[""], "path": f"{landed['']['path']}.gz", "size": len(compressed)}

    @each_format
    def test_has_a_name_of_its_own_in_a_folder(self, finished_job, tmp_path, make_context, file_format):
        task = land(finished_job, f"{tmp_path}/new/", format=file_format)

        assert task.execute(make_context(task))["path"] == f"{tmp_path}/new/{AGENT}-{finished_job}-1.{file_format}"
        assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{AGENT}-{finished_job}-1.{file_format}"]

    def test_says_once_what_was_landed(self, finished_job, destination, make_context, monkeypatch, caplog):
        monkeypatch.setattr(AgentyHook, "log", logging.getLogger("airflow_provider_agenty.hooks"))
        caplog.set_level("INFO")
        task = land(finished_job, destination)
        landed = task.execute(make_context(task))

        said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Landed")]
        assert len(said) == 1
        assert said[0].startswith("Landed 60 rows (")
        assert said[0].endswith(f" at {destination}, sha256 {landed['sha256']}")


class TestRows:
    @each_format
    @pytest.mark.parametrize(("min_rows", "landed"), [(60, True), (61, False)])
    def test_fewer_than_min_rows_fail(
        self, finished_job, destination, spool, is_untouched, make_context, file_format, min_rows, landed
    ):
        task = land(finished_job, destination, format=file_format, min_rows=min_rows, spool_folder=str(spool))

        if landed:
            assert task.execute(make_context(task))["rows"] == 60
            return
        with pytest.raises(AgentyExportError, match=f"job {finished_job} has 60 rows, fewer than min_rows=61"):
            task.execute(make_context(task))
        assert is_untouched()

    @empty
    @each_format
    def test_an_empty_result_is_landed(self, finished_job, destination, make_context, file_format):
        task = land(finished_job, destination, format=file_format)

        assert task.execute(make_context(task))["rows"] == 0
        if file_format == "parquet":
            # Not every reader reads a file without columns.
            assert parquet.read_table(destination).shape == (0, 1)
        else:
            assert destination.read_bytes() == b""

    @empty
    @each_format
    @pytest.mark.parametrize(("on_empty", "error"), [("fail", AgentyExportError), ("skip", AirflowSkipException)])
    def test_an_empty_result_fails_or_skips(
        self, finished_job, destination, spool, is_untouched, make_context, file_format, on_empty, error
    ):
        task = land(finished_job, destination, format=file_format, on_empty=on_empty, spool_folder=str(spool))

        with pytest.raises(error, match=f"result of job {finished_job} is empty"):
            task.execute(make_context(task))
        assert is_untouched()

    @many
    @each_format
    def test_fewer_rows_than_agenty_says_there_are(
        self, agenty_sandbox, finished_job, destination, spool, is_untouched, make_context, monkeypatch, file_format
    ):
        # The total is asked for while the first page is on its way: no fault of the sandbox tells the two apart.
        monkeypatch.setattr(result_pages, "read_result_total", lambda *args, **kwargs: 951)
        task = land(finished_job, destination, format=file_format, spool_folder=str(spool))

        with pytest.raises(AgentyExportError, match="950 rows, and the result has 951"):
            task.execute(make_context(task))
        assert is_untouched()

    @many
    def test_that_no_total_is_asked_for(self, agenty_sandbox, finished_job, destination, make_context):
        task = land(finished_job, destination, verify_rows=False)

        assert task.execute(make_context(task))["rows"] == 950
        assert "1" not in {request.query["limit"] for request in result_requests(agenty_sandbox)}

    @many
    def test_a_total_that_cannot_be_had(self, agenty_sandbox, finished_job, destination, is_untouched, make_context):
        agenty_sandbox.fault("GET", "/jobs/{id}/result", times=None, status=403)
        task = land(finished_job, destination)

        with pytest.raises(AgentyAuthError, match="/result"):
            task.execute(make_context(task))
        assert is_untouched()


class TestWhateverGoesWrong:
    @many
    @each_format
    def test_a_result_that_shrinks_while_it_is_read(
        self, agenty_sandbox, finished_job, destination, spool, is_untouched, make_context, file_format
    ):
        smaller = {"total": 400, "limit": 100, "offset": 300, "returned": 0, "result": []}
        agenty_sandbox.fault("GET", "/jobs/{id}/result", after=4, times=None, status=200, body=json.dumps(smaller))
        task = land(finished_job, destination, format=file_format, spool_folder=str(spool))

        with pytest.raises(AgentyExportError, match=r"it had 950 rows and has 400 now.*Nothing was landed"):
            task.execute(make_context(task))
        assert is_untouched()

    @many
    def test_a_page_without_rows(self, agenty_sandbox, finished_job, destination, is_untouched, make_context):
        nothing = {"total": 950, "limit": 100, "offset": 300, "returned": 0, "result": []}
        agenty_sandbox.fault("GET", "/jobs/{id}/result", after=4, times=None, status=200, body=json.dumps(nothing))
        task = land(finished_job, destination, verify_rows=False)

        with pytest.raises(AgentyExportError, match="of 950"):
            task.execute(make_context(task))
        assert is_untouched()

    @many
    @pytest.mark.parametrize(("status", "error"), [(503, AgentyUnavailableError), (403, AgentyAuthError)])
    def test_a_page_that_cannot_be_had(
        self, agenty_sandbox, finished_job, destination, spool, is_untouched, make_context, status, error
    ):
        agenty_sandbox.fault("GET", "/jobs/{id}/result", after=4, times=None, status=status)
        task = land(finished_job, destination, format="csv", spool_folder=str(spool))

        with pytest.raises(error, match="/result"):
            task.execute(make_context(task))
        assert is_untouched()

    @many
    def test_a_page_that_is_cut_is_read_again(self, agenty_sandbox, finished_job, destination, make_context):
        agenty_sandbox.fault("GET", "/jobs/{id}/result", after=4, times=2, cut=500)
        task = land(finished_job, destination)

        assert task.execute(make_context(task))["rows"] == 950
        assert json_lines(destination) == MANY[AGENT]

    @many
    @each_format
    def test_a_timeout_by_airflow(
        self, finished_job, destination, spool, is_untouched, make_context, monkeypatch, file_format
    ):
        class Alarm(BaseException):
            pass

        read_pages = result_pages.iter_result_pages

        def interrupted(*args, **kwargs):
            yield from islice(read_pages(*args, **kwargs), 5)
            raise Alarm

        monkeypatch.setattr(result_pages, "iter_result_pages", interrupted)
        task = land(finished_job, destination, format=file_format, spool_folder=str(spool))

        with pytest.raises(Alarm):
            task.execute(make_context(task))
        assert is_untouched()


class TestRefused:
    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize("status", ["running", "completing", "stopped", "aborted", "paused"])
    def test_a_job_that_has_no_final_result(self, agenty_sandbox, destination, is_untouched, make_context, status):
        job_id = AgentyHook().start_job(AGENT).job_id
        agenty_sandbox.set_status(job_id, status)
        task = land(job_id, destination)
        context = make_context(task)

        with pytest.raises(AgentyExportError, match=f"Job {job_id} is {status}"):
            task.execute(context)
        assert result_requests(agenty_sandbox) == []
        assert is_untouched()
        assert context["ti"].pushed["_link_AgentyAgentLink"] == f"https://cloud.agenty.com/agents/scraping/{AGENT}"

    @pytest.mark.parametrize(
        ("parameters", "error", "said"),
        [
            ({"path": "{folder}"}, AgentyDestinationError, "is a folder"),
            ({"overwrite": False}, AgentyDestinationError, "exists already"),
            ({"format": "parquet", "path": "{folder}/books.parquet.gz"}, AgentyInputError, "ends in .gz"),
        ],
    )
    def test_what_cannot_be_used_before_anything_is_sent(
        self, agenty_sandbox, destination, is_untouched, make_context, parameters, error, said
    ):
        given = {"job_id": 7, "path": str(destination), **parameters}
        given["path"] = given["path"].format(folder=destination.parent)

        def run():
            task = AgentyResultOperator(task_id="land", **given)
            task.execute(make_context(task))

        with pytest.raises(error, match=said) as refused:
            run()
        assert isinstance(refused.value, AirflowFailException), "a retry can't mend it"
        assert agenty_sandbox.requests == []
        assert is_untouched()

    def test_parquet_without_pyarrow_before_anything_is_sent(
        self, agenty_sandbox, destination, is_untouched, make_context, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        task = land(7, destination, format="parquet")

        with pytest.raises(AgentyInputError, match=r"pip install 'airflow-provider-agenty\[parquet\]'"):
            task.execute(make_context(task))
        assert agenty_sandbox.requests == []
        assert is_untouched()

    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"format": "xlsx"}, "format 'xlsx'"),
            ({"format": None}, "format None"),
            ({"on_empty": "ignore"}, "on_empty 'ignore'"),
            ({"min_rows": -1}, "min_rows -1"),
        ],
    )
    def test_what_cannot_be_used_when_the_dag_file_is_read(self, parameters, named):
        with pytest.raises(AgentyInputError, match=named):
            land(7, "/data/books.jsonl", **parameters)

    def test_a_format_that_the_hook_does_not_know(self, agenty_sandbox, destination):
        with pytest.raises(AgentyInputError, match="format 'xlsx'"):
            AgentyHook().download_result(7, str(destination), format="xlsx")
        assert agenty_sandbox.requests == []


class TestDags:
    def test_is_templated(self):
        expected = ("job_id", "path", "agenty_conn_id", "storage_conn_id", "collection")
        assert AgentyResultOperator.template_fields == expected
        assert tuple(AgentyResultOperator.template_ext) == ()
