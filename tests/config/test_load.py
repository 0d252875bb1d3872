"""Flags, variables and defaults become one checked configuration, or one clear error."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mcpbridge.config.auth import STATE_KEY
from mcpbridge.config.load import environment_names, load
from mcpbridge.config.model import Config, Option, options
from mcpbridge.errors import ConfigError
from mcpbridge.settings import Setting, Unit
from tests.support.certificates import Authority
from tests.support.proofs import proves

COMMAND = ("python", "server.py")
ALL = {option.setting.flag: option for option in options()}


def read(
    variables: Mapping[str, str] | None = None,
    /,
    *,
    command: Sequence[str] = COMMAND,
    **flags: str | list[str],
) -> Config:
    """Load with flags given as `max_sessions="3"`."""
    given = {
        f"--{name.replace('_', '-')}": [texts] if isinstance(texts, str) else texts
        for name, texts in flags.items()
    }
    return load(given, command, variables or {})


def wrong(variables: Mapping[str, str] | None = None, /, **flags: str | list[str]) -> ConfigError:
    """The error of what cannot be loaded."""
    with pytest.raises(ConfigError) as caught:
        read(variables, **flags)
    return caught.value


def value(config: Config, flag: str) -> object:
    """What a configuration has for a flag."""
    option = ALL[flag]
    found: object = getattr(getattr(config.settings, option.section), option.name)
    return found


def sample(facts: Setting) -> str:
    """A good text for a setting that is not its default."""
    special = {
        "--stdio": "node index.js",
        "--store": "redis://127.0.0.1/3",
        "--env": "A=1",
        "--listen": "127.0.0.1:9000",
        "--connect": "unix:@name",
        "--path": "/x",
        "--spares": "3",
        "--env-file": __file__.replace("test_load.py", "sample.env"),
        "--cwd": str(Path(__file__).parent),
        "--allow-origin": "https://app.example.org",
        "--rate-limit": "7/s:7",
        "--max-memory": "7MiB",
        "--child-user": "4000000001:5",
        "--header-env": "X-Api-Key=API_KEY",
        "--trusted-proxy": "10.0.0.0/8",
        "--oauth-issuer": "https://issuer.example",
        "--oauth-audience": "https://mcp.example/mcp",
        "--oauth-jwks-url": "https://issuer.example/keys",
        "--oauth-algorithms": "ES256",
        "--oauth-scope": "mcp:use",
        "--oauth-method-scope": "tools/call=mcp:tools",
    }
    if facts.flag in special:
        return special[facts.flag]
    if facts.choices:
        return facts.choices[-1]
    by_unit = {Unit.INTEGER: "7", Unit.SECONDS: "7s", Unit.BYTES: "7KiB", Unit.SWITCH: "true"}
    return by_unit.get(facts.unit, "example.org")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the settings of TLS name; read at the start, so it must be there."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    cert, key = authority.pair("bridge")
    (both := cert.with_name("both.pem")).write_bytes(cert.read_bytes() + key.read_bytes())
    (tokens := both.with_name("tokens")).write_text("sample: a-token-that-is-long-enough\n")
    return {
        "--auth-token-file": str(tokens),
        "--tls-cert": str(both),
        "--tls-key": str(key),
        "--tls-client-ca": str(authority.cert),
    }


@pytest.mark.parametrize("option", ALL.values(), ids=ALL)
def test_each_setting_is_a_flag_and_a_variable(option: Option, files: dict[str, str]) -> None:
    """Both ways give the same value, and it is not the default's."""
    facts = option.setting
    text = files.get(facts.flag) or sample(facts)
    command = () if facts.flag in ("--stdio", "--connect", "--config") else COMMAND
    own, *_ = environment_names(facts)
    needed = {"--admin-host": "--admin-port"}
    needed |= dict.fromkeys(("--tls-key", "--tls-client-ca"), "--tls-cert")
    needed["--require-auth"] = "--auth-token-file"
    needed |= dict.fromkeys(("--hold-sessions", "--store"), "--peers")
    with_it = needed.get(facts.flag)
    company = {with_it: [files.get(with_it, "7")]} if with_it is not None else {}
    if facts.flag.startswith("--oauth-"):
        both = {"--oauth-issuer", "--oauth-audience"} - {facts.flag}
        company = {flag: [sample(ALL[flag].setting)] for flag in both}

    # Replicas need a key, which has no flag.
    replicas = facts.flag in ("--hold-sessions", "--peers", "--store")
    key = {STATE_KEY: "k" * 32, "POD_IP": "127.0.0.1"} if replicas else {}

    by_flag = value(load({facts.flag: [text], **company}, command, key), facts.flag)
    by_variable = value(load(company, command, {own: text, **key}), facts.flag)

    assert own == "MCPBRIDGE_" + facts.flag[2:].replace("-", "_").upper()
    assert by_flag == by_variable
    assert by_flag != option.default


@pytest.mark.parametrize("option", ALL.values(), ids=ALL)
def test_each_setting_says_what_it_is_for(option: Option) -> None:
    """A sentence of help, a group, and a default that its own reader would take."""
    facts = option.setting
    assert facts.help.endswith(".")
    assert facts.group
    if facts.minimum is not None and option.default is not None:
        assert option.default >= facts.minimum


@pytest.mark.parametrize(
    ("variable", "text", "flag", "expected"),
    [
        ("PORT", "9000", "--port", 9000),
        ("MCP_HTTP_PATH", "/api", "--path", "/api"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "60", "--grace", 60.0),
    ],
)
def test_variables_that_platforms_set_are_heard(
    variable: str, text: str, flag: str, expected: object
) -> None:
    """The own variable stands above the platform's, the flag above both."""
    own, *_ = environment_names(ALL[flag].setting)
    other = {"--port": "1", "--path": "/other", "--grace": "20"}[flag]

    assert value(read({variable: text}), flag) == expected
    assert value(read({variable: other, own: text}), flag) == expected
    assert value(load({flag: [text]}, COMMAND, {variable: other, own: other}), flag) == expected


def test_an_empty_variable_is_none() -> None:
    """Templates leave variables empty that they do not fill."""
    assert value(read({"MCPBRIDGE_PORT": "", "PORT": ""}), "--port") == 8000


def test_a_link_to_a_service_is_no_setting() -> None:
    """Beside a Service named mcpbridge, Kubernetes sets MCPBRIDGE_PORT and more."""
    env = {
        "MCPBRIDGE_PORT": "tcp://10.96.0.7:8000",
        "MCPBRIDGE_SERVICE_HOST": "10.96.0.7",
        "MCPBRIDGE_SERVICE_PORT": "8000",
        "MCPBRIDGE_SERVICE_PORT_HTTP": "8000",
        "MCPBRIDGE_PORT_8000_TCP": "tcp://10.96.0.7:8000",
        "MCPBRIDGE_PORT_8000_TCP_ADDR": "10.96.0.7",
        "MCPBRIDGE_DEMO_PORT": "tcp://10.96.0.8:8000",
    }
    assert value(read(env), "--port") == 8000
    assert value(read({**env, "PORT": "9000"}), "--port") == 9000


@proves("fault 120")
def test_an_unknown_variable_is_refused_with_the_nearest() -> None:
    """A misspelt setting must not silently do nothing."""
    error = wrong({"MCPBRIDGE_MAX_SESSION": "3"})
    assert str(error) == (
        "MCPBRIDGE_MAX_SESSION: no such setting; did you mean MCPBRIDGE_MAX_SESSIONS?"
    )


@proves("fault 120")
@pytest.mark.parametrize(
    ("flag", "text", "problem"),
    [
        ("--port", "http", "'http' is not a whole number"),
        ("--port", "-1", "'-1' is less than 0"),
        ("--port", "65536", "invalid port 65536 (expected 1-65535)"),
        ("--max-sessions", "0", "'0' is less than 1"),
        ("--max-json-depth", "513", "'513' is more than 512"),
        ("--max-request-bytes", "4M", "'4M' is not a size; write 65536, 64KiB or 4MiB"),
        ("--max-request-bytes", "10", "'10' is less than 1KiB"),
        ("--grace", "soon", "'soon' is not a duration; write 30s, 500ms, 5m or 1h"),
        ("--grace", "2s", "'2s' is less than 6s"),
        ("--isolation", "both", "'both' is not one of auto, shared, session"),
        ("--log-level", "loud", "'loud' is not one of debug, info, warning, error"),
        ("--spares", "-1", "'-1' is neither auto nor a number from 0 on"),
        ("--require-session", "maybe", "'maybe' is not a switch; write true or false"),
        ("--listen", "8000", "'8000' is not of the form HOST:PORT or [IPV6]:PORT"),
        ("--listen", "a:99999", "invalid port 99999 (expected 1-65535)"),
        ("--path", "/health", "'/health' is the path of a health probe"),
        ("--path", "/a?b", "'/a?b' is not a path; write one without query and escapes"),
        ("--allowed-host", "a.example:80", "'a.example:80' has a port; give the name without it"),
        ("--cwd", "/no/such/folder", "'/no/such/folder' is not a folder"),
        ("--env", "=1", "is not of the form NAME=VALUE"),
        ("--env-file", "/no/such/file", "'/no/such/file' cannot be read: No such file"),
    ],
)
def test_a_wrong_value_names_its_key_its_origin_and_the_problem(
    flag: str, text: str, problem: str
) -> None:
    """The same error by flag and by variable, but for where it came from."""
    own, *_ = environment_names(ALL[flag].setting)
    with pytest.raises(ConfigError) as by_flag:
        load({flag: [text]}, COMMAND, {})
    by_variable = wrong({own: text})
    # The port of --listen is a port like any other.
    key = "--port" if "invalid port" in problem else flag

    assert str(by_flag.value).startswith(f"{key} (from the command line): {problem}")
    assert str(by_variable).startswith(f"{key} (from {own}): {problem}")


def test_lists_in_a_variable_are_separated_by_commas_or_spaces() -> None:
    """A flag is repeated instead; names are kept as they will be compared."""
    config = read({"MCPBRIDGE_ALLOWED_HOST": "A.example, *.b.example [2001:db8::1]"})
    assert config.settings.guard.allowed_hosts == ("a.example", "*.b.example", "2001:db8::1")

    config = read(allowed_host=["a.example", "::1"])
    assert config.settings.guard.allowed_hosts == ("a.example", "::1")


def test_assignments_in_a_variable_are_split_like_a_shell_would() -> None:
    """Values hold commas, and spaces where they are quoted."""
    config = read({"MCPBRIDGE_ENV": "A=1,2 'B=x y' C="})
    assert {name: config.child.env[name] for name in "ABC"} == {"A": "1,2", "B": "x y", "C": ""}
    assert "cannot be split: no closing quotation" in str(wrong({"MCPBRIDGE_ENV": "A='secret"}))


def test_the_command_is_what_stands_after_the_dashes() -> None:
    """As given, without a shell."""
    assert read(command=("a", "b c", "$HOME")).child.argv == ("a", "b c", "$HOME")


def test_a_command_in_one_text_is_split_like_a_shell_would() -> None:
    """Quotes hold words together; nothing is expanded."""
    config = read(command=(), stdio="node '/srv/my server/index.js' --name \"a b\" $HOME *")
    assert config.child.argv == (
        "node",
        "/srv/my server/index.js",
        "--name",
        "a b",
        "$HOME",
        "*",
    )


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        (r"C:\srv\server.exe --verbose", (r"C:\srv\server.exe", "--verbose")),
        (r'"C:\Program Files\node.exe" x.js', (r"C:\Program Files\node.exe", "x.js")),
        (r"python --folder=a\ b", ("python", "--folder=a b")),
        (r"node D:\srv\index.js", ("node", r"D:\srv\index.js")),
        (r"sh -c 'echo a:\ b'", ("sh", "-c", r"echo a:\ b")),
        ("node x.js # y", ("node", "x.js", "#", "y")),
    ],
)
def test_paths_of_windows_keep_their_backslashes(text: str, argv: tuple[str, ...]) -> None:
    """A drive letter tells them from words that a shell of POSIX would escape."""
    assert read(command=(), stdio=text).child.argv == argv


def test_there_is_one_command() -> None:
    """None and two are errors that say what to do; a flag and a variable do not collide."""
    none = "command: no MCP server to start; put its command after --"
    for stdio in ("", "   "):
        with pytest.raises(ConfigError, match=none):
            read(command=(), stdio=stdio)
    with pytest.raises(ConfigError, match=none):
        read(command=())
    assert "a command stands after -- as well; give only one" in str(wrong(stdio="a"))
    with pytest.raises(ConfigError, match=r"MCPBRIDGE_STDIO\): cannot be split: no closing"):
        read({"MCPBRIDGE_STDIO": "'a"}, command=())
    assert read({"MCPBRIDGE_STDIO": "a"}).child.argv == COMMAND


def test_there_is_a_command_or_a_connection() -> None:
    """Never both, and nothing that would do nothing; a flag and a variable do not collide."""
    to = "unix:/run/mcp.sock"
    assert str(read(command=(), connect=to).source) == to
    both = "--connect (from the command line): a command stands after -- as well: python"
    assert both in str(wrong(connect=to))
    with pytest.raises(ConfigError, match="--stdio gives a command as well; give only one"):
        read(command=(), connect=to, stdio="a")
    with pytest.raises(ConfigError, match="--stdio gives a command as well; give only one"):
        read({"MCPBRIDGE_CONNECT": to, "MCPBRIDGE_STDIO": "a"}, command=())
    with pytest.raises(ConfigError, match=r"--env .*: has no effect with --connect; give it to"):
        read(command=(), connect=to, env=["A=1"])
    assert "is not a socket address; write unix:PATH" in str(wrong(connect="/run/mcp.sock"))

    assert read({"MCPBRIDGE_CONNECT": to}).child.argv == COMMAND
    assert str(read({"MCPBRIDGE_STDIO": "a"}, command=(), connect=to).source) == to
    with pytest.raises(ConfigError, match="--connect: this needs the server's command"):
        _ = read(command=(), connect=to).child


@proves("fault 50")
def test_the_child_has_our_environment_but_for_what_is_ours() -> None:
    """A platform's wish for HTTP would make the server leave its pipe."""
    env = {
        "PATH": "/bin",
        "API_KEY": "k",
        "MCPBRIDGE_LOG_LEVEL": "debug",
        "MCP_TRANSPORT": "http",
        "MCP_HTTP_PATH": "/mcp",
        "MCP_SESSION_MANAGEMENT": "true",
    }
    assert read(env).child.env == {
        "PATH": "/bin",
        "API_KEY": "k",
        "MCP_TRANSPORT": "stdio",
        "FASTMCP_TRANSPORT": "stdio",
        "PYTHONUNBUFFERED": "1",
    }


def test_what_the_operator_adds_wins(tmp_path: Path) -> None:
    """A flag over the file, both over what is inherited and what the bridge sets."""
    file = tmp_path / "env"
    file.write_text('\ufeff# a comment\n\n  A=file\nB=a=b "as it is"\nPYTHONUNBUFFERED=\n', "utf-8")
    config = read({"A": "own", "C": "own"}, env_file=str(file), env=["C=flag", "MCP_TRANSPORT=x"])
    wanted = {
        "A": "file",
        "B": 'a=b "as it is"',
        "C": "flag",
        "PYTHONUNBUFFERED": "",
        "MCP_TRANSPORT": "x",
        "FASTMCP_TRANSPORT": "stdio",
    }
    assert config.child.env == wanted


@pytest.mark.parametrize(
    "content", [b"A=1\nhunter2\n", b"A=1\n2B=hunter2\n", b"A=1\nB=hunter2\0\n", b"\xffhunter2=1"]
)
def test_errors_about_the_environment_never_show_values(tmp_path: Path, content: bytes) -> None:
    """What was meant as a value may be a secret; the file and the line are enough."""
    file = tmp_path / "env"
    file.write_bytes(content)
    error = str(wrong({"MCPBRIDGE_ENV_FILE": str(file)}))

    assert "hunter2" not in error
    assert str(file) in error
    assert "MCPBRIDGE_ENV_FILE" in error
    assert (":2" in error) is (b"\xff" not in content)
    assert "hunter2" not in str(wrong(env=["hunter2"]))


@proves("fault 113")
@pytest.mark.parametrize(
    ("env", "flags", "host", "port"),
    [
        ({}, {}, "127.0.0.1", 8000),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, "0.0.0.0", 8000),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"host": "10.1.2.3"}, "10.1.2.3", 8000),
        ({}, {"host": "::", "port": "9000"}, "::", 9000),
        ({}, {"listen": "[::1]:0"}, "::1", 0),
        ({}, {"listen": ":9000"}, "0.0.0.0", 9000),
        ({"PORT": "1", "MCPBRIDGE_HOST": "1.1.1.1"}, {"listen": "0.0.0.0:2"}, "0.0.0.0", 2),
        ({"MCPBRIDGE_LISTEN": "0.0.0.0:2", "PORT": "1"}, {}, "0.0.0.0", 2),
        ({"MCPBRIDGE_LISTEN": "0.0.0.0:2"}, {"port": "9000"}, "0.0.0.0", 9000),
        ({"MCPBRIDGE_LISTEN": "0.0.0.0:2"}, {"host": "::1"}, "::1", 2),
    ],
)
def test_the_address_follows_from_what_is_given(
    env: dict[str, str], flags: dict[str, str | list[str]], host: str, port: int
) -> None:
    """Loopback by default, wide in a cluster; a flag stands above a variable."""
    bind = read(env, **flags).bind
    assert (bind.host, bind.port) == (host, port)
    assert bind.both_loopbacks == (not env and not flags)


def test_localhost_is_both_loopbacks() -> None:
    """A client that resolves the name may try either first; 127.0.0.1 is one address."""
    assert read(host="localhost").bind.both_loopbacks
    assert read(listen="localhost:9000").bind.both_loopbacks
    assert not read(host="127.0.0.1").bind.both_loopbacks
    for flags, both in (
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "10.1.2.3"}, False),
        ({"admin_host": "127.0.0.1"}, False),
        ({"host": "10.1.2.3", "admin_host": "localhost"}, True),
    ):
        admin = read(admin_port="9090", **flags).admin_bind
        assert admin is not None
        assert admin.both_loopbacks is both, flags


def test_the_address_has_its_reason() -> None:
    """The start-up line says why the bridge listens where it does."""
    assert "only this machine" in read().bind.why
    assert "KUBERNETES_SERVICE_HOST" in read({"KUBERNETES_SERVICE_HOST": "x"}).bind.why
    assert read(host="0.0.0.0").bind.why == "as asked for"


@pytest.mark.parametrize("other", ["host", "port"])
def test_an_address_is_given_once(other: str) -> None:
    """Two flags for one thing are a mistake."""
    error = str(wrong(listen="0.0.0.0:2", **{other: "1"}))
    assert error == (f"--listen (from the command line): --{other} is given as well; give only one")


@pytest.mark.parametrize(
    ("env", "flags", "lame_duck_s"),
    [
        ({}, {}, 0.0),
        ({"KUBERNETES_SERVICE_HOST": "x"}, {}, 5.0),
        ({"KUBERNETES_SERVICE_HOST": "x"}, {"grace": "10"}, 2.0),
        ({"KUBERNETES_SERVICE_HOST": "x"}, {"lame_duck": "0"}, 0.0),
        ({}, {"lame_duck": "3s"}, 3.0),
    ],
)
def test_in_a_cluster_the_end_waits_for_the_balancers(
    env: dict[str, str], flags: dict[str, str | list[str]], lame_duck_s: float
) -> None:
    """Elsewhere no load balancer has to be waited for."""
    assert read(env, **flags).lame_duck_s == lame_duck_s


def test_the_end_must_leave_time_for_calls() -> None:
    """Refused before anything starts, not found out at the end."""
    assert str(wrong(lame_duck="20s", grace="30s")) == (
        "--lame-duck (from the command line): 20s leaves no time for calls in flight within"
        " --grace 30s; give less than 20s, or lengthen --grace"
    )


@proves("fault 97")
@pytest.mark.parametrize(
    ("pid", "env", "flags", "grace_s"),
    [
        (1, {}, {}, 10.0),
        (1, {"TERMINATION_GRACE_PERIOD_SECONDS": "25"}, {}, 25.0),
        (1, {"KUBERNETES_SERVICE_HOST": "x"}, {}, 30.0),
        (1, {}, {"grace": "20s"}, 20.0),
        (2, {}, {}, 30.0),
    ],
)
def test_the_grace_is_that_of_the_platform(
    pid: int,
    env: dict[str, str],
    flags: dict[str, str | list[str]],
    grace_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`docker stop` kills after 10 s, a kubelet after 30 s, unless the operator says otherwise."""
    monkeypatch.setattr(os, "getpid", lambda: pid)
    assert read(env, **flags).settings.shutdown.grace_s == grace_s


def test_a_store_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; without a store it is not needed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "redis" else found(name)
    )
    env = {STATE_KEY: "k" * 32, "POD_IP": "127.0.0.1"}
    load({"--peers": ["replicas"]}, COMMAND, env)
    with pytest.raises(ConfigError, match=r"^--store.*pip install 'mcpbridge\[redis\]'"):
        load({"--peers": ["replicas"], "--store": ["redis://a"]}, COMMAND, env)


def test_an_error_shows_nothing_of_a_secret_text() -> None:
    """The password of a store's URL that is wrong elsewhere."""
    with pytest.raises(ConfigError) as raised:
        load({"--store": ["redis://user:a-password@host:0"]}, COMMAND, {})
    assert str(raised.value).startswith("--store")
    assert "invalid port 0" in str(raised.value)
    assert "a-password" not in str(raised.value)
