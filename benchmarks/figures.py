"""Figures: one JSON line each for programs, one table with goals for people."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import median

WIDTH = 110
PACKAGES = ("mcpbridge", "uvicorn", "httptools", "uvloop", "starlette", "msgspec")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, in some rounds, and what it may be at most."""

    row: str
    """The row of the table of goals that it belongs to."""
    name: str
    unit: str
    rounds: Sequence[float]
    """What each round gave; empty if nothing could be measured, which the note explains."""
    at_most: float | None = None
    """The goal; None for a figure that only stands beside others."""
    aim: float | None = None
    """What is hoped for beyond the goal."""
    note: str = ""
    obstacle: str = ""
    """What profiles show to stand in the way of the goal; told where it is not met."""

    @property
    def value(self) -> float:
        """The median of the rounds; not a number without any."""
        return median(self.rounds) if self.rounds else nan

    @property
    def met(self) -> bool | None:
        """Whether it is within its goal; None without a goal or a measurement."""
        return self.value <= self.at_most if self.rounds and self.at_most is not None else None

    def line(self) -> str:
        """The figure as JSON in one line."""
        told: dict[str, object] = {
            "figure": self.name,
            "row": self.row,
            "median": round(self.value, 4) if self.rounds else None,
            "least": round(min(self.rounds), 4) if self.rounds else None,
            "unit": self.unit,
            "rounds": [round(value, 4) for value in self.rounds],
        }
        if self.at_most is not None:
            told |= {"goal": self.at_most, "met": self.met}
        if self.note:
            told["note"] = self.note
        if self.met is False:
            told["obstacle"] = self.obstacle
        return json.dumps(told)


def table(told: Sequence[Figure]) -> str:
    """The figures of all rows, each with its median, its goal and whether that is met."""
    titles = ("", "", "median", "goal", "met", "")
    cells = [titles, *(_cells(each) for each in told)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    lines, begun = [], ""
    for row in cells:
        shown = ("" if row[0] == begun else row[0], *row[1:])
        begun = row[0]
        padded = [
            text.rjust(width) if column in (2, 3) else text.ljust(width)
            for column, (text, width) in enumerate(zip(shown, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([*lines, *_obstacles(told)])


def _obstacles(told: Sequence[Figure]) -> list[str]:
    """A paragraph for each goal that is not met."""
    unmet = [each for each in told if each.met is False]
    texts = [f"{each.row}, {each.name}: {each.obstacle or 'not looked into'}" for each in unmet]
    title = ["", "What stands in the way of the goals that are not met:"] if unmet else []
    return [*title, *(textwrap.fill(text, WIDTH, subsequent_indent="    ") for text in texts)]


def _cells(each: Figure) -> tuple[str, ...]:
    unit = "" if each.unit == "1" else f" {each.unit}"
    goal = "" if each.at_most is None else f"<= {each.at_most:g}{unit}"
    notes = [each.note] if each.note else []
    if each.aim is not None and each.rounds:
        notes.append(f"aim <= {each.aim:g}{'' if each.value <= each.aim else ', not met'}")
    met = {None: "", True: "yes", False: "NO"}[each.met]
    value = f"{_spelled(each.value)}{unit}" if each.rounds else "not measured"
    return each.row, each.name, value, goal, met, "; ".join(notes)


def _spelled(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def machine(options: Mapping[str, object]) -> dict[str, object]:
    """Where and with what figures were taken."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "figure": "machine",
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "options": dict(options),
    }
