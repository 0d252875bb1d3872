"""What the settings of authentication may be; whatever is wrong ends the program at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpbridge.config.load import load
from mcpbridge.errors import ConfigError

TOKEN = "a-token-0123456789"
COMMAND = ("true",)


@pytest.mark.parametrize(
    ("content", "env", "flags", "named"),
    [
        ("", {}, {}, "--auth-token-file"),
        ("# none\n", {}, {}, "no token"),
        (None, {}, {}, "No such file"),
        ("tooshort\n", {}, {}, "line 1"),
        (TOKEN, {"MCPBRIDGE_AUTH_TOKEN": ""}, {}, "MCPBRIDGE_AUTH_TOKEN: it is empty"),
        (TOKEN, {"MCPBRIDGE_AUTH_TOKEN": " "}, {}, "MCPBRIDGE_AUTH_TOKEN: it is empty"),
        (TOKEN, {"MCPBRIDGE_AUTH_TOKEN": "tooshort"}, {}, "MCPBRIDGE_AUTH_TOKEN"),
        ("-", {}, {"--require-auth": ["true"]}, "--require-auth"),
        ("-", {}, {"--header-env": ["X-Key=LD_PRELOAD"]}, "--header-env"),
        ("-", {}, {"--header-env": ["X-A=KEY", "X-B=KEY"]}, "the variable KEY is given twice"),
        ("-", {}, {"--header-env": ["X-A=KEY", "x-a=OTHER"]}, "the header x-a is given twice"),
        ("-", {}, {"--rate-limit": ["fast"]}, "is not a rate"),
        ("-", {}, {"--max-sessions-per-principal": ["0"]}, "is less than 1"),
    ],
)
def test_what_cannot_keep_strangers_out_is_an_error(
    tmp_path: Path,
    content: str | None,
    env: dict[str, str],
    flags: dict[str, list[str]],
    named: str,
) -> None:
    """It is named, and nothing of a secret is in the text."""
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    given = {} if content == "-" else {"--auth-token-file": [str(file)]}
    with pytest.raises(ConfigError) as caught:
        load({**given, **flags}, COMMAND, env)
    assert named in str(caught.value)
    assert "tooshort" not in str(caught.value)


def test_headers_need_a_process_to_go_to() -> None:
    """Behind a connection the environment is another's."""
    flags = {"--connect": ["unix:@name"], "--header-env": ["X-Key=KEY"]}
    with pytest.raises(ConfigError, match="has no effect with --connect"):
        load(flags, (), {})


def test_a_token_says_who_is_asked(tmp_path: Path) -> None:
    """Of the file or of the environment; and no config shows one when it is printed."""
    (file := tmp_path / "tokens").write_text(TOKEN)
    of_file = load({"--auth-token-file": [str(file)], "--require-auth": ["true"]}, COMMAND, {})
    of_variable = load({}, COMMAND, {"MCPBRIDGE_AUTH_TOKEN": TOKEN})
    assert of_file.asks_who
    assert of_variable.asks_who
    assert not load({}, COMMAND, {}).asks_who
    assert TOKEN not in repr(of_file) + repr(of_variable)
    assert "MCPBRIDGE_AUTH_TOKEN" not in of_variable.child.env
