"""A large result that needs next to no memory, for the tests of landing."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence

from airflow_provider_agenty.sandbox import Content

CHUNK_BYTES = 512 * 1024


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
