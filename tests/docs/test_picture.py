"""The picture in the README: an SVG that any viewer shows, drawn from what the demo prints."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.browser.demo_picture import COLUMNS, picture
from tests.docs.pages import ROOT

STORED = (ROOT / "docs" / "images" / "demo.svg").read_text("utf-8")
OUTPUT = f"""\
 0:00  Airflow 3.3.2 starts, in .demo/airflow
 0:18  wait   deferred
 1:33  land   Landed 60 rows <10 KiB> at {ROOT}/.demo/landed/demo.csv, sha256 {"0" * 64}
name,price
"""


def texts(svg):
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_each_line_is_there_in_order_and_none_is_too_long():
    assert texts(picture(OUTPUT))[:3] == ["$ make demo", *OUTPUT.splitlines()[:2]]
    assert texts(picture(OUTPUT))[-1] == "name,price"
    landed = texts(picture(OUTPUT))[3]
    assert landed.startswith(" 1:33  land   Landed 60 rows <10 KiB> at .demo/landed/demo.csv, sha256 000")
    assert landed.endswith("…")
    assert len(landed) == COLUMNS


@pytest.mark.parametrize("svg", [STORED, picture(OUTPUT)], ids=["stored", "drawn"])
def test_it_needs_nothing_and_names_no_folder_of_a_machine(svg):
    root = ElementTree.fromstring(svg)
    names = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert names <= {"svg", "style", "rect", "circle", "text", "tspan"}
    assert "url(" not in svg
    assert not [line for line in texts(svg) if " at /" in line or str(ROOT) in line]


def test_the_stored_one_shows_a_run_that_landed():
    told = texts(STORED)
    assert told[0] == "$ make demo"
    assert any("Started job" in line for line in told)
    assert any("deferred" in line for line in told)
    assert any("Landed:" in line and "rows)" in line for line in told)
