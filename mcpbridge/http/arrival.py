"""How long a request may take to arrive, and how large its head may be; `protocol` obeys it."""

from __future__ import annotations

import dataclasses

from mcpbridge.settings import Unit, setting


@dataclasses.dataclass(frozen=True, slots=True)
class ArrivalLimits:
    """How long a request may take to arrive, and how large its head may be."""

    header_s: float = setting(
        10.0,
        "--header-timeout",
        "Longest time from the connection, or from a request's first byte, to the end of its head.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    body_s: float = setting(
        30.0,
        "--body-timeout",
        "Longest time from the end of a request's head to the end of its body.",
        group="Limits",
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    max_header_bytes: int = setting(
        64 << 10,
        "--max-header-bytes",
        "Largest head of a request; servers and proxies commonly allow 8 to 64 KiB.",
        group="Limits",
        unit=Unit.BYTES,
        minimum=1 << 10,
    )
