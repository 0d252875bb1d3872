"""What `mcpbridge list` and `mcpbridge call` have in common: the server, and the exit statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mcpbridge.reverse.one_request import OneClient

FAILED = 1
CANNOT_REACH = 3
_TIMEOUT_HELP = "Time for the server to answer each request.  [default: 1m]"
_HEADER_HELP = "A header of every request; `${NAME}` in it is the variable of that name."
_CONFIG_HELP = "The file of servers that NAME is in; if not given, the one in this folder."
Work = Callable[["OneClient"], Awaitable[int]]


def options() -> list[click.Parameter]:
    """Return the options that say how to reach the server."""
    return [
        click.Option(["--header", "headers"], multiple=True, metavar="'N: V'", help=_HEADER_HELP),
        click.Option(["--token-file"], metavar="FILE", help="A file with a bearer token."),
        click.Option(["--timeout"], default="1m", metavar="DURATION", help=_TIMEOUT_HELP),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    ]


def file_option() -> click.Option:
    """Return the option that names the file of servers."""
    return click.Option(["--config"], metavar="FILE", envvar="MCPBRIDGE_CONFIG", help=_CONFIG_HELP)


def run(server: str | None, command: Sequence[str], given: Mapping[str, Any], work: Work) -> int:
    """Do the work with a client of the server; return the exit status.

    Args:
        server: The address of the server or the name of its entry; None if it is a command.
        command: The server's command, all after `--`.
        given: The values of `options` and of `file_option`.
        work: Returns the exit status.
    """
    from mcpbridge.reverse.one_request import at_url, of_command

    if server is not None and "/" not in server and not command:
        with_client = _entry_opener(server, given, at_url, of_command)
    else:
        with_client = opener(server, command, given, at_url, of_command)

    async def worked() -> int:
        async with with_client() as client:
            return await work(client)

    return status_of(worked)


def status_of(work: Callable[[], Awaitable[int]]) -> int:
    """Do the work with a server; return the exit status, which may say that it failed."""
    import logging

    import anyio

    from mcpbridge.reverse.one_request import CannotReach, ServerError

    # Failures are printed by this command, once.
    logging.getLogger("mcpbridge").addHandler(logging.NullHandler())

    async def worked() -> int:
        try:
            return await work()
        except BaseExceptionGroup as group:
            raise _alone(group) from None

    try:
        return anyio.run(worked)
    except ServerError as error:
        click.echo(f"mcpbridge: the server answered with an error: {error}", err=True)
        return FAILED
    except CannotReach as error:
        click.echo(f"mcpbridge: {error}", err=True)
        return CANNOT_REACH


def _alone(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the only exception in groups of task groups, or the group."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner


def opener(
    url: str | None,
    command: Sequence[str],
    given: Mapping[str, Any],
    at_url: Callable[..., Any],
    of_command: Callable[..., Any],
) -> Any:
    """Return the function that opens the server: `at_url` or `of_command`, with what it needs.

    Args:
        url: The address of the server; None if it is a command.
        command: The server's command, all after `--`.
        given: The values of `options`.
        at_url: Takes the remote server, its token and the seconds for an answer first.
        of_command: Takes the command and the seconds for an answer first.
    """
    import functools

    from mcpbridge.config.load import spec_for
    from mcpbridge.reverse.program import ConnectSettings, remote_of

    if (url is None) == (not command):
        raise click.UsageError("give a URL, or a command after --")
    within_s = _within_s(given)
    if url is None:
        return functools.partial(of_command, spec_for({}, command), within_s)
    settings = ConnectSettings(headers=given["headers"], token_file=given["token_file"])
    return functools.partial(at_url, *remote_of(url, settings), within_s)


def _entry_opener(
    name: str, given: Mapping[str, Any], at_url: Callable[..., Any], of_command: Callable[..., Any]
) -> Any:
    """Return the function that opens the server of an entry: see `opener`."""
    import dataclasses
    import functools

    from mcpbridge.config.load import source_of
    from mcpbridge.config.remote_server import RemoteServer
    from mcpbridge.reverse.program import ConnectSettings, remote_of

    if given["headers"] or given["token_file"]:
        raise click.UsageError("--header and --token-file are for a URL: an entry has headers")
    within_s, source = _within_s(given), source_of(name, given["config"])
    if not isinstance(source, RemoteServer):
        return functools.partial(of_command, source, within_s)
    remote, tokens = remote_of(source.url, ConnectSettings())
    headers = dict(source.headers)
    remote = dataclasses.replace(remote, headers=headers, sse=source.sse)
    return functools.partial(
        at_url, remote, None if "authorization" in headers else tokens, within_s
    )


def _within_s(given: Mapping[str, Any]) -> float:
    from mcpbridge.config.values import seconds

    try:
        return seconds(given["timeout"])
    except ValueError as error:
        raise click.BadParameter(f"{given['timeout']!r} {error}", param_hint="--timeout") from None
