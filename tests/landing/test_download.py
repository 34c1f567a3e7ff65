"""One perishable link, read over real sockets with everything that can go wrong on them."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import itertools
import logging
import random
import ssl
import time
import zlib
from email.utils import format_datetime

import pytest

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing import download
from airflow_provider_agenty.landing.content_encoding import Decoder
from airflow_provider_agenty.landing.links import read_link, secrets_in
from tests.landing.conftest import SIGNATURE, Answer, DownloadHost, everything_said

CSV = b"\xef\xbb\xbfname,price\r\n" + b"".join(b'"Book %d",\xc2\xa3%d.50\r\n' % (n, n) for n in range(40_000))
TAG = {"ETag": '"v1"'}
YESTERDAY = format_datetime(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1), usegmt=True)
NOW = format_datetime(datetime.datetime.now(datetime.UTC), usegmt=True)


def read(source) -> bytes:
    """Read a source as a landing does: ``None`` says that it begins anew."""
    taken = b""
    for chunk in source:
        assert chunk is None or chunk
        taken = b"" if chunk is None else taken + chunk
    return taken


def refused(source) -> AgentyExportError:
    with pytest.raises(AgentyExportError) as caught:
        read(source)
    assert SIGNATURE not in everything_said(caught.value)
    return caught.value


class TestWhole:
    def test_the_bytes_come_as_they_are(self, host, make_download):
        host.answers = [Answer(CSV)]
        source = make_download()
        assert read(source) == CSV
        assert source.length == len(CSV)
        assert len(host.requests) == 1

    def test_the_request_carries_no_login_and_asks_for_no_encoding(self, host, make_download, tmp_path, monkeypatch):
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pw\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        host.answers = [Answer(CSV)]
        read(make_download())
        assert "authorization" not in host.requests[0].headers
        assert host.requests[0].headers["accept-encoding"] == "identity"
        assert "range" not in host.requests[0].headers

    def test_a_login_in_the_link_is_used(self, host, make_download, secrets):
        host.answers = [Answer(CSV)]
        read(make_download(get_link=lambda: host.link().replace("//", "//me:pw0rd-of-the-link@")))
        assert host.requests[0].headers["authorization"].startswith("Basic ")
        assert "pw0rd-of-the-link" in secrets

    @pytest.mark.parametrize("answer", [Answer(CSV, chunked=True), Answer(CSV, length=None)], ids=["chunked", "none"])
    def test_no_length(self, host, make_download, answer):
        host.answers = [answer]
        source = make_download()
        assert read(source) == CSV
        assert source.length is None


class TestCut:
    @pytest.mark.parametrize("reset", [False, True])
    @pytest.mark.parametrize("headers", [TAG, {"Last-Modified": YESTERDAY, "Date": NOW}], ids=["ETag", "Last-Modified"])
    def test_is_resumed_where_it_was_cut(self, host, make_download, headers, reset):
        host.answers = [
            Answer(CSV, headers=headers, cut_after=300_000, reset=reset),
            Answer(CSV, headers=headers, ranges=True),
        ]
        assert b"".join(make_download()) == CSV
        assert host.requests[1].headers["range"] == "bytes=300000-"
        assert host.requests[1].headers["if-range"] in headers.values()

    def test_in_the_middle_of_chunks_is_resumed(self, host, make_download):
        host.answers = [
            Answer(CSV, headers=TAG, chunked=True, cut_after=300_000),
            Answer(CSV, headers=TAG, ranges=True),
        ]
        assert b"".join(make_download()) == CSV
        assert len(host.requests) == 2

    def test_again_and_again_is_fine_while_it_gets_on(self, host, make_download):
        host.answers = [Answer(CSV, headers=TAG, ranges=True, cut_after=70_000)] * 11 + [
            Answer(CSV, headers=TAG, ranges=True)
        ]
        assert b"".join(make_download(attempts=2)) == CSV

    @pytest.mark.parametrize(
        "headers",
        [{}, {"ETag": 'W/"v1"'}, {"Last-Modified": NOW, "Date": NOW}, {"Last-Modified": YESTERDAY}],
        ids=["none", "weak", "too fresh", "no date"],
    )
    def test_begins_anew_where_the_body_can_not_be_told_from_another(self, host, make_download, headers):
        host.answers = [Answer(CSV, headers=headers, cut_after=300_000), Answer(CSV, headers=headers, ranges=True)]
        chunks = list(make_download())
        assert b"".join(chunks[chunks.index(None) + 1 :]) == CSV
        assert "range" not in host.requests[1].headers

    @pytest.mark.parametrize(
        "second",
        [
            Answer(CSV, headers=TAG),
            Answer(b"other,content\n" + CSV, headers={"ETag": '"v2"'}, ranges=True),
        ],
        ids=["no ranges", "changed"],
    )
    def test_an_answer_with_a_whole_body_is_not_glued_on(self, host, make_download, second):
        host.answers = [Answer(CSV, headers=TAG, cut_after=300_000), second]
        chunks = list(make_download())
        assert b"".join(chunks[chunks.index(None) + 1 :]) == second.body

    @pytest.mark.parametrize(
        "wrong",
        [
            Answer(CSV[300_000:], status=206, headers={**TAG, "Content-Range": f"bytes 5-{len(CSV) - 1}/{len(CSV)}"}),
            Answer(CSV[300_000:], status=206, headers={**TAG, "Content-Range": f"bytes 300000-9/{len(CSV) + 1}"}),
            Answer(CSV[300_000:], status=206, headers=TAG),
            Answer(
                CSV[300_000:],
                status=206,
                headers={"ETag": '"v2"', "Content-Range": f"bytes 300000-{len(CSV) - 1}/{len(CSV)}"},
            ),
            Answer(
                CSV[300_000:],
                status=206,
                headers={
                    **TAG,
                    "Content-Encoding": "gzip",
                    "Content-Range": f"bytes 300000-{len(CSV) - 1}/{len(CSV)}",
                },
            ),
            Answer(b"", status=416, headers=TAG),
        ],
        ids=["other place", "other length", "no place", "other tag", "other encoding", "416"],
    )
    def test_a_wrong_rest_is_not_glued_on(self, host, make_download, wrong):
        host.answers = [Answer(CSV, headers=TAG, cut_after=300_000), wrong, Answer(CSV, headers=TAG)]
        assert read(make_download()) == CSV
        assert len(host.requests) == 3

    @pytest.mark.parametrize(
        "second",
        [
            Answer(CSV[300_000:], headers={**TAG, "Content-Range": f"bytes 300000-{len(CSV) - 1}/{len(CSV)}"}),
            Answer(CSV[300_000:], headers={"Content-Range": f"bytes 300000-{len(CSV) - 1}/{len(CSV)}"}, length=None),
            Answer(CSV[300_000:], headers={"ETag": '"v2"', "Content-Range": f"bytes 300000-{len(CSV) - 1}/{len(CSV)}"}),
            Answer(CSV[300_000:], headers={**TAG, "Content-Range": "bytes " + "9" * 5000 + "-/*"}),
            Answer(CSV[300_000:], headers=TAG),
            Answer(CSV[300_000:]),
            Answer(CSV[300_000:], chunked=True),
        ],
        ids=["a range", "a range, no length", "another range", "no range", "other length", "no tag", "chunked"],
    )
    def test_an_answer_that_may_be_the_rest_is_not_taken_for_the_whole(self, host, make_download, second):
        host.answers = [Answer(CSV, headers=TAG, cut_after=300_000), second, Answer(CSV, headers=TAG)]
        assert read(make_download(may_be_empty=True)) == CSV
        assert "range" not in host.requests[2].headers

    @pytest.mark.parametrize(
        "wrong",
        [
            Answer(CSV[9:], status=206, headers={**TAG, "Content-Range": f"bytes 9-{len(CSV) - 1}/{len(CSV)}"}),
            Answer(CSV[9:], headers={"Content-Range": f"bytes 9-{len(CSV) - 1}/{len(CSV)}"}),
            Answer(CSV[:-9], headers={"Content-Range": f"bytes 0-{len(CSV) - 10}/{len(CSV)}"}),
            Answer(CSV, headers={"Content-Range": f"bytes 0-{len(CSV) + 9}/{len(CSV) + 10}"}),
            Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + CSV),
            Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\na,b\r\n1,2\r\n"),
        ],
        ids=["206", "end", "beginning", "other length", "no length", "two lengths"],
    )
    def test_a_first_answer_that_contradicts_itself_is_asked_for_again(self, host, make_download, wrong):
        host.answers = [wrong, Answer(CSV)]
        assert read(make_download()) == CSV
        host.answers = [wrong]
        refused(make_download(attempts=2))

    def test_a_whole_that_is_named_as_a_range_is_taken(self, host, make_download):
        host.answers = [Answer(CSV, headers={"Content-Range": f"bytes 0-{len(CSV) - 1}/{len(CSV)}"}, length=None)]
        source = make_download()
        assert read(source) == CSV
        assert source.length == len(CSV)

    def test_the_same_file_with_another_length_is_asked_for_again(self, host, make_download):
        host.answers = [
            Answer(CSV, headers=TAG, cut_after=300_000),
            Answer(status=416, headers=TAG),
            Answer(CSV[:400_000], headers=TAG),
            Answer(CSV, headers=TAG),
        ]
        assert read(make_download()) == CSV

    @pytest.mark.parametrize(
        "wrong",
        [
            Answer(
                CSV[300_000:] + CSV,
                status=206,
                headers={**TAG, "Content-Range": f"bytes 300000-{len(CSV) - 1}/{len(CSV)}"},
                chunked=True,
            ),
            Answer(
                CSV[300_000:],
                status=206,
                headers={**TAG, "Content-Range": f"bytes 300000-399999/{len(CSV)}"},
                chunked=True,
            ),
            Answer(
                CSV[300_000:], status=206, headers={**TAG, "Content-Range": f"bytes 300000-{len(CSV) + 8}/{len(CSV)}"}
            ),
        ],
        ids=["longer than the file", "longer than the part", "a part beyond the end"],
    )
    def test_a_rest_that_is_longer_than_it_may_be_is_void(self, host, make_download, wrong):
        host.answers = [Answer(CSV, headers=TAG, cut_after=300_000), wrong, Answer(CSV, headers=TAG)]
        assert read(make_download()) == CSV

    def test_a_rest_of_another_day_is_not_glued_on(self, host, make_download):
        range_ = f"bytes 300000-{len(CSV) - 1}/{len(CSV)}"
        host.answers = [
            Answer(CSV, headers={"Last-Modified": YESTERDAY, "Date": NOW}, cut_after=300_000),
            Answer(CSV[300_000:].upper(), status=206, headers={"Last-Modified": NOW, "Content-Range": range_}),
            Answer(CSV),
        ]
        assert read(make_download()) == CSV

    @pytest.mark.parametrize(
        "headers",
        [
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 +999999999999999999", "Date": NOW},
            {"Last-Modified": YESTERDAY, "Date": "Fri, 31 Dec 9999 23:59:59 -2359"},
            {"Last-Modified": YESTERDAY, "Date": "9" * 5000},
            {"ETag": '"v1\r\n folded"'},
            {"ETag": '"' + "x" * 60_000 + '"'},
        ],
        ids=["zone", "after all time", "digits", "folded tag", "long tag"],
    )
    def test_begins_anew_where_what_identifies_the_body_is_nonsense(self, host, make_download, headers):
        host.answers = [Answer(CSV, headers=headers, cut_after=300_000), Answer(CSV, headers=headers, ranges=True)]
        assert read(make_download()) == CSV
        assert "range" not in host.requests[1].headers

    def test_a_rest_that_is_only_a_part_of_it_is_not_the_end(self, host, make_download):
        part = {**TAG, "Content-Range": f"bytes 300000-399999/{len(CSV)}"}
        host.answers = [
            Answer(CSV, headers=TAG, cut_after=300_000),
            Answer(CSV[300_000:400_000], status=206, headers=part),
            Answer(CSV, headers=TAG, ranges=True),
        ]
        assert b"".join(make_download()) == CSV
        assert host.requests[2].headers["range"] == "bytes=400000-"

    def test_before_the_first_byte(self, host, make_download):
        host.answers = [Answer(CSV, cut_after=0), Answer(CSV)]
        assert read(make_download()) == CSV

    def test_again_and_again_at_the_same_place_ends(self, host, make_download):
        host.answers = [Answer(CSV, headers=TAG, cut_after=300_000), Answer(CSV, headers=TAG, ranges=True, cut_after=0)]
        error = refused(make_download(attempts=4))
        assert f"300000 of {len(CSV)} bytes" in str(error)
        assert "127.0.0.1" in str(error)
        assert len(host.requests) == 4

    def test_again_and_again_without_ranges_ends(self, host, make_download):
        host.answers = [Answer(CSV, headers=TAG, cut_after=300_000)]
        refused(make_download(attempts=3))
        assert len(host.requests) <= 6

    def test_a_length_that_lies_is_no_whole_body(self, host, make_download):
        host.answers = [Answer(CSV, length=len(CSV) + 10)]
        error = refused(make_download(attempts=2))
        assert f"{len(CSV)} of {len(CSV) + 10} bytes" in str(error)


class TestEncodings:
    MEMBERS = gzip.compress(CSV[:1000]) + gzip.compress(CSV[1000:500_000]) + gzip.compress(CSV[500_000:])
    RAW = zlib.compressobj(wbits=-15)

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("gzip", gzip.compress(CSV)),
            ("X-GZip", gzip.compress(CSV)),
            ("gzip", MEMBERS),
            ("gzip", MEMBERS + b"\0" * 100),
            ("deflate", zlib.compress(CSV)),
            ("deflate", RAW.compress(CSV) + RAW.flush()),
            ("identity", CSV),
        ],
        ids=["gzip", "x-gzip", "members", "padded", "deflate", "bare deflate", "identity"],
    )
    @pytest.mark.parametrize("chunked", [False, True])
    def test_are_undone(self, host, make_download, name, body, chunked):
        host.answers = [Answer(body, headers={"Content-Encoding": name}, chunked=chunked)]
        source = make_download()
        assert read(source) == CSV
        assert source.length == (len(CSV) if name == "identity" and not chunked else None)

    def test_of_what_was_cut_go_on_where_it_was_cut(self, host, make_download):
        noise = random.Random(1).randbytes(1_000_000).hex().encode()
        headers = {**TAG, "Content-Encoding": "gzip"}
        host.answers = [
            Answer(gzip.compress(noise), headers=headers, cut_after=600_001),
            Answer(gzip.compress(noise), headers=headers, ranges=True),
        ]
        assert b"".join(make_download()) == noise
        assert host.requests[1].headers["range"] == "bytes=600001-"

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("gzip", gzip.compress(CSV)[:-9]),
            ("gzip", gzip.compress(CSV)[:5000] + b"\xff" * 100 + gzip.compress(CSV)[5100:]),
            ("gzip", CSV),
            ("deflate", zlib.compress(CSV)[:-2]),
        ],
        ids=["short", "damaged", "not gzip", "short deflate"],
    )
    def test_that_are_damaged_are_asked_for_again_and_refused(self, host, make_download, name, body):
        host.answers = [Answer(body, headers={"Content-Encoding": name})]
        refused(make_download(attempts=3))
        assert len(host.requests) == 3

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("aws-chunked", CSV),
            ("AWS-Chunked,identity", CSV),
            ("gzip, aws-chunked", gzip.compress(CSV)),
            ("aws-chunked,gzip", gzip.compress(CSV)),
            ("utf-8", CSV),
            ("binary", CSV),
            ("text/csv; charset=utf-8", CSV),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_that_are_no_compression_are_ignored_with_a_warning(self, host, make_download, caplog, name, body):
        host.answers = [Answer(body, headers={"Content-Encoding": name})]
        source = make_download()
        assert read(source) == CSV
        assert source.length == (None if "gzip" in name else len(CSV))
        assert "no compression" in caplog.text

    @pytest.mark.parametrize("surplus", [b"# end\n", b"\0\0behind padding", b"\x1fno member", b"\x1f\x8bneither"])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_what_stands_behind_gzip_is_ignored_with_a_warning(self, host, make_download, caplog, surplus, chunked):
        body = self.MEMBERS + surplus
        host.answers = [Answer(body, headers={"Content-Encoding": "gzip"}, chunked=chunked)]
        assert b"".join(make_download()) == CSV
        assert len(host.requests) == 1
        assert "after the end" in caplog.text

    def test_what_stands_behind_deflate_is_ignored_with_a_warning(self, host, make_download, caplog):
        host.answers = [Answer(zlib.compress(CSV) + b"# end\n", headers={"Content-Encoding": "deflate"})]
        assert b"".join(make_download()) == CSV
        assert "after the end" in caplog.text

    @pytest.mark.parametrize("cut", [1, 2, 3, 11])
    def test_a_further_member_that_is_cut_is_no_surplus(self, host, make_download, cut):
        body = gzip.compress(CSV) + gzip.compress(b"more")[:cut]
        host.answers = [Answer(body, headers={"Content-Encoding": "gzip"})]
        assert "ends too early" in str(refused(make_download(attempts=2)))

    @pytest.mark.parametrize("content", [b"", b"x"])
    def test_of_very_many_members_take_linear_time(self, content):
        # Each member used to copy all that stands behind it: minutes, where this takes less than a second.
        body = gzip.compress(content) * 200_000
        decoder = Decoder("gzip")
        began = time.monotonic()
        assert b"".join(decoder.decode(body)) == content * 200_000
        assert not decoder.damage
        assert time.monotonic() - began < 20

    @pytest.mark.parametrize("size", [1, 2, 3, 19, 4096])
    def test_come_cut_anywhere(self, size):
        decoder = Decoder("gzip")
        body = gzip.compress(b"ab") + gzip.compress(b"") + b"\0\0" + gzip.compress(b"cd" * 5000)
        pieces = [piece for at in range(0, len(body), size) for piece in decoder.decode(body[at : at + size])]
        assert not decoder.damage
        assert b"".join(pieces) == b"ab" + b"cd" * 5000
        assert not decoder.surplus

    @pytest.mark.parametrize("name", ["br", "zstd", "compress", "gzip, gzip", "aws-chunked, br", "x" * 50_000])
    def test_that_are_unknown_stay_refused(self, host, make_download, name):
        host.answers = [Answer(CSV, headers={"Content-Encoding": name})]
        error = refused(make_download())
        assert "can't be decoded" in str(error)
        assert len(str(error)) < 400

    def test_a_bomb_comes_in_bounded_pieces(self, host, make_download):
        host.answers = [Answer(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})]
        sizes = [len(chunk) for chunk in make_download()]
        assert sum(sizes) == 50_000_000
        assert max(sizes) <= 2 * 1024 * 1024


class TestLinks:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
    def test_a_refused_link_is_replaced(self, host, make_download, status):
        host.answers = [Answer(status=status), Answer(CSV)]
        assert read(make_download()) == CSV
        assert [request.path[-4:] for request in host.requests] == ["&n=0", "&n=1"]

    def test_an_expired_link_is_replaced_and_the_download_goes_on(self, host, make_download):
        host.answers = [
            Answer(CSV, headers=TAG, cut_after=300_000),
            Answer(status=403),
            Answer(CSV, headers=TAG, ranges=True),
        ]
        assert b"".join(make_download()) == CSV
        assert [request.path[-4:] for request in host.requests] == ["&n=0", "&n=0", "&n=2"]
        assert host.requests[2].headers["range"] == "bytes=300000-"

    def test_links_are_replaced_a_bounded_number_of_times(self, host, make_download):
        host.answers = [Answer(status=403)]
        error = refused(make_download(attempts=3))
        assert "HTTP 403" in str(error)
        assert len(host.requests) == 3

    def test_what_get_link_raises_goes_through(self, make_download):
        class RefusedError(Exception):
            pass

        def get_link():
            raise RefusedError

        with pytest.raises(RefusedError):
            read(make_download(get_link=get_link))

    def test_any_other_4xx_is_final(self, host, make_download):
        host.answers = [Answer(status=451)]
        error = refused(make_download())
        assert "HTTP 451" in str(error)
        assert len(host.requests) == 1

    @pytest.mark.parametrize(
        "link",
        ["", "no link", "ftp://127.0.0.1/x", "http://[/x", "http://127.0.0.1:x/", None, "http:///x"],
    )
    def test_what_is_no_link_is_refused_unseen(self, make_download, link):
        error = refused(make_download(get_link=lambda: f"{link}?{SIGNATURE}" if link else link))
        assert "not an http or https URL" in str(error)

    @pytest.mark.parametrize(
        "target",
        [
            "//double//books.csv?sig=1",
            "/%7Eme/%2f%2F/a%2fb?sig=%2f%2B+%7e~",
            "/a/../b/./c",
            "/books.csv?",
            "/a;b=c?x='(1)'*[2]|{3}^`\"<>\\&y=%zz%",
            "?sig=1",
        ],
    )
    def test_are_sent_byte_for_byte(self, host, make_download, target):
        host.answers = [Answer(CSV)]
        read(make_download(get_link=lambda: f"http://127.0.0.1:{host.port}{target}#part"))
        assert host.requests[0].path == (target if target.startswith("/") else f"/{target}")

    def test_are_quoted_where_they_could_not_be_sent_otherwise(self, host, make_download):
        host.answers = [Answer(CSV)]
        read(make_download(get_link=lambda: f"http://127.0.0.1:{host.port}/é b\ud83d\r\n?x=\x00%2f"))
        assert host.requests[0].path == "/%C3%A9%20b%ED%A0%BD%0D%0A?x=%00%2f"

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize(
        "place",
        [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "LocalHost",
            "localhost.",
            "service.localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
            "0",
            "[::]",
            "169.254.169.254",
            "2852039166",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
        ],
    )
    def test_to_services_of_the_worker_are_refused(self, make_download, scheme, place):
        link = f"{scheme}://{place}:1/{SIGNATURE}"
        error = refused(make_download(get_link=lambda: link, schemes_to_this_machine=(), attempts=1))
        assert "The link was not followed" in str(error)

    @pytest.mark.parametrize("place", ["0.0.0.0", "[::]", "169.254.169.254"])
    def test_to_no_host_in_particular_are_refused_from_this_machine_too(self, make_download, place):
        error = refused(make_download(get_link=lambda: f"http://{place}/{SIGNATURE}"))
        assert "The link was not followed" in str(error)

    @pytest.mark.parametrize("place", ["10.1.2.3", "192.168.1.1", "[fd00::1]", "files.example", "8.8.8.8"])
    def test_to_other_hosts_over_https_may_be_followed(self, place):
        assert read_link(f"https://{place}/x").server == f"https://{place}"

    @pytest.mark.parametrize(
        "link",
        [
            "https://a\\@127.0.0.1/",
            "https://a\x1b[31m/",
            "https://a b/",
            "https://a@b@c/",
            "https://a:70000/",
            "https://\uff41/",
        ],
    )
    def test_with_a_host_that_can_be_read_in_two_ways_are_refused(self, make_download, link):
        assert "not an http or https URL" in str(refused(make_download(get_link=lambda: link)))

    def test_plain_http_is_only_for_this_machine(self, make_download):
        error = refused(make_download(get_link=lambda: f"http://files.example/x?{SIGNATURE}"))
        assert "files.example" in str(error)
        assert "plain http" in str(error)


class TestRedirects:
    def test_are_followed_by_hand(self, host, make_download):
        other = DownloadHost()
        other.answers = [Answer(CSV)]
        host.answers = [
            Answer(status=302, headers={"Location": f"/elsewhere?again={SIGNATURE}"}),
            Answer(status=307, headers={"Location": other.link("final.csv")}),
        ]
        assert read(make_download()) == CSV
        assert host.requests[1].path == f"/elsewhere?again={SIGNATURE}"
        assert other.requests[0].path.startswith("/final.csv?")
        other.close()

    def test_go_on_with_the_range_that_was_asked_for(self, host, make_download):
        host.answers = [
            Answer(CSV, headers=TAG, cut_after=300_000),
            Answer(status=302, headers={"Location": "/elsewhere"}),
            Answer(CSV, headers=TAG, ranges=True),
        ]
        assert b"".join(make_download()) == CSV
        assert host.requests[2].headers["range"] == "bytes=300000-"

    def test_to_another_machine_over_plain_http_are_refused(self, host, make_download, secrets):
        host.answers = [Answer(status=302, headers={"Location": f"http://files.example/x?y={SIGNATURE}"})]
        error = refused(make_download())
        assert "files.example" in str(error)

    def test_without_end_are_refused(self, host, make_download):
        host.answers = [Answer(status=302, headers={"Location": f"/again?{SIGNATURE}"})]
        assert "redirects" in str(refused(make_download()))
        assert len(host.requests) <= 6

    def test_with_a_body_are_followed_at_once(self, host, make_download):
        # The body of a redirect is nobody's business: it may be huge, compressed or never end.
        endless = b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 99999999\r\n\r\nx"
        host.answers = [Answer(raw=endless, stall=4), Answer(CSV)]
        assert read(make_download(timeout=(1.0, 2.0), attempts=1)) == CSV

    @pytest.mark.parametrize(
        ("location", "asked"),
        [
            (b"/\xff", "/%FF"),
            ("/é".encode(), "/%C3%A9"),
            (b"/a b", "/a%20b"),
            (b"next?x=%2f", "/next?x=%2f"),
            (b"//127.0.0.1:PORT//%7E?", "//%7E?"),
            (b"HTTP://127.0.0.1:PORT/%2f/../%7E;x?a=%2f&b", "/%2f/../%7E;x?a=%2f&b"),
        ],
    )
    def test_are_links_too_and_followed_as_they_are_written(self, host, make_download, location, asked):
        location = location.replace(b"PORT", str(host.port).encode())
        host.answers = [Answer(raw=b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n\r\n"), Answer(CSV)]
        assert read(make_download()) == CSV
        assert host.requests[1].path == asked

    @pytest.mark.parametrize(
        "location", ["////127.0.0.1:PORT/x", "file:///etc/passwd", "http:x", "http://a\\@b/", "//"]
    )
    def test_to_what_is_no_link_are_refused(self, host, make_download, location):
        host.answers = [Answer(status=302, headers={"Location": location.replace("PORT", str(host.port))})]
        assert "not an http or https URL" in str(refused(make_download()))
        assert len(host.requests) == 1

    def test_to_nowhere_are_failures(self, host, make_download):
        host.answers = [Answer(status=302), Answer(CSV)]
        assert read(make_download()) == CSV


class TestSecrets:
    def test_are_in_no_log_record_of_any_library(self, host, make_download, caplog):
        caplog.set_level(logging.DEBUG)
        host.answers = [
            Answer(status=302, headers={"Location": f"/{SIGNATURE}/next?sig={SIGNATURE} {{x}}é"}),
            Answer(CSV, headers=TAG, cut_after=9),
            Answer(CSV),
        ]
        read(make_download())
        said = [record.getMessage() for record in caplog.records]
        assert [text for text in said if "GET" in text], "urllib3 logs requests: the test proves something"
        assert not [text for text in said if SIGNATURE in text]

    def test_that_look_like_secrets_are_told(self, host, make_download, secrets):
        host.answers = [Answer(CSV)]
        token, sent = "aB3dEfGh1jKlMn0p", "aB3d%2BEfGh1jKlMn0p%3D%3D"
        read(make_download(get_link=lambda: f"{host.link(f'dl/{token}/books.csv')}&sig={sent}"))
        assert {token, sent, "aB3d+EfGh1jKlMn0p==", SIGNATURE} <= set(secrets)

    @pytest.mark.parametrize(
        "target",
        [
            "/Job_7/books-2024.csv?The file has",
            "/x?The%20file%20is%20incomplete",
            "/x?AgentyExportError",
            "/45l0wewqzk/books.csv.gz?agent=45l0wewqzk&day=2024-01-01",
            "/x?filename=books-of-2024-and-before.csv",
        ],
    )
    def test_what_may_be_in_our_own_messages_is_no_secret(self, target):
        assert not [secret for secret in secrets_in(f"https://files.example{target}") if "%" not in secret]

    def test_are_in_no_line_of_ours(self, host, make_download, caplog):
        caplog.set_level(logging.DEBUG, logger="landing-test")
        host.answers = [
            Answer(CSV, headers=TAG, cut_after=300_000),
            Answer(status=503),
            Answer(status=403),
            Answer(CSV, headers=TAG),
        ]
        read(make_download())
        ours = [record.getMessage() for record in caplog.records if record.name == "landing-test"]
        assert len(ours) >= 3
        assert not [line for line in ours if SIGNATURE in line]


class TestWaiting:
    @pytest.fixture
    def pauses(self, monkeypatch):
        pauses: list[float] = []
        monkeypatch.setattr(download.time, "sleep", pauses.append)
        return pauses

    @pytest.mark.parametrize("status", [202, 204, 408, 425, 429, 500, 502, 503, 504])
    def test_trouble_of_the_server_is_waited_out(self, host, make_download, pauses, status):
        host.answers = [Answer(status=status), Answer(CSV)]
        assert read(make_download()) == CSV
        assert len(pauses) == 1

    @pytest.mark.parametrize("status", [202, 429, 503])
    def test_retry_after_in_seconds(self, host, make_download, pauses, status):
        host.answers = [Answer(status=status, headers={"Retry-After": "7"}), Answer(CSV)]
        read(make_download())
        assert pauses == [7.0]

    def test_retry_after_as_a_date(self, host, make_download, pauses):
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40)
        host.answers = [Answer(status=503, headers={"Retry-After": format_datetime(moment, usegmt=True)}), Answer(CSV)]
        read(make_download())
        assert 20 < pauses[0] <= 40

    def test_a_file_that_is_never_ready_is_given_up(self, host, make_download, pauses):
        host.answers = [Answer(status=202)]
        error = refused(make_download(attempts=3))
        assert "HTTP 202" in str(error)
        assert len(host.requests) == 3

    @pytest.mark.parametrize(
        "value",
        [
            "999999",
            "²",
            "soon",
            "-5",
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wed, 21 Oct 2015 07:28:00 +999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 -2359",
            "9" * 5000,
        ],
    )
    def test_retry_after_is_bounded_and_may_be_nonsense(self, host, make_download, pauses, value):
        host.answers = [Answer(status=503, headers={"Retry-After": value.encode().decode("latin-1")}), Answer(CSV)]
        read(make_download())
        assert pauses[0] <= 120

    def test_pauses_grow_and_differ(self, host, make_download, pauses, monkeypatch):
        limits = []
        monkeypatch.setattr(download.random, "uniform", lambda low, high: limits.append((low, high)) or high)
        host.answers = [Answer(status=503)]
        refused(make_download(attempts=8, first_pause=1.0))
        assert limits == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (0, 30), (0, 30)]
        assert pauses == [high for _, high in limits]

    def test_a_silent_server_is_given_up(self, host, make_download):
        host.answers = [Answer(CSV, cut_after=1000, stall=3)]
        error = refused(make_download(attempts=2, timeout=(1.0, 0.2)))
        assert "no byte came in time" in str(error)

    def test_a_refused_connection_is_said(self, host, make_download):
        link = host.link()
        host.close()
        error = refused(make_download(get_link=lambda: link, attempts=2))
        assert "the connection was refused" in str(error)


class TestNoFile:
    @pytest.mark.parametrize(
        "answer",
        [
            Answer(b"<!DOCTYPE html><html><body>Sign in</body></html>"),
            Answer(b"\xef\xbb\xbf \r\n <html>"),
            Answer(b"Sign in, please", headers={"Content-Type": "text/html; charset=utf-8"}),
            Answer(gzip.compress(b"<html>"), headers={"Content-Encoding": "gzip"}),
            Answer(b"<html>" + b"x" * 5000, chunked=True),
        ],
        ids=["doctype", "blank before", "type only", "gzip", "chunked"],
    )
    def test_an_html_page_is_refused(self, host, make_download, answer):
        host.answers = [answer]
        assert "an HTML page" in str(refused(make_download()))

    def test_an_xml_page_is_refused_with_its_code(self, host, make_download):
        page = f"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Sig>{SIGNATURE}</Sig></Error>"
        host.answers = [Answer(page.encode())]
        error = refused(make_download())
        assert "an XML page with the code ExpiredToken" in str(error)

    @pytest.mark.parametrize("content_type", ["application/json", "Application/Problem+JSON; charset=utf-8"])
    @pytest.mark.parametrize("around", ["\n{}", "[\n{}]"])
    def test_a_json_document_is_refused(self, host, make_download, content_type, around):
        document = around.format(f'{{"error": "expired", "link": "{SIGNATURE}"}}')
        host.answers = [Answer(document.encode(), headers={"Content-Type": content_type})]
        error = refused(make_download())
        assert "answered with a JSON document instead of the file" in str(error)
        assert SIGNATURE not in str(error)

    @pytest.mark.parametrize(
        ("content_type", "body"), [("text/csv", b'{"a": 1},b\n'), ("application/json", b"a,b\n1,2\n")]
    )
    def test_half_of_what_makes_a_json_document_is_no_reason(self, host, make_download, content_type, body):
        host.answers = [Answer(body, headers={"Content-Type": content_type})]
        assert b"".join(make_download()) == body

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(b""),
            Answer(b"", chunked=True),
            Answer(b"", length=None),
            Answer(gzip.compress(b""), headers={"Content-Encoding": "gzip"}),
        ],
    )
    def test_nothing_at_all_is_refused(self, host, make_download, answer):
        host.answers = [answer]
        error = refused(make_download())
        assert "without a single byte" in str(error)

    def test_nothing_at_all_where_that_is_fine(self, host, make_download):
        host.answers = [Answer(b"")]
        assert b"".join(make_download(may_be_empty=True)) == b""

    @pytest.mark.parametrize("body", [b"a", b'"<b>bold</b>",x\n', b"5 < 6\n", b"< 6\n"])
    def test_what_merely_looks_odd_is_taken(self, host, make_download, body):
        host.answers = [Answer(body)]
        assert read(make_download()) == body


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(key, hashes.SHA256())
        )
        path = tmp_path / "host.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    @pytest.fixture
    def tls_host(self, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = DownloadHost(context)
        server.answers = [Answer(CSV)]
        yield server
        server.close()

    def test_does_not_redirect_to_plain_http_on_this_machine(self, tls_host, host, make_download, session, certificate):
        session.verify = str(certificate)
        host.answers = [Answer(CSV)]
        tls_host.answers = [Answer(status=302, headers={"Location": host.link("admin")})]
        error = refused(make_download(get_link=tls_host.link, schemes_to_this_machine=("https",)))
        assert "plain http" in str(error)
        assert not host.requests

    def test_is_checked(self, tls_host, make_download):
        error = refused(make_download(get_link=tls_host.link, attempts=1))
        assert "certificate was not accepted" in str(error)

    def test_with_the_certificates_of_the_session(self, tls_host, make_download, session, certificate):
        session.verify = str(certificate)
        assert read(make_download(get_link=tls_host.link)) == CSV

    def test_with_the_certificates_of_the_environment(self, tls_host, make_download, monkeypatch, certificate):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert read(make_download(get_link=tls_host.link)) == CSV


def test_a_consumer_that_stops_closes_the_connection(host, make_download):
    host.answers = [Answer(CSV * 20)]
    assert len(list(itertools.islice(make_download(), 1))) == 1


class TestSize:
    @pytest.mark.parametrize(
        "answer",
        [
            Answer(gzip.compress(bytes(80_000_000)), headers={"Content-Encoding": "gzip"}),
            Answer(b"x", length=80_000_000),
            Answer(gzip.compress(b"") * 20, headers={"Content-Encoding": "gzip"}, length=80_000_000),
        ],
        ids=["decoded", "announced", "encoded"],
    )
    def test_beyond_what_the_rows_explain_is_given_up(self, host, make_download, answer):
        host.answers = [answer]
        error = refused(make_download(expected_rows=1))
        assert "68.0 MiB" in str(error)
        assert len(host.requests) == 1

    @pytest.mark.parametrize("rows", [None, 10])
    def test_that_the_rows_explain_is_taken(self, host, make_download, rows):
        host.answers = [Answer(gzip.compress(bytes(80_000_000)), headers={"Content-Encoding": "gzip"})]
        assert sum(map(len, make_download(expected_rows=rows))) == 80_000_000
