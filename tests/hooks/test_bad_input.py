"""What can't be used is refused with a sentence that names it, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_agenty.exceptions import (
    AgentyAuthError,
    AgentyExportError,
    AgentyInputError,
    AgentyNotFoundError,
)
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"

BAD_JOB_IDS = [
    None,
    "",
    "  ",
    "None",
    "seven",
    "7.5",
    "-7",
    -7,
    0,
    "0",
    7.0,
    True,
    [7],
    2**53,
    10**5000,
    "9" * 18,
    b"7",
    "7/stop",
    "7?x=1",
    "\u0667",
    "../7",
]
BAD_AGENT_IDS = [
    None,
    "",
    "  ",
    "None",
    7.5,
    True,
    "a b",
    "a/b",
    "../x",
    "a?b=c",
    "a\nb",
    "-x",
    "x" * 65,
    "à",
    ["x"],
    "a&limit=2",
]

WITH_A_JOB: dict[str, Callable[[AgentyHook, Any], Any]] = {
    "get_job": lambda hook, job_id: hook.get_job(job_id),
    "stop_job": lambda hook, job_id: hook.stop_job(job_id),
    "iter_result": lambda hook, job_id: hook.iter_result(job_id),
    "count_result": lambda hook, job_id: hook.count_result(job_id),
    "iter_logs": lambda hook, job_id: hook.iter_logs(job_id),
    "get_export_link": lambda hook, job_id: hook.get_export_link(job_id),
    "download_export": lambda hook, job_id: hook.download_export(job_id, "/nowhere/x.csv"),
    "wait_for_job": lambda hook, job_id: hook.wait_for_job(job_id),
}
WITH_AN_AGENT: dict[str, Callable[[AgentyHook, Any], Any]] = {
    "start_job": lambda hook, agent_id: hook.start_job(agent_id),
    "newest_job_id": lambda hook, agent_id: hook.newest_job_id(agent_id),
    "find_started_job": lambda hook, agent_id: hook.find_started_job(agent_id, newer_than=0),
    "get_input": lambda hook, agent_id: hook.get_input(agent_id),
    "set_input": lambda hook, agent_id: hook.set_input(agent_id, ["https://example.com/"]),
}


@pytest.mark.parametrize("call", WITH_A_JOB)
def test_what_is_no_job_id_is_refused(sandbox: Sandbox, hook: AgentyHook, call: str) -> None:
    for job_id in BAD_JOB_IDS:
        # Iterators too: at the call, not at the first item.
        with pytest.raises(AgentyInputError, match="job_id") as refused:
            WITH_A_JOB[call](hook, job_id)
        if isinstance(job_id, str | float) and str(job_id).strip() not in {"", "None"}:
            # What is behind a question mark may be a signature.
            assert repr(job_id).partition("?")[0] in str(refused.value)

    assert sandbox.requests == []


@pytest.mark.parametrize("job_id", [None, "", "None"])
def test_an_empty_job_id_says_where_it_should_have_come_from(hook: AgentyHook, job_id: Any) -> None:
    with pytest.raises(AgentyInputError, match=r"job_id is empty.*AgentyStartJobOperator"):
        hook.get_job(job_id)


@pytest.mark.parametrize("call", WITH_AN_AGENT)
def test_what_is_no_agent_id_is_refused(sandbox: Sandbox, hook: AgentyHook, call: str) -> None:
    for agent_id in BAD_AGENT_IDS:
        with pytest.raises(AgentyInputError, match="agent_id"):
            WITH_AN_AGENT[call](hook, agent_id)

    assert sandbox.requests == []


def test_what_is_no_agent_id_is_refused_by_the_list_of_jobs(sandbox: Sandbox, hook: AgentyHook) -> None:
    for agent_id in BAD_AGENT_IDS[1:]:
        with pytest.raises(AgentyInputError, match="agent_id"):
            hook.list_jobs(agent_id)

    assert sandbox.requests == []


@pytest.mark.parametrize("agent_id", [f" {BOOKS} ", f"{BOOKS}\n"])
def test_whitespace_around_an_agent_id_is_removed(hook: AgentyHook, agent_id: str) -> None:
    assert hook.start_job(agent_id).agent_id == BOOKS


@pytest.mark.parametrize("collection", [0, -1, "0", "first", None, 1.5, True, ""])
def test_what_is_no_collection_is_refused(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, collection: Any, tmp_path: Path
) -> None:
    for call in (
        lambda: hook.iter_result(finished_job, collection=collection),
        lambda: hook.count_result(finished_job, collection=collection),
        lambda: hook.get_export_link(finished_job, collection=collection),
        lambda: hook.download_export(finished_job, str(tmp_path / "x.csv"), collection=collection),
    ):
        with pytest.raises(AgentyInputError, match=r"collection.*counted from 1"):
            call()

    assert sandbox.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_collection_may_be_text(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    hook.count_result(finished_job, collection="1")  # type: ignore[arg-type]

    assert sandbox.requests[-1].query["collection"] == "1"


@pytest.mark.parametrize("offset", [-1, "-1", 1.5, None, "x", True])
def test_what_is_no_offset_is_refused(sandbox: Sandbox, hook: AgentyHook, finished_job: int, offset: Any) -> None:
    with pytest.raises(AgentyInputError, match="offset"):
        hook.iter_logs(finished_job, offset=offset)

    assert sandbox.requests == []


@pytest.mark.parametrize("file_type", ["csv", "", None, "RESULT", 1])
def test_what_is_no_file_type_is_refused(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, file_type: Any, tmp_path: Path
) -> None:
    for call in (
        lambda: hook.get_export_link(finished_job, file_type=file_type),
        lambda: hook.download_export(finished_job, str(tmp_path / "x.csv"), file_type=file_type),
    ):
        with pytest.raises(AgentyInputError, match="file_type"):
            call()

    assert sandbox.requests == []


@pytest.mark.parametrize(
    "filename", ["a/b.csv", "..", ".", "a\\b", "a\nb", "x" * 201, 7.5, True, "", " ", "None", "a\ud83d.csv"]
)
def test_what_is_no_filename_is_refused(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, filename: Any, tmp_path: Path
) -> None:
    for call in (
        lambda: hook.get_export_link(finished_job, filename=filename),
        lambda: hook.download_export(finished_job, str(tmp_path / "x.csv"), filename=filename),
    ):
        with pytest.raises(AgentyInputError, match="filename"):
            call()

    assert sandbox.requests == []


def test_a_filename_is_in_the_link(hook: AgentyHook, finished_job: int) -> None:
    assert "/my%20books1.csv?" in hook.get_export_link(finished_job, filename="my books.csv")


# Exports


@pytest.mark.parametrize("status", ["submitted", "queued", "running", "completing", "stopping", "stopped", "aborted"])
def test_the_result_of_a_job_that_is_not_completed_is_not_landed(
    sandbox: Sandbox, hook: AgentyHook, status: str, tmp_path: Path
) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, status)
    path = tmp_path / "books.csv"
    path.write_text("what was there")

    with pytest.raises(AgentyExportError, match=f"Job {job_id} is {status}"):
        hook.download_export(job_id, str(path))

    assert [request.path for request in sandbox.requests] == [f"/jobs/{job_id}"]
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("status", ["running", "completing", "stopping"])
def test_the_log_of_a_job_that_is_not_over_is_not_landed(
    sandbox: Sandbox, hook: AgentyHook, status: str, tmp_path: Path
) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, status)

    with pytest.raises(AgentyExportError, match=f"Job {job_id} is {status}"):
        hook.download_export(job_id, str(tmp_path / "x.log"), file_type="logs")

    assert [request.path for request in sandbox.requests] == [f"/jobs/{job_id}"]


@pytest.mark.parametrize("status", ["stopped", "aborted"])
def test_the_log_of_any_job_that_is_over_is_landed(
    sandbox: Sandbox, hook: AgentyHook, status: str, tmp_path: Path
) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, status)

    landed = hook.download_export(job_id, str(tmp_path / "x.log"), file_type="logs")

    assert landed.rows is None
    assert (tmp_path / "x.log").read_text().splitlines() == sandbox.log(job_id)


def test_a_file_that_exists_is_refused_before_anything_is_sent(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    path = tmp_path / "books.csv"
    path.write_text("what was there")

    with pytest.raises(AgentyExportError, match=r"books\.csv"):
        hook.download_export(finished_job, str(path), overwrite=False)

    assert sandbox.requests == []
    assert path.read_text() == "what was there"


def test_a_path_that_is_a_folder_is_refused_before_anything_is_sent(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    (tmp_path / "books.csv").mkdir()

    with pytest.raises(AgentyExportError, match=r"books\.csv.*folder"):
        hook.download_export(finished_job, str(tmp_path / "books.csv"))

    assert sandbox.requests == []


def test_a_folder_gets_a_file_named_after_agent_job_and_collection(
    hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    landed = hook.download_export(finished_job, f"{tmp_path}/new/folder/")

    assert landed.path == f"{tmp_path}/new/folder/{BOOKS}-{finished_job}-1.csv"
    assert Path(landed.path).stat().st_size == landed.size


def test_a_check_that_fails_leaves_the_destination_as_it_was(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    path = tmp_path / "books.csv"
    path.write_text("what was there")

    def refuse(landed: Any) -> None:
        assert landed.rows == hook.count_result(finished_job)
        raise LookupError("too few")

    with pytest.raises(LookupError, match="too few"):
        hook.download_export(finished_job, str(path), check=refuse)

    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_with_fewer_rows_than_agenty_says_is_not_landed(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    page = {"total": 5000, "limit": 1, "offset": 0, "returned": 1, "result": [{"name": "x"}]}
    sandbox.fault("GET", "/jobs/{id}/result", body=page, times=None)

    with pytest.raises(AgentyExportError, match="5000"):
        hook.download_export(finished_job, str(tmp_path / "books.csv"))

    assert list(tmp_path.iterdir()) == []
    assert hook.download_export(finished_job, str(tmp_path / "books.csv"), verify_rows=False).rows


# The rest of what can be wrong


def test_a_wrong_key_is_refused_by_agenty_and_nothing_is_started(sandbox: Sandbox, connect: Any) -> None:
    with pytest.raises(AgentyAuthError, match="password"):
        connect(password="not-the-key").start_job(BOOKS)

    assert sandbox.starts == 0


def test_an_unknown_agent_is_named(hook: AgentyHook) -> None:
    with pytest.raises(AgentyNotFoundError, match="nosuchagent"):
        hook.start_job("nosuchagent")


def test_an_unknown_job_is_named(hook: AgentyHook, tmp_path: Path) -> None:
    with pytest.raises(AgentyNotFoundError, match="Job 4711 not found"):
        hook.download_export(4711, str(tmp_path / "x.csv"))


def test_an_unknown_connection_is_named_and_nothing_is_sent(sandbox: Sandbox) -> None:
    with pytest.raises(AgentyInputError, match="no connection 'agenty_elsewhere'"):
        AgentyHook("agenty_elsewhere").start_job(BOOKS)

    assert sandbox.requests == []


@pytest.mark.parametrize("host", ["not a host", "ftp://x", "http://api.agenty.com"])
def test_a_host_that_cannot_be_used_is_refused_before_anything_is_sent(
    sandbox: Sandbox, connect: Any, host: str
) -> None:
    with pytest.raises(AgentyInputError, match="host"):
        connect(host=host).start_job(BOOKS)

    assert sandbox.requests == []


def test_bad_input_is_not_mended_by_a_retry_and_is_a_value_error() -> None:
    from airflow_provider_agenty.airflow_compat import AirflowException, AirflowFailException

    assert issubclass(AgentyInputError, AirflowFailException)
    assert issubclass(AgentyInputError, AirflowException)
    assert issubclass(AgentyInputError, ValueError)
