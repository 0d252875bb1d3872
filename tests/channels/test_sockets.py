"""Sockets of both families as channels, and as listeners, on both event loops."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from mcpbridge.channels.channel import Received
from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.channels.sockets import dial, listening, socket_channel
from mcpbridge.errors import ChannelClosed
from mcpbridge.wire.messages import Notification
from mcpbridge.wire.socket_address import Address, TcpAddress, UnixAddress

WITHIN_S = 20.0
KINDS = ("unix", "abstract", "tcp", "tcp6")


def address(kind: str, folder: Path) -> Address:
    """An address that is used by no other test."""
    made: dict[str, Address] = {
        "unix": UnixAddress(str(folder / "s")),
        "abstract": UnixAddress(f"@{folder}"),
        "tcp": TcpAddress("127.0.0.1", 0),
        "tcp6": TcpAddress("::1", 0),
    }
    return made[kind]


def bound(asked: Address, listener: socket.socket) -> Address:
    """The address with the port that was found."""
    if isinstance(asked, TcpAddress):
        return TcpAddress(asked.host, listener.getsockname()[1])
    return asked


@asynccontextmanager
async def connected(asked: Address) -> AsyncIterator[tuple[PipeChannel, socket.socket]]:
    """An open channel and its peer's socket."""
    with listening(asked, 0o600) as listener:
        dialled = await dial(bound(asked, listener))
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
    peer.setblocking(False)
    channel = socket_channel(dialled, PipeLimits())
    with closing(peer), channel.open():
        yield channel, peer


async def heard(peer: socket.socket, size: int) -> bytes:
    """That many bytes, or fewer at the end of the stream."""
    found = bytearray()
    async with asyncio.timeout(WITHIN_S):
        while len(found) < size:
            chunk = await asyncio.get_running_loop().sock_recv(peer, 1 << 16)
            if not chunk:
                break
            found += chunk
    return bytes(found)


async def received(channel: PipeChannel) -> Sequence[Received]:
    """What comes next."""
    async with asyncio.timeout(WITHIN_S):
        return await channel.receive()


@pytest.mark.parametrize("kind", KINDS)
async def test_each_side_may_end_what_it_says_before_the_other(kind: str, tmp_path: Path) -> None:
    """Messages go both ways, the last ones after the end of the other way."""
    async with connected(address(kind, tmp_path)) as (channel, peer):
        line = b'{"jsonrpc":"2.0","method":"a"}\n'
        channel.send(Notification("a"))
        assert await heard(peer, len(line)) == line

        channel.close_input()
        assert await heard(peer, 1) == b""
        with pytest.raises(ChannelClosed):
            channel.send(Notification("b"))

        peer.sendall(line)
        assert await received(channel) == [Notification("a")]
        peer.shutdown(socket.SHUT_WR)
        assert await received(channel) == []
        assert channel.ended.is_set()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_peer_that_vanishes_ends_the_channel(kind: str, tmp_path: Path) -> None:
    """What it has said still counts, and senders do not wait for it any more."""
    async with connected(address(kind, tmp_path)) as (channel, peer):
        while not channel.congested:
            channel.send(Notification("n", b'["' + b"x" * 100_000 + b'"]'))
            await asyncio.sleep(0)  # one turn of the loop
        waiting = asyncio.ensure_future(channel.writable())
        await asyncio.sleep(0)  # one turn of the loop
        assert not waiting.done()
        peer.close()
        async with asyncio.timeout(WITHIN_S):
            await waiting
            await channel.ended.wait()
        with pytest.raises(ChannelClosed):
            channel.send(Notification("b"))


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_there_is_a_refusal(kind: str, tmp_path: Path) -> None:
    """At once, and no descriptor is left open."""
    asked = address(kind, tmp_path)
    with listening(asked, 0o600) as listener:
        where = bound(asked, listener)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await dial(where)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_the_file_of_a_socket_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    """And is gone when no process listens any more."""
    path = tmp_path / "s"
    with listening(UnixAddress(str(path)), 0o606):
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
    assert not path.exists()


async def test_nobody_can_connect_before_the_mode_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the file has what the umask leaves, which may be everything."""
    path = tmp_path / "s"
    refused: list[str] = []
    chmod = os.chmod

    def tried(name: str, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(name)
        refused.append(name)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", tried)
    with listening(UnixAddress(str(path)), 0o600), socket.socket(socket.AF_UNIX) as later:
        later.connect(str(path))
    assert refused == [str(path)]


async def test_a_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    """A listener that was killed leaves its file behind."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(UnixAddress(str(path)), 0o600) as listener:
        (await dial(UnixAddress(str(path)))).close()
        listener.accept()[0].close()


async def test_a_living_listener_is_not_replaced(tmp_path: Path) -> None:
    """Nor is a file that is not a socket; both stay as they are."""
    path, text = tmp_path / "s", tmp_path / "text"
    text.write_text("x")
    with listening(UnixAddress(str(path)), 0o600) as listener:
        second = listening(UnixAddress(str(path)), 0o600)
        with pytest.raises(OSError, match=f"another process listens on {path}"), second:
            pass
        with closing(listener.accept()[0]) as tried:
            assert tried.recv(1) == b""
        (await dial(UnixAddress(str(path)))).close()
    with (
        pytest.raises(OSError, match="exists and is not a socket"),
        listening(UnixAddress(str(text)), 0o600),
    ):
        pass
    assert text.read_text() == "x"


async def test_a_successors_file_is_left_alone(tmp_path: Path) -> None:
    """Each process removes its own file at its end and no other."""
    path = tmp_path / "s"
    with listening(UnixAddress(str(path)), 0o600):
        path.unlink()
        with listening(UnixAddress(str(path)), 0o600):
            first = path.stat().st_ino
            with listening(UnixAddress(str(tmp_path / "other")), 0o600):
                pass
            assert path.stat().st_ino == first
