"""Defines the checks of an endpoint, each with its consequence, and the report of all of them."""

from __future__ import annotations

import enum

import msgspec

_WIDTH = 6


class Mark(enum.Enum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, but not a failure."""
    FAILED = "failed"


class Check(msgspec.Struct, frozen=True):
    """One statement about an endpoint."""

    name: str
    """A word for programs."""
    mark: Mark
    words: str
    then: str | None = None
    """The consequence for the client or operator."""


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of one run against an endpoint."""

    url: str
    operator: str | None
    """The operator whose checks were made, if any."""
    good: bool
    attempts: int
    checks: tuple[Check, ...]

    def as_json(self) -> str:
        """Return the report as one JSON object, indented."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def in_words(self) -> str:
        """Return the report as text of several lines."""
        role = f", asked as {self.operator}" if self.operator else ""
        lines = [f"{self.url}{role}", ""]
        for check in self.checks:
            mark = check.mark.value
            lines.append(
                f"{mark.upper() if check.mark is Mark.FAILED else mark:<{_WIDTH}}  {check.words}"
            )
            if check.then is not None:
                lines.append(f"{'':<{_WIDTH}}  → {check.then}")
        tries = f" at attempt {self.attempts}" if self.attempts > 1 else ""
        lines += ["", f"Every check passed{tries}." if self.good else "It does not pass."]
        return "\n".join(lines)


def counted(number: int, things: str) -> str:
    """Return a number with a noun, such as `1 tool` or `2 tools`."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


class Stopped(Exception):
    """A failed check without which the remaining ones make no sense."""

    def __init__(self, *, transient: bool) -> None:
        super().__init__(transient)
        self.transient = transient
        """Whether another attempt may succeed."""


class Findings:
    """The checks of one attempt, in order."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    @property
    def good(self) -> bool:
        """Whether no check failed."""
        return all(check.mark is not Mark.FAILED for check in self.checks)

    def passed(self, name: str, words: str) -> None:
        """Record a check that passed."""
        self.checks.append(Check(name, Mark.OK, words))

    def note(self, name: str, words: str, then: str | None = None) -> None:
        """Record something worth knowing."""
        self.checks.append(Check(name, Mark.NOTE, words, then))

    def failed(self, name: str, words: str, then: str | None = None) -> None:
        """Record a failed check; the others continue."""
        self.checks.append(Check(name, Mark.FAILED, words, then))

    def stop(self, name: str, words: str, then: str, *, transient: bool = False) -> Stopped:
        """Record a failed check and return the exception that ends the attempt, for `raise`."""
        self.failed(name, words, then)
        return Stopped(transient=transient)
