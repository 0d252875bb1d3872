"""The texts of settings: what people write, and how a value is shown to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mcpbridge.errors import ConfigError
from mcpbridge.settings import Setting, Unit

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB|KB|MB|GB|)\Z", re.IGNORECASE)
_BYTES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
          "kb": 10**3, "mb": 10**6, "gb": 10**9}  # fmt: skip
# Python itself would take `1_000` and the digits of every script.
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")


def seconds(text: str) -> float:
    """`90`, `500ms`, `30s`, `5m`, `1h` as seconds.

    Raises:
        ValueError: It is no time; the text completes a sentence that begins with the value.
    """
    match = _DURATION.match(text.strip())
    if match is None:
        raise ValueError("is no time; write 30s, 500ms, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """`4096`, `64KiB`, `4MiB` as bytes.

    Raises:
        ValueError: It is no size; as for `seconds`.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise ValueError("is no size; write 65536, 64KiB or 4MiB")
    return int(match[1]) * _BYTES[match[2].lower()]


def whole_number(text: str) -> int:
    """`16` as a number.

    Raises:
        ValueError: It is none; as for `seconds`.
    """
    if _INTEGER.match(text.strip()) is None:
        raise ValueError("is no whole number")
    return int(text)


def switch(text: str) -> bool:
    """`true`, `yes`, `on`, `1` and their opposites.

    Raises:
        ValueError: It is neither; as for `seconds`.
    """
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("is no switch; write true or false")


_READERS: dict[Unit, Callable[[str], object]] = {
    Unit.TEXT: str,
    Unit.INTEGER: whole_number,
    Unit.SECONDS: seconds,
    Unit.BYTES: size,
    Unit.SWITCH: switch,
}


def value_of(facts: Setting, text: str, origin: str) -> Any:
    """The value that a text gives a setting; one of several where it is repeatable.

    Args:
        facts: The setting.
        text: What was written.
        origin: Where, for the error.

    Raises:
        ConfigError: It cannot be read, is none of the choices, is too small or too
            large.
    """

    def wrong(problem: str) -> ConfigError:
        return ConfigError(facts.flag, origin, f"{text!r} {problem}")

    if facts.choices and text not in facts.choices:
        raise wrong(f"is none of {', '.join(facts.choices)}")
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
    """A value as a person would write it; empty for none, off and an empty list."""
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
