"""A file that appears at a local destination is whole, whatever happens on the way."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import itertools
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError
from airflow_provider_agenty.landing import progress, temporary_file
from airflow_provider_agenty.landing.destinations import open_destination
from airflow_provider_agenty.landing.land import ExportedFile
from tests.landing.conftest import Answer, files_in, land_source

CSV = b"name,price\n" + b"".join(b'"Book %d","%d.50"\n' % (number, number) for number in range(20_000))


def land_at(path, source=(CSV,), *, overwrite=True, default_name="unused.csv", **options) -> ExportedFile:
    destination = open_destination(str(path), default_name=default_name, overwrite=overwrite)
    return land_source(source, destination, **options)


def refused(path, **options) -> str:
    with pytest.raises(AgentyDestinationError) as caught:
        open_destination(str(path), default_name=lambda: "unused.csv", **options)
    return str(caught.value)


@contextlib.contextmanager
def as_nobody():
    """Give up the rights of root, to which no permission applies, in this thread's file accesses."""
    if os.getuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(65534, 65534, 0)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


class TestTheFile:
    def test_is_whole_and_described(self, tmp_path):
        path = tmp_path / "new" / "folders" / "books.csv"
        exported = land_at(path, expected_rows=20_000)
        assert path.read_bytes() == CSV
        assert exported == ExportedFile(str(path), len(CSV), 20_000, hashlib.sha256(CSV).hexdigest(), 7, 1)
        assert exported.to_dict() == {
            "path": str(path),
            "size": len(CSV),
            "rows": 20_000,
            "sha256": hashlib.sha256(CSV).hexdigest(),
            "job_id": 7,
            "collection": 1,
        }
        assert files_in(tmp_path) == ["new/folders/books.csv"]

    def test_comes_from_a_download_over_a_socket(self, tmp_path, host, make_download):
        host.answers = [
            Answer(CSV, headers={"ETag": '"1"'}, cut_after=200_000),
            Answer(b"x\n" + CSV, headers={"ETag": '"2"'}, ranges=True),
        ]
        exported = land_at(tmp_path / "books.csv", make_download())
        assert (tmp_path / "books.csv").read_bytes() == b"x\n" + CSV
        assert exported.rows == 20_001

    def test_is_gzipped_on_the_way_always_the_same(self, tmp_path):
        first = land_at(tmp_path / "a.csv.gz")
        time.sleep(1.1)
        second = land_at(tmp_path / "b.csv.gz", [CSV[at : at + 999] for at in range(0, len(CSV), 999)])
        data = (tmp_path / "a.csv.gz").read_bytes()
        assert gzip.decompress(data) == CSV
        assert data == (tmp_path / "b.csv.gz").read_bytes()
        assert first.size == second.size == len(data)
        assert first.sha256 == hashlib.sha256(CSV).hexdigest()
        assert first.rows == 20_000

    def test_without_rows(self, tmp_path):
        assert land_at(tmp_path / "job.log", count_rows=False, collection=None).rows is None

    def test_may_be_empty_where_the_source_is(self, tmp_path):
        exported = land_at(tmp_path / "rows.jsonl", [], count_rows=False)
        assert exported.size == 0
        assert files_in(tmp_path) == ["rows.jsonl"]

    def test_has_the_mode_of_any_new_file(self, tmp_path):
        before = os.umask(0o027)
        try:
            land_at(tmp_path / "books.csv")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "books.csv").stat().st_mode) == 0o640

    def test_keeps_the_mode_of_the_file_it_replaces(self, tmp_path):
        (tmp_path / "books.csv").write_text("old")
        (tmp_path / "books.csv").chmod(0o604)
        land_at(tmp_path / "books.csv")
        assert stat.S_IMODE((tmp_path / "books.csv").stat().st_mode) == 0o604

    @pytest.mark.parametrize("exists", [True, False])
    def test_is_for_its_user_only_until_it_is_published(self, tmp_path, exists):
        if exists:
            (tmp_path / "books.csv").write_text("old")
            (tmp_path / "books.csv").chmod(0o640)
        seen = []

        def look():
            part = next(path for path in tmp_path.iterdir() if path.name.endswith(temporary_file.SUFFIX))
            seen.append(stat.S_IMODE(part.stat().st_mode))

        def source():
            yield CSV
            yield CSV
            look()

        land_at(tmp_path / "books.csv", source(), check=lambda _: look(), count_rows=False)
        assert seen == [0o600, 0o600]
        umask = os.umask(0o077)
        os.umask(umask)
        expected = 0o640 if exists else 0o666 & ~umask
        assert stat.S_IMODE((tmp_path / "books.csv").stat().st_mode) == expected

    def test_keeps_nothing_but_permission_bits_of_its_own_predecessor(self, tmp_path):
        (tmp_path / "books.csv").write_text("old")
        (tmp_path / "books.csv").chmod(0o6750)
        land_at(tmp_path / "books.csv")
        assert stat.S_IMODE((tmp_path / "books.csv").stat().st_mode) == 0o750

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
    def test_does_not_take_over_the_bits_of_a_file_of_another_user(self, tmp_path):
        (tmp_path / "books.csv").write_text("old")
        os.chown(tmp_path / "books.csv", 65534, 65534)
        (tmp_path / "books.csv").chmod(0o4777)
        before = os.umask(0o027)
        try:
            land_at(tmp_path / "books.csv")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "books.csv").stat().st_mode) == 0o640

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a link to another user")
    def test_follows_a_link_in_a_folder_open_to_everyone_if_it_may_be_trusted(self, tmp_path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o1777)
        (tmp_path / "open" / "own.csv").symlink_to(tmp_path / "own.csv")
        (tmp_path / "open" / "owners.csv").symlink_to(tmp_path / "owners.csv")
        os.chown(tmp_path / "open", 65534, 65534)
        os.lchown(tmp_path / "open" / "owners.csv", 65534, 65534)
        land_at(tmp_path / "open" / "own.csv")
        land_at(tmp_path / "open" / "owners.csv")
        assert files_in(tmp_path) == ["open/own.csv", "open/owners.csv", "own.csv", "owners.csv"]

    @pytest.mark.parametrize("suffix", ["gz", "GZ", "Gz"])
    def test_is_gzipped_whatever_the_case_of_its_suffix(self, tmp_path, suffix):
        land_at(tmp_path / f"books.csv.{suffix}")
        assert gzip.decompress((tmp_path / f"books.csv.{suffix}").read_bytes()) == CSV

    def test_goes_where_a_link_leads(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link.csv").symlink_to("real/books.csv")
        for _ in range(2):  # the link leads nowhere the first time
            assert land_at(tmp_path / "link.csv").path == str(tmp_path / "link.csv")
            assert (tmp_path / "link.csv").is_symlink()
            assert (tmp_path / "real" / "books.csv").read_bytes() == CSV
        assert files_in(tmp_path) == ["link.csv", "real/books.csv"]

    def test_gets_its_default_name_in_a_folder(self, tmp_path):
        assert land_at(f"{tmp_path}/new/", default_name=lambda: "agent-7-1.csv").path == f"{tmp_path}/new/agent-7-1.csv"

    def test_has_a_name_as_long_as_the_system_takes(self, tmp_path):
        name = "é" * 125 + ".csv"
        land_at(tmp_path / name)
        assert files_in(tmp_path) == [name]

    @pytest.mark.parametrize("url", ["file://{}", "file://localhost{}", "FILE://{}"])
    def test_has_a_file_url(self, tmp_path, url):
        path = f"{tmp_path}/manual__2026-01-01T00:00:00+00:00 %41#?.csv"
        assert land_at(url.format(path)).path == path
        assert Path(path).read_bytes() == CSV

    def test_has_a_relative_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert land_at("books.csv").path == str(tmp_path / "books.csv")
        assert land_at("~/books.csv").path == str(tmp_path / "home" / "books.csv")


class TestRefusedBeforeAnythingIsDone:
    def test_a_folder(self, tmp_path):
        assert "is a folder: add a /" in refused(tmp_path)
        (tmp_path / "unused.csv").mkdir()
        assert "is a folder" in refused(f"{tmp_path}/")

    def test_a_parent_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("x")
        assert f"{tmp_path}/file is a file" in refused(tmp_path / "file" / "deep" / "books.csv")
        assert f"{tmp_path}/file is a file" in refused(f"{tmp_path}/file/")

    def test_what_is_no_regular_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refused(tmp_path / "pipe")
        assert "not a regular file" in refused("/dev/null")

    def test_a_folder_without_permission(self, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o555)
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        with as_nobody():
            assert f"{tmp_path}/closed is not writable" in refused(tmp_path / "closed" / "new" / "books.csv")

    def test_a_file_on_another_host(self):
        assert "another host (server)" in refused("file://server/share/x.csv")

    def test_a_working_directory_that_is_gone_concerns_relative_paths_only(self, tmp_path, monkeypatch):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(AgentyExportError, match=r"books\.csv: No such file"):
            land_at("books.csv")
        assert land_at(tmp_path / "books.csv").rows == 20_000

    def test_an_existing_file_that_may_not_be_replaced(self, tmp_path):
        (tmp_path / "books.csv").write_text("old")
        assert "exists already" in refused(tmp_path / "books.csv", overwrite=False)

    @pytest.mark.parametrize("path", ["a", "a/", "a/new/books.csv"])
    def test_a_link_in_circles(self, tmp_path, path):
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        assert "symbolic links lead in a circle" in refused(f"{tmp_path}/{path}")

    @pytest.mark.parametrize("path", ["{}.csv", "{}/books.csv", "new/{}/books.csv", "new/{}.csv", "{}/", "a/" * 3000])
    def test_a_name_that_is_too_long(self, tmp_path, path):
        assert "name is too long" in refused(f"{tmp_path}/{path.format('n' * 300)}")

    def test_a_folder_that_can_not_be_searched(self, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o600)
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        tmp_path.chmod(0o755)
        with as_nobody():
            for path in ("closed/books.csv", "closed/new/books.csv", "closed/new/"):
                assert "has no permission" in refused(f"{tmp_path}/{path}")

    def test_the_home_of_a_user_that_there_is_not(self):
        assert "does not know" in refused("~nobody-of-this-name/books.csv")

    @pytest.mark.parametrize("name", ["../../dags/evil-7-1.csv", "a/b.csv", "..", ".", "", "a\\b.csv", "a\nb.csv"])
    def test_a_default_name_that_leads_elsewhere(self, tmp_path, name):
        with pytest.raises(AgentyDestinationError, match="is no name for a file in"):
            open_destination(f"{tmp_path}/", default_name=lambda: name)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a link to another user")
    @pytest.mark.parametrize("path", ["books.csv", "in/books.csv", "in/"])
    def test_a_link_of_another_user_in_a_folder_open_to_everyone(self, tmp_path, path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o1777)
        (tmp_path / "dags").mkdir()
        for link, target in (("books.csv", "dags/books.csv"), ("in", "dags")):
            (tmp_path / "open" / link).symlink_to(tmp_path / target)
            os.lchown(tmp_path / "open" / link, 65534, 65534)
        (tmp_path / "way").symlink_to("open")
        for folder in ("open", "way"):
            assert "that another user made" in refused(f"{tmp_path}/{folder}/{path}")
        assert files_in(tmp_path / "dags") == []

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a link to another user")
    def test_a_link_that_another_user_makes_during_the_download(self, tmp_path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o1777)
        (tmp_path / "dags").mkdir()

        def source():
            (tmp_path / "open" / "in").symlink_to(tmp_path / "dags")
            os.lchown(tmp_path / "open" / "in", 65534, 65534)
            yield CSV

        with pytest.raises(AgentyDestinationError, match="that another user made"):
            land_at(tmp_path / "open" / "in" / "books.csv", source())
        assert files_in(tmp_path / "dags") == []

    def test_a_scheme_without_its_provider(self):
        assert "apache-airflow-providers-google" in refused("gs://bucket/books.csv")

    def test_before_the_name_is_asked_for(self, tmp_path):
        (tmp_path / "file").write_text("x")
        asked = []
        with pytest.raises(AgentyExportError):
            open_destination(f"{tmp_path}/file/", default_name=lambda: asked.append(1) or "x.csv")
        open_destination(f"{tmp_path}/books.csv", default_name=lambda: asked.append(1) or "x.csv")
        assert not asked

    def test_and_nothing_is_made(self, tmp_path):
        open_destination(f"{tmp_path}/new/books.csv", default_name="unused.csv")
        assert not (tmp_path / "new").exists()


def failing(number):
    """Stand in for a call that a file system refuses, of which there is none here to mount."""

    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


class Boom(BaseException):
    """As Airflow's own timeout, no ordinary exception."""


def source_that_ends_with(error):
    yield CSV
    yield b"half a li"
    raise error


class TestWhateverGoesWrong:
    @pytest.fixture
    def old(self, tmp_path):
        (tmp_path / "books.csv").write_text("old")
        return tmp_path / "books.csv"

    def untouched(self, old):
        return old.read_text() == "old" and files_in(old.parent) == ["books.csv"]

    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), Boom(), AgentyExportError("x")])
    def test_in_the_source(self, old, error):
        with pytest.raises(type(error)) as caught:
            land_at(old, source_that_ends_with(error))
        assert caught.value is error
        assert self.untouched(old)

    def test_before_the_first_byte_nothing_is_made(self, tmp_path):
        def source():
            raise AgentyExportError("no")
            yield b""

        with pytest.raises(AgentyExportError):
            land_at(tmp_path / "new" / "books.csv", source())
        assert not (tmp_path / "new").exists()

    def test_in_the_check(self, old):
        seen = []

        class TooFewError(Exception):
            pass

        def check(exported):
            seen.append((exported, files_in(old.parent)))
            raise TooFewError

        with pytest.raises(TooFewError):
            land_at(old, check=check)
        assert seen[0][0].rows == 20_000
        assert len(seen[0][1]) == 2
        assert self.untouched(old)

    def test_too_few_rows(self, old):
        with pytest.raises(AgentyExportError, match="has 20000 rows, and the result has 20001"):
            land_at(old, expected_rows=20_001)
        assert self.untouched(old)

    def test_more_rows_are_a_warning(self, old, caplog):
        assert land_at(old, expected_rows=19_999).rows == 20_000
        assert "20000 rows, and the result has 19999" in caplog.text

    @pytest.mark.parametrize(("expected", "rows"), [(None, 2), (2, 2), (3, 3), (4, 4)])
    def test_blank_lines_may_be_rows(self, old, expected, rows, caplog):
        assert land_at(old, [b"name\na\n\n\nb\n"], expected_rows=expected).rows == rows
        assert not caplog.records

    @pytest.mark.parametrize("expected", [1, 5])
    def test_blank_lines_are_no_other_number_of_rows(self, old, expected, caplog):
        with contextlib.suppress(AgentyExportError):
            land_at(old, [b"name\na\n\n\nb\n"], expected_rows=expected)
            assert caplog.records

    @pytest.mark.parametrize("content", [b"name,price\na,1\n\n\n", b"name,price\r\r\na,1\r\r\n"])
    def test_blank_lines_are_no_rows_beside_a_second_column(self, old, content):
        with pytest.raises(AgentyExportError, match="has 1 rows, and the result has 2"):
            land_at(old, [content], expected_rows=2)
        assert self.untouched(old)

    def test_no_space_for_a_length_that_is_known(self, old, monkeypatch):
        class Source:
            length = 10**18

            def __iter__(self):
                yield CSV

        with pytest.raises(AgentyExportError, match="not enough room"):
            land_at(old, Source())
        assert self.untouched(old)

    def test_a_disk_that_is_full(self, tmp_path):
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, check=False
        )
        if mount.returncode:
            pytest.skip("this user can't make a small file system")
        try:
            (folder / "books.csv").write_text("old")
            with pytest.raises(AgentyExportError, match="disk is full") as caught:
                land_at(folder / "books.csv", [CSV] * 10)
            assert f"{folder}/books.csv" in str(caught.value)
            assert type(caught.value) is AgentyExportError
            assert self.untouched(folder / "books.csv")
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    def test_a_file_that_may_not_grow(self, old):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(AgentyExportError, match="Could not write"):
                land_at(old)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert self.untouched(old)

    def test_a_disk_that_tells_its_error_at_the_end(self, old, monkeypatch):
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(AgentyExportError, match=r"Could not write .*books\.csv"):
            land_at(old)
        assert self.untouched(old)

    def test_a_permission_that_is_taken_away(self, tmp_path):
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        folder = tmp_path / "folder"
        folder.mkdir()
        folder.chmod(0o777)
        destination = open_destination(f"{folder}/books.csv", default_name="unused.csv")
        folder.chmod(0o555)
        with as_nobody(), pytest.raises(AgentyDestinationError, match="permission"):
            land_source([CSV], destination)
        assert files_in(folder) == []

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
    def test_permission_bits_that_the_file_system_refuses_are_a_warning(self, old, monkeypatch, caplog, number):
        monkeypatch.setattr(os, "fchmod", failing(number))
        for _ in range(2):
            land_at(old)
        assert old.read_bytes() == CSV
        assert f"{old} could not get the permission bits" in caplog.text

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
    def test_a_file_system_that_can_not_sync_is_a_warning(self, old, monkeypatch, caplog, number):
        monkeypatch.setattr(os, "fsync", failing(number))
        land_at(old, [CSV] * 100, count_rows=False)
        assert old.read_bytes() == CSV * 100
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "can't flush a file to the disk" in caplog.text

    def test_a_file_system_that_tells_no_free_space(self, old, monkeypatch):
        class Source:
            length = len(CSV)

            def __iter__(self):
                yield CSV

        told = os.statvfs_result([0] * 10)
        monkeypatch.setattr(os, "statvfs", lambda _: told)
        land_at(old, Source())
        monkeypatch.setattr(os, "statvfs", failing(errno.ENOSYS))
        land_at(old, Source())
        assert old.read_bytes() == CSV

    def test_a_file_system_without_locks(self, old, monkeypatch):
        monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
        land_at(old)
        assert files_in(old.parent) == ["books.csv"]

    def test_a_folder_that_disappears(self, tmp_path):
        def check(_):
            for path in (tmp_path / "new").iterdir():
                path.unlink()
            (tmp_path / "new").rmdir()

        with pytest.raises(AgentyExportError, match="Could not publish"):
            land_at(tmp_path / "new" / "books.csv", check=check)

    @pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
    def test_a_file_that_appears_meanwhile_stays(self, tmp_path, monkeypatch, links):
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
        path = tmp_path / "books.csv"
        with pytest.raises(AgentyExportError, match="exists already"):
            land_at(path, overwrite=False, check=lambda _: path.write_text("other"))
        assert path.read_text() == "other"
        assert files_in(tmp_path) == ["books.csv"]
        path.unlink()
        land_at(path, overwrite=False)
        assert path.read_bytes() == CSV
        assert files_in(tmp_path) == ["books.csv"]

    def test_a_timeout_by_signal(self, old):
        def ring(*_):
            raise Boom

        def source():
            yield CSV
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(5)

        before = signal.signal(signal.SIGALRM, ring)
        try:
            with pytest.raises(Boom):
                land_at(old, source())
        finally:
            signal.signal(signal.SIGALRM, before)
        assert self.untouched(old)

    @pytest.mark.parametrize("moment", ["download", "check", "publish"])
    def test_a_kill(self, old, moment):
        script = textwrap.dedent(
            """
            import logging, os, signal, sys
            from airflow_provider_agenty.landing.destinations import open_destination
            from airflow_provider_agenty.landing.land import LandingOptions, land

            def die(*_):
                os.kill(os.getpid(), signal.SIGKILL)

            def source():
                yield b"a,b\\n" * 500_000
                yield b"a,b\\n" * 500_000
                if sys.argv[2] == "download":
                    die()

            if sys.argv[2] == "publish":
                os.fsync = die
            destination = open_destination(sys.argv[1], default_name="unused.csv")
            land(source(), destination,
                 LandingOptions(7, "", "csv", check=die if sys.argv[2] == "check" else None), log=logging.getLogger())
            """
        )
        done = subprocess.run([sys.executable, "-c", script, str(old), moment], check=False)
        assert done.returncode == -signal.SIGKILL
        assert old.read_text() == "old"
        left = [name for name in files_in(old.parent) if name != "books.csv"]
        assert len(left) == 1
        assert left[0].startswith(".books.csv.")
        assert left[0].endswith(temporary_file.SUFFIX)
        land_at(old)
        assert len(files_in(old.parent)) == 2, "what was written to just now may still be in use"
        long_ago = time.time() - 3600
        os.utime(old.parent / left[0], (long_ago, long_ago))
        land_at(old)
        assert files_in(old.parent) == ["books.csv"]
        assert old.read_bytes() == CSV

    def test_what_another_landing_holds_is_left_alone(self, old):
        def slow_check(_):
            mine = next(path for path in old.parent.iterdir() if path.name.endswith(temporary_file.SUFFIX))
            long_ago = time.time() - 3600
            os.utime(mine, (long_ago, long_ago))
            land_at(old.parent / "other.csv")

        land_at(old, check=slow_check)
        assert files_in(old.parent) == ["books.csv", "other.csv"]

    def test_two_at_once_end_with_one_whole_file(self, old):
        contents = [b"n\n" + letter * 400_000 + b"\n" for letter in (b"a", b"b", b"c", b"d")]
        errors = []

        def one(content):
            try:
                for _ in range(10):
                    land_at(old, [content[at : at + 100_000] for at in range(0, len(content), 100_000)])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=one, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        seen = set()
        while any(thread.is_alive() for thread in threads):
            seen.add(old.read_bytes())
        assert not errors
        assert seen <= {b"old", *contents}
        assert old.read_bytes() in contents
        assert files_in(old.parent) == ["books.csv"]


class TestSourcesThatBeginAnew:
    def test_what_came_before_is_void(self, tmp_path):
        void = CSV + b"x" * 3_000_000
        exported = land_at(tmp_path / "books.csv.gz", [None, void, None, void, None, CSV])
        assert gzip.decompress((tmp_path / "books.csv.gz").read_bytes()) == CSV
        assert exported.rows == 20_000
        assert exported.sha256 == hashlib.sha256(CSV).hexdigest()


class TestProgress:
    def test_is_said_at_most_once_in_ten_seconds(self, tmp_path, monkeypatch, caplog):
        clock = [1000.0]
        monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
        caplog.set_level(logging.INFO)

        class Source:
            length = 40 * 1024 * 1024

            def __iter__(self):
                for _ in range(40):
                    yield b"x" * 1024 * 1024
                    clock[0] += 1.0

        land_at(tmp_path / "job.log", Source(), count_rows=False)
        lines = [record.getMessage() for record in caplog.records]
        assert lines == [
            "Downloaded 28 % of 40.0 MiB, 1.1 MiB/s",
            "Downloaded 52 % of 40.0 MiB, 1.1 MiB/s",
            "Downloaded 78 % of 40.0 MiB, 1.0 MiB/s",
        ]

    def test_without_a_length_is_in_bytes(self, tmp_path, monkeypatch, caplog):
        clock = itertools.count(1000.0, 11.0)
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
        caplog.set_level(logging.INFO)
        land_at(tmp_path / "job.log", [b"x" * 1024 * 1024] * 3, count_rows=False)
        assert caplog.records[0].getMessage().startswith("Downloaded 1.0 MiB, ")
