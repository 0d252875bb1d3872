"""Reads the file that lists MCP servers by name, in the form of Claude, VS Code and Cursor.

`mcpServers` and `servers` are both read, with comments and trailing commas. An error in one entry
fails that entry only; an entry's settings of mcpbridge are under its key `mcpbridge`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mcpbridge.config.model import Option, Settings, options
from mcpbridge.config.remote_server import (
    InvalidHeader,
    RemoteServer,
    header_name,
    header_value,
)
from mcpbridge.config.values import seconds, value_of
from mcpbridge.errors import ConfigError
from mcpbridge.fleet.reload import Stamp, stamp_of
from mcpbridge.process.spec import ChildSpec, child_environment, is_secret
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.expansion import ExpansionError, References, expand, input_variable
from mcpbridge.settings import Setting, Unit

MAX_FILE_BYTES = 256 << 10
"""A larger file is refused, since parsing takes 8 ms for each KiB."""
MAX_NAME_CHARACTERS = 100

FILE_NAMES = (".mcp.json", ".vscode/mcp.json", "mcp.json")
_TABLES = ("mcpServers", "servers", "context_servers")
"""The last one is Zed's."""
_URLS = ("url", "serverUrl", "httpUrl")
"""The members that have the URL of a remote server; the last two are Windsurf's and Gemini's."""
_AT = re.compile(r"<string>:(\d+) (.*) at column (\d+)", re.DOTALL)
"""How json5 says where a text is wrong, such as `<string>:12 Unexpected "x" at column 3`."""
_REMOTE_TYPES = ("http", "streamable-http", "streamableHttp", "sse")
_PROCESS_WIDE = frozenset((
    "command", "servers", "listen", "admin", "tls", "guard", "auth", "oauth", "arrival",
    "connections", "proxy", "shutdown", "logs", "traces",
))  # fmt: skip
"""Sections of `Settings` that apply to the whole process."""


class ServerEntry(msgspec.Struct, frozen=True):
    """One server of the file, complete and checked. Two equal entries need no reload."""

    name: str
    source: ChildSpec | RemoteServer
    settings: Settings
    watch: tuple[str, ...] = ()
    """Patterns of watched files, relative to the folder of the file."""
    roots: tuple[str, ...] = ()
    """Absolute folders, or URIs, that the bridge names when the server asks for roots."""
    lazy: bool = False
    """Start the server when its first call comes."""
    idle_stop_s: float | None = None
    """Seconds without a call after which to stop it; None for never."""
    default: bool = False
    """Whether `/mcp` serves this server."""
    secrets: tuple[str, ...] = ()
    """Values of its environment, headers and inputs, which logs and errors must not show."""

    def keeps_sessions(self, after: ServerEntry) -> bool:
        """Return whether sessions can stay when `after` takes its place.

        They can if nothing but what is started, or reached, is another: a session has its limits
        and rules from the settings with which its server was made.
        """
        before, source = self.source, after.source
        if isinstance(before, RemoteServer):
            same_way = isinstance(source, RemoteServer) and source.sse == before.sse
        else:
            same_way = isinstance(source, ChildSpec)
        others = (self.settings, self.roots, self.lazy, self.idle_stop_s)
        return same_way and others == (after.settings, after.roots, after.lazy, after.idle_stop_s)


class FailedEntry(msgspec.Struct, frozen=True):
    """One server of the file that cannot be served, with the reason."""

    name: str
    field: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.name}: {self.field}: {self.problem}{remedy}"


class ServersFile(msgspec.Struct, frozen=True):
    """The content of one file."""

    path: Path
    folder: Path
    """The value of `${workspaceFolder}`."""
    servers: Mapping[str, ServerEntry | FailedEntry]
    env_files: Mapping[Path, Stamp] = {}
    """What each `envFile` was when it was read, those that cannot be read included."""

    @property
    def default(self) -> str | None:
        """The name of the server behind `/mcp`: the only one, or the one marked as default."""
        if len(self.servers) == 1:
            return next(iter(self.servers))
        marked = (
            name
            for name, entry in self.servers.items()
            if isinstance(entry, ServerEntry) and entry.default
        )
        return next(marked, None)


def entry_options() -> Mapping[str, Option]:
    """Return the options of the command line that an entry may have, by their keys."""
    return {
        option.setting.flag.removeprefix("--"): option
        for option in options()
        if option.section not in _PROCESS_WIDE
    }


def find_servers_file(folder: Path) -> Path | None:
    """Return the file of a folder that lists servers, or None if there is none."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def folder_of(path: Path) -> Path:
    """Return the folder that the texts of a file are relative to: its own, or that of `.vscode`."""
    folder = path.resolve().parent
    return folder.parent if folder.name == ".vscode" else folder


def read_servers_file(
    path: Path,
    base: Settings,
    env: Mapping[str, str],
    ask: Callable[[str], str | None] = lambda prompt: None,
) -> ServersFile:
    """Read a file that lists servers.

    Args:
        path: The file.
        base: Settings for every server, which an entry may override.
        env: The environment, for references and for the servers.
        ask: Asks the operator at the terminal for an input, by its description; returns None if
            there is no terminal.

    Raises:
        ConfigError: The file cannot be read, is not JSON, or lists no servers.
    """
    content = _parsed(path)
    folder = folder_of(path)
    references = References(env, str(folder), str(Path.home()), _Inputs(content, env, ask))
    tables = [content[key] for key in _TABLES if key in content]
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(
            "--config", str(path), "no object mcpServers or servers", 'write {"mcpServers": {…}}'
        )
    found: dict[str, ServerEntry | FailedEntry] = {}
    env_files: dict[Path, Stamp] = {}
    for name, raw in (pair for table in tables for pair in table.items()):
        if name in found:
            found[name] = FailedEntry(name, "name", "two servers have this name", "rename one")
        elif not (isinstance(raw, dict) and raw.get("disabled") is True):
            found[name] = _entry(name, raw, _Reader(base, env, references, folder, env_files))
    _check_default(found)
    return ServersFile(path, folder, found, env_files)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(
                "--config", str(path), f"larger than {MAX_FILE_BYTES >> 10} KiB", "split the file"
            )
        content = _content_of(data.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError("--config", str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError("--config", str(path), f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        found = _AT.fullmatch(str(error))
        problem = f"{found[2]} (line {found[1]}, column {found[3]})" if found else str(error)
        problem = problem or "nested too deeply"
        raise ConfigError("--config", str(path), f"not JSON: {problem}") from None
    if not isinstance(content, dict):
        raise ConfigError("--config", str(path), "not an object", 'write {"mcpServers": {…}}')
    return content


def _content_of(text: str) -> Any:
    """Return the content of a JSON text, which may have comments and trailing commas.

    Raises:
        ValueError: It is not JSON, or a key is repeated.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        # Only for files that need it: it takes 0.4 MiB, and 8 ms for each KiB.
        import json5

        return json5.loads(text, allow_duplicate_keys=False)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is repeated")
    return content


class _Inputs:
    """A source of values of `${input:ID}`: `MCPBRIDGE_INPUT_ID`, else the operator, asked once."""

    def __init__(
        self, content: Mapping[str, Any], env: Mapping[str, str], ask: Callable[[str], str | None]
    ) -> None:
        inputs = content.get("inputs")
        self._declared = {
            each["id"]: each
            for each in (inputs if isinstance(inputs, list) else ())
            if isinstance(each, dict) and isinstance(each.get("id"), str)
        }
        self._env = env
        self._ask = ask
        self._known: dict[str, str | None] = {}

    def __call__(self, key: str) -> str | None:
        """Return the value of an input, or None if there is none."""
        if key not in self._known:
            self._known[key] = self._find(key)
        return self._known[key]

    def _find(self, key: str) -> str | None:
        value = self._env.get(input_variable(key))
        if value is not None:
            return value
        declared = self._declared.get(key, {})
        description = declared.get("description")
        asked = self._ask(description if isinstance(description, str) else key)
        default = declared.get("default")
        return asked or (default if isinstance(default, str) else None)


class _WrongField(Exception):
    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy


def _entry(name: str, raw: Any, reader: _Reader) -> ServerEntry | FailedEntry:
    try:
        _check_name(name)
        return reader.entry(name, raw)
    except _WrongField as error:
        return FailedEntry(name, error.field, error.problem, error.remedy)


def _check_name(name: str) -> None:
    wrong = not name or name in (".", "..") or "/" in name or not name.isprintable()
    if wrong or len(name) > MAX_NAME_CHARACTERS:
        problem = f"invalid name (expected 1 to {MAX_NAME_CHARACTERS} characters, no slash)"
        raise _WrongField("name", problem, "rename it: the name is part of its address")


def _check_default(found: dict[str, ServerEntry | FailedEntry]) -> None:
    marked = [e.name for e in found.values() if isinstance(e, ServerEntry) and e.default]
    for name in marked[1:]:
        found[name] = FailedEntry(
            name, "mcpbridge.default", f"{marked[0]} is the default already", "mark one server"
        )


def _for_one_of(raw: Mapping[str, Any]) -> str:
    """Return the remedy for an entry that has neither a command nor a URL, or more than one."""
    wanted = ("command", *_URLS)
    there = [key for key in wanted if key in raw]
    if there:
        return f"leave out all but one of {', '.join(there)}"
    import difflib  # only needed for this error

    for key in raw:
        if near := difflib.get_close_matches(key, wanted, n=1):
            return f"write {near[0]} in place of {key!r}"
    return 'write "command": "PROGRAM" or "url": "https://HOST/mcp"'


class _Reader:
    """A reader of the entries of one file."""

    def __init__(
        self,
        base: Settings,
        env: Mapping[str, str],
        references: References,
        folder: Path,
        env_files: dict[Path, Stamp],
    ) -> None:
        self._base = base
        self._env = env
        self._input_value = references.input_value
        self._references = msgspec.structs.replace(references, input_value=self._input)
        self._inputs: list[str] = []
        """The values of the inputs that the entry refers to."""
        self._folder = folder
        self._env_files = env_files
        """Gets what each `envFile` is when it is read."""

    def _input(self, key: str) -> str | None:
        value = self._input_value(key)
        self._inputs += [value] if value is not None else []
        return value

    def entry(self, name: str, raw: Any) -> ServerEntry:
        """Return the entry; raise _WrongField if it cannot be served."""
        if not isinstance(raw, dict):
            raise _WrongField("entry", "not an object", 'write {"command": …} or {"url": …}')
        urls = [key for key in _URLS if key in raw]
        if ("command" in raw) + len(urls) != 1:
            problem = "exactly one of command and url is needed"
            raise _WrongField("command", problem, _for_one_of(raw))
        source = self._remote(raw, urls[0]) if urls else self._child(raw)
        own = self._object(raw, "mcpbridge")
        dev = self._object(raw, "dev")
        watch = dev.get("watch", ())
        return ServerEntry(
            name,
            source,
            self._settings(own),
            self._texts("dev.watch", [watch] if isinstance(watch, str) else watch),
            self._roots(own),
            _choice(own, "start", ("eager", "lazy"), "eager") == "lazy",
            _duration(own, "idle-stop"),
            _flag(own, "default"),
            self._secrets(raw),
        )

    def _child(self, raw: Mapping[str, Any]) -> ChildSpec:
        _choice(raw, "type", ("stdio",), "stdio")
        command = self._text("command", raw["command"])
        if not command.strip():
            raise _WrongField("command", "is empty", "name the program that starts the server")
        argv = (command, *self._texts("args", raw.get("args", ())))
        cwd = self._path("cwd", raw["cwd"]) if raw.get("cwd") is not None else self._folder
        if not cwd.is_dir():
            raise _WrongField("cwd", f"{str(cwd)!r} is not a folder")
        added = self._env_file(raw)
        removed = []
        for name, value in self._object(raw, "env").items():
            if value is None:
                removed.append(name)
            else:
                added[name] = self._text(f"env.{name}", value)
        command_settings = self._base.command
        user = command_settings.child_user
        env = child_environment(self._env, added, command_settings.child_env_allow, user)
        env = {name: value for name, value in env.items() if name not in removed}
        return ChildSpec(
            argv,
            env,
            str(cwd),
            hidden=Secrets(tuple(pair for pair in added.items() if is_secret(*pair))),
            user=user,
            confined=command_settings.no_new_privileges
            or (user is not None and sys.platform == "linux"),
        )

    def _remote(self, raw: Mapping[str, Any], key: str) -> RemoteServer:
        kind = _choice(raw, "type", _REMOTE_TYPES, "http")
        url = self._text(key, raw[key])
        if not url.startswith(("http://", "https://")):
            raise _WrongField(key, f"invalid URL {url!r} (expected http:// or https://)")
        if "@" in url.partition("//")[2].partition("/")[0]:
            raise _WrongField(key, "a URL with credentials", "give them in headers")
        return RemoteServer(url, self._headers(raw), sse=kind == "sse")

    def _headers(self, raw: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        found: dict[str, str] = {}
        for given, value in self._object(raw, "headers").items():
            field = f"headers.{given}"
            try:
                name = header_name(given)
                if name in found:
                    raise InvalidHeader(f"{name} is given twice", "give it once")
                found[name] = header_value(name, self._text(field, value))
            except InvalidHeader as error:
                raise _WrongField(field, error.problem, error.remedy) from None
        return tuple(found.items())

    def _env_file(self, raw: Mapping[str, Any]) -> dict[str, str]:
        if raw.get("envFile") is None:
            return {}
        import dotenv  # needed with --config alone

        path = self._path("envFile", raw["envFile"])
        try:
            with path.open(encoding="utf-8-sig") as lines:
                # Before the first reading: what is written from now on is a change.
                self._env_files.setdefault(path, stamp_of(lines.fileno()))
                read = dotenv.dotenv_values(stream=lines, interpolate=False)
        except OSError as error:
            self._env_files.setdefault(path, stamp_of(path))
            raise _WrongField(
                "envFile", f"{str(path)!r} cannot be read: {error.strerror}"
            ) from None
        except UnicodeDecodeError:
            raise _WrongField("envFile", f"{str(path)!r} is not UTF-8") from None
        # The error does not repeat the value, which may be a secret.
        bare = next((name for name, value in read.items() if value is None), None)
        if bare is not None:
            raise _WrongField("envFile", f"{str(path)!r}: {bare} has no value", "write NAME=VALUE")
        return {name: value for name, value in read.items() if value is not None}

    def _settings(self, own: Mapping[str, Any]) -> Settings:
        known = {option.setting.flag.removeprefix("--"): option for option in options()}
        changed: dict[str, dict[str, Any]] = {}
        for key, value in own.items():
            if key in ("roots", "start", "idle-stop", "default"):
                continue
            option, field = known.get(key), f"mcpbridge.{key}"
            if option is None:
                raise _WrongField(field, "unknown setting", _nearest(key, known))
            if option.section in _PROCESS_WIDE:
                remedy = f"give --{key} on the command line"
                raise _WrongField(field, "is a setting of the whole process", remedy)
            changed.setdefault(option.section, {})[option.name] = _setting_value(
                option.setting, field, value
            )
        sections = {
            section: msgspec.structs.replace(getattr(self._base, section), **values)
            for section, values in changed.items()
        }
        return msgspec.structs.replace(self._base, **sections)

    def _secrets(self, raw: Mapping[str, Any]) -> tuple[str, ...]:
        values = [*self._inputs, *self._env_file(raw).values()]
        for key in ("env", "headers"):
            values += [self._text(key, each) for each in self._object(raw, key).values() if each]
        return tuple(dict.fromkeys(value for value in values if value))

    def _object(self, raw: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = raw.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _WrongField(key, "not an object")
        return value

    def _text(self, field: str, value: Any) -> str:
        # Many people write numbers without quotes; they mean their digits.
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _WrongField(field, "not a text")
        try:
            text = expand(str(value), self._references)
        except ExpansionError as error:
            raise _WrongField(field, f"{error.reference}: {error.problem}", error.remedy) from None
        if "\0" in text:
            raise _WrongField(field, "contains a NUL character")
        return text

    def _texts(self, field: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise _WrongField(field, "not a list of texts")
        return tuple(self._text(field, each) for each in value)

    def _roots(self, own: Mapping[str, Any]) -> tuple[str, ...]:
        texts = self._texts("mcpbridge.roots", own.get("roots", ()))
        return tuple(
            text if "://" in text else str(self._folder / os.path.expanduser(text))
            for text in texts
        )

    def _path(self, field: str, value: Any) -> Path:
        return self._folder / os.path.expanduser(self._text(field, value))


def _setting_value(facts: Setting, field: str, value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not facts.repeatable and len(values) != 1:
        raise _WrongField(field, "is a list", "give one value")
    if not all(isinstance(each, str | int | float) for each in values):
        raise _WrongField(field, "not a text, a number or true or false")
    if facts.unit is Unit.SWITCH and not isinstance(value, bool):
        raise _WrongField(field, "not true or false")
    texts = [str(each).lower() if isinstance(each, bool) else str(each) for each in values]
    try:
        read = [value_of(facts, text, "") for text in texts]
    except ConfigError as error:
        raise _WrongField(field, error.problem, error.remedy) from None
    return tuple(read) if facts.repeatable else read[0]


def _choice(raw: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    value = raw.get(key, default)
    if value not in choices:
        raise _WrongField(key, f"invalid value {value!r} (expected {', '.join(choices)})")
    return str(value)


def _duration(own: Mapping[str, Any], key: str) -> float | None:
    if own.get(key) is None:
        return None
    try:
        return seconds(str(own[key]))
    except ValueError as error:
        raise _WrongField(f"mcpbridge.{key}", f"{own[key]!r} {error}") from None


def _flag(own: Mapping[str, Any], key: str) -> bool:
    value = own.get(key, False)
    if not isinstance(value, bool):
        raise _WrongField(f"mcpbridge.{key}", "not true or false")
    return value


def _nearest(key: str, known: Mapping[str, object]) -> str:
    import difflib  # only needed for this error

    names = [*known, "roots", "start", "idle-stop", "default"]
    close = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {close[0]}?" if close else ""
