"""Who may ask at the peer port: replicas that prove themselves, for the client that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mcpbridge.bridge.legacy.session import Session
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.peers.fence import FencedLegacy
from mcpbridge.http.peers.relay import CHALLENGE, ENDING, MOVED
from mcpbridge.http.request import RequestHead
from mcpbridge.replicas.peer_proof import HEADER, PeerProofs, Unproven
from mcpbridge.rules.access.header_env import Pair, values_of
from mcpbridge.rules.access.principals import Principal, Secrets
from mcpbridge.rules.faults import INVALID_REQUEST, error_object
from mcpbridge.rules.mcp.admission import Reason, Refusal, refuse

_MESSAGES = {
    Unproven.MISSING: "only replicas may ask here",
    Unproven.FORGED: "the proof was not made with a key of this replica (MCPBRIDGE_STATE_KEY)",
    Unproven.STALE: "the proof is too old, or the clocks of the replicas differ",
    Unproven.OTHER_BOOT: "the proof was made for another replica, or an earlier start of this one",
}


class PeerLegacy(FencedLegacy):
    """The legacy revisions over Streamable HTTP, for sessions of this replica alone."""

    def _may_listen(self, session: Session) -> bool:
        # On the clients' port streams end, so that clients connect to replicas that stay.
        return super()._may_listen(session) or self._homes.leaving.holds(session.id)

    def _named_session(self, head: RequestHead) -> Session | Refusal | None:
        found = super()._named_session(head)
        if not isinstance(found, Refusal):
            return found
        home = self._homes.known_homes.elsewhere(head.names.session_id or "")
        if home is not None:
            error = error_object(INVALID_REQUEST, "another replica has this session now")
            return Refusal(403, error, challenge=f'{CHALLENGE} error="{MOVED}", home="{home}"')
        if self._here.drain.cut_off:
            # It may be one that the cutoff has closed: another replica can adopt it now.
            error = error_object(INVALID_REQUEST, "this replica ends")
            return Refusal(403, error, challenge=f'{CHALLENGE} error="{ENDING}"')
        return found


class PeerAccess(AccessControl):
    """The access control of the peer port.

    Clients were authenticated and counted where they came to; their values for the environment of
    children are taken from the request itself.
    """

    def __init__(
        self, proofs: PeerProofs, pairs: Sequence[Pair], clock: Callable[[], float]
    ) -> None:
        """Make the access control.

        Args:
            proofs: Reads the proofs of replicas.
            pairs: The headers whose values become variables of children.
            clock: Returns seconds since the epoch.
        """
        super().__init__()
        self._proofs = proofs
        self._pairs = pairs
        self._now = clock

    async def enter(self, head: RequestHead) -> Refusal | None:
        """Put the principal that a replica names into the head, or return the refusal."""
        found = self._proofs.read(head.get(HEADER))
        if isinstance(found, Unproven):
            error = error_object(INVALID_REQUEST, _MESSAGES[found])
            challenge = f'{CHALLENGE} error="{found.value}"'
            if found is Unproven.OTHER_BOOT:
                # Only to one that knows the key; it may have found this address by its name.
                challenge += f', boot="{self._proofs.boot:08x}"'
            return Refusal(403, error, challenge=challenge, reason=Reason.CREDENTIALS)
        if self._pairs:
            values = values_of(self._pairs, head.raw)
            if isinstance(values, str):
                return refuse(400, INVALID_REQUEST, values)
            # Its key and account were made of the same values by the other replica.
            env = Secrets(tuple(sorted(values.items())))
            found = msgspec.structs.replace(found, env=env)
        head.admit(found)
        return None

    def still(self, principal: Principal) -> bool:
        """Return whether a client's credentials have not expired; the other replica knows more."""
        return principal.expires_at is None or self._now() < principal.expires_at

    def proves(self, head: RequestHead) -> bool:
        """Return whether the proof of a head that was admitted is still valid."""
        return not isinstance(self._proofs.read(head.get(HEADER)), Unproven)
