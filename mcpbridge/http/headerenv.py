"""Headers that become variables of a client's own children: the setting, and who obeys it."""

from __future__ import annotations

from collections.abc import Sequence

from mcpbridge.http.request import Head
from mcpbridge.rules.access.header_env import Pair, values_of, with_values
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.faults import INVALID_REQUEST
from mcpbridge.rules.mcp.admission import Refusal, refuse


class HeaderEnv:
    """Takes the values of named headers from requests."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs

    def dressed(self, principal: Principal, head: Head) -> Principal | Refusal:
        """The caller that a principal is with what its request's headers hold."""
        values = values_of(self._pairs, head.raw)
        if isinstance(values, str):
            return refuse(400, INVALID_REQUEST, values)
        return with_values(principal, values)
