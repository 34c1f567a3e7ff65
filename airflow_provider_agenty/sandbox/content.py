"""What an agent has scraped: a CSV, as bytes for a download and as rows for ``/result``."""

# ruff: noqa: D102 - what the subclasses implement is documented in Content

from __future__ import annotations

import csv
import hashlib
import io
import re
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

CHUNK_BYTES = 512 * 1024
# A quoted field with what stands behind its closing quote, or a plain one, and what ends it.
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)(?:"([^,\r\n]*)|\Z)|([^,\r\n]*))(,|\r\n|\r|\n|\Z)')


class Content(ABC):
    """The CSV of one collection."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Length of the file in bytes."""

    @property
    @abstractmethod
    def etag(self) -> str:
        """Quoted entity tag: the same as long as the bytes are the same."""

    @property
    @abstractmethod
    def row_count(self) -> int:
        """Number of records, the header not counted."""

    @abstractmethod
    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to, not including, ``stop``."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> list[dict[str, str]]:
        """Return the records from ``start`` up to, not including, ``stop``."""

    def part(self, fraction: float) -> Content:
        """Return what there is of it after ``fraction`` (0 to 1) of the work."""
        if fraction >= 1:
            return self
        return CsvBytes.from_rows(self.rows(0, int(self.row_count * fraction)))


class CsvBytes(Content):
    """
    A CSV held in memory and served byte for byte.

    :param data: the file, in UTF-8 as far as ``/result`` is concerned.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, str]]) -> CsvBytes:
        """Write rows as CSV; the columns are all keys in the order in which they first appear."""
        rows = list(rows)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if not columns:
            return cls(b"")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        return cls(_encoded(text.getvalue()))

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        return list(parse_csv([_decoded(self.data)]))

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        stop = min(stop, self.size)
        for position in range(start, stop, CHUNK_BYTES):
            yield self.data[position : min(position + CHUNK_BYTES, stop)]

    def rows(self, start: int, stop: int) -> list[dict[str, str]]:
        return self._rows[start:stop]


class CsvFile(Content):
    """
    A CSV file that is read anew for each request, so that it can be edited while the sandbox runs.

    :param path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parsed: tuple[str, list[dict[str, str]]] | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def etag(self) -> str:
        status = self.path.stat()
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    @property
    def row_count(self) -> int:
        return len(self._rows())

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK_BYTES, stop - start))):
                start += len(chunk)
                yield chunk

    def rows(self, start: int, stop: int) -> list[dict[str, str]]:
        return self._rows()[start:stop]

    def _rows(self) -> list[dict[str, str]]:
        etag = self.etag
        if self._parsed is None or self._parsed[0] != etag:
            self._parsed = etag, list(parse_csv([_decoded(self.path.read_bytes())]))
        return self._parsed[1]


class RepeatedCsv(Content):
    """
    A CSV of any size that needs next to no memory: a header, then a block of records again and again.

    :param size: length to come close to, in bytes; it ends with the last whole block that fits.
    :param rows: the records of one block.
    :param quote: whether every field is quoted.
    """

    def __init__(
        self,
        size: int,
        rows: Sequence[Mapping[str, str]] = ({"name": "A book", "price": "£51.77", "page": "https://example.com/1"},),
        *,
        quote: bool = False,
    ) -> None:
        self._block_rows = [dict(row) for row in rows]
        self._quote = quote
        text = io.StringIO(newline="")
        writer = csv.writer(text, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL)
        writer.writerow(self._block_rows[0])
        self._header = text.getvalue().encode()
        text.seek(0)
        text.truncate()
        writer.writerows(row.values() for row in self._block_rows)
        block = text.getvalue().encode()
        times = max(0, size - len(self._header)) // len(block)
        # Large blocks make large writes, which is what lets a download run at the speed of the loopback device.
        per_chunk = max(1, min(times, CHUNK_BYTES // len(block)))
        self._block, self._times = block, times
        self._chunk = block * per_chunk

    @property
    def size(self) -> int:
        return len(self._header) + len(self._block) * self._times

    @property
    def etag(self) -> str:
        seed = b"%b%b%d" % (self._header, self._block, self._times)
        return f'"{hashlib.sha256(seed).hexdigest()[:32]}"'

    @property
    def row_count(self) -> int:
        return len(self._block_rows) * self._times

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        stop = min(stop, self.size)
        if start < len(self._header):
            yield self._header[start:stop]
            start = len(self._header)
        while start < stop:
            offset = (start - len(self._header)) % len(self._block)
            chunk = self._chunk
            if offset or stop - start < len(chunk):
                chunk = chunk[offset : offset + stop - start]
            start += len(chunk)
            yield chunk

    def rows(self, start: int, stop: int) -> list[dict[str, str]]:
        count = len(self._block_rows)
        return [dict(self._block_rows[number % count]) for number in range(start, min(stop, self.row_count))]

    def part(self, fraction: float) -> Content:
        return self if fraction >= 1 else RepeatedCsv(int(self.size * fraction), self._block_rows, quote=self._quote)


def parse_csv(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the records of a CSV as dicts; a record shorter than the header has fewer keys, as at Agenty."""
    records = _records("".join(lines))
    header = next(records, [])
    for record in records:
        if record:
            yield dict(zip(header, record, strict=False))


def _records(text: str) -> Iterator[list[str]]:
    """Yield what ``csv.reader`` does, which refuses long fields: its limit is one for the whole process, not ours."""
    record: list[str] = []
    for match in _FIELD.finditer(text):
        quoted, behind, plain, end = match.groups()
        record.append(plain if quoted is None else quoted.replace('""', '"') + (behind or ""))
        if end != ",":
            yield [] if quoted is None and record == [""] else record
            record = []


def _encoded(text: str) -> bytes:
    # Half of an emoji gets the bytes that it would have, so that a test can give one.
    return text.encode("utf-8", "surrogatepass")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", "replace")


def content_from(source: object) -> Content:
    """
    Make a content of what a caller gave.

    :param source: a :class:`Content`, the bytes or the text of a CSV, or rows (an iterable of mappings).
    :raises TypeError: it is none of these.
    """
    if isinstance(source, Content):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return CsvBytes(bytes(source))
    if isinstance(source, str):
        return CsvBytes(_encoded(source))
    if isinstance(source, list | tuple):
        return CsvBytes.from_rows(source)
    raise TypeError(
        f"A collection must be given as bytes, text, rows or a Content of airflow_provider_agenty.sandbox, "
        f"not as {type(source).__name__}."
    )
