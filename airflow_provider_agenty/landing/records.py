"""
CSV records counted on the stream, exactly as :mod:`csv` finds them and much faster.

What is written the way CSV writers do it goes through in blocks, in one of two ways:

- Where every field is quoted, or none, many records are taken at once: by patterns, short lines also with numpy.
- Elsewhere a block is cut at its quotes. Every second part is outside of quotes, and the line ends there are the ends
  of records. That holds only where each quote opens a field, closes one or is half of a doubled one, which shows in
  the bytes beside the quotes.

A block where neither holds goes through record by record, and what is cut off at its ends state by state, as in
:mod:`csv`'s own reader.
"""

from __future__ import annotations

import io
import re
from enum import Enum

from airflow_provider_agenty.landing.lines import Lines
from airflow_provider_agenty.landing.records_alike import (
    ANY_RECORD,
    QUOTED_RECORD,
    WORTH_PATTERNS,
    RecordsAlike,
    quoted_records_like,
)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LARGEST_BLOCK = 128 * 1024
_SMALLEST_BLOCK = 2 * 1024
_LINE_FEED, _CARRIAGE_RETURN, _QUOTE, _COMMA = b'\n\r",'
_LINE_ENDS = (b"\n", b"\r\n")
_SEPARATORS = frozenset((b",", *_LINE_ENDS, b""))
# Patterns that begin with a literal byte are found several times as fast as the same with find or count.
_CARRIAGE_RETURN_ALONE = re.compile(rb"\r(?!\n)")
_END_OF_QUOTED_RECORD = re.compile(rb'"\r?\n')
_IRREGULAR_QUOTE = re.compile(rb'"(?:[^",\r\n]|(?<=[^",\r\n]"))')
_END_OF_PLAIN_FIELD = re.compile(rb"[,\r\n]")


class _State(Enum):
    RECORD_START = 0
    FIELD_START = 1
    PLAIN = 2  # in a field that did not begin with a quote, or after what follows a closing one
    QUOTED = 3
    QUOTE_IN_QUOTED = 4


class RecordCounter:
    """
    Counts CSV records as :func:`csv.reader` finds them in the text, whatever the chunks.

    A quoted field may hold line ends; a quote inside an unquoted field is a character like any other; the last
    line end may be missing; a byte order mark at the beginning is skipped. A blank line is a record without
    fields: it is kept apart, because in a file of a single column it stands for an empty value.
    """

    def __init__(self) -> None:
        self._records = 0
        self._blank_records = 0
        self._state = _State.RECORD_START
        self._after_carriage_return = False
        self._block_size = _LARGEST_BLOCK
        self._beginning: bytes | None = b""
        self._quoted_records: tuple[RecordsAlike, ...] = ()
        self._lines = Lines()

    @property
    def records(self) -> int:
        """How many records there were, blank ones not counted."""
        return self._records

    @property
    def blank_records(self) -> int:
        """How many blank lines there were where a record could begin."""
        return self._blank_records

    def update(self, chunk: bytes) -> None:
        """
        Take in the next bytes.

        :param chunk: the bytes, cut anywhere.
        """
        if self._beginning is not None:
            chunk = self._beginning + chunk
            if _BYTE_ORDER_MARK.startswith(chunk):
                self._beginning = chunk
                return
            self._beginning = None
            chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
        self._take(chunk)

    def finish(self) -> None:
        """Take note of the end: a record without a line end counts too."""
        if self._beginning is not None:
            if self._beginning != _BYTE_ORDER_MARK:
                self._take(self._beginning)
            self._beginning = None
        if self._state is not _State.RECORD_START:
            self._records += 1
            self._state = _State.RECORD_START

    def _take(self, data: bytes) -> None:
        position, end = 0, len(data)
        if self._after_carriage_return and data:
            self._after_carriage_return = False
            position = 1 if data[0] == _LINE_FEED else 0
        while position < end:
            if self._state in (_State.PLAIN, _State.QUOTE_IN_QUOTED):
                position = self._step(data, position, position + 1)
                continue
            limit = min(position + self._block_size, end)
            if self._state is _State.RECORD_START:
                taken = self._take_records_alike(data, position) or self._take_block(data[position:limit])
            else:
                # After this record there may be whole ones that are alike, which are counted faster.
                limit = self._end_of_record(data, position, limit)
                taken = self._take_block(data[position:limit])
            position += taken
            if taken:
                self._block_size = min(2 * self._block_size, _LARGEST_BLOCK)
            elif self._block_size > _SMALLEST_BLOCK:
                self._block_size //= 2
            else:
                position = self._take_any_records(data, position, limit)

    def _end_of_record(self, data: bytes, position: int, limit: int) -> int:
        """Find where the record may end that began before; the limit if it does not."""
        if self._state is _State.QUOTED or data[position] == _QUOTE:
            found = _END_OF_QUOTED_RECORD.search(data, position, limit)
            return found.end() if found else limit
        return data.find(b"\n", position, limit) + 1 or limit

    def _take_records_alike(self, data: bytes, position: int) -> int:
        """Count whole records in which every field is quoted, or none; give the number of their bytes."""
        if data[position] == _QUOTE:
            stop, records = self._take_quoted_records(data, position)
        else:
            stop, records, blank = self._lines.take(data, position)
            self._blank_records += blank
        self._records += records
        return stop - position

    def _take_quoted_records(self, data: bytes, position: int) -> tuple[int, int]:
        end = len(data)
        if not self._quoted_records and end - position >= WORTH_PATTERNS:
            first = QUOTED_RECORD.pattern.match(data, position, end)
            self._quoted_records = quoted_records_like(first[0]) if first else ()
        records = 0
        for alike in (*self._quoted_records, QUOTED_RECORD):
            position, taken = alike.take(data, position, end)
            records += taken
        return position, records

    def _take_block(self, block: bytes) -> int:
        """Count what ends in a block if its quotes are regular; give the number of its bytes, else change nothing."""
        if block.endswith(b"\r"):
            block = block[:-1]  # whether a line feed follows is not known yet
        taken = len(block)
        if b"\r" in block and _CARRIAGE_RETURN_ALONE.search(block):
            # Inside of quotes this changes something too, but nothing that is counted.
            if b"\n" in block:
                block = block.replace(b"\r\n", b"\n")
            block = block.replace(b"\r", b"\n")
        ends_quoted = False
        if self._state is _State.QUOTED:
            block = b'"' + block
        if b'"' in block:
            parts = block.split(b'"')
            ends_quoted = len(parts) % 2 == 0
            outside = parts[::2]
            block = b'"'.join(outside) + (b'"' if ends_quoted else b"")
            if not _all_quotes_regular(outside, block):
                return 0
        if taken:
            self._count_lines(block)
            self._state = _State.QUOTED if ends_quoted else _STATE_AFTER.get(block[-1], _State.PLAIN)
        return taken

    def _count_lines(self, text: bytes) -> None:
        """Count the line ends outside of quotes, in a text in which a quote stands for each quoted field."""
        found = io.BytesIO(text).readlines()  # with memchr, several times as fast as by a pattern
        blank = sum(found.count(end) for end in _LINE_ENDS)
        if self._state is not _State.RECORD_START and text.startswith(_LINE_ENDS):
            blank -= 1
        self._records += len(found) - blank - (not text.endswith(b"\n"))
        self._blank_records += blank

    def _take_any_records(self, data: bytes, position: int, limit: int) -> int:
        """Go through records one by one, whatever their quotes, at least up to a limit; give where the next byte is."""
        while position < limit:
            if self._state is _State.RECORD_START:
                position, records = ANY_RECORD.take(data, position, limit)
                self._records += records
            position = self._step(data, position, limit)
        return position

    def _step(self, data: bytes, position: int, limit: int) -> int:
        """Go through bytes state by state to the end of a record or up to a limit; give where the next byte is."""
        while position < limit:
            if self._state is _State.QUOTED:
                position = data.find(b'"', position) + 1
                if not position:
                    return len(data)
                self._state = _State.QUOTE_IN_QUOTED
                continue
            if self._state is _State.PLAIN:
                found = _END_OF_PLAIN_FIELD.search(data, position)
                if found is None:
                    return len(data)
                position = found.start()
            byte = data[position]
            position += 1
            if byte in (_LINE_FEED, _CARRIAGE_RETURN):
                self._end_record()
                return self._after_line_end(data, position)
            if byte == _COMMA:
                self._state = _State.FIELD_START
            elif byte == _QUOTE and self._state is not _State.PLAIN:
                self._state = _State.QUOTED
            else:
                self._state = _State.PLAIN
        return position

    def _end_record(self) -> None:
        if self._state is _State.RECORD_START:
            self._blank_records += 1
        else:
            self._records += 1
        self._state = _State.RECORD_START

    def _after_line_end(self, data: bytes, position: int) -> int:
        if data[position - 1] == _CARRIAGE_RETURN:
            if position == len(data):
                self._after_carriage_return = True
            elif data[position] == _LINE_FEED:
                return position + 1
        return position


_STATE_AFTER = {
    _LINE_FEED: _State.RECORD_START,
    _COMMA: _State.FIELD_START,
    _QUOTE: _State.QUOTE_IN_QUOTED,
}


def _all_quotes_regular(outside: list[bytes], joined: bytes) -> bool:
    """
    Tell whether each quote opens a field, closes one or is half of a doubled one.

    :param outside: the text before, between and after the quoted fields, if they are quoted fields. Nothing
        between two of them means a doubled quote.
    :param joined: the same with one quote in each field's place.
    """
    if len(outside) > 2 and _SEPARATORS.issuperset(outside[1:-1]):
        joined = b'"'.join((outside[0], outside[-1])) + joined[-1:]
    return _IRREGULAR_QUOTE.search(joined) is None
