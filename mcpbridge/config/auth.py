"""Who may call: the tokens there are at the start, or why they cannot be used."""

from __future__ import annotations

from collections.abc import Mapping

from mcpbridge.errors import ConfigError
from mcpbridge.http.auth.authenticator import AuthSettings
from mcpbridge.http.auth.static_tokens import read_tokens
from mcpbridge.rules.access.static_tokens import Tokens, named

AUTH_TOKEN = "MCPBRIDGE_AUTH_TOKEN"  # nosec B105 # the name of a variable
"""A setting without a flag: a secret, and command lines are for all to see."""


def tokens_of(
    settings: AuthSettings, origins: Mapping[str, str], env: Mapping[str, str]
) -> tuple[Tokens | None, Tokens | None]:
    """The tokens of the file and the one of the environment; None for what is not asked for.

    An empty variable or file is an error: what was meant to keep strangers out must not let them
    in because a secret was not mounted.

    Raises:
        ConfigError: The file cannot be read or has no good token, or the variable is none.
    """
    of_file = of_variable = None
    file = settings.token_file
    if file is not None:
        try:
            of_file = read_tokens(file)
        except ValueError as error:
            origin = origins.get("token_file", "")
            raise ConfigError("--auth-token-file", origin, f"{file!r}: {error}") from None
    text = env.get(AUTH_TOKEN)
    if text is not None:
        if not text.strip():
            raise ConfigError(AUTH_TOKEN, "", "it is empty", "give a token, or unset it")
        try:
            of_variable = Tokens(dict([named("", text.strip())]))
        except ValueError as error:
            raise ConfigError(AUTH_TOKEN, "", str(error)) from None
    return of_file, of_variable


def check_required(settings: AuthSettings, origins: Mapping[str, str], *, asks: bool) -> None:
    """Whether clients authenticate where the operator says that they must.

    Raises:
        ConfigError: They do not.
    """
    if settings.require and not asks:
        remedy = f"give --auth-token-file, {AUTH_TOKEN} or --oauth-issuer"
        problem = "nothing says how clients authenticate"
        raise ConfigError("--require-auth", origins.get("require", ""), problem, remedy)


def check_header_env(settings: AuthSettings, origins: Mapping[str, str], *, connects: bool) -> None:
    """Whether values of headers have a place to go.

    Raises:
        ConfigError: The server is started elsewhere, or one name comes twice.
    """
    origin = origins.get("header_env", "")
    if settings.header_env and connects:
        remedy = "use it where the command is: mcpbridge … -- COMMAND"
        raise ConfigError("--header-env", origin, "has no effect with --connect", remedy)
    for what in ("header", "variable"):
        names = [getattr(pair, what) for pair in settings.header_env]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError("--header-env", origin, f"the {what} {twice} is given twice")
