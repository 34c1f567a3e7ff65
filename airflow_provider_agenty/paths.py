"""
Checks a path without looking at a disk or a store.

It is cheap to import: operators check a path when a DAG file is read, the hook once more when it is rendered.
"""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_agenty import parameters
from airflow_provider_agenty.exceptions import AgentyInputError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)

_SCHEME = (
    "s3a|s3n|s3|gs|gcs|abfss|abfs|adls|adl|az|wasbs|wasb|azure|oss|cos|r2|b2|minio|obs|swift|file|sftp|ssh|scp|ftps|ftp|"
    "smb|nfs|https|http|webdav|webhdfs|hdfs|viewfs|dbfs|gdrive|dropbox|onedrive|jdbc|arn"
)
_NEARLY_A_URL = re.compile(
    rf"""
    [A-Za-z][A-Za-z0-9+.\-]*:[/\\]    # s3:/bucket, which pathlib makes of a URL; C:\folder
    | (?:{_SCHEME}):                  # s3:bucket
    | (?:{_SCHEME})//                 # s3//bucket
    | [A-Za-z]:                       # C:name.csv
    | \\\\                            # \\server\share
    | .*/(?:{_SCHEME}):/              # a URL joined to a folder
    | .*://
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

_LOGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/+[^/]*:[^/]*@")

_WRITTEN = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet", "log": "a log"}
_GOOD_SUFFIX = {
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "jsonlines": "jsonl",
    "jl": "jsonl",
    "json": "jsonl",  # Spark, BigQuery, Athena and DuckDB read JSON Lines under this name
    "parquet": "parquet",
    "parq": "parquet",
    "pq": "parquet",
    "log": "log",
}
# A reader goes by these. Others, such as .txt, .dat, .part or a date, say nothing of what is inside.
_OTHER_SUFFIX = re.compile(
    "gz|gzip|tgz|zip|zipx|bz2|bzip2|tbz|tbz2|xz|txz|lzma|lz|lz4|lzo|zst|zstd|tzst|br|sz|snappy|z|7z|rar|tar|cab|gpg|pgp|"
    "enc|age|tsv|tab|psv|xls|xlsx|xlsm|xlsb|ods|avro|orc|feather|arrow|ipc|h5|hdf|hdf5|npy|npz|pkl|pickle|joblib|mat|sav|"
    "dta|sas7bdat|xpt|rds|rda|rdata|db|sqlite|sqlite3|duckdb|mdb|accdb|dbf|geojson|topojson|json5|bson|msgpack|cbor|proto|"
    "pb|html|htm|xhtml|xml|rss|atom|yaml|yml|toml|ini|sql|md|rst|tex|rtf|pdf|doc|docx|odt|ppt|pptx|png|jpg|jpeg|gif|webp|"
    "svg|mp3|mp4"
)


def check_path(path: Any, *, writes: str) -> str:
    """
    Return where a file is to be landed, as text.

    :param path: A text, an ``os.PathLike``, or an ``ObjectStoragePath``, whose connection becomes a part of the URL.
    :param writes: The kind of file that is written there: ``csv``, ``jsonl``, ``parquet`` or ``log``.
    :raises AgentyInputError: if nothing can be landed there, or if the name says something else than what is written.
    """
    text = parameters.path(path)
    if _LOGIN.match(text):
        raise AgentyInputError(
            "path has a user and a password before the @, where the id of an Airflow connection belongs: keep them in "
            "that connection."
        )
    if not URL.fullmatch(text) and _NEARLY_A_URL.match(text):
        raise AgentyInputError(
            f"path {text!r} is neither a URL nor a local path. A URL begins like s3://bucket/ or file:///folder/; give "
            "it as text, because pathlib.Path and os.path.join change it."
        )
    _check_suffix(f"path {text}", text.rpartition("/")[2].lower(), writes)
    return text


def kind_of(path: str) -> str:
    """Return what is written to a path by its suffix: ``csv``, ``jsonl``, ``parquet`` or ``log``. Default ``csv``."""
    return _GOOD_SUFFIX.get(path.lower().removesuffix(".gz").rpartition(".")[2], "csv")


def check_filename(filename: Any, *, writes: str) -> str | None:
    """
    Return the name that a file shall have in Agenty's link; ``None``: Agenty's own.

    Agenty makes what the name's suffix says, so one that says something else than what is written is refused.
    """
    name = parameters.filename(filename)
    if name is not None:
        _check_suffix(f"filename {name}", name.lower(), writes)
    return name


def _check_suffix(what: str, name: str, writes: str) -> None:
    plain = name.removesuffix(".gz")
    if writes == "parquet" and name != plain:
        raise AgentyInputError(
            f"{what} ends in .gz, and Parquet files are compressed inside, so that readers can skip parts of them: "
            "let it end in .parquet."
        )
    suffix = plain.rpartition(".")[2] if "." in plain else ""
    meant = _GOOD_SUFFIX.get(suffix)
    if meant != writes and (meant is not None or _OTHER_SUFFIX.fullmatch(suffix)):
        good = ".parquet" if writes == "parquet" else f".{writes} or .{writes}.gz"
        raise AgentyInputError(
            f"{what} ends in .{suffix}, but {_WRITTEN[writes]} would be written there. Let it end in {good}"
            f"{_other_way(meant, writes)}."
        )


def _other_way(meant: str | None, writes: str) -> str:
    """Say what does write a file of the kind that a suffix means."""
    if meant == "log":
        return "; AgentyExportOperator lands a log with file_type='logs'"
    if meant and writes != "log":
        return f"; AgentyResultOperator lands {_WRITTEN[meant]} with format='{meant}'"
    return "; AgentyExportOperator lands the result with file_type='result'" if meant == "csv" else ""
