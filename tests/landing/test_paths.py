"""What can be told of a path before anything is looked at: it is taken to the letter, or refused."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.paths import check_filename, check_path


def refused(path, writes="csv") -> str:
    with pytest.raises(AgentyInputError) as caught:
        check_path(path, writes=writes)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "books.csv",
        "/data/10:30.csv",
        "/data/2026-01-01T00:00:00+00:00/books.csv",
        "run_2026-01-01T00:00:00+00:00.csv",
        "run-2026-01-01T00:00:00+00:00.csv",
        "10:30.csv",
        "~/books.csv",
        "../books.csv",
        "/data/in/",
        "file:///data/books.csv",
        "s3://lake/http://books.example/page.csv",
        "s3://lake/a b/prices::eu #1?%41.csv",
        "S3://lake/books.csv",
        "abfs://lake@container/books.csv",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/lake/books.csv",
    ],
)
def test_a_path_stays_as_it_is(path):
    assert check_path(path, writes="csv") == path


@pytest.mark.parametrize("around", [" {}", "{} ", "\t{}\n", "\u00a0{}", "\ufeff{}", " \u200b{}\u200b "])
@pytest.mark.parametrize("path", ["s3://lake/books.csv", "/data/a b.csv"])
def test_whitespace_around_it_is_removed(path, around):
    assert check_path(around.format(path), writes="csv") == path


@pytest.mark.parametrize("path", [None, "", "  ", "None", " None\n", "\ufeff"])
def test_nothing_is_refused(path):
    assert "path is empty" in refused(path)


@pytest.mark.parametrize("path", [5, True, 1.5, b"/data/x.csv", ["/data/x.csv"], {}, object()])
def test_what_is_no_path_is_refused(path):
    assert "is not" in refused(path)


class Somewhere(os.PathLike):
    def __init__(self, place):
        self.place = place

    def __fspath__(self):
        return self.place


@pytest.mark.parametrize("path", [Path("/data/x.csv"), PurePosixPath("/data/x.csv"), Somewhere("/data/x.csv")])
def test_a_path_object_is_taken(path):
    assert check_path(path, writes="csv") == "/data/x.csv"


def test_a_path_object_of_bytes_is_refused():
    assert "is not text" in refused(Somewhere(b"/data/x.csv"))


@pytest.mark.parametrize(
    ("url", "conn_id", "text"),
    [
        ("memory://lake/books.csv", None, ("memory://lake/books.csv", "memory:///lake/books.csv")),
        ("file:///data/books.csv", None, ("file:///data/books.csv",)),
        ("s3://lake/books.csv", "store", ("s3://store@lake/books.csv",)),
    ],
)
def test_an_object_storage_path_is_taken_with_its_connection(url, conn_id, text):
    try:
        from airflow.sdk import ObjectStoragePath
    except ImportError:
        from airflow.io.path import ObjectStoragePath

    pytest.importorskip("s3fs")
    path = ObjectStoragePath(url, conn_id=conn_id) if conn_id else ObjectStoragePath(url)
    assert check_path(path, writes="csv") in text


@pytest.mark.parametrize(
    "path",
    [
        "s3:/lake/books.csv",
        Path("s3://lake/books.csv"),
        Path("/data") / "s3://lake/books.csv",
        "/data/s3://lake/books.csv",
        "s3:lake/books.csv",
        "s3//lake/books.csv",
        "S3:\\lake\\books.csv",
        "gs:lake/books.csv",
        "dbfs:/books.csv",
        "file:/data/books.csv",
        "file:books.csv",
        "mystore:/lake/books.csv",
        "C:\\data\\books.csv",
        "C:/data/books.csv",
        "C:books.csv",
        "\\\\server\\share\\books.csv",
        '"s3://lake/books.csv"',
        "my_store://lake/books.csv",
        "s3 ://lake/books.csv",
        "://lake/books.csv",
        "arn:aws:s3:::lake/books.csv",
    ],
)
def test_what_is_nearly_a_url_is_refused(path):
    assert "is neither a URL nor a local path" in refused(path)


@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\x1b", "\x7f", "\ud83d"])
@pytest.mark.parametrize("path", ["/data/bo{}oks.csv", "s3://lake/bo{}oks.csv"])
def test_characters_that_no_name_has_are_refused(path, character):
    said = refused(path.format(character))
    assert "control character" in said
    assert said.isprintable()


@pytest.mark.parametrize(
    ("writes", "names"),
    [
        ("csv", ["b.csv", "b.CSV", "b.csv.gz", "b.csv.GZ", "b.gz", "b", "b.txt", "b.dat", "b.2026-01-01", "b.zip.csv"]),
        ("jsonl", ["b.jsonl", "b.ndjson", "b.json", "b.jsonl.gz", "b.JSONL", "b", "b.txt.gz"]),
        ("parquet", ["b.parquet", "b.pq", "b.snappy.parquet", "b"]),
        ("log", ["b.log", "b.log.gz", "b.txt", "b", "b.out"]),
    ],
)
@pytest.mark.parametrize("folder", ["/data/x.parquet/", "s3://lake/x.zip/"])
def test_a_suffix_that_says_what_is_written_or_nothing_is_taken(writes, names, folder):
    assert [check_path(folder + name, writes=writes) for name in names] == [folder + name for name in names]
    assert check_path(folder, writes=writes) == folder


@pytest.mark.parametrize(
    ("writes", "names"),
    [
        (
            "csv",
            "zip bz2 xz zst lz4 br 7z tgz tar tar.gz gz.gz parquet parquet.gz json jsonl ndjson.gz tsv xlsx xls avro "
            "orc feather html xml csv.zip csv.ZIP log pickle csv.gpg",
        ),
        ("jsonl", "csv csv.gz parquet tsv zip jsonl.zst xml log"),
        ("parquet", "csv jsonl json zip parquet.zip orc avro xlsx"),
        ("log", "csv csv.gz jsonl json parquet zip html"),
    ],
)
def test_a_suffix_that_says_something_else_is_refused(writes, names):
    for name in names.split():
        assert "would be written there. Let it end in ." in refused(f"/data/books.{name}", writes)
        assert refused(f"s3://lake/books.{name.upper()}", writes)


def test_a_suffix_of_another_format_is_refused_with_the_way_to_it():
    assert "format='csv'" in refused("books.csv", "jsonl")
    assert "format='parquet'" in refused("books.parquet", "csv")
    assert "file_type='logs'" in refused("job.log", "csv")
    assert "file_type='result'" in refused("books.csv", "log")
    for name in ("books.parquet.gz", "books.parquet.GZ", "books.gz"):
        assert "ends in .gz, and Parquet files are compressed inside" in refused(name, "parquet")


@pytest.mark.parametrize(
    "path",
    [
        "sftp://me:hunter2@host/x.csv",
        "s3://AKIA:hunter2@lake/x.csv",
        "s3://AKIA:hunter2@lake/x.parquet",
        "s3:/AKIA:hunter2@lake/x.csv",
        "file://me:hunter2@nas/x.csv",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(path):
    message = refused(path)
    assert "user and a password" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("filename", [None, "books", "books.csv", "Books.CSV", "books.v2", "{job}.txt"])
def test_a_file_name_in_the_link_may_say_csv_or_nothing(filename):
    assert check_filename(filename, writes="csv") == filename


@pytest.mark.parametrize("filename", ["books.json", "books.tsv", "Books.XLSX", "books.log"])
def test_a_file_name_in_the_link_that_says_another_format_is_refused(filename):
    with pytest.raises(AgentyInputError, match=r"filename .* CSV would be written"):
        check_filename(filename, writes="csv")
