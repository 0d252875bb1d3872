"""Decides which requests of clients meet a fault on purpose: `mcpbridge dev --fault RULE`.

A rule is a few words: which requests it is for, what happens to them, and how often.

    tool=slow* delay=2s           the answer comes 2 s later
    tool=x error rate=0.5 seed=7  half of the calls get an error, the same ones in each run
    method=resources/read drop    no answer comes
    garbage                       the answer is cut in half, so that it is not JSON
    die                           the server process is killed while it works on the call

Every rule counts the requests that it is for, and its seed alone decides which of them it hits: the
fifth call of a run meets the same fate as the fifth call of the last one.
"""

from __future__ import annotations

import enum
import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

import msgspec

from mcpbridge.rules.access.tool_policy import TOOLS_CALL

_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s|m)\Z")
_SECONDS = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0})
_MOST_DELAY_S = 3600.0
_RATE = re.compile(r"[01]?\.[0-9]{1,9}\Z|[01]\Z")
_SEED = re.compile(r"[0-9]{1,18}\Z")
_DRAWS = 1 << 64


class Effect(enum.Enum):
    """What becomes of a request."""

    DELAY = "delay"
    """Nothing but the delay."""
    ERROR = "error"
    """An error in place of the server, which does not get the request."""
    DROP = "drop"
    """The server gets the request, and its answer is left out."""
    GARBAGE = "garbage"
    """The server gets the request, and its answer is cut in half."""
    DIE = "die"
    """The server gets the request, and its process is killed."""


class FaultRule(msgspec.Struct, frozen=True):
    """One rule; patterns are those of file names, and case counts."""

    text: str
    """The rule as it was written."""
    effect: Effect
    server: str = "*"
    """Pattern of the server's name."""
    method: str = TOOLS_CALL
    """Pattern of the request's method."""
    tool: str | None = None
    """Pattern of the tool's name; None: every request of that method."""
    delay_s: float = 0.0
    """Seconds between the request, or its answer, and what the client gets."""
    rate: float = 1.0
    """The part of the requests that it hits."""
    seed: int = 0

    def __str__(self) -> str:
        return self.text

    def is_for(self, method: str, name: str | None) -> bool:
        """Return whether the rule is for requests of this method and with this `params.name`."""
        if not fnmatch.fnmatchcase(method, self.method):
            return False
        return self.tool is None or (name is not None and fnmatch.fnmatchcase(name, self.tool))

    def hits(self, number: int) -> bool:
        """Return whether the rule hits the request of this number among those that it is for."""
        if self.rate >= 1:
            return True
        drawn = hashlib.blake2b(b"%d:%d" % (self.seed, number), digest_size=8).digest()
        return int.from_bytes(drawn) < self.rate * _DRAWS


class FaultPlan:
    """The rules for one server, and how many requests each of them has counted."""

    def __init__(self, rules: Iterable[FaultRule], server: str) -> None:
        """Make a plan of those rules that are for the server of this name."""
        self.rules = [each for each in rules if fnmatch.fnmatchcase(server, each.server)]
        self._counts = [0] * len(self.rules)

    def next(self, method: str, name: str | None) -> FaultRule | None:
        """Return the first rule that hits the next request, or None if it is left alone.

        Args:
            method: The method of the request.
            name: Its `params.name`; None if it has none.
        """
        found: FaultRule | None = None
        for at, rule in enumerate(self.rules):
            if rule.is_for(method, name):
                self._counts[at] += 1
                # Every rule counts, whichever comes first: each of them is repeatable by itself.
                if found is None and rule.hits(self._counts[at]):
                    found = rule
        return found


def fault_rule(text: str) -> FaultRule:
    """Parse a rule.

    Raises:
        ValueError: The rule is wrong; the text names the part, and what would be right.
    """
    found: dict[str, object] = {}
    effects = []
    for word in text.split():
        name, equals, value = word.partition("=")
        read = _VALUES.get(name) if equals else None
        if read is not None:
            if name in found:
                raise ValueError(f"{name}= is given twice")
            found[name] = read(word, value)
        elif word in _EFFECTS:
            effects.append(word)
        else:
            _refuse(word, f"is unknown (expected {_FORMS})")
    if len(effects) > 1:
        raise ValueError(f"{' and '.join(effects)} exclude each other; write two rules")
    if not effects and "delay" not in found:
        raise ValueError(f"nothing happens: add delay=2s, {', '.join(_EFFECTS)}")
    if "tool" in found and "method" in found:
        raise ValueError("tool= and method= exclude each other: tool= means tools/call")
    if "seed" in found and "rate" not in found:
        raise ValueError("seed= needs rate=: without it every request is hit")
    fields = {_FIELDS.get(name, name): value for name, value in found.items()}
    return FaultRule(text, Effect(effects[0]) if effects else Effect.DELAY, **fields)  # type: ignore[arg-type]


def _refuse(word: str, problem: str) -> NoReturn:
    raise ValueError(f"{word!r} {problem}")


def _pattern(word: str, value: str) -> str:
    if not value:
        _refuse(word, "names nothing; write a name, or a pattern such as read_*")
    return value


def _delay(word: str, value: str) -> float:
    match = _DURATION.match(value)
    if match is None:
        _refuse(word, "is not a duration; write delay=2s, delay=500ms or delay=1m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _MOST_DELAY_S:
        _refuse(word, f"is too long (expected at most {_MOST_DELAY_S / 60:g}m)")
    return seconds


def _rate(word: str, value: str) -> float:
    rate = float(value) if _RATE.match(value) else 2.0
    if not 0 < rate <= 1:
        _refuse(word, "is not a rate; write a number above 0 and up to 1, as in rate=0.5")
    return rate


def _seed(word: str, value: str) -> int:
    if _SEED.match(value) is None:
        _refuse(word, "is not a seed; write a whole number, as in seed=7")
    return int(value)


_VALUES: Mapping[str, Callable[[str, str], object]] = MappingProxyType(
    {
        "tool": _pattern,
        "method": _pattern,
        "server": _pattern,
        "delay": _delay,
        "rate": _rate,
        "seed": _seed,
    }
)
_FIELDS: Mapping[str, str] = MappingProxyType({"delay": "delay_s"})
_EFFECTS: Sequence[str] = tuple(each.value for each in Effect if each is not Effect.DELAY)
_FORMS = f"{', '.join(f'{name}=' for name in _VALUES)}, {', '.join(_EFFECTS)}"
