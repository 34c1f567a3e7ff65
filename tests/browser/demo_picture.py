"""
Draws what `make demo` printed as an animated terminal, for the README: ``make demo-picture``.

Reads the demo's output, and writes an SVG that needs no script and no font: its lines appear one after the other, again
and again. A viewer that does not animate shows them all.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 104
COLUMN_WIDTH, LINE_HEIGHT = 7.8, 20
TOP, LEFT = 52, 20
LONGEST_PAUSE, SHORTEST_PAUSE = 1.4, 0.25
"""Seconds between two lines in the picture, however long the demo took."""
SECONDS_AT_THE_END = 6.0

_TIMED = re.compile(r"^ ?(\d+):(\d\d)  (?:(start|wait|land) +)?(.*)$")
_STYLE = """
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d5d9e0; }
.time { fill: #7b8494; } .start { fill: #6cb6ff; } .wait { fill: #d2a8ff; } .land { fill: #7ee787; }
.state { font-weight: bold; } .command { fill: #ffffff; font-weight: bold; }
@media (prefers-reduced-motion: reduce) { text { animation: none !important; } }
"""


def picture(output: str) -> str:
    """
    Return the SVG.

    :param output: What the demo printed.
    """
    lines = [line.replace(f"{ROOT}/", "") for line in output.splitlines() if line.strip()]
    seconds = delays(lines)
    whole = seconds[-1] + SECONDS_AT_THE_END
    width = round(2 * LEFT + COLUMNS * COLUMN_WIDTH)
    height = TOP + LINE_HEIGHT * (len(lines) + 1)
    texts = [text("$ make demo", 0, 0.0, whole)]
    texts += [text(line, row, delay, whole) for row, (line, delay) in enumerate(zip(lines, seconds, strict=True), 1)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img" aria-label="make demo, in a terminal: a job is started, waited for and landed">',
            f"<style>{_STYLE}{''.join(keyframes(delay, whole) for delay in sorted({0.0, *seconds}))}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>',
            *(f'<circle cx="{20 + 18 * n}" cy="18" r="5.5" fill="#{fill}"/>' for n, fill in enumerate(_LIGHTS)),
            *texts,
            "</svg>\n",
        ]
    )


_LIGHTS = ("ff5f56", "ffbd2e", "27c93f")


def delays(lines: list[str]) -> list[float]:
    """
    Return after how many seconds each line appears.

    :param lines: The lines.
    """
    found, last, now = [], 0, 0.5
    for line in lines:
        timed = _TIMED.match(line)
        at = 60 * int(timed[1]) + int(timed[2]) if timed else last
        now += min(max(at - last, SHORTEST_PAUSE), LONGEST_PAUSE)
        last = at
        found.append(round(now, 2))
    return found


def text(line: str, row: int, delay: float, whole: float) -> str:
    """
    Return a line of the terminal, with its colours.

    :param line: The line.
    :param row: How far down it is.
    :param delay: After how many seconds it appears.
    :param whole: How many seconds the picture takes.
    """
    shown = line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1].rstrip()}…"
    timed = _TIMED.match(shown)
    if timed and timed[3]:
        state = ' class="state"' if re.fullmatch(r"\w+", timed[4]) else ""
        inner = (
            f'<tspan class="time">{timed[1]:>2}:{timed[2]}</tspan>  <tspan class="{timed[3]}">{timed[3]:<6}'
            f"<tspan{state}> {escape(timed[4])}</tspan></tspan>"
        )
    elif timed:
        inner = f'<tspan class="time">{timed[1]:>2}:{timed[2]}</tspan>  {escape(timed[4])}'
    else:
        inner = f'<tspan class="command">{escape(shown)}</tspan>' if row == 0 else escape(shown)
    place = f'x="{LEFT}" y="{TOP + LINE_HEIGHT * row}" xml:space="preserve"'
    return f'<text {place} style="animation: {name(delay)} {whole:g}s step-end infinite">{inner}</text>'


def keyframes(delay: float, whole: float) -> str:
    """
    Return what makes lines appear after so many seconds, and stay.

    :param delay: The seconds.
    :param whole: How many seconds the picture takes.
    """
    return f"@keyframes {name(delay)} {{ 0% {{ opacity: 0; }} {100 * delay / whole:.2f}% {{ opacity: 1; }} }}\n"


def name(delay: float) -> str:
    """
    Return the name of an animation.

    :param delay: The seconds after which lines appear.
    """
    return f"after-{round(delay * 100)}"


if __name__ == "__main__":
    sys.stdout.write(picture(sys.stdin.read()))
