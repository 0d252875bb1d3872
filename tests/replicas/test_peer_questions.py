"""Questions between replicas as bytes: peers that answer rightly, wrongly, late or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from mcpbridge.replicas import peer_questions
from mcpbridge.replicas.peer_client import PeerClient
from mcpbridge.replicas.peer_messages import HomeAnswer, HomeQuestion
from mcpbridge.replicas.peer_proof import PeerProofs
from mcpbridge.replicas.peer_questions import PeerQuestions, addresses_of
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.homes.adoption import PeerAnswer
from mcpbridge.telemetry.metrics import Meters

QUESTION = HomeQuestion("m1", "10.0.0.1:8001")
HOME = "10.0.0.2:8001/0000000b"


def refused(boot: str) -> bytes:
    """The answer of a peer whose boot is another."""
    challenge = f'Mcpbridge-Peer error="other_boot", boot="{boot}"'
    return f"HTTP/1.1 403 No\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n".encode()


def answered(body: bytes) -> bytes:
    """An answer with this body."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Peer:
    """A peer port that answers with what a test gives it, in turn; the last one again and again."""

    def __init__(self, answers: tuple[bytes, ...]) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.serving: list[asyncio.Task[None] | None] = []
        self.meters = Meters()

    def counted(self) -> dict[str, int]:
        """The answers that the one that asks has counted."""
        return {str(label): count for label, count in self.meters.tallies["asks"].items()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                assert b'"session":"m1"' in await reader.readexactly(length)
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        writer.close()


@contextlib.asynccontextmanager
async def asking(*answers: bytes) -> AsyncIterator[tuple[PeerQuestions, str, Peer]]:
    """Ask a peer that gives these answers."""
    peer, client = Peer(answers), PeerClient()
    own = Replica("10.0.0.1", 8001, 7)
    keys = (b"k" * 32,)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        proofs = PeerProofs(own, lambda: keys, lambda: 1_900_000_000.0)
        yield PeerQuestions(client, proofs, peer.meters), f"127.0.0.1:{port}", peer
    finally:
        client.close()
        server.close()
        await asyncio.gather(*filter(None, peer.serving))


async def test_the_boot_of_an_address_is_learned_once() -> None:
    """From the refusal of the first proof; a peer that began again names another."""
    has = answered(b'{"answer":"has","home":"%b"}' % HOME.encode())
    answers = (refused("0000000b"), has, has, refused("0000000c"), has)
    async with asking(*answers) as (questions, address, peer):
        for _ in range(3):
            found = await questions.ask(address, QUESTION, ANONYMOUS)
            assert found == HomeAnswer(PeerAnswer.HAS, HOME)
        assert peer.counted() == {"has": 3}
        boots = [head.partition(b"mcpbridge-peer: 1.00000007.")[2][:8] for head in peer.heads]
        assert boots == [b"00000000", b"0000000b", b"0000000b", b"0000000b", b"0000000c"]
        assert all(head.startswith(b"POST /mcpbridge/homes HTTP/1.1\r\n") for head in peer.heads)


@pytest.mark.parametrize(
    "answer",
    [
        refused("0000000b"),
        refused("zzzzzzzz"),
        refused(""),
        b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        answered(b""),
        answered(b"{}"),
        answered(b'{"answer":"perhaps"}'),
        answered(b'{"answer":"has_not"}' + b" " * 5000),
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        b"+PONG\r\n",
    ],
    ids=lambda each: each[:60].decode(),
)
async def test_what_is_no_answer_counts_as_none(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused proof is made a second time and not a third; waiting for an answer has a limit."""
    if answer.endswith(b"9\r\n\r\n"):
        monkeypatch.setattr(peer_questions, "ANSWER_S", 0.05)
    async with asking(answer) as (questions, address, peer):
        assert await questions.ask(address, QUESTION, ANONYMOUS) is None
        assert 1 <= len(peer.heads) <= 2
        assert peer.counted() == {"none": 1}


async def test_an_address_without_a_peer_is_silent() -> None:
    """Nothing listens there, or it is not an address."""
    async with asking(b"") as (questions, address, _):
        pass
    assert await questions.ask(address, QUESTION, ANONYMOUS) is None
    assert await questions.ask("nowhere", QUESTION, ANONYMOUS) is None


async def test_the_name_of_all_replicas_has_addresses_or_is_not_known() -> None:
    """As session ids spell them."""
    assert "127.0.0.1:8001" in (await addresses_of("localhost", 8001) or [])
    assert await addresses_of("::1", 8001) == ["[::1]:8001"]
    assert await addresses_of("replicas.invalid", 8001) is None
