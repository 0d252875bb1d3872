"""Checks the settings of authentication and reads the operator's secrets at the start."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from urllib.parse import urlsplit

from mcpbridge import DISTRIBUTION
from mcpbridge.bridge.keyring import KeyFile, Keyring
from mcpbridge.errors import ConfigError
from mcpbridge.http.auth.authenticator import AuthSettings
from mcpbridge.http.auth.oauth import OAuthSettings
from mcpbridge.http.auth.static_tokens import read_tokens
from mcpbridge.rules.access.jwt import fetchable
from mcpbridge.rules.access.state_keys import state_keys
from mcpbridge.rules.access.static_tokens import TokenTable, named
from mcpbridge.runtime.small_file import read_small_file

AUTH_TOKEN = "MCPBRIDGE_AUTH_TOKEN"  # nosec B105 # the name of a variable
"""A setting without a flag, since command lines are visible to every user of the machine."""
STATE_KEY = "MCPBRIDGE_STATE_KEY"
"""Likewise; the keys for what clients keep: see `rules.access.state_keys`."""
STATE_KEY_FILE = STATE_KEY + "_FILE"
"""Names a file with such keys, as of a mounted Secret, which is read again when it changes."""


def keys_of(env: Mapping[str, str]) -> tuple[Keyring | None, KeyFile | None]:
    """Return the keyring that the environment gives, and its file; None for what is not set.

    Raises:
        ConfigError: Both variables are set, the file cannot be read, or a key is too short.
    """
    text, file = env.get(STATE_KEY, ""), env.get(STATE_KEY_FILE, "")
    if text and file:
        raise ConfigError(STATE_KEY, "", f"{STATE_KEY_FILE} is set as well", "set only one")
    if not text and not file:
        return None, None
    try:
        keys = state_keys(read_small_file(file) if file else text)
    except ValueError as error:
        name, named_file = (STATE_KEY_FILE, f"{file!r}: ") if file else (STATE_KEY, "")
        raise ConfigError(name, "", f"{named_file}{error}") from None
    if not file:
        return Keyring(lambda: keys), None
    key_file = KeyFile(file, keys)
    return Keyring(key_file.current), key_file


def tokens_of(
    settings: AuthSettings, origins: Mapping[str, str], env: Mapping[str, str]
) -> tuple[TokenTable | None, TokenTable | None]:
    """Return the tokens of the file and the token of the environment; None for what is not set.

    An empty variable or file is an error: a secret that was not mounted must not turn
    authentication off.

    Raises:
        ConfigError: The file cannot be read or has no valid token, or the variable is invalid.
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
            of_variable = TokenTable(dict([named("", text.strip())]))
        except ValueError as error:
            raise ConfigError(AUTH_TOKEN, "", str(error)) from None
    return of_file, of_variable


def check_required(settings: AuthSettings, origins: Mapping[str, str], *, asks: bool) -> None:
    """Check that clients authenticate if the operator requires it.

    Raises:
        ConfigError: They do not.
    """
    if settings.require and not asks:
        remedy = f"give --auth-token-file, {AUTH_TOKEN} or --oauth-issuer"
        problem = "clients have no way to authenticate"
        raise ConfigError("--require-auth", origins.get("require", ""), problem, remedy)


def check_header_env(settings: AuthSettings, origins: Mapping[str, str], *, connects: bool) -> None:
    """Check that values of headers can be used.

    Raises:
        ConfigError: The server is started elsewhere, or a name is given twice.
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


_FLAGS = {
    "audiences": "--oauth-audience",
    "jwks_url": "--oauth-jwks-url",
    "algorithms": "--oauth-algorithms",
    "scopes": "--oauth-scope",
    "method_scopes": "--oauth-method-scope",
}


def check_oauth(settings: OAuthSettings, origins: Mapping[str, str]) -> None:
    """Check that the OAuth settings are complete and usable.

    Args:
        settings: The settings.
        origins: The origin of each field; none for a default.

    Raises:
        ConfigError: A value is missing or invalid, or the extra is not installed.
    """
    if settings.issuer is None:
        for field, flag in _FLAGS.items():
            if field in origins:
                problem = "has no effect without --oauth-issuer"
                raise ConfigError(flag, origins[field], problem, "name the authorization server")
        return
    _check_issuer(settings, origins.get("issuer", ""))
    if not settings.audiences:
        problem = "is needed with --oauth-issuer: tokens for other resources must be refused"
        remedy = "give the URL at which clients reach this endpoint, like https://example.org/mcp"
        raise ConfigError("--oauth-audience", "", problem, remedy)
    resource = settings.audiences[0]
    if not _is_resource(resource):
        problem = f"{resource!r} is not an http or https URL without query and fragment"
        remedy = "give first the URL at which clients reach this endpoint, then other values of aud"
        raise ConfigError("--oauth-audience", origins.get("audiences", ""), problem, remedy)
    if importlib.util.find_spec("joserfc") is None:
        problem = "the library that checks signatures is not installed"
        remedy = f"pip install '{DISTRIBUTION}[oauth]'"
        raise ConfigError("--oauth-issuer", origins.get("issuer", ""), problem, remedy)


def _check_issuer(settings: OAuthSettings, origin: str) -> None:
    issuer = settings.issuer or ""
    if not _is_resource(issuer):
        problem = f"{issuer!r} is not an http or https URL without query and fragment"
        raise ConfigError("--oauth-issuer", origin, problem)
    if settings.jwks_url is not None:
        return
    try:
        fetchable(issuer)
    except ValueError as error:
        remedy = "use https, or give the address of its keys as --oauth-jwks-url"
        raise ConfigError("--oauth-issuer", origin, f"{issuer!r} {error}", remedy) from None


def _is_resource(text: str) -> bool:
    """Return whether a text can name a resource or issuer (RFC 8707, 2; RFC 8414, 2)."""
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False
    # Both are quoted in a header.
    clean = text.isascii() and text.isprintable() and not any(mark in text for mark in ' "\\?#@')
    return parts.scheme in ("http", "https") and named and clean
