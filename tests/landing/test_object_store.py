"""What holds for any remote file system of Airflow's, tried with fsspec's in-memory one; S3 has its own tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError
from airflow_provider_agenty.landing.destinations import open_destination
from airflow_provider_agenty.landing.destinations.object_store import upload
from airflow_provider_agenty.landing.temporary_file import SUFFIX
from tests.landing.conftest import files_in, land_source

CSV = b"name,price\n" + b"Book,1.50\n" * 1000


def attach(scheme, files):
    try:
        from airflow.sdk.io import attach
    except ImportError:
        from airflow.io.store import attach

    attach(scheme, conn_id="mine", fs=files).fs = files


@pytest.fixture
def files(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setenv("AIRFLOW_CONN_MINE", "generic://")
    files = MemoryFileSystem()
    attach("memory", files)
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def opened(path, *, storage_conn_id="mine", **options):
    return open_destination(path, default_name=lambda: "agent-7-1.csv", storage_conn_id=storage_conn_id, **options)


def land_at(path, tmp_path, *, overwrite=True, **options):
    destination = opened(path, overwrite=overwrite)
    return land_source([CSV], destination, expected_rows=1000, spool_folder=str(tmp_path / "spool"), **options)


def test_a_file_is_uploaded_under_another_name_and_renamed(files, tmp_path, monkeypatch):
    put, renamed = files.put_file, []
    monkeypatch.setattr(
        type(files),
        "put_file",
        lambda self, local, key, **options: renamed.append(key) or put(local, key, **options),
    )
    exported = land_at("memory://lake/new/books.csv", tmp_path)
    assert exported.path == "memory://lake/new/books.csv"
    assert exported.size == len(CSV)
    assert files.find("/lake") == ["/lake/new/books.csv"]
    assert files.cat_file("/lake/new/books.csv") == CSV
    assert renamed[0].startswith("/lake/new/.books.csv.")
    assert renamed[0].endswith(SUFFIX)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(("size", "part"), [(1, 8 * 2**20), (5 * 10**9, 8 * 2**20), (5 * 10**12, 5 * 10**8)])
def test_parts_grow_so_that_their_number_stays_within_what_s3_takes(size, part):
    class Files:
        def put_file(self, path, key, callback, chunksize, max_concurrency):
            self.chunksize = chunksize

    upload(files := Files(), SimpleNamespace(path="unused", size=size), "lake/books.csv", only_if_absent=False)
    assert files.chunksize == part
    assert -(-size // part) <= 10_000


def test_a_folder_gets_the_default_name(files, tmp_path):
    assert land_at("memory://lake/new/", tmp_path).path == "memory://lake/new/agent-7-1.csv"
    assert files.find("/lake") == ["/lake/new/agent-7-1.csv"]


@pytest.mark.parametrize(
    "name",
    [
        "reports/prices::eu.csv",
        "manual__2026-01-01T00:00:00+00:00.csv",
        "50% #1?é.csv",
        "a b/c%41.csv",
        "[a]/b*.csv",
        "a//b.csv",
        "http://books.example/page.csv",
    ],
)
def test_the_name_is_what_the_url_says(files, tmp_path, name):
    files.pipe_file("/lake/reports/prices", b"somebody else's")
    files.pipe_file("/lake/a/b1.csv", b"somebody else's")
    exported = land_at(f"memory://lake/{name}", tmp_path)
    assert exported.path == f"memory://lake/{name}"
    assert {path.removeprefix("/") for path, file in files.store.items() if file.getvalue() == CSV} == {f"lake/{name}"}
    assert len(files.store) == 3


@pytest.mark.parametrize("name", ["a/../b.csv", "../b.csv", "./b.csv", "a/./b.csv", "a/.."])
def test_a_name_with_dots_between_slashes_is_refused(files, name):
    with pytest.raises(AgentyDestinationError, match="between two slashes"):
        opened(f"memory://lake/{name}")


def test_a_file_system_that_takes_a_path_for_another_one_is_refused(files):
    class WithQueries(type(files)):
        protocol = "queries"
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("queries://").partition("?")[0])

    attach("queries", WithQueries())
    with pytest.raises(AgentyDestinationError, match="WithQueries reads a part of it as something other"):
        opened("queries://lake/books.csv?versionId=3")
    assert opened("queries://lake/books.csv").path == "queries://lake/books.csv"


def test_a_machine_is_the_one_that_the_connection_leads_to(files, tmp_path):
    class OnAMachine(type(files)):
        protocol = "sftp"
        cachable = False

        def __init__(self, host):
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path):
            return path.removeprefix("sftp://").partition("/")[2].join(("/", "")) if "://" in path else path

    attach("sftp", OnAMachine(host="files.example"))
    assert land_at("sftp://files.example:22/data/books.csv", tmp_path).size == len(CSV)
    assert files.cat_file("/data/books.csv") == CSV
    with pytest.raises(
        AgentyDestinationError, match=r"host other\.example, but the connection leads to files\.example"
    ):
        opened("sftp://other.example/data/books.csv")


@pytest.mark.parametrize("scheme", ["abfs", "abfss"])
def test_the_form_with_an_azure_account_is_refused_with_the_one_that_works(files, scheme):
    with pytest.raises(AgentyDestinationError, match=f"write {scheme}://container/a/b.csv"):
        opened(f"{scheme}://container@account.dfs.core.windows.net/a/b.csv")


@pytest.fixture
def limited(files):
    """A store like Google's file system in Python, for somebody who has not all of the rights."""

    class Limited(type(files)):
        protocol = ("gs", "gcs")
        cachable = False
        rights: frozenset[str] = frozenset()

        @classmethod
        def _strip_protocol(cls, path):
            return path.removeprefix("gs://").removeprefix("/")

        def require(self, right, path):
            if right not in self.rights:
                raise self.refusal(path)

        @staticmethod
        def refusal(path):
            return OSError(f"Forbidden: https://storage.example/{path}")

        def info(self, path, **_):
            if "/" not in path:
                raise FileNotFoundError(path)  # an empty bucket, to those who may list it only
            self.require("look", path)
            return super().info(path)

        def put_file(self, lpath, rpath, callback=None, mode="overwrite", **_):
            self.require("create", rpath)
            if rpath in self.store:
                if mode == "create":
                    raise FileExistsError(rpath)
                self.require("delete", rpath)
            super().put_file(lpath, rpath)

        def rm_file(self, path):
            self.require("delete", path)
            super().rm_file(path)

    store = Limited()
    attach("gs", store)
    return store


@pytest.mark.parametrize("rights", [{"create"}, {"create", "look"}, {"create", "look", "delete"}])
@pytest.mark.parametrize("overwrite", [True, False])
def test_the_first_file_in_a_bucket_needs_the_right_to_create_only(limited, tmp_path, rights, overwrite):
    limited.rights = rights
    assert land_at("gs://new/books.csv", tmp_path, overwrite=overwrite).size == len(CSV)
    assert limited.store["new/books.csv"].getvalue() == CSV


class Forbidden(Exception):  # noqa: N818 - as in google.api_core
    code = 403


class HttpResponseError(Exception):
    status_code = 403


class ClientError(Exception):
    def __init__(self, path):
        super().__init__(path)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 403}}


@pytest.mark.parametrize("refusal", [None, PermissionError, Forbidden, HttpResponseError, ClientError])
@pytest.mark.parametrize("rights", [set(), {"create"}, {"look"}])
def test_a_right_that_is_missing_is_nothing_that_a_retry_mends(limited, tmp_path, refusal, rights, monkeypatch):
    limited.rights = rights
    limited.store["new/books.csv"] = old = limited.open("new/books.csv", "wb")
    if refusal:
        monkeypatch.setattr(type(limited), "refusal", staticmethod(refusal))
    with pytest.raises(AgentyDestinationError, match="permission denied"):
        land_at("gs://new/books.csv", tmp_path)
    assert limited.store["new/books.csv"] is old


def test_a_key_that_may_not_be_replaced_is_left_by_the_store_itself(limited, tmp_path):
    limited.rights = {"create"}
    land_at("gs://new/books.csv", tmp_path, overwrite=False)
    with pytest.raises(AgentyDestinationError, match="exists already"):
        land_at("gs://new/books.csv", tmp_path, overwrite=False)


def test_an_existing_file_is_replaced_or_not(files, tmp_path):
    files.pipe_file("/lake/books.csv", b"old")
    with pytest.raises(AgentyExportError, match="exists already"):
        land_at("memory://lake/books.csv", tmp_path, overwrite=False)
    assert files.cat_file("/lake/books.csv") == b"old"
    land_at("memory://lake/books.csv", tmp_path)
    assert files.cat_file("/lake/books.csv") == CSV


def test_a_file_that_appears_meanwhile_stays(files, tmp_path):
    with pytest.raises(AgentyExportError, match="exists already"):
        land_at(
            "memory://lake/books.csv",
            tmp_path,
            overwrite=False,
            check=lambda _: files.pipe_file("/lake/books.csv", b"other"),
        )
    assert files.cat_file("/lake/books.csv") == b"other"
    assert files.find("/lake") == ["/lake/books.csv"]


@pytest.mark.parametrize(
    ("error", "words", "kind"),
    [
        (OSError("the line is dead"), "OSError: the line is dead", AgentyExportError),
        (PermissionError("not you"), "permission denied", AgentyDestinationError),
        (type("NoCredentialsError", (Exception,), {})("none"), "no usable credentials", AgentyDestinationError),
    ],
)
def test_an_upload_that_fails_leaves_what_was_there(files, tmp_path, monkeypatch, error, words, kind):
    files.pipe_file("/lake/books.csv", b"old")

    def put_file(self, local, key, **options):
        self.pipe_file(key, CSV[:100])
        raise error

    monkeypatch.setattr(type(files), "put_file", put_file)
    with pytest.raises(AgentyExportError, match=words) as caught:
        land_at("memory://lake/books.csv", tmp_path)
    assert type(caught.value) is kind
    assert files.cat_file("/lake/books.csv") == b"old"
    assert files.find("/lake") == ["/lake/books.csv"]
    assert files_in(tmp_path) == []


def test_an_upload_that_arrives_short_is_not_published(files, tmp_path, monkeypatch):
    monkeypatch.setattr(type(files), "put_file", lambda self, local, key, **_: self.pipe_file(key, CSV[:100]))
    with pytest.raises(AgentyExportError, match=r"100 of \d+ bytes of the upload to .* arrived"):
        land_at("memory://lake/books.csv", tmp_path)
    assert files.find("/lake") == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gs://bucket/books.csv", r"Install apache-airflow-providers-google\."),
        ("abfs://container/books.csv", r"Install apache-airflow-providers-microsoft-azure\."),
        ("sftp://host/books.csv", r"Install apache-airflow-providers-sftp\[sshfs\]\."),
        ("nosuch://bucket/books.csv", "no installed provider knows nosuch://"),
        ("memory:///books.csv", "names no bucket"),
        ("memory://lake", "no key"),
    ],
)
def test_what_can_not_be_reached_is_refused_at_once(files, path, words):
    with pytest.raises(AgentyExportError, match=words):
        opened(path, storage_conn_id=None)


def test_an_unknown_connection_is_refused_at_once(files):
    with pytest.raises(AgentyExportError, match="`nowhere` isn't defined"):
        opened("memory://lake/books.csv", storage_conn_id="nowhere")
