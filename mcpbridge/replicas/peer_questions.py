"""Asks other replicas about sessions, over their peer ports.

The name of the service has addresses and no boots, but a proof is for one start of one replica. So
the first question to an address is for a boot that none has, and the refusal names the right one:
only to a replica that has proven that it knows the key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import msgspec

from mcpbridge.replicas.peer_client import PeerClient, PeerConnection, PeerFailure
from mcpbridge.replicas.peer_messages import (
    EndedSessions,
    HomeAnswer,
    HomeQuestion,
    MovedSessions,
)
from mcpbridge.replicas.peer_proof import HEADER, PeerProofs
from mcpbridge.replicas.session_id import Replica, replica_named
from mcpbridge.rules.access.principals import Principal
from mcpbridge.telemetry.metrics import Meters

PATH = "/mcpbridge/homes"
"""Of questions; on the peer port alone."""
HANDOVER_PATH = "/mcpbridge/handover"
"""Of sessions that are handed over, and of those that have ended; on the peer port alone."""
ANSWER_S = 1.0
"""Seconds in which a peer says whether it has a session."""
ADOPTION_S = 70.0
"""Seconds in which a peer adopts one: its child has to start."""
_MAX_ANSWER_BYTES = 4096
_NO_BOOT = 0
OFFER_S = 2.5
"""Seconds in which a peer takes a session or refuses it: more than `taker.TAKEN_WITHIN_S`."""
_decoder = msgspec.json.Decoder(HomeAnswer)


class PeerQuestions:
    """The questions of one replica to all others."""

    def __init__(self, client: PeerClient, proofs: PeerProofs, meters: Meters) -> None:
        """Make it; `client` connects, `proofs` prove this replica, `meters` count answers."""
        self._client = client
        self._proofs = proofs
        self._meters = meters
        self._boots: dict[str, int] = {}
        """The boot of each address that was asked."""

    async def ask(
        self, address: str, question: HomeQuestion, principal: Principal
    ) -> HomeAnswer | None:
        """Ask the peer at an address; return None if it does not answer, or not in time."""
        within_s = ADOPTION_S if question.adopt else ANSWER_S
        body = msgspec.json.encode(question)
        found = await self._asked(address, PATH, body, principal, within_s)
        self._meters.tally("asks", found.answer.value if found is not None else "none")
        return found

    async def offer(self, address: str, body: bytes, principal: Principal) -> HomeAnswer | None:
        """Offer a session to the peer at an address; return None if it does not answer in time."""
        return await self._asked(address, HANDOVER_PATH, body, principal, OFFER_S)

    async def tell(
        self, address: str, said: EndedSessions | MovedSessions, principal: Principal
    ) -> HomeAnswer | None:
        """Tell the peer at an address what became of sessions; None if it does not answer."""
        body = msgspec.json.encode(said)
        return await self._asked(address, HANDOVER_PATH, body, principal, ANSWER_S)

    async def _asked(
        self, address: str, path: str, body: bytes, principal: Principal, within_s: float
    ) -> HomeAnswer | None:
        try:
            async with asyncio.timeout(within_s):
                return await self._answer(address, path.encode(), body, principal)
        except (PeerFailure, TimeoutError):
            return None

    async def _answer(
        self, address: str, path: bytes, body: bytes, principal: Principal
    ) -> HomeAnswer | None:
        # The second time with the boot that the first refusal has named.
        for _ in range(2):
            target = replica_named(f"{address}/{self._boots.get(address, _NO_BOOT):08x}")
            if target is None:
                return None
            connection = await self._client.connection(target, path)
            try:
                proof = self._proofs.header_for(target, principal)
                connection.begin(_request(path, proof, body), path)
                data = await _whole(connection)
            finally:
                self._client.release(connection, target)
            if connection.status == 200:
                return _read(data)
            boot = _boot_in(connection)
            if boot is None or boot == self._boots.get(address):
                return None
            self._boots[address] = boot
        return None


async def addresses_of(name: str, port: int) -> list[str] | None:
    """Resolve the name of all replicas; return the addresses of their peer ports.

    Returns:
        None if it cannot be resolved now, which says nothing.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError:
        return None
    hosts = {str(ipaddress.ip_address(each[4][0])) for each in found}
    return [str(Replica(host, port, _NO_BOOT)).partition("/")[0] for host in sorted(hosts)]


def _request(path: bytes, proof: bytes, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: mcpbridge\r\ncontent-type: application/json\r\n"
    lines = b"%b: %b\r\ncontent-length: %d\r\n\r\n" % (HEADER, proof, len(body))
    return head % path + lines + body


async def _whole(connection: PeerConnection) -> bytes:
    body = b""
    while not connection.at_end:
        piece = connection.take()
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            return b""
        if not piece and not connection.complete:
            await connection.news()
    return body


def _read(data: bytes) -> HomeAnswer | None:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def _boot_in(connection: PeerConnection) -> int | None:
    """Return the boot that a refused proof should have been made for; None if it is not named."""
    for name, value in connection.headers or ():
        if connection.status == 403 and name == b"www-authenticate":
            _, found, rest = value.partition(b'boot="')
            text = rest.partition(b'"')[0]
            if found and len(text) == 8 and text.isalnum():
                try:
                    return int(text, 16)
                except ValueError:
                    return None
    return None
