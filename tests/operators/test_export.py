"""Landing a file of a job: what is landed, what is refused, and that nothing else changes."""

from __future__ import annotations

import gzip
import hashlib
import logging
from pathlib import Path

import pytest

from airflow_provider_agenty.airflow_compat import AirflowFailException, AirflowSkipException
from airflow_provider_agenty.exceptions import (
    AgentyDestinationError,
    AgentyExportError,
    AgentyInputError,
    AgentyNotFoundError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyExportOperator
from airflow_provider_agenty.sandbox.agent import SAMPLE_AGENTS

AGENT = "45l0wewqzk"
RETAILERS = "w9qmlp5475"
BOOKS = (SAMPLE_AGENTS / f"{AGENT}.csv").read_bytes()

with_an_empty_result = pytest.mark.agenty_sandbox(agents={AGENT: b"name,price\r\n"})


def export(job_id, path, **parameters):
    return AgentyExportOperator(task_id="land", job_id=job_id, path=str(path), **parameters)


@pytest.fixture
def finished_job(agenty_sandbox) -> int:
    return agenty_sandbox.add_older_jobs(AGENT, 1)[0]


@pytest.fixture
def destination(tmp_path) -> Path:
    """Give a file that is there already, which only a landing may change."""
    path = tmp_path / "books.csv"
    path.write_bytes(b"as it was")
    return path


def is_untouched(destination: Path) -> bool:
    return destination.read_bytes() == b"as it was" and list(destination.parent.iterdir()) == [destination]


def asked(sandbox) -> list[str]:
    return [request.path.rpartition("/")[2] for request in sandbox.requests]


class TestLanding:
    def test_returns_what_was_landed(self, finished_job, destination, make_context):
        task = export(finished_job, destination)

        assert task.execute(make_context(task)) == {
            "path": str(destination),
            "size": len(BOOKS),
            "rows": 60,
            "sha256": hashlib.sha256(BOOKS).hexdigest(),
            "job_id": finished_job,
            "collection": 1,
        }
        assert destination.read_bytes() == BOOKS
        assert list(destination.parent.iterdir()) == [destination]

    def test_takes_what_templates_give(self, finished_job, tmp_path, make_context):
        task = export(str(finished_job), f"{tmp_path}/", collection="1")

        assert task.execute(make_context(task))["path"] == f"{tmp_path}/{AGENT}-{finished_job}-1.csv"

    def test_takes_a_path_object(self, finished_job, tmp_path):
        with AgentyHook() as hook:
            exported = hook.download_export(finished_job, tmp_path / "books.csv")
        assert exported.path == str(tmp_path / "books.csv")
        assert (tmp_path / "books.csv").read_bytes() == BOOKS

    def test_takes_an_object_storage_path(self, finished_job, tmp_path):
        try:
            from airflow.sdk import ObjectStoragePath
        except ImportError:
            from airflow.io.path import ObjectStoragePath

        with AgentyHook() as hook:
            exported = hook.download_export(finished_job, ObjectStoragePath(f"file://{tmp_path}/books.csv"))
        assert exported.path == str(tmp_path / "books.csv")

    @pytest.mark.parametrize("agent_id", ["../../dags/evil", "..", "a/b", "a\\b", "", "a" * 65])
    def test_an_id_of_an_agent_that_is_none_is_no_part_of_a_name(
        self, agenty_sandbox, finished_job, tmp_path, agent_id
    ):
        body = {"job_id": finished_job, "status": "completed", "agent_id": agent_id}
        agenty_sandbox.fault("GET", f"/jobs/{finished_job}", body=body, times=None)
        with AgentyHook() as hook:
            exported = hook.download_export(finished_job, f"{tmp_path}/in/")
        assert exported.path == f"{tmp_path}/in/agent-{finished_job}-1.csv"

    def test_compresses_on_the_way(self, finished_job, tmp_path, make_context):
        task = export(finished_job, tmp_path / "books.csv.gz")

        landed = task.execute(make_context(task))
        assert gzip.decompress((tmp_path / "books.csv.gz").read_bytes()) == BOOKS
        assert landed["size"] == (tmp_path / "books.csv.gz").stat().st_size
        assert landed["sha256"] == hashlib.sha256(BOOKS).hexdigest()

    @pytest.mark.parametrize(
        ("parameters", "source"),
        [
            ({"collection": 1}, f"{RETAILERS}.csv"),
            ({"collection": 2}, f"{RETAILERS}.2.csv"),
            ({"modified": False}, f"{RETAILERS}.default.csv"),
        ],
    )
    def test_lands_the_collection_that_is_meant(self, agenty_sandbox, tmp_path, make_context, parameters, source):
        job_id = agenty_sandbox.add_older_jobs(RETAILERS, 1)[0]
        task = export(job_id, tmp_path / "retailers.csv", **parameters)

        landed = task.execute(make_context(task))
        assert (tmp_path / "retailers.csv").read_bytes() == (SAMPLE_AGENTS / source).read_bytes()
        assert landed["collection"] == parameters.get("collection", 1)

    def test_asks_for_the_link_under_the_file_name(self, agenty_sandbox, finished_job, tmp_path, make_context):
        task = export(finished_job, tmp_path / "books.csv", filename="today.csv")
        task.execute(make_context(task))

        asked_for = next(each for each in agenty_sandbox.requests if each.path.endswith("/export"))
        assert asked_for.query["filename"] == "today.csv"

    @pytest.mark.parametrize("outcome", ["completed", "aborted"])
    def test_lands_the_log_of_a_job_however_it_ended(self, agenty_sandbox, tmp_path, make_context, outcome):
        job_id = agenty_sandbox.add_older_jobs(AGENT, 1)[0]
        if outcome != "completed":
            agenty_sandbox.set_status(job_id, outcome)
        agenty_sandbox.add_log(job_id, "Fetched 1 page")
        task = export(job_id, f"{tmp_path}/", file_type="logs", min_rows=10, on_empty="fail")

        landed = task.execute(make_context(task))
        assert landed["path"] == f"{tmp_path}/{AGENT}-{job_id}.log"
        assert landed["rows"] is None
        assert landed["collection"] is None
        assert b"Fetched 1 page" in (tmp_path / f"{AGENT}-{job_id}.log").read_bytes()
        assert "result" not in asked(agenty_sandbox)

    def test_says_once_what_was_landed(self, finished_job, destination, make_context, monkeypatch, caplog):
        monkeypatch.setattr(AgentyHook, "log", logging.getLogger("airflow_provider_agenty.hooks"))
        caplog.set_level("INFO")
        task = export(finished_job, destination)
        task.execute(make_context(task))

        said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Landed")]
        size = f"{len(BOOKS) / 1024:.1f} KiB"
        assert said == [f"Landed 60 rows ({size}) at {destination}, sha256 {hashlib.sha256(BOOKS).hexdigest()}"]

    def test_the_button_works_before_the_file_is_there(self, agenty_sandbox, finished_job, destination, make_context):
        agenty_sandbox.fault("GET", "/jobs/{id}/export", status=403)
        task = export(finished_job, destination)
        context = make_context(task)

        with pytest.raises(Exception, match="403"):
            task.execute(context)
        assert context["ti"].pushed["_link_AgentyAgentLink"] == f"https://cloud.agenty.com/agents/scraping/{AGENT}"
        assert is_untouched(destination)

    def test_is_templated(self):
        assert AgentyExportOperator.template_fields == (
            "job_id",
            "path",
            "agenty_conn_id",
            "storage_conn_id",
            "collection",
            "filename",
        )
        assert tuple(AgentyExportOperator.template_ext) == ()


class TestRows:
    @pytest.mark.parametrize(("min_rows", "landed"), [(0, True), (60, True), (61, False)])
    def test_fewer_than_min_rows_fail(self, finished_job, destination, make_context, min_rows, landed):
        task = export(finished_job, destination, min_rows=min_rows)

        if landed:
            assert task.execute(make_context(task))["rows"] == 60
            return
        with pytest.raises(AgentyExportError, match=f"job {finished_job} has 60 rows, fewer than min_rows=61"):
            task.execute(make_context(task))
        assert is_untouched(destination)

    @with_an_empty_result
    def test_an_empty_result_is_landed(self, finished_job, destination, make_context):
        task = export(finished_job, destination)

        assert task.execute(make_context(task))["rows"] == 0
        assert destination.read_bytes() == b"name,price\r\n"

    def test_an_export_without_a_byte_is_empty_if_agenty_counts_no_rows(
        self, agenty_sandbox, destination, make_context
    ):
        agenty_sandbox.set_agent("empty", b"")
        job_id = agenty_sandbox.start_job("empty")
        agenty_sandbox.set_status(job_id, "completed")
        skipped, landed = export(job_id, destination, on_empty="skip"), export(job_id, destination)
        with pytest.raises(AirflowSkipException, match="is empty"):
            skipped.execute(make_context(skipped))

        assert landed.execute(make_context(landed))["rows"] == 0
        assert destination.read_bytes() == b""

    @with_an_empty_result
    @pytest.mark.parametrize(("on_empty", "error"), [("fail", AgentyExportError), ("skip", AirflowSkipException)])
    def test_an_empty_result_fails_or_skips(self, finished_job, destination, make_context, on_empty, error):
        task = export(finished_job, destination, on_empty=on_empty, min_rows=1)

        with pytest.raises(error, match=f"result of job {finished_job} is empty"):
            task.execute(make_context(task))
        assert is_untouched(destination)

    @with_an_empty_result
    def test_an_empty_result_has_fewer_than_min_rows(self, finished_job, destination, make_context):
        task = export(finished_job, destination, min_rows=1)

        with pytest.raises(AgentyExportError, match="min_rows=1"):
            task.execute(make_context(task))
        assert is_untouched(destination)

    @pytest.mark.parametrize("verify_rows", [True, False])
    def test_rows_that_are_missing(self, agenty_sandbox, finished_job, destination, make_context, verify_rows):
        agenty_sandbox.download_fault(body=b"".join(BOOKS.splitlines(keepends=True)[:11]), times=None)
        task = export(finished_job, destination, verify_rows=verify_rows)

        if verify_rows:
            with pytest.raises(AgentyExportError, match="10 rows, and the result has 60"):
                task.execute(make_context(task))
            assert is_untouched(destination)
        else:
            assert task.execute(make_context(task))["rows"] == 10
            assert "result" not in asked(agenty_sandbox)


class TestRefused:
    @pytest.mark.agenty_sandbox(manual=True)
    @pytest.mark.parametrize(
        ("status", "file_type"),
        [
            ("running", "result"),
            ("completing", "result"),
            ("stopping", "result"),
            ("stopped", "result"),
            ("aborted", "result"),
            ("paused", "result"),
            ("running", "logs"),
            ("stopping", "logs"),
        ],
    )
    def test_a_job_that_has_nothing_final(self, agenty_sandbox, destination, make_context, status, file_type):
        job_id = AgentyHook().start_job(AGENT).job_id
        agenty_sandbox.set_status(job_id, status)
        task = export(job_id, destination.with_suffix(""), file_type=file_type)

        with pytest.raises(AgentyExportError, match=f"Job {job_id} is {status}"):
            task.execute(make_context(task))
        assert not {"export", "result"} & set(asked(agenty_sandbox))
        assert is_untouched(destination)

    def test_a_store_that_refuses_the_upload_is_nothing_that_a_retry_mends(self, finished_job, monkeypatch):
        memory = pytest.importorskip("fsspec.implementations.memory")
        try:
            from airflow.sdk.io import attach
        except ImportError:
            from airflow.io.store import attach

        class Closed(memory.MemoryFileSystem):
            protocol = "gs"
            cachable = False

            @classmethod
            def _strip_protocol(cls, path):
                return path.removeprefix("gs://")

            def put_file(self, lpath, rpath, **_):
                raise OSError(f"Forbidden: {rpath}")  # as gcsfs says it

        monkeypatch.setenv("AIRFLOW_CONN_CLOSED", "generic://")
        attach("gs", "closed", fs=Closed()).fs = Closed()
        with AgentyHook() as hook, pytest.raises(AgentyDestinationError, match="permission denied"):
            hook.download_export(finished_job, "gs://closed@lake/books.csv")

    def test_a_file_that_may_not_be_replaced(self, agenty_sandbox, finished_job, destination, make_context):
        task = export(finished_job, destination, overwrite=False)

        with pytest.raises(AgentyDestinationError, match="exists already"):
            task.execute(make_context(task))
        assert agenty_sandbox.requests == []
        assert is_untouched(destination)

    @pytest.mark.parametrize(
        ("parameters", "error", "said"),
        [
            ({"path": "{folder}/" + "n" * 300}, AgentyDestinationError, "name is too long"),
            ({"path": "{folder}"}, AgentyDestinationError, "is a folder"),
            ({"path": "/proc/self/comm/books.csv"}, AgentyDestinationError, "is a file"),
            ({"path": "file://elsewhere/books.csv"}, AgentyDestinationError, "another host"),
            ({"path": "nosuchstore://bucket/books.csv"}, AgentyDestinationError, "nosuchstore"),
        ],
    )
    def test_what_cannot_be_used_before_anything_is_sent(
        self, agenty_sandbox, destination, make_context, parameters, error, said
    ):
        given = {"job_id": 7, "path": str(destination), **parameters}
        given["path"] = given["path"] and given["path"].format(folder=destination.parent)

        def run():
            task = AgentyExportOperator(task_id="land", **given)
            task.execute(make_context(task))

        with pytest.raises(error, match=said) as refused:
            run()
        assert isinstance(refused.value, AirflowFailException), "a retry can't mend it"
        assert agenty_sandbox.requests == []
        assert is_untouched(destination)

    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"file_type": "csv"}, "file_type 'csv'"),
            ({"on_empty": "ignore"}, "on_empty 'ignore'"),
            ({"min_rows": -1}, "min_rows -1"),
            ({"min_rows": "10"}, "min_rows '10'"),
            ({"min_rows": True}, "min_rows True"),
            ({"path": ""}, "path is empty"),
            ({"collection": 0}, "collection 0"),
            ({"collection": "first"}, "collection 'first'"),
            ({"job_id": None}, "job_id is empty"),
            ({"job_id": "1/../2"}, "job_id '1/../2'"),
            ({"filename": "../books.csv"}, "filename '../books.csv'"),
            ({"filename": "None"}, "filename is empty"),
        ],
    )
    def test_what_cannot_be_used_when_the_dag_file_is_read(self, parameters, named):
        with pytest.raises(AgentyInputError, match=named):
            AgentyExportOperator(**{"task_id": "land", "job_id": 7, "path": "/data/books.csv"} | parameters)

    def test_a_job_that_is_not_there(self, agenty_sandbox, destination, make_context):
        task = export(7, destination)

        with pytest.raises(AgentyNotFoundError, match="/jobs/7"):
            task.execute(make_context(task))
        assert is_untouched(destination)
