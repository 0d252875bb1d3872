"""Reads the command line and the environment into one checked `Config`.

Everything is read and checked before a port is bound. Each setting is a flag and a variable
`MCPBRIDGE_*`; the flag wins.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcpbridge.config.model import (
    Bind,
    Config,
    Option,
    Settings,
    cutoff_after_s,
    options,
    settings_from,
)
from mcpbridge.errors import ConfigError
from mcpbridge.process.spec import ChildSpec, child_environment
from mcpbridge.settings import Setting, Unit

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB|KB|MB|GB|)\Z", re.IGNORECASE)
_BYTES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
          "kb": 10**3, "mb": 10**6, "gb": 10**9}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KUBERNETES_LAME_DUCK_S = 5.0


def environment_names(facts: Setting) -> tuple[str, ...]:
    """The variables that set a setting, the first found wins."""
    own = "MCPBRIDGE_" + facts.flag.removeprefix("--").replace("-", "_").upper()
    return (own, *facts.also_env)


def load(
    flags: Mapping[str, Sequence[str]], command: Sequence[str], env: Mapping[str, str] | None = None
) -> Config:
    """The configuration that flags, environment and command line ask for.

    Args:
        flags: Texts given for each flag; a switch has the text `true`.
        command: What stood after `--`.
        env: The environment; the process's own by default.

    Raises:
        ConfigError: A value is wrong, or there is no command, or there are two.
    """
    env = os.environ if env is None else env
    values: dict[tuple[str, str], Any] = {}
    for option in options():
        texts, origin = _texts(option, flags, env)
        if texts:
            values[option.section, option.name] = _value(option, texts, origin)
    settings = settings_from(values)
    in_cluster = "KUBERNETES_SERVICE_HOST" in env
    lame_duck_s = settings.shutdown.lame_duck_s
    if lame_duck_s is None:
        lame_duck_s = _KUBERNETES_LAME_DUCK_S if in_cluster else 0.0
    _check_shutdown(settings.shutdown.grace_s, lame_duck_s)
    child = _child(settings, command, env)
    return Config(settings, child, _bind(settings, in_cluster), lame_duck_s)


def seconds(text: str) -> float:
    """`90`, `500ms`, `30s`, `5m`, `1h` as seconds."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise ValueError("is no time; write 30s, 500ms, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def size(text: str) -> int:
    """`4096`, `64KiB`, `4MiB` as bytes."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise ValueError("is no size; write 65536, 64KiB or 4MiB")
    return int(match[1]) * _BYTES[match[2].lower()]


def _texts(
    option: Option, flags: Mapping[str, Sequence[str]], env: Mapping[str, str]
) -> tuple[Sequence[str], str]:
    flag = option.setting.flag
    if flag in flags:
        return flags[flag], "the command line"
    for name in environment_names(option.setting):
        if env.get(name, "") != "":
            text = env[name]
            repeated = option.setting.repeatable
            return (text.replace(",", " ").split() if repeated else [text]), name
    return (), ""


def _value(option: Option, texts: Sequence[str], origin: str) -> Any:
    read = [_one_value(option.setting, text, origin) for text in texts]
    return tuple(read) if option.setting.repeatable else read[-1]


def _one_value(facts: Setting, text: str, origin: str) -> Any:
    def wrong(problem: str) -> ConfigError:
        return ConfigError(facts.flag, origin, f"{text!r} {problem}")

    if facts.choices and text not in facts.choices:
        raise wrong(f"is none of {', '.join(facts.choices)}")
    try:
        value = _READERS[facts.unit](text) if facts.parse is None else facts.parse(text)
    except ValueError as error:
        generic = "is no number" if facts.unit is Unit.INTEGER else "is not understood"
        raise wrong(str(error) if str(error).startswith("is no") else generic) from None
    if facts.minimum is not None and isinstance(value, int | float) and value < facts.minimum:
        raise wrong(f"is less than {facts.minimum:g}")
    return value


def _switch(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("is no switch; write true or false")


_READERS: dict[Unit, Callable[[str], object]] = {
    Unit.TEXT: str,
    Unit.INTEGER: int,
    Unit.SECONDS: seconds,
    Unit.BYTES: size,
    Unit.SWITCH: _switch,
}


def _child(settings: Settings, command: Sequence[str], env: Mapping[str, str]) -> ChildSpec:
    text = settings.command.stdio
    if command and text is not None:
        raise ConfigError("--stdio", "", "a command stands after -- as well", "give only one")
    if text is not None:
        try:
            command = shlex.split(text)
        except ValueError as error:
            raise ConfigError("--stdio", "", f"cannot be split: {error}") from None
    if not command:
        raise ConfigError(
            "command",
            "",
            "no MCP server to start",
            "put its command after --, as in: mcpbridge --port 8000 -- python server.py",
        )
    cwd = settings.command.cwd
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigError("--cwd", "", f"{cwd!r} is no folder")
    return ChildSpec(tuple(command), child_environment(env, _added(settings)), cwd)


def _added(settings: Settings) -> dict[str, str]:
    added: dict[str, str] = {}
    if (name := settings.command.env_file) is not None:
        try:
            lines = Path(name).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("--env-file", "", f"{name!r} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                added.update([_assignment(line.strip(), f"--env-file {name}:{number}")])
    for text in settings.command.env:
        added.update([_assignment(text, "--env")])
    return added


def _assignment(text: str, where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or _NAME.match(name) is None:
        # The text is not repeated: what was meant as a value may be a secret.
        raise ConfigError(where, "", "is not of the form NAME=VALUE")
    return name, value


def _check_shutdown(grace_s: float, lame_duck_s: float) -> None:
    if lame_duck_s >= cutoff_after_s(grace_s):
        raise ConfigError(
            "--lame-duck",
            "",
            f"{lame_duck_s:g} s leaves no time for calls in flight within --grace {grace_s:g} s",
            "shorten it or lengthen --grace",
        )


def _bind(settings: Settings, in_cluster: bool) -> Bind:
    listen = settings.listen
    host, port = listen.host, listen.port
    if listen.listen is not None:
        name, colon, number = listen.listen.rpartition(":")
        if not colon or not number.isdecimal():
            raise ConfigError("--listen", "", f"{listen.listen!r} is not of the form HOST:PORT")
        host, port = name.strip("[]") or "0.0.0.0", int(number)
    if port > 65535:
        raise ConfigError("--port", "", f"{port} is no port", "1 to 65535, or 0 for a free one")
    if host is not None:
        return Bind(host, port, "as asked for")
    if in_cluster:
        return Bind("0.0.0.0", port, "KUBERNETES_SERVICE_HOST is set: probes come from outside")
    if os.getpid() == 1:
        return Bind("0.0.0.0", port, "process 1 of a container: its ports are reached from outside")
    return Bind("127.0.0.1", port, "only this machine may connect; --host opens it to others")
