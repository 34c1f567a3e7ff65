"""What is in the wheel and the source distribution, and what they say of themselves."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from airflow_provider_agenty import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_agenty"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Build both packages and return their paths: wheel, source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(packages):
    with zipfile.ZipFile(packages[0]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    return email.message_from_bytes(wheel.read(f"{PACKAGE}-{__version__}.dist-info/METADATA"))


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    on_disk = {
        str(path.relative_to(ROOT))
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    in_wheel = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert in_wheel == on_disk
    assert f"{PACKAGE}/py.typed" in in_wheel
    assert f"{PACKAGE}/sandbox/agents/45l0wewqzk.csv" in in_wheel


def test_the_entry_point_is_the_one_that_airflow_looks_for(wheel):
    text = wheel.read(f"{PACKAGE}-{__version__}.dist-info/entry_points.txt").decode()
    assert "[apache_airflow_provider]\nprovider_info = airflow_provider_agenty:get_provider_info" in text


def test_the_license_is_apache_2_and_in_the_wheel(wheel, metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    text = wheel.read(f"{PACKAGE}-{__version__}.dist-info/licenses/LICENSE").decode()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_only_airflow_and_requests_are_needed_with_lower_bounds(metadata):
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(needed) == ["apache-airflow>=2.11", "requests>=2.32"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"sandbox", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_the_version_is_written_in_one_place(metadata):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == __version__
    assert "version" in project["dynamic"]
    written = re.compile(rf"""(?<![\d.])["']{re.escape(__version__)}["']""")
    places = [path for path in (ROOT / PACKAGE).rglob("*.py") if written.search(path.read_text())]
    assert places == [ROOT / PACKAGE / "__init__.py"]


def test_the_source_distribution_builds_the_same_wheel(packages, wheel, tmp_path):
    with tarfile.open(packages[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"{PACKAGE}-{__version__}"
    names = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {"LICENSE", "README.md", "pyproject.toml", "example_dags/agenty_to_csv.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "demo", "constraints/", ".demo/"))]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as again:
        assert sorted(again.namelist()) == sorted(wheel.namelist())


def test_a_second_build_elsewhere_and_later_is_the_same_to_the_byte(packages, tmp_path):
    source = tmp_path / "elsewhere"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*venv*", ".git", ".demo", "__pycache__", ".*_cache", "build", "dist"),
    )
    for path in source.rglob("*"):
        os.utime(path, (1_900_000_000, 1_900_000_000))
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for first in packages:
        assert (tmp_path / "dist" / first.name).read_bytes() == first.read_bytes()
