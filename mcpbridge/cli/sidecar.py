"""`mcpbridge sidecar`: the flags of the MCP Operator's metrics sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mcpbridge.runtime.startup import hold_signals

if TYPE_CHECKING:
    from mcpbridge.http.server.limits import ArrivalLimits, ConnectionLimits

_HELP = """Count the requests to an MCP server in the same pod, as a proxy in front of it.

Takes the flags of the MCP Operator's metrics sidecar and serves the metric names that its dashboard
reads. Requests to --listen-addr go on to --target-addr, streams included; /healthz, /readyz and
/metrics are on --metrics-addr. No environment variables are read.

\b
  mcpbridge sidecar --target-addr=localhost:3001 --listen-addr=:8080 --metrics-addr=:9090
"""

_LEVELS = {"warn": "warning"}
_EVERYWHERE = "0.0.0.0"  # nosec B104 # what `:8080` means to an operator


def program(command: Sequence[str]) -> click.Command:
    """Return the command that proxies; `command` is ignored."""
    hold_signals()
    # Imported afterwards: it takes time, and a signal may come.
    from mcpbridge.http.server.lazy_import import import_libraries

    import_libraries()
    from mcpbridge.cli.setting_options import setting_options

    @click.command(
        name="sidecar",
        help=_HELP,
        # The operator may pass flags of later versions; they are logged and ignored.
        context_settings={
            "ignore_unknown_options": True,
            "allow_extra_args": True,
        },
    )
    @click.option("--target-addr", default="localhost:3001", metavar="HOST:PORT", show_default=True)
    @click.option("--listen-addr", default=":8080", metavar="HOST:PORT", show_default=True)
    @click.option("--metrics-addr", default=":9090", metavar="HOST:PORT", show_default=True)
    @click.option(
        "--log-level",
        default="info",
        type=click.Choice(["debug", "info", "warn", "warning", "error"]),
        show_default=True,
    )
    @click.option("--log-format", default="auto", type=click.Choice(["auto", "json", "text"]))
    @click.option("--tls-enabled", is_flag=False, flag_value="true", default="false", type=bool)
    @click.option("--tls-cert-file", metavar="FILE", help="Certificate chain, PEM.")
    @click.option("--tls-key-file", metavar="FILE", help="Its key, PEM.")
    @click.option("--tls-min-version", default="1.2", type=click.Choice(["1.2", "1.3"]))
    @click.option(
        "--max-connections",
        type=click.IntRange(min=1),
        metavar="N",
        help="Client connections at once; by default as many as the limit on open files allows"
        " with one more to the server for each.",
    )
    @click.option("--health-check-interval", metavar="DURATION", help="Accepted and ignored.")
    @click.pass_context
    def sidecar(ctx: click.Context, /, **flags: Any) -> int:
        return _run(flags, tuple(ctx.args))

    for struct in _limits():
        sidecar.params.extend(setting_options(struct, ("--max-connections",)))
    return sidecar


def _limits() -> tuple[type[ArrivalLimits], type[ConnectionLimits]]:
    from mcpbridge.http.server.limits import ArrivalLimits, ConnectionLimits

    return ArrivalLimits, ConnectionLimits


def _run(flags: Mapping[str, Any], unknown: tuple[str, ...]) -> int:
    from mcpbridge.cli.setting_options import texts_of
    from mcpbridge.config.load import settings_of
    from mcpbridge.sidecar.program import SidecarSettings, run
    from mcpbridge.telemetry.logs import LogSettings

    arrival_limits, connection_limits = _limits()
    given = {name: value for name, value in flags.items() if name != "max_connections"}
    certificate, key = flags["tls_cert_file"], flags["tls_key_file"]
    if flags["tls_enabled"] and None in (certificate, key):
        raise click.UsageError("--tls-enabled needs --tls-cert-file and --tls-key-file")
    settings = SidecarSettings(
        _address("--target-addr", flags["target_addr"], "localhost"),
        _address("--listen-addr", flags["listen_addr"], _EVERYWHERE),
        _address("--metrics-addr", flags["metrics_addr"], _EVERYWHERE),
        certificate if flags["tls_enabled"] else None,
        key if flags["tls_enabled"] else None,
        newest_only=flags["tls_min_version"] == "1.3",
        unknown=unknown,
        max_connections=flags["max_connections"],
        connections=settings_of(connection_limits, texts_of(given)),
        arrival=settings_of(arrival_limits, texts_of(given)),
    )
    level = flags["log_level"]
    return run(settings, LogSettings(_LEVELS.get(level, level), flags["log_format"]))


def _address(flag: str, text: str, default_host: str) -> tuple[str, int]:
    """Parse `HOST:PORT` or `:PORT`, with or without `http://`."""
    from mcpbridge.config.self_url import split_address

    text = text.removeprefix("http://").rstrip("/")
    try:
        host, port = split_address(f"{default_host}{text}" if text.startswith(":") else text)
    except ValueError as error:
        raise click.UsageError(f"{flag}: {text!r} {error}") from None
    return host, port
