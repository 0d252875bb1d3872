"""The picture of the three uses: `python -m scripts.picture docs/images/uses.svg` writes it.

An SVG of plain shapes and text on a light ground, so that it can be read on GitHub and on a package
index in either colour scheme.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

USES = (
    ("On your laptop", "your machine", "editor, agent, script", "mcpbridge -- python server.py"),
    ("In a container", "a container", "other hosts", 'CMD ["--", "python", "server.py"]'),
    ("In Kubernetes", "a pod", "Service my-server", "kubectl apply -k deploy/wrap"),
)
"""Of each use: its title, what holds bridge and server, who calls, and what starts it."""
WIDTH, ROW, MARGIN = 860, 132, 16
_INK, _FAINT, _BRIDGE, _SERVER = "#1f2933", "#6b7785", "#dbeafe", "#e7f5e6"
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
_MONO = "font-family='ui-monospace, SFMono-Regular, Menlo, Consolas, monospace'"


def picture() -> str:
    """The picture as SVG, ending with a newline."""
    height = len(USES) * ROW + MARGIN
    rows = "".join(_row(number * ROW + MARGIN, *use) for number, use in enumerate(USES))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img'"
        f" {_FONT} font-size='15'>\n"
        "<title>Three uses of mcpbridge: on a laptop, in a container, in Kubernetes</title>\n"
        "<defs><marker id='arrow' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8'"
        " markerHeight='8' orient='auto-start-reverse'>"
        f"<path d='M0 0 L8 4 L0 8 z' fill='{_INK}'/></marker></defs>\n"
        f"<rect width='{WIDTH}' height='{height}' rx='10' fill='#ffffff'/>\n{rows}</svg>\n"
    )


def _row(top: int, title: str, around: str, callers: str, command: str) -> str:
    middle = top + 62
    parts = [
        _text(24, top + 20, title, weight="600"),
        _box(24, middle - 22, 170, 44, "#f3f4f6"),
        _text(109, middle + 5, callers, anchor="middle"),
        _arrow(194, 342, middle, "HTTP"),
        f"<rect x='326' y='{top + 8}' width='510' height='108' rx='10' fill='none'"
        f" stroke='{_FAINT}' stroke-dasharray='5 4'/>\n",
        _text(824, top + 26, around, anchor="end", ink=_FAINT),
        _box(344, middle - 22, 130, 44, _BRIDGE),
        _text(409, middle + 5, "mcpbridge", anchor="middle", weight="600"),
        _arrow(474, 648, middle, "stdin, stdout"),
        _box(650, middle - 22, 130, 44, _SERVER),
        _text(715, middle + 5, "your server", anchor="middle"),
        f"<g {_MONO} font-size='13'>{_text(344, top + 106, command, ink=_FAINT)}</g>\n",
    ]
    return "".join(parts)


def _box(left: int, top: int, width: int, height: int, fill: str) -> str:
    size = f"x='{left}' y='{top}' width='{width}' height='{height}'"
    return f"<rect {size} rx='6' fill='{fill}' stroke='{_INK}'/>\n"


def _arrow(start: int, end: int, height: int, label: str) -> str:
    line = f"x1='{start + 4}' x2='{end - 2}' y1='{height}' y2='{height}'"
    ends = "marker-start='url(#arrow)' marker-end='url(#arrow)'"
    middle = (start + end) // 2
    return f"<line {line} stroke='{_INK}' {ends}/>\n" + _text(
        middle, height - 8, label, anchor="middle", ink=_FAINT
    )


def _text(
    left: int, base: int, words: str, *, anchor: str = "start", weight: str = "400", ink: str = _INK
) -> str:
    style = f"text-anchor='{anchor}' font-weight='{weight}' fill='{ink}'"
    return f"<text x='{left}' y='{base}' {style}>{escape(words)}</text>\n"


def main() -> None:
    """Write the picture to the file named on the command line."""
    Path(sys.argv[1]).write_text(picture(), "utf-8")


if __name__ == "__main__":
    main()
