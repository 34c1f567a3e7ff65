"""What holds for any remote file system of Airflow's, tried with fsspec's in-memory one; S3 has its own tests."""

from __future__ import annotations

import inspect
import logging

import pytest

from airflow_provider_agenty.compat import file_system
from airflow_provider_agenty.landing import LandingError, land, open_destination
from airflow_provider_agenty.landing.staging import SUFFIX
from tests.landing.conftest import files_in

CSV = b"name,price\n" + b"Book,1.50\n" * 1000
LOG = logging.getLogger("landing-test")


@pytest.fixture
def files():
    from fsspec.implementations.memory import MemoryFileSystem

    file_system("file", None)
    try:
        from airflow.sdk.io import attach
    except ImportError:
        from airflow.io.store import attach

    files = MemoryFileSystem()
    attach("memory", fs=files)
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def land_at(path, tmp_path, *, overwrite=True, **options):
    destination = open_destination(path, default_name="agent-7-1.csv", overwrite=overwrite)
    return land(
        [CSV],
        destination,
        job_id=7,
        collection=1,
        count_rows=True,
        expected_rows=1000,
        log=LOG,
        spool_folder=str(tmp_path / "spool"),
        **options,
    )


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


@pytest.mark.parametrize(("options", "parts"), [(["max_concurrency"], 4), ([], 1)])
def test_parts_take_the_same_memory_one_by_one_or_several_at_once(files, tmp_path, monkeypatch, options, parts):
    given = {}

    def put_file(self, local, key, callback=None, **chosen):
        given.update(chosen)
        self.pipe_file(key, CSV)

    parameters = ["self", "local", "key", "callback", "chunksize", *options]
    put_file.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in parameters]
    )
    monkeypatch.setattr(type(files), "put_file", put_file)
    land_at("memory://lake/books.csv", tmp_path)
    assert given.pop("max_concurrency", 1) == parts
    assert given == {"chunksize": 32 * 2**20 // parts}


def test_a_folder_gets_the_default_name(files, tmp_path):
    assert land_at("memory://lake/new/", tmp_path).path == "memory://lake/new/agent-7-1.csv"
    assert files.find("/lake") == ["/lake/new/agent-7-1.csv"]


def test_an_existing_file_is_replaced_or_not(files, tmp_path):
    files.pipe_file("/lake/books.csv", b"old")
    with pytest.raises(LandingError, match="exists already"):
        land_at("memory://lake/books.csv", tmp_path, overwrite=False)
    assert files.cat_file("/lake/books.csv") == b"old"
    land_at("memory://lake/books.csv", tmp_path)
    assert files.cat_file("/lake/books.csv") == CSV


def test_a_file_that_appears_meanwhile_stays(files, tmp_path):
    with pytest.raises(LandingError, match="exists already"):
        land_at(
            "memory://lake/books.csv",
            tmp_path,
            overwrite=False,
            check=lambda _: files.pipe_file("/lake/books.csv", b"other"),
        )
    assert files.cat_file("/lake/books.csv") == b"other"
    assert files.find("/lake") == ["/lake/books.csv"]


@pytest.mark.parametrize(
    ("error", "words", "retryable"),
    [
        (OSError("the line is dead"), "OSError: the line is dead", True),
        (PermissionError("not you"), "permission denied", False),
        (type("NoCredentialsError", (Exception,), {})("none"), "no usable credentials", False),
    ],
)
def test_an_upload_that_fails_leaves_what_was_there(files, tmp_path, monkeypatch, error, words, retryable):
    files.pipe_file("/lake/books.csv", b"old")

    def put_file(self, local, key, **options):
        self.pipe_file(key, CSV[:100])
        raise error

    monkeypatch.setattr(type(files), "put_file", put_file)
    with pytest.raises(LandingError, match=words) as caught:
        land_at("memory://lake/books.csv", tmp_path)
    assert caught.value.retryable is retryable
    assert files.cat_file("/lake/books.csv") == b"old"
    assert files.find("/lake") == ["/lake/books.csv"]
    assert files_in(tmp_path) == []


def test_an_upload_that_arrives_short_is_not_published(files, tmp_path, monkeypatch):
    monkeypatch.setattr(type(files), "put_file", lambda self, local, key, **_: self.pipe_file(key, CSV[:100]))
    with pytest.raises(LandingError, match="100 bytes arrived"):
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
    with pytest.raises(LandingError, match=words):
        open_destination(path, default_name="unused.csv")


def test_an_unknown_connection_is_refused_at_once(files):
    with pytest.raises(LandingError, match="`nowhere` isn't defined"):
        open_destination("memory://lake/books.csv", default_name="unused.csv", storage_conn_id="nowhere")
