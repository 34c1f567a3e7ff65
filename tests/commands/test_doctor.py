"""What ``doctor`` says: each check with its tick, its warning and its cross, and no secret in any of them."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import namedtuple
from email.utils import formatdate

import pytest
import s3fs

from airflow_provider_agenty.commands import airflow_checks, main, place_checks
from airflow_provider_agenty.commands.airflow_checks import Database
from airflow_provider_agenty.sandbox import Sandbox
from tests.s3_server import s3_server

KEY = "5ec2e7ba5eba11c0ffee0123456789ab"
CHECKS = ["versions", "connection", "settings", "DNS", "network", "key", "agents", "clock", "triggerer"]
JOBS = json.dumps({"total": 0, "limit": 1, "offset": 0, "returned": 0, "result": []})


@pytest.fixture
def doctor(command):
    """Run the doctor, check that it says the same as text and as JSON, and give status and findings by check."""

    def run(*arguments):
        ran = command("doctor", "--json", *arguments)
        findings = {}
        for each in ran.json:
            findings.setdefault(each["check"], []).append((each["status"], each["message"]))
            assert "\n" not in each["message"]
        assert ran.status == any(status == "error" for found in findings.values() for status, _ in found)
        assert KEY not in ran.out + ran.err
        assert "pr0xy-passw0rd" not in ran.out + ran.err
        return findings

    return run


@pytest.fixture
def sandbox():
    with Sandbox(key=KEY) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def connected(sandbox, monkeypatch):
    """Connect with the sandbox, but for the fields that a test gives."""

    def change(extra=None, **fields):
        connection = {**sandbox.connection, **fields, "extra": extra or {}}
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", json.dumps(connection))

    change()
    return change


def statuses(found):
    return [status for status, _ in found]


def test_where_all_is_well_each_line_has_a_tick_or_a_warning(command, sandbox):
    sandbox.add_older_jobs("45l0wewqzk", 3)

    ran = command("doctor")

    assert ran.status == 0
    lines = ran.out.splitlines()
    assert [line.partition(":")[0][2:] for line in lines][: len(CHECKS)] == CHECKS
    assert {line[0] for line in lines} == {"✓", "!"}
    assert "✓ connection: 'agenty_default', from the environment." in lines
    assert f"✓ key: Agenty answered at {sandbox.url}: the account has 3 jobs." in lines
    assert KEY not in ran.out + ran.err
    assert sandbox.starts == sandbox.stops == 0
    assert {request.method for request in sandbox.requests} == {"GET"}


def test_a_cross_is_exit_status_1_and_a_mark_in_its_line(command, connected):
    connected(password="another-key")

    ran = command("doctor")

    assert ran.status == 1
    assert "✗ key: GET /jobs: HTTP 401 Unauthorized" in ran.out
    assert "another-key" not in ran.out + ran.err


class TestConnection:
    def test_a_field_that_can_not_be_used_is_named_without_its_value(self, doctor, connected):
        connected({"timeout": "s00n"})
        [(status, message)] = doctor()["connection"]
        assert status == "error"
        assert "timeout" in message
        assert "s00n" not in message

    def test_what_is_risky_is_a_warning(self, doctor, connected):
        connected({"auth": "query", "verify": "false"})
        ticked, *warned = doctor()["settings"]
        assert ticked[0] == "ok"
        assert "key in the query" in ticked[1]
        assert "certificates are not checked" in ticked[1]
        assert statuses(warned) == ["warning"] * 2

    def test_without_the_database_a_connection_that_is_missing_is_a_warning(self, doctor, monkeypatch):
        monkeypatch.setattr(airflow_checks, "read_database", lambda: TimeoutError())
        found = doctor("--conn-id", "elsewhere")
        [(status, message)] = found["connection"]
        assert status == "warning"
        assert "database can't be read from here" in message
        assert statuses(found["triggerer"]) == ["warning"]
        assert "network" not in found

    def test_one_that_is_nowhere_is_a_cross(self, doctor, monkeypatch):
        monkeypatch.setattr(airflow_checks, "read_database", lambda: Database(0, 0))
        [(status, message)] = doctor("--conn-id", "elsewhere")["connection"]
        assert status == "error"
        assert "AIRFLOW_CONN_ELSEWHERE" in message

    @pytest.mark.parametrize("given", [KEY, f"agenty://:{KEY}@api.agenty.com"])
    def test_a_key_in_place_of_the_connections_id_is_not_shown(self, command, monkeypatch, given):
        monkeypatch.setattr(airflow_checks, "read_database", lambda: Database(0, 0))
        ran = command("doctor", "--conn-id", given)
        assert ran.status == 1
        assert "✗ connection: " in ran.out
        assert KEY not in ran.out  # Airflow 2.11 itself logs each id that it could not look up


class TestNetwork:
    def test_a_name_that_can_not_be_resolved(self, doctor, connected):
        connected(host="https://agenty.invalid/v2")
        found = doctor()
        [(status, message)] = found["DNS"]
        assert (status, message.partition(" ")[0]) == ("error", "agenty.invalid")
        assert "network" not in found

    def test_a_port_on_which_nobody_listens(self, doctor, connected, closed_port):
        connected(host=f"http://127.0.0.1:{closed_port}")
        [(status, message)] = doctor()["network"]
        assert status == "error"
        assert "refused the connection" in message

    def test_a_certificate_that_nobody_signed_until_it_is_trusted(self, doctor, connected, certificate):
        with Sandbox(certfile=certificate.certfile, keyfile=certificate.keyfile) as secure:
            connected(host=secure.url, password=secure.key)
            [(status, message)] = doctor()["network"]
            assert status == "error"
            assert "certificate" in message
            connected({"verify": certificate.certfile}, host=secure.url, password=secure.key)
            found = doctor()
        assert found["network"] == [("ok", "127.0.0.1 answers over TLS.")]
        assert "checked with a CA bundle" in found["settings"][0][1]

    @pytest.mark.parametrize("place", ["connection", "environment"])
    def test_a_proxy_is_named_without_its_password(self, doctor, connected, monkeypatch, closed_port, place):
        proxy = f"http://user:pr0xy-passw0rd@127.0.0.1:{closed_port}"
        if place == "environment":
            monkeypatch.setenv("HTTPS_PROXY", proxy)
        connected({"proxies": proxy} if place == "connection" else {}, host="https://agenty.invalid")
        found = doctor()
        assert found["proxy"] == [("ok", f"127.0.0.1, from the {place}.")]
        assert statuses(found["DNS"]) == ["ok"]  # the proxy resolves the name of the API
        assert statuses(found["network"]) == ["error"]


class TestKey:
    @pytest.mark.parametrize(("status", "said"), [(401, "does not know the API key"), (403, "check its role")])
    def test_one_that_may_not_list_jobs(self, doctor, sandbox, status, said):
        sandbox.fault("GET", "/jobs", status=status, times=None)
        found = doctor()
        assert statuses(found["network"]) == ["ok"]
        assert statuses(found["key"]) == ["error"]
        assert said in found["key"][0][1]
        assert "agents" not in found

    @pytest.mark.parametrize(("fault", "said"), [({"status": 403}, "HTTP 403"), ({"drop": "before"}, "broke before")])
    def test_one_that_may_not_list_agents_is_a_warning(self, doctor, sandbox, fault, said):
        sandbox.fault("GET", "/agents", times=None, **fault)
        [(status, message)] = doctor()["agents"]
        assert status == "warning"
        assert said in message

    @pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (-300, "warning"), (300, "warning")])
    def test_the_clock_is_compared_with_the_date_of_the_answer(self, doctor, sandbox, ahead, status):
        date = formatdate(time.time() + ahead, usegmt=True)
        sandbox.fault("GET", "/jobs", status=200, headers={"Date": date}, body=JOBS, times=None)
        assert statuses(doctor()["clock"]) == [status]

    @pytest.mark.parametrize("date", ["soon", "Tue, 99 Jan 2026 00:00:00 GMT", ""])
    def test_a_date_that_is_none_is_a_warning(self, doctor, sandbox, date):
        sandbox.fault("GET", "/jobs", status=200, headers={"Date": date}, body=JOBS, times=None)
        assert statuses(doctor()["clock"]) == ["warning"]


class TestAirflow:
    @pytest.mark.parametrize(
        ("version", "status"), [("2.10.5", "warning"), ("2.11.0", "ok"), ("3.3.2", "ok"), ("3.4.0b1", "warning")]
    )
    def test_versions(self, monkeypatch, version, status):
        monkeypatch.setattr(airflow_checks, "airflow", version)
        assert airflow_checks.check_versions().status == status

    @pytest.mark.parametrize(
        ("triggerers", "deferred", "default", "status"),
        [
            (1, 0, "False", "ok"),
            (2, 1999, "True", "ok"),
            (2, 2000, "True", "warning"),
            (0, 0, "False", "warning"),
            (0, 0, "True", "error"),
            (0, 1, "False", "error"),
        ],
    )
    def test_the_triggerer_and_its_room(self, monkeypatch, triggerers, deferred, default, status):
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)
        assert airflow_checks.check_triggerer(Database(triggerers, deferred)).status == status
        assert ("wait in a worker" in airflow_checks.check_deferrable().message) == (default == "False")

    @pytest.mark.parametrize(("value", "longest"), [(None, 1024), ("5000", 5000)])
    def test_how_many_tasks_a_list_maps_to(self, doctor, monkeypatch, value, longest):
        if value is not None:
            monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", value)
        expected = f"A list maps to at most {longest} tasks: [core] max_map_length."
        assert doctor()["max_map_length"] == [("ok", expected)]

    def test_a_setting_that_can_not_be_read_hides_no_other_check(self, doctor, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "1,024")
        found = doctor()
        assert statuses(found["max_map_length"]) == ["error"]
        assert "max_map_length" in found["max_map_length"][0][1]
        assert found["spool folder"]

    @pytest.mark.parametrize(("value", "status"), [("auto", "warning"), ("Variables", "ok"), ("both", "error")])
    def test_the_memory_of_starts_before_3_3(self, monkeypatch, value, status):
        monkeypatch.setattr(airflow_checks, "HAS_TASK_STATE_STORE", False)
        monkeypatch.setenv("AIRFLOW__AGENTY__START_MEMORY", value)
        assert airflow_checks.check_memory()[:2] == ("start_memory", status)

    @pytest.mark.parametrize(("days", "status"), [("0", "ok"), ("30", "ok"), ("2", "warning")])
    def test_the_task_state_store_from_3_3_on(self, monkeypatch, days, status):
        monkeypatch.setattr(airflow_checks, "HAS_TASK_STATE_STORE", True)
        monkeypatch.setenv("AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS", days)
        assert airflow_checks.check_memory()[:2] == ("task state store", status)

    def test_a_database_that_hangs_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr("airflow.utils.session.create_session", lambda: time.sleep(30))
        monkeypatch.setattr(airflow_checks, "DATABASE_SECONDS", 0.05)
        assert isinstance(airflow_checks.read_database(), TimeoutError)


class TestPlaces:
    @pytest.mark.parametrize(("mebibytes", "status"), [(500, "warning"), (5000, "ok")])
    def test_the_room_for_files_on_their_way(self, doctor, monkeypatch, mebibytes, status):
        usage = namedtuple("usage", "total used free")(10**12, 0, mebibytes * 1024**2)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        assert statuses(doctor()["spool folder"]) == [status]

    def test_no_folder_for_temporary_files(self, doctor, monkeypatch):
        def fail():
            raise FileNotFoundError("No usable temporary directory")

        monkeypatch.setattr(tempfile, "gettempdir", fail)
        assert statuses(doctor()["spool folder"]) == ["error"]

    @pytest.mark.parametrize("made", ["{}/new/books.csv", "{}/new/", "file://{}/books.csv", "file://localhost{}/"])
    @pytest.mark.parametrize("write", [[], ["--write"]])
    def test_a_local_path(self, doctor, tmp_path, made, write):
        [(status, message)] = doctor("--path", made.format(tmp_path), *write)["path"]
        assert status == "ok"
        assert ("removed" in message) == bool(write)
        assert list(tmp_path.iterdir()) == []

    def test_a_local_path_below_a_file(self, doctor, tmp_path):
        (tmp_path / "file").touch()
        [(status, message)] = doctor("--path", f"{tmp_path}/file/books.csv", "--write")["path"]
        assert (status, str(tmp_path / "file") in message) == ("error", True)

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("nowhere://bucket/books.csv", "Install the Airflow provider that brings it"),
            ("abfs://container/", "apache-airflow-providers-microsoft-azure"),
            ("s3://bucket", "names a bucket and no key"),
            ("s3://user:pr0xy-passw0rd@bucket/key", "user and a password"),
        ],
    )
    def test_a_store_that_can_not_be_reached_from_here(self, doctor, path, said):
        [(status, message)] = doctor("--path", path)["path"]
        assert status == "error"
        assert said in message

    @pytest.mark.parametrize(
        "path", ["s3:/lake/x/", "dbfs:/x/", "file://nas/x/", "C:\\x\\", "~nobody-here/x/", "/tmp/books.csv.zip"]
    )
    def test_a_path_at_which_nothing_can_be_landed(self, doctor, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        [(status, _)] = doctor("--path", path, "--write")["path"]
        assert status == "error"
        assert list(tmp_path.iterdir()) == []

    def test_a_file_url_in_capitals(self, doctor, tmp_path):
        [(status, message)] = doctor("--path", f"FILE://localhost{tmp_path}/new/")["path"]
        assert (status, str(tmp_path) in message) == ("ok", True)

    def test_write_needs_a_path(self, command):
        assert command("doctor", "--write")[:2] == (1, "")


@pytest.fixture(scope="module")
def s3():
    """Give the address of an S3 on this machine."""
    pytest.importorskip("s3fs")
    pytest.importorskip("airflow.providers.amazon")
    pytest.importorskip("moto.server")
    with s3_server() as endpoint:
        yield endpoint


class TestStore:
    @pytest.fixture
    def lake(self, s3, monkeypatch, tmp_path):
        """Give a client of an S3 with the bucket ``lake``."""
        for name, value in {
            "AWS_ENDPOINT_URL": s3,
            "AWS_ACCESS_KEY_ID": "access-key",
            "AWS_SECRET_ACCESS_KEY": "secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        }.items():
            monkeypatch.setenv(name, value)
        client = pytest.importorskip("boto3").client("s3")
        client.create_bucket(Bucket="lake")
        return client

    def test_nothing_is_written_without_being_asked_for_and_nothing_is_left(self, lake):
        looked = place_checks.check_path("s3://lake/books/", write=False)
        wrote = place_checks.check_path("s3://lake/books/", write=True)

        assert (looked.status, wrote.status) == ("ok", "ok")
        assert "--write" in looked.message
        assert "A file was written to s3://lake/books/" in wrote.message
        assert lake.list_objects_v2(Bucket="lake").get("Contents", []) == []

    def test_a_bucket_that_does_not_exist(self, lake):
        found = place_checks.check_path("s3://pond/books.csv", write=False)
        assert found.status == "error"
        assert "there is no bucket" in found.message

    def test_what_may_be_written_and_not_removed_is_a_warning_that_names_it(self, lake, monkeypatch):
        call = s3fs.S3FileSystem._call_s3

        async def refuse(self, method, *args, **options):
            if method == "delete_object":
                raise PermissionError
            return await call(self, method, *args, **options)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
        found = place_checks.check_path("s3://lake/kept/books.csv", write=True)
        [left] = lake.list_objects_v2(Bucket="lake", Prefix="kept/")["Contents"]
        assert found.status == "warning"
        assert f"remove s3://lake/{left['Key']}" in found.message


SETUP = """
import os
from airflow.jobs.job import Job
from airflow.models import Connection
from airflow.utils.session import create_session
from airflow.utils.state import JobState
from airflow.utils.timezone import utcnow

with create_session() as session:
    address = {"host": os.environ["HOST"], "password": os.environ["PASSWORD"]}
    session.add(Connection(conn_id="kept", conn_type="agenty", **address))
    job = Job()
    job.job_type, job.state, job.latest_heartbeat = "TriggererJob", JobState.RUNNING, utcnow()
    session.add(job)
"""


def test_a_real_airflow_is_asked_for_its_connections_and_its_triggerers(airflow, sandbox, tmp_path):
    (tmp_path / "connections.json").write_text(json.dumps({"secret": sandbox.connection}))
    local_files = {
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(tmp_path / "connections.json")}),
    }
    doctor = ["-m", "airflow_provider_agenty", "doctor", "--conn-id"]

    before = airflow(*doctor, "nowhere")
    made = airflow("-c", SETUP, HOST=sandbox.url, PASSWORD=sandbox.key)
    assert made.status == 0, made.err
    kept = airflow(*doctor, "kept")
    secret = airflow(*doctor, "secret", **local_files)

    assert before.status == 1
    assert "✗ connection: There is no connection 'nowhere'" in before.out
    assert "! triggerer: No triggerer runs, and 0 tasks are deferred" in before.out
    assert kept.status == 0, kept.out + kept.err
    assert "✓ connection: 'kept', from Airflow's database.\n" in kept.out
    assert "✓ key: " in kept.out
    assert "✓ triggerer: 1 running, with room for 1000 triggers, and 0 tasks are deferred.\n" in kept.out
    assert "✓ connection: 'secret', from the secrets backend LocalFilesystemBackend.\n" in secret.out
    assert KEY not in "".join((*before[1:], *kept[1:], *secret[1:]))


def test_the_marks_are_written_whatever_the_locale_is(airflow, sandbox):
    ran = airflow("-m", "airflow_provider_agenty", "doctor", PYTHONIOENCODING="ascii")
    assert ran.out.startswith("? versions")


def test_main_is_what_the_module_runs():
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert ended.value.code == 0
