"""One row for each acceptance test: its figures, and what each has to reach."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much is done."""

    full: bool
    seconds: float
    """For a test that lasts and does not count."""
    calls: int
    fuzzed: int
    streams: int
    restarts: int


SHORT = Size(full=False, seconds=10, calls=1200, fuzzed=2000, streams=400, restarts=1)


def full(seconds: float) -> Size:
    """Return the sizes of the acceptance table."""
    return Size(True, seconds, calls=20_000, fuzzed=100_000, streams=5000, restarts=20)


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    name: str
    value: object
    reach: str
    good: bool

    def __str__(self) -> str:
        return f"{self.name} {self.value} (reach: {self.reach})"


def equal(name: str, value: object, wanted: object) -> Figure:
    """Return a figure that must be exactly so."""
    return Figure(name, value, str(wanted), value == wanted)


def at_most(name: str, value: float, bound: float) -> Figure:
    """Return a figure with an upper bound."""
    return Figure(name, value, f"at most {bound}", value <= bound)


def at_least(name: str, value: float, bound: float) -> Figure:
    """Return a figure with a lower bound: a test of nothing reaches all others."""
    return Figure(name, value, f"at least {bound}", value >= bound)


@dataclass(frozen=True)
class Row:
    """One test of the table."""

    number: str
    test: str
    run: Callable[[Size], Awaitable[Sequence[Figure]]]
    only_full: bool = False
    """Needs an idle machine, or counts so high that fixed costs do not show."""


def show(row: Row, figures: Sequence[Figure], seconds: float) -> bool:
    """Print a row; return whether all of its figures reach what they have to."""
    good = all(figure.good for figure in figures)
    word = "reached" if good else "MISSED "
    text = "; ".join(map(str, figures))
    print(f"{row.number:>5}  {word}  {row.test}: {text} [{seconds:.0f} s]", flush=True)
    return good


def detail(what: str, facts: object) -> None:
    """Print what helps to find out why a row is missed."""
    print(f"     {what}: {json.dumps(facts, default=str)[:2000]}", flush=True)
