"""
CSV records counted on the stream, exactly as :mod:`csv` finds them and much faster.

What is quoted the way CSV writers do it goes through in blocks, in one of two ways:

- Where every field is quoted, a pattern takes record after record; it holds if nothing is left of the block.
- Elsewhere a block is cut at its quotes. Every second part is outside of quotes, and the line ends there are the ends
  of records. That holds only where each quote opens a field, closes one or is half of a doubled one, which shows in
  the bytes beside the quotes.

A block where neither holds goes through the same states as :mod:`csv`'s own reader.
"""

from __future__ import annotations

import io
import re
from enum import Enum

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LARGEST_BLOCK = 128 * 1024
_SMALLEST_BLOCK = 2 * 1024
_SAMPLE = 1024  # bytes at the beginning of a text that tell whether its lines are narrow
_NARROW = 30  # bytes; lines below are found faster by looking at every byte
_LINE_FEED, _CARRIAGE_RETURN, _QUOTE, _COMMA = b'\n\r",'
_LINE_ENDS = (b"\n", b"\r\n")
_SEPARATORS = frozenset((b",", *_LINE_ENDS, b""))
# Patterns that begin with a literal byte are found several times as fast as the same with find or count.
_CARRIAGE_RETURN_ALONE = re.compile(rb"\r(?!\n)")
_NO_LINE_END_BEFORE_TEXT = re.compile(rb"\r(?!\n[^\r\n])")
_END_OF_QUOTED_RECORD = re.compile(rb'"\r?\n')
# The second half is for records with doubled quotes, which to it are the end of one text and the beginning of another.
_QUOTED_RECORD = re.compile(rb'(?:"[^"]*+",)*+"[^"]*+"\r?\n|(?:"[^"]*+",?)++(?<=")\r?\n')
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
            if self._state is _State.QUOTED or (self._state is _State.FIELD_START and data[position] == _QUOTE):
                # After this record there may be whole ones that are quoted throughout, which are counted faster.
                ended = _END_OF_QUOTED_RECORD.search(data, position, limit)
                limit = ended.end() if ended else limit
            taken = self._take_quoted_records(data, position, limit) or self._take_block(data[position:limit])
            position += taken
            if taken:
                self._block_size = min(2 * self._block_size, _LARGEST_BLOCK)
            elif self._block_size > _SMALLEST_BLOCK:
                self._block_size //= 2
            else:
                position = self._step(data, position, limit)

    def _take_quoted_records(self, data: bytes, position: int, limit: int) -> int:
        """Count whole records if all their fields are quoted; give the number of their bytes, else change nothing."""
        first = _QUOTED_RECORD.match(data, position, limit) if self._state is _State.RECORD_START else None
        if not first:
            return 0
        # Looked for alone: what is not there at all takes a way through the whole block.
        line_end = b"\r\n" if data[first.end() - 2] == _CARRIAGE_RETURN else b"\n"
        last = data.rfind(b'"%b"' % line_end, position, limit)
        stop = data.find(b"\n", last, limit) + 1
        rest, records = _QUOTED_RECORD.subn(b"", data[position:stop] if last >= 0 else b"?")
        if rest:
            return 0
        self._records += records
        return stop - position

    def _take_block(self, block: bytes) -> int:
        """Count what ends in a block if its quotes are regular; give the number of its bytes, else change nothing."""
        if block.endswith(b"\r"):
            block = block[:-1]  # whether a line feed follows is not known yet
        taken = len(block)
        without_last_end = taken - 2 if block.endswith(b"\r\n") else taken
        only_line_ends = b"\r" in block and not _NO_LINE_END_BEFORE_TEXT.search(block, 0, without_last_end)
        if not only_line_ends and b"\r" in block and _CARRIAGE_RETURN_ALONE.search(block):
            # Inside of quotes this changes something too, but nothing that is counted.
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
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
            self._count_lines(block, may_be_blank=not only_line_ends)
            self._state = _State.QUOTED if ends_quoted else _STATE_AFTER.get(block[-1], _State.PLAIN)
        return taken

    def _count_lines(self, text: bytes, *, may_be_blank: bool) -> None:
        """
        Count the line ends outside of quotes.

        :param text: the text, in which a quote stands for each quoted field.
        :param may_be_blank: false where no line end that begins with a carriage return is followed by another one.
        """
        ends = _ends_of_lines(text, may_be_blank=may_be_blank)
        if ends is not None:
            self._records += ends
            return
        lines = io.BytesIO(text).readlines()  # found with memchr, several times as fast as by a pattern
        blank = sum(lines.count(end) for end in _LINE_ENDS)
        if self._state is not _State.RECORD_START and text.startswith(_LINE_ENDS):
            blank -= 1
        self._records += len(lines) - blank - (not text.endswith(b"\n"))
        self._blank_records += blank

    def _step(self, data: bytes, position: int, limit: int) -> int:
        """Go through bytes state by state at least up to a limit; give where the next byte is."""
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
                position = self._after_line_end(data, position)
            elif byte == _COMMA:
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


def _ends_of_lines(text: bytes, *, may_be_blank: bool) -> int | None:
    """Count the line ends if no line is blank, where that is faster than to look at each line; else give ``None``."""
    if text.startswith(_LINE_ENDS):
        return None
    if not may_be_blank:
        ends = _occurrences(text, b"\n")
        # Where all line ends begin with a carriage return, that goes for all of them.
        return ends if ends == _occurrences(text, b"\r") else None
    narrow = text.count(b"\n", 0, _SAMPLE) > _SAMPLE // _NARROW
    return text.count(b"\n") if narrow and b"\n\n" not in text and b"\r" not in text else None


def _occurrences(text: bytes, byte: bytes) -> int:
    # Taking a byte out is done with memchr, which is twice as fast as counting it.
    return len(text) - len(text.replace(byte, b""))


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
    if len(outside) > 2 and set(outside[1:-1]) <= _SEPARATORS:
        joined = b'"'.join((outside[0], outside[-1])) + joined[-1:]
    return _IRREGULAR_QUOTE.search(joined) is None
