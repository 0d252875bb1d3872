"""Parses the texts of settings, and formats values for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mcpbridge.errors import ConfigError
from mcpbridge.settings import Setting, Unit

_DURATION = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)\Z"
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = r"(?i)([0-9]+)(B|KiB|MiB|GiB|KB|MB|GB|)\Z"
_BYTES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
          "kb": 10**3, "mb": 10**6, "gb": 10**9}  # fmt: skip
# `int()` would also accept `1_000` and the digits of every script.
_INTEGER = r"[+-]?[0-9]{1,18}\Z"


def seconds(text: str) -> float:
    """Parse `90`, `500ms`, `30s`, `5m` or `1h` into seconds.

    Raises:
        ValueError: Not a duration; the text completes a sentence that begins with the value.
    """
    match = re.match(_DURATION, text.strip())
    if match is None:
        raise ValueError("is not a duration; write 30s, 500ms, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """Parse `4096`, `64KiB` or `4MiB` into bytes.

    Raises:
        ValueError: Not a size; the text is as for `seconds`.
    """
    match = re.match(_SIZE, text.strip())
    if match is None:
        raise ValueError("is not a size; write 65536, 64KiB or 4MiB")
    return int(match[1]) * _BYTES[match[2].lower()]


def whole_number(text: str) -> int:
    """Parse an integer such as `16`.

    Raises:
        ValueError: Not an integer; the text is as for `seconds`.
    """
    if re.match(_INTEGER, text.strip()) is None:
        raise ValueError("is not a whole number")
    return int(text)


def switch(text: str) -> bool:
    """Parse `true`, `yes`, `on`, `1` or their opposites.

    Raises:
        ValueError: Neither; the text is as for `seconds`.
    """
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("is not a switch; write true or false")


_READERS: dict[Unit, Callable[[str], object]] = {
    Unit.TEXT: str,
    Unit.INTEGER: whole_number,
    Unit.SECONDS: seconds,
    Unit.BYTES: size,
    Unit.SWITCH: switch,
}


def value_of(facts: Setting, text: str, origin: str) -> Any:
    """Parse the value of a setting; of a repeatable one, a single value.

    Args:
        facts: The setting.
        text: The text.
        origin: The text's origin, for the error.

    Raises:
        ConfigError: The text cannot be parsed, is not one of the choices, or the value is too small
            or too large.
    """

    def wrong(problem: str) -> ConfigError:
        return ConfigError(facts.flag, origin, problem if facts.secret else f"{text!r} {problem}")

    if facts.choices and text not in facts.choices:
        raise wrong(f"is not one of {', '.join(facts.choices)}")
    try:
        value = (facts.parse or _READERS[facts.unit])(text)
    except ValueError as error:
        raise wrong(str(error)) from None
    if facts.minimum is not None and isinstance(value, int | float) and value < facts.minimum:
        raise wrong(f"is less than {shown(facts.minimum, facts.unit)}")
    if facts.maximum is not None and isinstance(value, int | float) and value > facts.maximum:
        raise wrong(f"is more than {shown(facts.maximum, facts.unit)}")
    return value


def shown(value: Any, unit: Unit) -> str:
    """Format a value as an operator would write it; empty for None, off and an empty list."""
    if value is None or value is False or value == ():
        return ""
    if unit is Unit.SECONDS:
        return _shown_seconds(float(value))
    if unit is Unit.BYTES:
        for name, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value and value % factor == 0:
                return f"{int(value) // factor}{name}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(getattr(value, "value", value))


def _shown_seconds(value: float) -> str:
    for name, factor in (("h", 3600), ("m", 60), ("s", 1)):
        if value >= factor and value % factor == 0:
            return f"{int(value) // factor}{name}"
    return f"{value * 1000:g}ms" if 0 < value < 1 else f"{value:g}s"
