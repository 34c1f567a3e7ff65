"""A file that appears in an object store is whole: against moto's S3 server, through Airflow's amazon provider."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("airflow.providers.amazon")
pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

from botocore.config import Config  # noqa: E402

from airflow_provider_agenty.airflow_compat import AirflowTaskTimeout  # noqa: E402
from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError, AgentyQualityError  # noqa: E402
from airflow_provider_agenty.hooks.agenty import AgentyHook  # noqa: E402
from airflow_provider_agenty.landing.destinations import open_destination  # noqa: E402
from tests.landing.conftest import Answer, files_in, land_source  # noqa: E402
from tests.loopback import serving  # noqa: E402
from tests.s3_server import s3_server  # noqa: E402

CSV = b"name,price\n" + b"".join(b'"Book %d","%d.50"\n' % (number, number) for number in range(1000))
LARGE = b"name,price\n" + b"".join(b'"Book %d","%d.50"\n' % (number, number) for number in range(1_500_000))


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(endpoint, monkeypatch, tmp_path):
    connection = {
        "conn_type": "aws",
        "login": "access-key",
        "password": "secret-key",
        "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="access-key",
        aws_secret_access_key="secret-key",
        # moto before 5.2 passes the checksum of an object's parts off as one of the whole, which fails here.
        config=Config(response_checksum_validation="when_required"),
    )
    client.create_bucket(Bucket="lake")
    yield Bucket(client)
    for key in Bucket(client).all_keys():
        client.delete_object(Bucket="lake", Key=key)
    client.delete_bucket(Bucket="lake")


class Bucket:
    def __init__(self, client) -> None:
        self.client = client

    def all_keys(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket="lake").get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket="lake", Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket="lake", Key=key, Body=data)

    def unfinished(self) -> list[str]:
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket="lake").get("Uploads", [])]


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def land_at(spool):
    def land_at(path, source=(CSV,), *, overwrite=True, storage_conn_id="lake", default_name="unused.csv", **options):
        destination = open_destination(
            path, default_name=default_name, storage_conn_id=storage_conn_id, overwrite=overwrite
        )
        return land_source(source, destination, **{"spool_folder": str(spool), **options})

    return land_at


def refused(path, **options) -> str:
    with pytest.raises(AgentyExportError) as caught:
        open_destination(path, default_name="unused.csv", **{"storage_conn_id": "lake", **options})
    return str(caught.value)


def test_a_file_is_landed(bucket, land_at, spool, host, make_download):
    host.answers = [
        Answer(CSV, headers={"ETag": '"1"'}, cut_after=9000),
        Answer(CSV, headers={"ETag": '"1"'}, ranges=True),
    ]
    exported = land_at("s3://lake/books/today.csv", make_download(), expected_rows=1000)
    assert bucket.read("books/today.csv") == CSV
    assert exported.to_dict() == {
        "path": "s3://lake/books/today.csv",
        "size": len(CSV),
        "rows": 1000,
        "sha256": hashlib.sha256(CSV).hexdigest(),
        "job_id": 7,
        "collection": 1,
    }
    assert files_in(spool) == []


def test_a_large_file_is_landed_in_parts(bucket, land_at):
    exported = land_at("s3://lake/large.csv", [LARGE])
    assert exported.rows == 1_500_000
    assert bucket.read("large.csv") == LARGE
    head = bucket.client.head_object(Bucket="lake", Key="large.csv")
    assert head["ETag"].strip('"').endswith(f"-{-(-len(LARGE) // (8 * 2**20))}")
    assert bucket.unfinished() == []


def test_gzip_and_default_name(bucket, land_at):
    exported = land_at("s3://lake/books/", default_name=lambda: "agent-7-1.csv.gz")
    assert exported.path == "s3://lake/books/agent-7-1.csv.gz"
    assert gzip.decompress(bucket.read("books/agent-7-1.csv.gz")) == CSV
    assert exported.size == len(bucket.read("books/agent-7-1.csv.gz"))


def test_a_key_with_what_run_ids_and_people_put_into_it(bucket, land_at):
    key = "manual__2026-01-01T00:00:00+00:00 50% #1?é.csv"
    land_at(f"s3://lake/{key}")
    assert bucket.all_keys() == [key]


@pytest.mark.parametrize(
    "key", ["reports/prices::eu.csv", "a//b.csv", "/b.csv", "http://books.example/a.csv", "a@b.csv"]
)
def test_the_key_is_what_the_url_says(bucket, land_at, key):
    bucket.write("reports/prices", b"somebody else's")
    assert land_at(f"s3://lake/{key}").path == f"s3://lake/{key}"
    assert sorted(bucket.all_keys()) == sorted(["reports/prices", key])
    assert bucket.read("reports/prices") == b"somebody else's"


try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach


class AccessPoint(BaseHTTPRequestHandler):
    """S3 behind a proxy, as far as one object of an access point goes."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []
    stored: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self):
        place = urlsplit(self.path)
        data = self.stored.get(place.path, None if place.path.strip("/") else b"")
        self.answer(404 if data is None else 200, len(data or b""))

    def do_GET(self):
        self.answer(200, 0)

    def do_PUT(self):
        place = urlsplit(self.path)
        self.asked.append((place.hostname, place.path))
        self.stored[place.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, 0)

    def answer(self, status, length):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()


@pytest.mark.parametrize("separator", ["/", ":"])
def test_an_access_point_may_stand_for_the_bucket(land_at, monkeypatch, separator):
    AccessPoint.asked.clear()
    AccessPoint.stored.clear()
    for name in ("AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_POINT", "aws://")
    with serving(AccessPoint) as proxy:
        files = s3fs.S3FileSystem(
            key="access-key",
            secret="secret-key",
            use_ssl=False,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"proxies": {"http": proxy}},
        )
        attach("s3", "point", fs=files).fs = files
        url = f"s3://arn:aws:s3:us-east-1:123456789012:accesspoint{separator}books/in/today.csv"
        assert land_at(url, storage_conn_id="point").path == url
    assert AccessPoint.asked == [("books-123456789012.s3-accesspoint.us-east-1.amazonaws.com", "/in/today.csv")]
    assert AccessPoint.stored == {"/in/today.csv": CSV}


def test_the_connection_in_the_url(bucket, land_at):
    exported = land_at("s3://lake@lake/books.csv", storage_conn_id=None)
    assert exported.path == "s3://lake@lake/books.csv"
    assert bucket.all_keys() == ["books.csv"]


class TestRefusedBeforeADownload:
    def test_no_such_bucket(self, bucket):
        assert "there is no bucket or container 'nowhere'" in refused("s3://nowhere/books.csv")

    @pytest.mark.parametrize("path", ["s3://", "s3:///books.csv"])
    def test_no_bucket(self, bucket, path):
        assert "names no bucket" in refused(path)

    def test_no_key(self, bucket):
        assert "no key" in refused("s3://lake")

    def test_a_version_of_a_key(self, bucket):
        assert "reads a part of it as something other" in refused("s3://lake/books.csv?versionId=3")

    def test_a_bucket_of_a_name_that_no_bucket_has(self, bucket):
        assert "Correct the path" in refused("s3://My Lake/books.csv")

    def test_an_access_point_without_a_key(self, bucket):
        assert "no key" in refused("s3://arn:aws:s3:us-east-1:123456789012:accesspoint/books")

    def test_a_folder(self, bucket):
        bucket.write("books/today.csv", b"old")
        assert "is a folder" in refused("s3://lake/books")

    def test_an_existing_key_that_may_not_be_replaced(self, bucket):
        bucket.write("books.csv", b"old")
        assert "exists already" in refused("s3://lake/books.csv", overwrite=False)

    def test_an_unknown_connection(self, bucket):
        assert "`nowhere` isn't defined" in refused("s3://lake/books.csv", storage_conn_id="nowhere")

    def test_a_missing_package(self, bucket, monkeypatch):
        monkeypatch.setitem(sys.modules, "s3fs", None)
        # Airflow keeps the file system of a connection.
        monkeypatch.setenv("AIRFLOW_CONN_NEVER_USED", '{"conn_type": "aws"}')
        assert "Install apache-airflow-providers-amazon[s3fs]" in refused(
            "s3://lake/books.csv", storage_conn_id="never_used"
        )

    def test_a_store_that_does_not_answer(self, bucket, monkeypatch):
        connection = {
            "conn_type": "aws",
            "login": "a",
            "password": "b",
            "extra": {
                "endpoint_url": "http://127.0.0.1:9",
                "region_name": "us-east-1",
                "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
            },
        }
        monkeypatch.setenv("AIRFLOW_CONN_DEAD", json.dumps(connection))
        assert "Could not reach s3://lake/books.csv" in refused("s3://lake/books.csv", storage_conn_id="dead")


class TestWhateverGoesWrong:
    def test_in_the_source(self, bucket, land_at, spool):
        bucket.write("books.csv", b"old")

        def source():
            yield CSV
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            land_at("s3://lake/books.csv", source())
        assert bucket.read("books.csv") == b"old"
        assert files_in(spool) == []

    def test_in_the_check(self, bucket, land_at, spool):
        class TooFewError(Exception):
            pass

        def check(exported):
            assert bucket.all_keys() == []
            raise TooFewError

        with pytest.raises(TooFewError):
            land_at("s3://lake/books.csv", check=check)
        assert bucket.all_keys() == []
        assert files_in(spool) == []

    def test_a_bucket_that_disappears(self, bucket, land_at, spool):
        def check(_):
            bucket.client.delete_bucket(Bucket="lake")

        try:
            with pytest.raises(AgentyExportError, match="bucket or container does not exist"):
                land_at("s3://lake/books.csv", check=check)
        finally:
            bucket.client.create_bucket(Bucket="lake")
        assert files_in(spool) == []

    def test_a_key_that_appears_meanwhile_stays(self, bucket, land_at):
        with pytest.raises(AgentyExportError, match="exists already"):
            land_at("s3://lake/books.csv", overwrite=False, check=lambda _: bucket.write("books.csv", b"other"))
        assert bucket.read("books.csv") == b"other"

    def test_a_large_key_that_appears_meanwhile_stays(self, bucket, land_at):
        with pytest.raises(AgentyExportError, match="exists already"):
            land_at(
                "s3://lake/books.csv",
                [LARGE],
                overwrite=False,
                check=lambda _: bucket.write("books.csv", b"other"),
            )
        assert bucket.read("books.csv") == b"other"
        assert bucket.unfinished() == []

    def test_a_part_that_fails_leaves_nothing(self, bucket, land_at, monkeypatch, spool):
        call = s3fs.S3FileSystem._call_s3
        parts = []

        async def failing(self, method, *args, **kwargs):
            if method == "upload_part":
                parts.append(kwargs["PartNumber"])
                if kwargs["PartNumber"] == 3:
                    raise OSError("the part was lost")
            return await call(self, method, *args, **kwargs)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", failing)
        with pytest.raises(AgentyExportError, match="the part was lost"):
            land_at("s3://lake/large.csv", [LARGE])
        assert 3 in parts
        assert bucket.all_keys() == []
        assert bucket.unfinished() == []
        assert files_in(spool) == []

    def test_an_upload_that_arrives_short_is_removed(self, bucket, land_at, monkeypatch):
        call = s3fs.S3FileSystem._call_s3

        async def shortening(self, method, *args, **kwargs):
            if method == "put_object":
                kwargs["Body"] = kwargs["Body"][:-10]
            return await call(self, method, *args, **kwargs)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", shortening)
        with pytest.raises(AgentyExportError, match=r"arrived\. They were removed"):
            land_at("s3://lake/books.csv")
        assert bucket.all_keys() == []

    @pytest.mark.parametrize("other", [CSV + b"more,1\n", b"name,price\n" + CSV[-5000:]], ids=["longer", "shorter"])
    def test_what_another_landing_puts_there_at_the_same_time_stays(self, bucket, land_at, monkeypatch, other):
        call = s3fs.S3FileSystem._call_s3

        async def overtaken(self, method, *args, **kwargs):
            answer = await call(self, method, *args, **kwargs)
            if method == "put_object":
                bucket.write("books.csv", other)
            return answer

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", overtaken)
        assert land_at("s3://lake/books.csv").size == len(CSV)
        assert bucket.read("books.csv") == other

    @pytest.fixture
    def timeout_during(self, monkeypatch):
        """Raise Airflow's timeout in the main thread, by a signal, when S3 has answered such a request."""
        call = s3fs.S3FileSystem._call_s3
        main = threading.main_thread().ident
        interrupting: list[str] = []

        async def slow(self, method, *args, **kwargs):
            answer = await call(self, method, *args, **kwargs)
            if method in interrupting:
                interrupting.remove(method)
                signal.pthread_kill(main, signal.SIGALRM)
                await asyncio.sleep(0.5)
            return answer

        def ring(*_):
            raise AirflowTaskTimeout

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", slow)
        before = signal.signal(signal.SIGALRM, ring)
        yield interrupting.append
        signal.signal(signal.SIGALRM, before)

    def test_a_timeout_ends_the_upload(self, bucket, land_at, timeout_during, spool):
        bucket.write("large.csv", b"old")
        timeout_during("upload_part")
        with pytest.raises(AirflowTaskTimeout):
            land_at("s3://lake/large.csv", [LARGE])
        assert bucket.read("large.csv") == b"old"
        assert bucket.unfinished() == []
        assert files_in(spool) == []

    @pytest.mark.parametrize("request_at_the_end", ["put_object", "complete_multipart_upload"])
    def test_a_timeout_when_all_has_arrived_leaves_no_key_that_a_retry_finds(
        self, bucket, land_at, timeout_during, request_at_the_end
    ):
        content = [CSV] if request_at_the_end == "put_object" else [LARGE]
        timeout_during(request_at_the_end)
        with pytest.raises(AirflowTaskTimeout):
            land_at("s3://lake/books.csv", content, overwrite=False)
        assert bucket.all_keys() == []
        land_at("s3://lake/books.csv", content, overwrite=False)
        assert bucket.read("books.csv") == content[0]

    def test_a_kill_during_the_upload(self, bucket, tmp_path, spool):
        bucket.write("large.csv", b"old")
        script = textwrap.dedent(
            """
            import logging, os, signal, sys
            import s3fs
            from airflow_provider_agenty.landing.destinations import open_destination
            from airflow_provider_agenty.landing.land import LandingOptions, land

            call = s3fs.S3FileSystem._call_s3

            async def deadly(self, method, *args, **kwargs):
                answer = await call(self, method, *args, **kwargs)
                if method == "upload_part":
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            s3fs.S3FileSystem._call_s3 = deadly
            destination = open_destination("s3://lake/large.csv", default_name="x", storage_conn_id="lake")
            land([b"a,b\\n" * 6_000_000], destination, LandingOptions(7, "", "csv", spool_folder=sys.argv[1]),
                 log=logging.getLogger())
            """
        )
        done = subprocess.run([sys.executable, "-c", script, str(spool)], check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert bucket.read("large.csv") == b"old"

    def test_no_room_in_the_spool_folder(self, bucket, land_at):
        class Source:
            length = 10**18

            def __iter__(self):
                yield CSV

        with pytest.raises(AgentyExportError, match="not enough room"):
            land_at("s3://lake/books.csv", Source())
        assert bucket.all_keys() == []


def test_the_memory_of_an_upload_is_that_of_four_parts(bucket, land_at, monkeypatch):
    call = s3fs.S3FileSystem._call_s3
    on_their_way, most = 0, 0

    async def counted(self, method, *args, **kwargs):
        nonlocal on_their_way, most
        size = len(kwargs.get("Body", b""))
        on_their_way += size
        most = max(most, on_their_way)
        try:
            return await call(self, method, *args, **kwargs)
        finally:
            on_their_way -= size

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    land_at("s3://lake/large.csv", [LARGE, LARGE])
    assert bucket.read("large.csv") == LARGE + LARGE
    assert most == 4 * 8 * 2**20


def test_what_waits_in_the_spool_folder_is_nobody_elses(bucket, land_at, spool):
    modes = []
    land_at(
        "s3://lake/books.csv", check=lambda _: modes.extend(path.stat().st_mode & 0o777 for path in spool.iterdir())
    )
    assert modes == [0o600]


def test_the_spool_folder_may_be_below_the_users_home(bucket, land_at, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    land_at("s3://lake/books.csv", spool_folder="~/mine", check=lambda _: seen.extend((tmp_path / "mine").iterdir()))
    assert len(seen) == 1


def test_the_spool_folder_may_not_be_below_the_home_of_nobody(bucket, land_at):
    with pytest.raises(AgentyDestinationError, match="~nobody-here/x begins with the home folder of a user"):
        land_at("s3://lake/books.csv", spool_folder="~nobody-here/x")


@pytest.mark.parametrize("key", ["books.csv", "books.csv.gz"])
@pytest.mark.parametrize(
    ("method", "guards"),
    [
        ("download_export", {"required_fields": ["price"]}),
        ("download_export", {"max_row_drop": 0.1}),
        ("download_result", {"format": "csv", "required_fields": {"price": 0.9}}),
        ("download_result", {"format": "csv", "max_row_drop": 0.1}),
    ],
)
def test_what_is_not_good_enough_leaves_the_store_as_it_was(agenty_sandbox, bucket, spool, key, method, guards):
    rows = [{"name": f"Book {number}", "price": "£1" if number < 5 else ""} for number in range(10)]
    agenty_sandbox.set_agent("books", rows)
    [job_id] = agenty_sandbox.add_older_jobs("books", 1)
    agenty_sandbox.set_agent("books", rows * 2)
    agenty_sandbox.add_older_jobs("books", 1)
    bucket.write(key, b"as it was")

    with AgentyHook() as hook:
        land = partial(getattr(hook, method), job_id, f"s3://lake/{key}", storage_conn_id="lake", spool_folder=spool)
        with pytest.raises(AgentyQualityError, match="Nothing was landed"):
            land(**guards)
        assert (bucket.all_keys(), bucket.read(key)) == ([key], b"as it was")
        assert bucket.unfinished() == []
        assert files_in(spool) == []

        loose = {**guards, "required_fields": {"price": 0.5}, "max_row_drop": 0.5}
        assert land(**loose).filled == {"price": 0.5}
        landed = bucket.read(key)
    assert (gzip.decompress(landed) if key.endswith(".gz") else landed).startswith(b"name,price")
