"""The pages of documentation, taken apart: code blocks, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [
    *(
        ROOT / name
        for name in (
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CODE_OF_CONDUCT.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "UPGRADING.md",
        )
    ),
    ROOT / "benchmarks" / "README.md",
]

CONTINUES = "<!-- continues -->"
"""Stands, unseen, above a block that goes on where the block before it ended."""

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """
    A code block.

    :param page: Its page.
    :param line: The line of its first line of code.
    :param language: What stands behind the opening fence.
    :param code: The code, without the indentation of the fence.
    :param continues: Whether it goes on where the block of that language before it ended.
    """

    page: Path
    line: int
    language: str
    code: str
    continues: bool


@dataclass
class Program:
    """
    One block, or several that continue each other.

    :param blocks: The blocks.
    """

    blocks: list[Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Where it is, as tracebacks and test ids show it."""
        first = self.blocks[0]
        return f"{first.page.relative_to(ROOT)}:{first.line}"

    @property
    def page(self) -> Path:
        """Its page."""
        return self.blocks[0].page

    @property
    def code(self) -> str:
        """The code, each line at the line number that it has in the page."""
        lines: list[str] = []
        for block in self.blocks:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        return "\n".join(lines) + "\n"


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """
    Yield the code blocks of a page.

    :param page: The page.
    :param languages: Those to yield; none: all.
    """
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        indent, language, code = found.groups()
        if languages and language not in languages:
            continue
        before = text[: found.start()].rstrip()
        yield Block(
            page,
            text.count("\n", 0, found.start(3)) + 1,
            language,
            "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True)),
            before.endswith(CONTINUES),
        )


def programs(*languages: str) -> list[Program]:
    """
    Return what can be run of all pages, in order.

    :param languages: The languages.
    """
    found: list[Program] = []
    for page in PAGES:
        for block in blocks(page, *languages):
            if block.continues:
                assert found, f"{page}:{block.line} continues nothing"
                assert found[-1].page == page, f"{page}:{block.line} continues nothing"
                found[-1].blocks.append(block)
            else:
                found.append(Program([block]))
    return found


def without_code(page: Path) -> str:
    """
    Return the text of a page, with its code blocks blanked out.

    :param page: The page.
    """
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """
    Return the anchors of a page's headings, as code hosts make them.

    :param page: The page.
    """
    made: set[str] = set()
    for heading in _HEADING.findall(without_code(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = 0
        unique = anchor
        while unique in made:
            number += 1
            unique = f"{anchor}-{number}"
        made.add(unique)
    return made


def links(page: Path) -> list[str]:
    """
    Return where the links and images of a page lead.

    :param page: The page.
    """
    return _LINK.findall(re.sub(r"`[^`]*`", "", without_code(page)))


def section(page: Path, heading: str) -> str:
    """
    Return the text below a heading, up to the next one of its level or a higher one.

    :param page: The page.
    :param heading: The heading, without what marks it as one.
    """
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"{page.name} has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """
    Return the cells of all table rows in a text, without the lines below the headers.

    :param text: The text.
    """
    found = []
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\-: ]+", line):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append([cell.strip().replace("\\|", "|") for cell in cells])
    return found
