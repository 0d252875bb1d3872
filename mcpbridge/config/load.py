"""Reads the command line and the environment into one checked `Config`.

Everything is read and checked before a port is bound. Each setting is a flag and a variable
`MCPBRIDGE_*`; the flag wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mcpbridge.config.auth import (
    AUTH_TOKEN,
    STATE_KEY,
    STATE_KEY_FILE,
    check_header_env,
    check_oauth,
    check_required,
    keys_of,
    tokens_of,
)
from mcpbridge.config.command import (
    COMMAND_LINE,
    CommandSettings,
    child_of,
    no_child,
    spec_of,
    words_of,
)
from mcpbridge.config.listen_address import admin_bind_of, bind_of, handed_over, peer_bind_of
from mcpbridge.config.model import (
    Config,
    Option,
    Settings,
    ShutdownSettings,
    options,
    settings_from,
)
from mcpbridge.config.otel import otel_of
from mcpbridge.config.self_url import is_service_link
from mcpbridge.config.values import shown, value_of
from mcpbridge.errors import ConfigError
from mcpbridge.http.server.tls import check_tls
from mcpbridge.process.spec import ChildSpec
from mcpbridge.rules.access.hosts import search_list
from mcpbridge.rules.supervision.shutdown_times import KUBERNETES, default_grace_s, times_within
from mcpbridge.settings import Setting, SettingsSection, Unit

if TYPE_CHECKING:
    from mcpbridge.config.remote_server import RemoteServer

PREFIX = "MCPBRIDGE_"
_INPUT = PREFIX + "INPUT_"
"""Begins the variables that give `${input:ID}` in a file of servers its value."""

# Variables that Kubernetes sets for a Service whose name begins with `mcpbridge`.
_SERVICE_NAME = (
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)\Z"
)
_RESOLVER = Path("/etc/resolv.conf")
_KUBERNETES_LAME_DUCK_S = 5.0


def environment_names(facts: Setting) -> tuple[str, ...]:
    """Return the variables that set a setting; the first one found wins."""
    own = PREFIX + facts.flag.removeprefix("--").replace("-", "_").upper()
    return (own, *facts.also_env)


def load(
    flags: Mapping[str, Sequence[str]],
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    reads_variables: bool = True,
) -> Config:
    """Build the configuration from flags, environment and command line.

    Args:
        flags: The texts given for each flag; `true` for a switch.
        command: The arguments after `--`.
        env: The environment; by default that of this process.
        reads_variables: Variables may set what no flag does. Else the environment is only what
            the server inherits.

    Raises:
        ConfigError: A value is invalid, a variable unknown, or the command missing or given twice.
    """
    inherited = os.environ if env is None else env
    env = inherited if reads_variables else {}
    _check_variables(env)
    values: dict[tuple[str, str], Any] = {}
    origins: dict[str, dict[str, str]] = {}
    for option in options():
        texts, origin = _texts(option, flags, env)
        if texts:
            values[option.section, option.name] = _value(option, texts, origin)
            origins.setdefault(option.section, {})[option.name] = origin
    in_cluster = KUBERNETES in env
    if reads_variables:
        # The end of an application in another program is bounded by that program's server.
        grace_s = default_grace_s(ShutdownSettings().grace_s, os.getpid(), in_cluster=in_cluster)
        values.setdefault(("shutdown", "grace_s"), grace_s)
    settings = settings_from(values)
    lame_duck_s = _lame_duck_s(settings.shutdown, origins.get("shutdown", {}), in_cluster)
    find = child_of if settings.servers.config is None else no_child
    child = find(settings.command, origins.get("command", {}), command, inherited)
    bind = bind_of(settings.listen, origins.get("listen", {}), in_cluster=in_cluster)
    bind = handed_over(bind, env, os.getpid())
    admin_bind = admin_bind_of(settings.admin, origins.get("admin", {}), bind)
    check_tls(settings.tls, origins.get("tls", {}))
    check_oauth(settings.oauth, origins.get("oauth", {}))
    auth_origins = origins.get("auth", {})
    tokens = tokens_of(settings.auth, auth_origins, env)
    connects = not isinstance(child, ChildSpec)
    check_header_env(settings.auth, auth_origins, connects=connects)
    otel, missing = otel_of(settings.traces, origins.get("traces", {}), env)
    config = Config(
        *(settings, child, bind, admin_bind, otel, missing, lame_duck_s, *keys_of(env), *tokens),
        search=_search() if in_cluster else (),
    )
    check_required(settings.auth, auth_origins, asks=config.asks_who)
    peer_bind = peer_bind_of(config, origins.get("replicas", {}), env)
    return msgspec.structs.replace(config, peer_bind=peer_bind)


def is_given(names: Collection[str], flags: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a flag of these names is given, or a variable in its place."""
    return any(
        _texts(option, flags, os.environ)[0] for option in options() if option.setting.flag in names
    )


def _check_variables(env: Mapping[str, str]) -> None:
    """Refuse unknown variables: a misspelt one would silently have no effect."""
    known = {environment_names(option.setting)[0] for option in options()}
    known |= {STATE_KEY, STATE_KEY_FILE, AUTH_TOKEN}
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in known or not env[name]:
            continue
        if name.startswith(_INPUT):
            continue
        if re.match(_SERVICE_NAME, name.removeprefix(PREFIX)):
            continue
        import difflib  # for a mistake alone

        (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise ConfigError(name, "", "no such setting", f"did you mean {nearest}?")


def _texts(
    option: Option, flags: Mapping[str, Sequence[str]], env: Mapping[str, str]
) -> tuple[Sequence[str], str]:
    facts = option.setting
    if facts.flag in flags:
        return flags[facts.flag], COMMAND_LINE
    for name in environment_names(facts):
        text = env.get(name, "")
        if text and not is_service_link(text):
            return (_separate(facts, text, name) if facts.repeatable else [text]), name
    return (), ""


def _search() -> tuple[str, ...]:
    try:
        return search_list(_RESOLVER.read_text("utf-8", "replace"))
    except OSError:
        return ()


def _separate(facts: Setting, text: str, origin: str) -> list[str]:
    """Split one variable into the texts of a repeatable setting."""
    if not facts.quoted:
        return text.replace(",", " ").split()
    return words_of(text, facts.flag, origin)


def _value(option: Option, texts: Sequence[str], origin: str) -> Any:
    read = [value_of(option.setting, text, origin) for text in texts]
    return tuple(read) if option.setting.repeatable else read[-1]


def _lame_duck_s(settings: ShutdownSettings, origins: Mapping[str, str], in_cluster: bool) -> float:
    """Return the seconds to serve after the first signal; by default no more than calls allow."""
    cutoff_s = times_within(settings.grace_s).cutoff_s
    asked_s = settings.lame_duck_s
    if asked_s is None:
        return min(_KUBERNETES_LAME_DUCK_S, cutoff_s / 2) if in_cluster else 0.0
    if asked_s > 0 and asked_s >= cutoff_s:
        asked, grace = shown(asked_s, Unit.SECONDS), shown(settings.grace_s, Unit.SECONDS)
        raise ConfigError(
            "--lame-duck",
            origins.get("lame_duck_s", ""),
            f"{asked} leaves no time for calls in flight within --grace {grace}",
            f"give less than {shown(cutoff_s, Unit.SECONDS)}, or lengthen --grace",
        )
    return asked_s


def log_form(words: Sequence[str]) -> str:
    """Return the form of logs that a command line asks for, even if it is otherwise invalid."""
    flag = "--log-format"
    for number, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag and number + 1 < len(words):
            return words[number + 1]
    return os.environ.get(f"{PREFIX}LOG_FORMAT", "") or "auto"


def platform_grace_s(usual_s: float) -> float:
    """Return the grace of what runs this process, for a program whose operator sets none.

    Args:
        usual_s: The grace of Kubernetes.
    """
    return default_grace_s(usual_s, os.getpid(), in_cluster=KUBERNETES in os.environ)


T = TypeVar("T", bound=SettingsSection)


def settings_of(struct: type[T], given: Mapping[str, Sequence[str]], **defaults: Any) -> T:
    """Build one struct of settings from flags and from the variables that platforms set.

    Args:
        struct: A section of settings.
        given: The texts given for each field, by its name.
        defaults: Values in place of the defaults of the struct.

    Raises:
        ConfigError: A value is invalid.
    """
    values: dict[str, Any] = dict(defaults)
    for field, facts in struct.SETTINGS.items():
        texts, origin = given.get(field, ()), COMMAND_LINE
        for name in facts.also_env:
            if not texts and os.environ.get(name):
                texts, origin = [os.environ[name]], name
        if texts:
            read = [value_of(facts, text, origin) for text in texts]
            values[field] = tuple(read) if facts.repeatable else read[-1]
    return struct(**values)


def spec_for(given: Mapping[str, Sequence[str]], command: Sequence[str]) -> ChildSpec:
    """Return the command to start, from flags alone.

    Args:
        given: The texts given for each field of `CommandSettings`, by its name.
        command: The arguments after `--`.

    Raises:
        ConfigError: A value is invalid, or the command is missing or given twice.
    """
    origins = dict.fromkeys(given, COMMAND_LINE)
    return spec_of(settings_of(CommandSettings, given), origins, command, os.environ)


def source_of(name: str, file: str | None) -> ChildSpec | RemoteServer:
    """Return what is started, or reached, for a server of a file.

    Args:
        name: The name of its entry.
        file: The path of the file; None: the one in this folder.

    Raises:
        ConfigError: There is no such file or entry, or it cannot be served.
    """
    # For several servers alone.
    from mcpbridge.config.servers_file import (
        FILE_NAMES,
        FailedEntry,
        find_servers_file,
        read_servers_file,
    )

    path = Path(file) if file is not None else find_servers_file(Path())
    if path is None:
        problem = f"{name!r} is not a URL, and this folder has none of {', '.join(FILE_NAMES)}"
        remedy = "give http://HOST:PORT/mcp, --config FILE, or a command after --"
        raise ConfigError("NAME", "", problem, remedy)
    found = read_servers_file(path, Settings(), dict(os.environ)).servers
    entry = found.get(name)
    if entry is None:
        problem = f"unknown server {name!r} (servers: {', '.join(found)})"
        raise ConfigError("NAME", str(path), problem, "give one of them, or http://HOST:PORT/mcp")
    if isinstance(entry, FailedEntry):
        raise ConfigError(entry.field, str(path), f"{name}: {entry.problem}", entry.remedy)
    return entry.source
