"""Decides whether OpenTelemetry is used: by the flag, or by the standard's variables.

The SDK reads the endpoint and all other variables itself; this module only decides whether it is
imported.

Source: OpenTelemetry, Environment Variable Specification.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from mcpbridge import DISTRIBUTION
from mcpbridge.config.model import Otel
from mcpbridge.errors import ConfigError
from mcpbridge.telemetry.tracer import TraceSettings

MISSING_EXTRA = f"OpenTelemetry is not installed; pip install '{DISTRIBUTION}[otel]'"

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def otel_of(
    settings: TraceSettings, origins: Mapping[str, str], env: Mapping[str, str]
) -> tuple[Otel | None, bool]:
    """Return what to send, and whether the environment asked for it in spite of a missing extra.

    Variables alone may be meant for the server, which inherits them, so the bridge then serves
    without the extra. The flag is meant for the bridge.

    Raises:
        ConfigError: The flag is given and the extra is not installed.
    """
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None, False
    if not settings.otel and not any(env.get(name) for name in _ENDPOINTS):
        return None, False
    if not all(_is_installed(package) for package in _PACKAGES):
        if settings.otel:
            what, remedy = MISSING_EXTRA.split("; ")
            raise ConfigError("--otel", origins.get("otel", ""), what, remedy)
        return None, True
    return Otel(metrics=env.get("OTEL_METRICS_EXPORTER", "").strip().lower() != "none"), False


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
