"""Statements about an endpoint, each with what follows where it fails; and all of them together."""

from __future__ import annotations

import enum

import msgspec

_WIDTH = 6


class Mark(enum.Enum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing fails by it."""
    FAILED = "failed"


class Check(msgspec.Struct, frozen=True):
    """One statement about an endpoint."""

    name: str
    """A word that programs match on."""
    mark: Mark
    words: str
    then: str | None = None
    """What the asking side does about it."""


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """Every check of one visit to an endpoint."""

    url: str
    guise: str | None
    """As whom it was asked."""
    good: bool
    attempts: int
    checks: tuple[Check, ...]

    def as_json(self) -> str:
        """One JSON object, indented."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def in_words(self) -> str:
        """The verdict for a person, several lines."""
        whom = f", asked as {self.guise}" if self.guise else ""
        lines = [f"{self.url}{whom}", ""]
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
    """`1 tool`, `2 tools`."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


class Stopped(Exception):
    """A check failed that the rest would rest on."""

    def __init__(self, *, transient: bool) -> None:
        super().__init__(transient)
        self.transient = transient
        """Trying again later may help."""


class Findings:
    """The checks of one attempt, in their order."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    @property
    def good(self) -> bool:
        """No check failed."""
        return all(check.mark is not Mark.FAILED for check in self.checks)

    def passed(self, name: str, words: str) -> None:
        """A check that came out well."""
        self.checks.append(Check(name, Mark.OK, words))

    def note(self, name: str, words: str, then: str | None = None) -> None:
        """Something worth knowing."""
        self.checks.append(Check(name, Mark.NOTE, words, then))

    def failed(self, name: str, words: str, then: str | None = None) -> None:
        """A check that failed, while the rest goes on."""
        self.checks.append(Check(name, Mark.FAILED, words, then))

    def stop(self, name: str, words: str, then: str, *, transient: bool = False) -> Stopped:
        """A check that failed and ends the attempt; to be raised."""
        self.failed(name, words, then)
        return Stopped(transient=transient)
