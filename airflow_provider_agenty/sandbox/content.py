"""The CSV that an agent has scraped, as bytes for a download and as rows for ``/result``."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

CHUNK_BYTES = 512 * 1024
# A quoted field with what follows its closing quote, or a plain one, and what ends it.
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)(?:"([^,\r\n]*)|\Z)|([^,\r\n]*))(,|\r\n|\r|\n|\Z)')


class Content:
    """
    The CSV of one collection, served byte for byte.

    :param source: its bytes, in UTF-8 as far as ``/result`` is concerned; or a file, which is read anew for each
        request, so that it can be edited while the sandbox runs.
    """

    def __init__(self, source: bytes | Path) -> None:
        self._source = source

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, str]]) -> Content:
        """Write rows as CSV; the columns are all keys in the order in which they first appear."""
        rows = list(rows)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if not columns:
            return Content(b"")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        return Content(_encoded(text.getvalue()))

    @property
    def data(self) -> bytes:
        """The file."""
        return self._source if isinstance(self._source, bytes) else self._source.read_bytes()

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(self.data)

    @property
    def etag(self) -> str:
        """Quoted entity tag: the same as long as the bytes are the same."""
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'

    @property
    def columns(self) -> list[str]:
        """The fields of the header."""
        return next(_records(_decoded(self.data)), [])

    @property
    def row_count(self) -> int:
        """Number of records, the header not counted."""
        return len(_rows_of(self.data))

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to, not including, ``stop``."""
        data = self.data[start:stop]
        for position in range(0, len(data), CHUNK_BYTES):
            yield data[position : position + CHUNK_BYTES]

    def rows(self, start: int, stop: int) -> list[dict[str, str]]:
        """Return the records from ``start`` up to, not including, ``stop``."""
        return _rows_of(self.data)[start:stop]

    def part(self, fraction: float) -> Content:
        """Return what there is of it after ``fraction`` (0 to 1) of the work."""
        return self if fraction >= 1 else Content.from_rows(self.rows(0, int(self.row_count * fraction)))


# A result is read page by page, by several clients at once.
@lru_cache(maxsize=8)
def _rows_of(data: bytes) -> list[dict[str, str]]:
    return list(parse_csv(_decoded(data)))


def parse_csv(text: str) -> Iterator[dict[str, str]]:
    """Yield the records of a CSV as dicts; a record shorter than the header has fewer keys, as at Agenty."""
    records = _records(text)
    header = next(records, [])
    for record in records:
        if record:
            yield dict(zip(header, record, strict=False))


def _records(text: str) -> Iterator[list[str]]:
    """Yield what ``csv.reader`` does, without its limit on a field's length, which holds for the whole process."""
    record: list[str] = []
    for match in _FIELD.finditer(text):
        quoted, behind, plain, end = match.groups()
        record.append(plain if quoted is None else quoted.replace('""', '"') + (behind or ""))
        if end != ",":
            yield [] if quoted is None and record == [""] else record
            record = []


def text_bytes(lines: Iterable[str]) -> bytes:
    """Return lines in UTF-8."""
    return _encoded("".join(f"{line}\n" for line in lines))


def _encoded(text: str) -> bytes:
    # A test can give half of an emoji: it gets the bytes that it would have, which no reader takes for text.
    return text.encode("utf-8", "surrogatepass")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", "replace")


def content_from(source: object) -> Content:
    """Return the content of a :class:`Content`, of the bytes or the text of a CSV, or of a list of rows."""
    if isinstance(source, Content):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return Content(bytes(source))
    if isinstance(source, str):
        return Content(_encoded(source))
    if isinstance(source, list | tuple):
        return Content.from_rows(source)
    raise TypeError(f"A collection must be bytes, text, rows or a Content, not {type(source).__name__}.")
