"""Links within the documentation lead somewhere: to a file that exists, and to a heading in it."""

from __future__ import annotations

import pytest

from tests.docs.pages import OTHER_PAGES, PAGES, ROOT, anchors, links

ALL_PAGES = [*PAGES, *OTHER_PAGES]
INDEX = ROOT / "docs" / "README.md"


def leads_nowhere(page, link):
    """Say what is wrong with a relative link; nothing if it leads somewhere."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: there is no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: there is no such heading, only {', '.join(sorted(anchors(target)))}"
    return None


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page):
    relative = [link for link in links(page) if "://" not in link and not link.startswith("mailto:")]
    assert [problem for link in relative if (problem := leads_nowhere(page, link))] == []


def test_the_index_leads_to_each_page():
    linked = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links(INDEX) if "://" not in link}
    assert set(PAGES) - {INDEX, ROOT / "README.md"} <= linked
