"""
How fast CSV records are counted, beside Python's own csv module in the same run.

    python benchmarks/records.py [--megabytes 200] [--runs 5] [--without-numpy]

One core is kept busy. MB/s are medians over the runs, in CPU time of this process, which is what the counter adds
to a landing. Loading numpy, where the counter does, is left out: it takes as long for any file.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import statistics
import sys
import time
from collections.abc import Callable

from airflow_provider_agenty.landing.records import RecordCounter

CHUNK = 1024 * 1024


def table_of(
    quoting: int, columns: int, widths: tuple[int, int], line_end: str, values: Callable[[random.Random, int], str]
) -> bytes:
    chance = random.Random(1)
    out = io.StringIO(newline="")
    quote = None if quoting == csv.QUOTE_NONE else '"'
    writer = csv.writer(out, quoting=quoting, quotechar=quote, lineterminator=line_end)
    while out.tell() < CHUNK:
        writer.writerow([values(chance, chance.randint(*widths)) for _ in range(columns)])
    return out.getvalue().encode()


def word(chance: random.Random, width: int) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz 0123456789", k=width))


def scraped(chance: random.Random, width: int) -> str:
    text = word(chance, width)
    return chance.choice((text, text, text, f"{text}, {text}", f'{text} "{text}"', f"{text}\n{text}", ""))


def inches(chance: random.Random, width: int) -> str:
    return f'{width}" {word(chance, width)}'


CONTENTS = {
    "no quotes, fields of 5 to 40 bytes": (csv.QUOTE_MINIMAL, 8, (5, 40), "\n", word),
    "no quotes, CRLF": (csv.QUOTE_MINIMAL, 8, (5, 40), "\r\n", word),
    "no quotes, one column of 5 to 40 bytes": (csv.QUOTE_MINIMAL, 1, (5, 40), "\n", word),
    "no quotes, one column of 4 bytes": (csv.QUOTE_MINIMAL, 1, (4, 4), "\n", word),
    "no quotes, one column of 1 to 9 bytes": (csv.QUOTE_MINIMAL, 1, (1, 9), "\n", word),
    "no quotes, CRLF, four columns of 5 to 25 bytes": (csv.QUOTE_MINIMAL, 4, (5, 25), "\r\n", word),
    "no quotes, CRLF, one column of 5 to 40 bytes": (csv.QUOTE_MINIMAL, 1, (5, 40), "\r\n", word),
    "no quotes, CRLF, one column of 1 to 9 bytes": (csv.QUOTE_MINIMAL, 1, (1, 9), "\r\n", word),
    "no quotes, CR, one column of 5 to 40 bytes": (csv.QUOTE_MINIMAL, 1, (5, 40), "\r", word),
    "no quotes, one column of 5 to 40 bytes, each second line blank": (csv.QUOTE_MINIMAL, 1, (5, 40), "\n\n", word),
    "every field quoted, 10 to 50 bytes": (csv.QUOTE_ALL, 8, (10, 50), "\n", word),
    "every field quoted, CRLF": (csv.QUOTE_ALL, 8, (10, 50), "\r\n", word),
    "every field quoted, 10 bytes": (csv.QUOTE_ALL, 8, (10, 10), "\n", word),
    "every field quoted, one column of 4 bytes": (csv.QUOTE_ALL, 1, (4, 4), "\n", word),
    "every field quoted, empty": (csv.QUOTE_ALL, 8, (0, 0), "\n", word),
    "every field quoted, with line ends and doubled quotes": (csv.QUOTE_ALL, 8, (10, 50), "\n", scraped),
    "quotes where needed, with line ends and doubled quotes": (csv.QUOTE_MINIMAL, 8, (5, 40), "\n", scraped),
    "quotes within fields that are not quoted": (csv.QUOTE_NONE, 8, (5, 40), "\n", inches),
}


PIECE_SIZE = 512 * 1024  # as a landing gives them: cut anywhere


def count_with_counter(data: bytes, repeats: int) -> int:
    counter = RecordCounter()
    pieces = [data[start : start + PIECE_SIZE] for start in range(0, len(data), PIECE_SIZE)]
    for _ in range(repeats):
        for piece in pieces:
            counter.update(piece)
    counter.finish()
    return counter.records


def count_with_csv(data: bytes, repeats: int) -> int:
    lines = io.TextIOWrapper(io.BytesIO(data * repeats), encoding="utf-8", newline="")
    return sum(1 for row in csv.reader(lines) if row)


def seconds(count: Callable[[bytes, int], int], data: bytes, repeats: int) -> tuple[float, int]:
    begun = time.process_time()
    records = count(data, repeats)
    return time.process_time() - begun, records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without-numpy", action="store_true", help="count as if numpy were not installed")
    options = parser.parse_args()
    if options.without_numpy:
        sys.modules["numpy"] = None  # type: ignore[assignment]
    else:
        import numpy  # noqa: F401
    print("| content | ours, MB/s | csv.reader, MB/s | ratio |")
    print("| --- | --- | --- | --- |")
    for name, recipe in CONTENTS.items():
        data = table_of(*recipe)
        repeats = max(1, options.megabytes * 10**6 // len(data))
        few = max(1, repeats // 50)
        ours, records = zip(*(seconds(count_with_counter, data, repeats) for _ in range(options.runs)), strict=True)
        theirs, found = seconds(count_with_csv, data, few)
        if records[0] * few != found * repeats:
            raise SystemExit(f"{name}: {records[0]} records counted, csv finds {found} in {few} of {repeats} parts")
        rate, rate_of_csv = len(data) * repeats / statistics.median(ours) / 1e6, len(data) * few / theirs / 1e6
        print(f"| {name} | {rate:.0f} | {rate_of_csv:.0f} | {rate / rate_of_csv:.1f} |")


if __name__ == "__main__":
    main()
