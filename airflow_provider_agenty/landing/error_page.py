"""Error pages that come with status 200 where a file was asked for."""

from __future__ import annotations

import re

_PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/xml", "application/xml")
_JSON_TYPE = re.compile(r"application/(?:[\w.-]+\+)?json")
_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_PAGE_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:[!?]|[A-Za-z])")
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
HEAD_LENGTH = 2048  # bytes; enough for what storage services say first


def page_instead_of_file(content_type: str, head: bytes) -> str | None:
    """
    Tell whether a body is a page for people or an error document rather than a CSV file or a log.

    :param content_type: the ``Content-Type`` of the answer; may be empty.
    :param head: the first bytes of the decoded body.
    :return: what it is, in words; ``None`` if it may well be the file.
    """
    kind = content_type.split(";")[0].strip().lower()
    if _JSON_TYPE.fullmatch(kind) and _JSON_START.match(head):
        # Neither alone: some stores give any file a type of their own, and a file may begin with a brace.
        return "a JSON document"
    begins_as_page = _PAGE_START.match(head) is not None
    if kind not in _PAGE_TYPES and not begins_as_page:
        return None
    language = "HTML" if "html" in kind or b"<html" in head.lower() else "XML"
    code = _ERROR_CODE.search(head)
    return f"an {language} page" + (f" with the code {code[1].decode()}" if code else "")
