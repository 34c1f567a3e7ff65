"""A file that appears in an object store is whole: against moto's S3 server, through Airflow's amazon provider."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from packaging.version import Version

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("airflow.providers.amazon")
moto_server = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")
fsspec = pytest.importorskip("fsspec")

from botocore.config import Config  # noqa: E402

from airflow_provider_agenty.landing import LandingError, land, open_destination  # noqa: E402
from airflow_provider_agenty.landing.upload import part_size  # noqa: E402
from tests.landing.conftest import Answer, files_in  # noqa: E402

CSV = b"name,price\n" + b"".join(b'"Book %d","%d.50"\n' % (number, number) for number in range(1000))
LARGE = b"name,price\n" + b"".join(b'"Book %d","%d.50"\n' % (number, number) for number in range(1_500_000))
LOG = logging.getLogger("landing-test")
TWO_CLIENTS = pytest.mark.skipif(
    Version(s3fs.__version__) < Version("2026.6.0"), reason="this s3fs does not keep the credentials of a second client"
)
KEY = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
REGION = {"region_name": "us-east-1"}
FIRST, ANOTHER = "the first client", "another client"


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


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
        settings = {
            "job_id": 7,
            "collection": 1,
            "count_rows": True,
            "expected_rows": None,
            "check": None,
            "log": LOG,
            "spool_folder": str(spool),
            **options,
        }
        return land(source, destination, **settings)

    return land_at


def refused(path, **options) -> str:
    with pytest.raises(LandingError) as caught:
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

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("separator", ["/", ":"])
def test_an_access_point_may_stand_for_the_bucket(land_at, monkeypatch, separator):
    AccessPoint.asked.clear()
    AccessPoint.stored.clear()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), AccessPoint)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    files = s3fs.S3FileSystem(
        key="access-key",
        secret="secret-key",
        use_ssl=False,
        client_kwargs={"region_name": "us-east-1"},
        config_kwargs={"proxies": {"http": f"http://127.0.0.1:{proxy.server_port}"}},
    )
    for name in ("AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_POINT", "aws://")
    attach("s3", "point", fs=files).fs = files
    try:
        url = f"s3://arn:aws:s3:us-east-1:123456789012:accesspoint{separator}books/in/today.csv"
        assert land_at(url, storage_conn_id="point").path == url
    finally:
        proxy.shutdown()
        proxy.server_close()
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
        assert "takes a part of it for something else" in refused("s3://lake/books.csv?versionId=3")

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

    def test_too_few_rows(self, bucket, land_at):
        with pytest.raises(LandingError, match="1000 rows where the result has 1001"):
            land_at("s3://lake/books.csv", expected_rows=1001)
        assert bucket.all_keys() == []

    def test_a_bucket_that_disappears(self, bucket, land_at, spool):
        def check(_):
            bucket.client.delete_bucket(Bucket="lake")

        try:
            with pytest.raises(LandingError, match="bucket or container does not exist"):
                land_at("s3://lake/books.csv", check=check)
        finally:
            bucket.client.create_bucket(Bucket="lake")
        assert files_in(spool) == []

    def test_a_key_that_appears_meanwhile_stays(self, bucket, land_at):
        with pytest.raises(LandingError, match="exists already"):
            land_at("s3://lake/books.csv", overwrite=False, check=lambda _: bucket.write("books.csv", b"other"))
        assert bucket.read("books.csv") == b"other"

    def test_a_large_key_that_appears_meanwhile_stays(self, bucket, land_at):
        with pytest.raises(LandingError, match="exists already"):
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
        with pytest.raises(LandingError, match="the part was lost") as caught:
            land_at("s3://lake/large.csv", [LARGE])
        assert 3 in parts
        assert caught.value.retryable
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
        with pytest.raises(LandingError, match="arrived; it was removed again"):
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

    def test_a_timeout_by_signal_ends_the_upload(self, bucket, land_at, monkeypatch, spool):
        class Boom(BaseException):
            pass

        def ring(*_):
            raise Boom

        call = s3fs.S3FileSystem._call_s3
        main = threading.main_thread().ident

        async def slow(self, method, *args, **kwargs):
            answer = await call(self, method, *args, **kwargs)
            if method == "upload_part" and kwargs["PartNumber"] == 1:
                signal.pthread_kill(main, signal.SIGALRM)
                await asyncio.sleep(0.5)
            return answer

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", slow)
        before = signal.signal(signal.SIGALRM, ring)
        try:
            with pytest.raises(Boom):
                land_at("s3://lake/large.csv", [LARGE])
        finally:
            signal.signal(signal.SIGALRM, before)
        assert bucket.all_keys() == []
        assert bucket.unfinished() == []
        assert files_in(spool) == []

    def test_a_kill_during_the_upload(self, bucket, tmp_path, spool):
        bucket.write("large.csv", b"old")
        script = textwrap.dedent(
            """
            import logging, os, signal, sys
            import s3fs
            from airflow_provider_agenty.landing import land, open_destination

            call = s3fs.S3FileSystem._call_s3

            async def deadly(self, method, *args, **kwargs):
                answer = await call(self, method, *args, **kwargs)
                if method == "upload_part":
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            s3fs.S3FileSystem._call_s3 = deadly
            destination = open_destination("s3://lake/large.csv", default_name="x", storage_conn_id="lake")
            land([b"a,b\\n" * 6_000_000], destination, job_id=7, collection=1, count_rows=True, expected_rows=None,
                 check=None, log=logging.getLogger(), spool_folder=sys.argv[1])
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

        with pytest.raises(LandingError, match="not enough room"):
            land_at("s3://lake/books.csv", Source())
        assert bucket.all_keys() == []


@pytest.mark.usefixtures("bucket")
class TestPartsOfALargeFile:
    PART = 8 * 2**20

    @pytest.fixture
    def calls(self, monkeypatch):
        """What was asked of S3, as it began and as it ended; ``slow`` parts take that many seconds more."""
        call = s3fs.S3FileSystem._call_s3
        calls = Calls()

        async def recorded(self, method, *args, **kwargs):
            part = kwargs.get("PartNumber")
            calls.begun.append((method, part, kwargs))
            calls.at_once = max(calls.at_once, calls.on_their_way())
            try:
                if part:
                    calls.senders[part] = sender = ANOTHER if self.asynchronous else FIRST
                    await asyncio.sleep(calls.slow.get(part, 0))
                    if part in calls.lost or await calls.loses_all_of(sender):
                        raise OSError("the part was lost")
                return await call(self, method, *args, **kwargs)
            finally:
                calls.ended.append((method, part, kwargs))

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", recorded)
        return calls

    @pytest.fixture
    def unsigned(self, bucket, monkeypatch):
        """A connection whose requests are not signed with what they send."""
        connection = json.loads(os.environ["AIRFLOW_CONN_LAKE"])
        connection["extra"]["config_kwargs"] = {"s3": {"payload_signing_enabled": False}}
        monkeypatch.setenv("AIRFLOW_CONN_UNSIGNED", json.dumps(connection))
        return "unsigned"

    @pytest.fixture
    def files(self, bucket):
        from airflow_provider_agenty.compat import file_system

        return file_system("s3", "lake")

    def checksums(self, make, content=LARGE):
        pieces = [content[start : start + self.PART] for start in range(0, len(content), self.PART)]
        return [base64.b64encode(make(piece)).decode() for piece in pieces]

    def test_the_store_checks_each_part_and_the_whole(self, bucket, land_at, calls):
        land_at("s3://lake/large.csv", [LARGE])
        of_parts = self.checksums(crc32)
        assert [part["ChecksumCRC32"] for part in calls.handed_in()] == of_parts
        of_whole = crc32(b"".join(base64.b64decode(each) for each in of_parts))
        head = bucket.client.head_object(Bucket="lake", Key="large.csv", ChecksumMode="ENABLED")
        assert head["ChecksumCRC32"].partition("-")[0] == base64.b64encode(of_whole).decode()

    def test_by_the_algorithm_that_the_user_chose(self, bucket, land_at, calls, files, monkeypatch):
        chosen = {"ChecksumAlgorithm": "SHA256"}
        monkeypatch.setattr(files, "s3_additional_kwargs", chosen)
        monkeypatch.setitem(files.storage_options, "s3_additional_kwargs", chosen)
        land_at("s3://lake/large.csv", [LARGE])
        assert [part["ChecksumSHA256"] for part in calls.handed_in()] == self.checksums(sha256)
        assert "ChecksumSHA256" in bucket.client.head_object(Bucket="lake", Key="large.csv", ChecksumMode="ENABLED")

    def test_not_where_the_user_has_turned_it_off(self, bucket, land_at, calls, monkeypatch):
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        # Airflow keeps the file system of a connection.
        monkeypatch.setenv("AIRFLOW_CONN_UNCHECKED", os.environ["AIRFLOW_CONN_LAKE"])
        land_at("s3://lake/large.csv", [LARGE], storage_conn_id="unchecked")
        assert bucket.read("large.csv") == LARGE
        (begun,) = (kwargs for method, _, kwargs in calls.begun if method == "create_multipart_upload")
        assert begun == {"Bucket": "lake", "Key": "large.csv"}
        assert all(part.keys() == {"PartNumber", "ETag"} for part in calls.handed_in())

    def test_one_that_takes_long_holds_none_of_the_others_up(self, land_at, calls):
        calls.slow = {1: 1.0}
        land_at("s3://lake/large.csv", [LARGE])
        ended = [part for method, part, _ in calls.ended if method == "upload_part"]
        assert len(ended) > 4
        assert ended[-1] == 1
        assert [part["PartNumber"] for part in calls.handed_in()] == sorted(ended)

    def test_are_not_more_than_four_at_once(self, land_at, calls):
        calls.slow = dict.fromkeys(range(1, 10), 0.1)
        land_at("s3://lake/large.csv", [LARGE])
        assert calls.at_once == 4

    def test_that_are_on_their_way_when_one_fails_are_waited_for(self, bucket, land_at, calls, unsigned):
        calls.slow, calls.lost = {1: 1.0}, {2}
        with pytest.raises(LandingError, match="the part was lost"):
            land_at("s3://lake/large.csv", [LARGE, LARGE], storage_conn_id=unsigned)
        # What arrives after the end of an upload stays in the bucket, unseen and paid for.
        ended = [(method, part) for method, part, _ in calls.ended if method != "head_object"]
        assert ended[-2:] == [("upload_part", 1), ("abort_multipart_upload", None)]
        assert max(part for method, part, _ in calls.begun if method == "upload_part") == 4
        assert bucket.unfinished() == []

    @TWO_CLIENTS
    def test_are_shared_by_two_clients_where_all_that_is_sent_is_signed(self, bucket, land_at, calls, caplog):
        calls.slow = dict.fromkeys(range(1, 10), 0.2)
        land_at("s3://lake/large.csv", [LARGE, LARGE])
        assert bucket.read("large.csv") == LARGE + LARGE
        assert set(calls.senders.values()) == {FIRST, ANOTHER}
        assert [part["ChecksumCRC32"] for part in calls.handed_in()] == self.checksums(crc32, LARGE + LARGE)
        gc.collect()
        assert "Unclosed" not in caplog.text
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("landing")] == []

    def land_through_one_client(self, land_at, calls, **options):
        calls.slow = dict.fromkeys(range(1, 10), 0.2)
        land_at("s3://lake/large.csv", [LARGE, LARGE], **options)
        assert set(calls.senders.values()) == {FIRST}
        assert calls.at_once == 4

    def test_go_through_one_client_where_that_is_not_so(self, land_at, calls, unsigned):
        self.land_through_one_client(land_at, calls, storage_conn_id=unsigned)

    def test_go_through_one_client_where_s3fs_would_replace_the_other(self, land_at, calls, monkeypatch):
        monkeypatch.setattr(s3fs, "__version__", "2026.5.0")
        self.land_through_one_client(land_at, calls)

    def test_go_through_one_client_where_credentials_expire(self, land_at, calls, files, monkeypatch):
        monkeypatch.setattr(files.session, "_credentials", credentials_that_expire())
        self.land_through_one_client(land_at, calls)

    @TWO_CLIENTS
    def test_go_through_one_client_where_there_can_be_no_other(self, bucket, land_at, calls, files, monkeypatch):
        monkeypatch.setitem(files.storage_options, "max_concurrency", "many")
        calls.slow = dict.fromkeys(range(1, 10), 0.2)
        land_at("s3://lake/large.csv", [LARGE, LARGE])
        assert set(calls.senders.values()) == {FIRST}
        assert bucket.read("large.csv") == LARGE + LARGE

    @TWO_CLIENTS
    @pytest.mark.parametrize("loses", [FIRST, ANOTHER])
    def test_of_both_clients_are_waited_for_when_one_fails(self, bucket, land_at, calls, loses):
        calls.slow = dict.fromkeys(range(1, 10), 0.5)
        calls.all_lost_by = loses
        with pytest.raises(LandingError, match="the part was lost"):
            land_at("s3://lake/large.csv", [LARGE, LARGE])
        begun = [part for method, part, _ in calls.begun if method == "upload_part"]
        ended = [(method, part) for method, part, _ in calls.ended if method != "head_object"]
        assert {calls.senders[part] for part in begun} == {FIRST, ANOTHER}
        assert len(begun) <= 4
        assert sorted(ended[-len(begun) - 1 : -1]) == [("upload_part", part) for part in sorted(begun)]
        assert ended[-1] == ("abort_multipart_upload", None)
        assert bucket.unfinished() == []


class Calls:
    def __init__(self) -> None:
        self.begun: list[tuple] = []
        self.ended: list[tuple] = []
        self.senders: dict[int, str] = {}
        self.slow: dict[int, float] = {}
        self.lost: set[int] = set()
        self.all_lost_by: str | None = None
        self.at_once = 0

    async def loses_all_of(self, sender: str) -> bool:
        """Tell whether all parts of a client are to be lost, once the other client has one on its way."""
        while sender == self.all_lost_by and not set(self.senders.values()) - {sender}:
            await asyncio.sleep(0.01)
        return sender == self.all_lost_by

    def on_their_way(self) -> int:
        return sum(part is not None for _, part, _ in self.begun) - sum(part is not None for _, part, _ in self.ended)

    def handed_in(self) -> list[dict]:
        (kwargs,) = (kwargs for method, _, kwargs in self.ended if method == "complete_multipart_upload")
        return kwargs["MultipartUpload"]["Parts"]


@TWO_CLIENTS
@pytest.mark.parametrize(
    ("signed", "settings"),
    [
        (True, {"endpoint_url": "http://store:9000"}),
        (True, {"use_ssl": False}),
        (True, {"config_kwargs": {"s3": {"payload_signing_enabled": True}}}),
        (False, {}),
        (False, {"endpoint_url": "https://store:9000"}),
        (False, {"endpoint_url": "http://store:9000", "anon": True}),
        (False, {"endpoint_url": "http://store:9000", "config_kwargs": {"s3": {"payload_signing_enabled": False}}}),
    ],
)
def test_another_client_helps_where_all_that_is_sent_is_signed(signed, settings, monkeypatch):
    from airflow_provider_agenty.landing.s3_another_client import another_client_helps

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    login = {} if settings.get("anon") else {"key": "access-key", "secret": "secret-key"}
    files = s3fs.S3FileSystem(**login, client_kwargs=REGION, **settings)
    files.connect()
    assert fsspec.asyn.sync(files.loop, another_client_helps, files) is signed


@TWO_CLIENTS
@pytest.mark.parametrize("login", [{"key": "key", "secret": "secret"}, {"client_kwargs": {**KEY, **REGION}}])
def test_another_client_helps_where_credentials_that_expire_are_not_the_ones_used(login):
    from aiobotocore.session import AioSession

    from airflow_provider_agenty.landing.s3_another_client import another_client_helps

    session = AioSession()
    session._credentials = credentials_that_expire()
    files = s3fs.S3FileSystem(**{"client_kwargs": REGION, **login}, session=session, endpoint_url="http://store:9000")
    files.connect()
    assert fsspec.asyn.sync(files.loop, another_client_helps, files)


def credentials_that_expire():
    from aiobotocore.credentials import AioRefreshableCredentials

    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    return AioRefreshableCredentials("access-key", "secret-key", "token", in_an_hour, None, "a role")


def crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


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


def test_parts_grow_so_that_their_number_stays_within_what_s3_takes():
    sizes = [1, 5 * 10**9, 10**11, 5 * 10**12]
    for size in sizes:
        part = part_size(size)
        assert part % (256 * 1024) == 0
        assert -(-size // part) <= 10_000
