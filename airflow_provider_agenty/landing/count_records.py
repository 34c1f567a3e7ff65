"""
CSV records counted while they arrive, exactly as :func:`csv.reader` finds them.

One pattern replaces quoted fields by a quote. Only delimiters are left, and line ends that end a record.
"""

from __future__ import annotations

import re

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK = 128 * 1024  # bytes at a time: larger ones take new memory from the system for each step
# A quote opens a field only where the field begins. Quoted fields side by side are replaced together, which is several
# times as fast. The pattern begins with a quote, and looks back only then, because a literal byte is found fastest.
_QUOTED_FIELDS = re.compile(rb'"(?<![^,\r\n]")[^"]*+(?:"(?:"|,")[^"]*+)*+"?')
_QUOTED_FIELD = re.compile(rb'"(?<![^,\r\n]")[^"]*+(?:""[^"]*+)*+"?')


class RecordCounter:
    """
    Counts CSV records, whatever the chunks they come in.

    A quoted field may hold line ends. A quote inside an unquoted field is a character like any other. The last line
    end may be missing. A byte order mark at the beginning is skipped. A blank line is a record without fields. It is
    counted apart, because in a file of a single column it stands for an empty value.
    """

    def __init__(self) -> None:
        self.records = 0
        self.blank_records = 0
        self.has_single_column = True
        """Whether no delimiter is in the first record, as far as that was read."""
        self._at_beginning = True
        # A short text after which csv.reader is in the same state as after the unfinished record.
        self._unfinished = b""

    def update(self, chunk: bytes) -> None:
        """Count the records that end in the next bytes, cut anywhere."""
        for start in range(0, len(chunk), _BLOCK):
            self._take(self._unfinished + chunk[start : start + _BLOCK])

    def _take(self, text: bytes) -> None:
        if self._at_beginning:
            if _BYTE_ORDER_MARK.startswith(text):
                self._unfinished = text
                return
            self._at_beginning = False
            text = text.removeprefix(_BYTE_ORDER_MARK)
        if not self.records:
            first = _QUOTED_FIELD.sub(b'"', text).lstrip(b"\r\n").splitlines()[:1]
            self.has_single_column &= not any(b"," in line for line in first)
        # A line feed may follow that belongs to it.
        last_carriage_return = b"\r" if text.endswith(b"\r") else b""
        # A letter at the end is left there, unless the text ends within quotes.
        lines = _QUOTED_FIELDS.sub(b'"', text.removesuffix(b"\r") + b"x").splitlines()
        unfinished = lines.pop()
        blank_lines = lines.count(b"")
        self.records += len(lines) - blank_lines
        self.blank_records += blank_lines
        self._unfinished = _shortened(unfinished[:-1]) if unfinished.endswith(b"x") else b'"'
        self._unfinished += last_carriage_return

    def finish(self) -> None:
        """Count the last record if it has no line end."""
        if self._unfinished == b"\r":
            self.blank_records += 1
        elif self._unfinished not in (b"", _BYTE_ORDER_MARK):
            self.records += 1
        self._unfinished = b""


def _shortened(record: bytes) -> bytes:
    """Return the shortest text after which :func:`csv.reader` is in the same state as after this one."""
    if not record:
        return b""
    if record.endswith(b","):
        return b","
    if record == b'"' or record.endswith(b',"'):
        return b'""'  # after the closing quote, or between two that stand for one
    return b"x"
