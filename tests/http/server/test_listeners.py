"""The sockets of an address: both loopbacks by default, at one port."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

import pytest

from mcpbridge.app.listening import remedy_of
from mcpbridge.http.server import listeners, server
from mcpbridge.http.server.listeners import Bind, opened

BOTH = Bind("127.0.0.1", 0, "a test", both_loopbacks=True)


def bound(bind: Bind, held: ExitStack) -> list[tuple[str, int]]:
    """The addresses of the sockets for an address, which must be there to be had."""
    found = opened(bind, held, 30.0)
    assert not isinstance(found, str), found
    return [listener.getsockname()[:2] for listener in found]


class Network:
    """Stands in for `listener_at`: on ::1 it refuses, for a number of times."""

    def __init__(self, refusal: OSError, times: int) -> None:
        self.asked: list[str] = []
        self._refusal = refusal
        self._times = times

    def listener_at(self, host: str, port: int) -> socket.socket:
        """A socket on IPv4 in any case."""
        self.asked.append(host)
        if host == "::1":
            self._times -= 1
            if self._times >= 0:
                raise self._refusal
        return server.listener_at("127.0.0.1", port if host == "127.0.0.1" else 0)


IN_USE = OSError(errno.EADDRINUSE, "Address already in use")


@pytest.mark.parametrize(
    "refusal",
    [
        OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
        OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol"),
        socket.gaierror(socket.EAI_FAMILY, "ai_family not supported"),
    ],
)
def test_a_machine_without_ipv6_has_the_other_loopback(
    refusal: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it says so."""
    monkeypatch.setattr(listeners, "listener_at", Network(refusal, 1).listener_at)
    with ExitStack() as held:
        ((host, port),) = bound(BOTH, held)
    assert (host, port != 0) == ("127.0.0.1", True)


def test_a_free_port_is_free_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system picks for IPv4 may be another program's on IPv6: then it picks again."""
    network = Network(IN_USE, 2)
    monkeypatch.setattr(listeners, "listener_at", network.listener_at)
    with ExitStack() as held:
        assert len(bound(BOTH, held)) == 2
    assert network.asked == ["127.0.0.1", "::1"] * 3


@pytest.mark.parametrize("port", [0, 8000])
def test_a_port_that_is_taken_on_ipv6_alone_is_told(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks for `localhost` would reach the other program there."""
    monkeypatch.setattr(listeners, "listener_at", Network(IN_USE, 99).listener_at)
    with ExitStack() as held:
        # Whether 8000 is free on this machine does not matter: the test decides about ::1.
        monkeypatch.setattr(socket.socket, "bind", lambda *_: None)
        problem = opened(Bind("127.0.0.1", port, "a test", both_loopbacks=True), held, 30.0)
    assert isinstance(problem, str)
    assert problem.startswith("cannot listen on [::1]:")
    assert problem.endswith(": Address already in use")


def test_one_address_is_one_socket() -> None:
    """As asked for."""
    with ExitStack() as held:
        ((host, _),) = bound(Bind("127.0.0.1", 0, "a test"), held)
    assert host == "127.0.0.1"


@pytest.mark.parametrize(
    ("bind", "cause", "remedy"),
    [
        (Bind("127.0.0.1", 80, ""), errno.EACCES, "; give a port from 1024 on with --port"),
        (Bind("127.0.0.1", 80, ""), errno.EADDRINUSE, "; give another port with --port"),
        (Bind("127.0.0.1", 80, ""), errno.EADDRNOTAVAIL, ""),
        (Bind("127.0.0.1", 8000, ""), errno.EACCES, ""),
        (Bind("", 0, "", path="/run/mcp.sock"), errno.EACCES, ""),
    ],
)
def test_an_address_that_cannot_be_had_has_its_remedy(bind: Bind, cause: int, remedy: str) -> None:
    """If the port is the cause; what a folder permits, its path says."""
    said = remedy_of(f"cannot listen: {os.strerror(cause)}", bind, "--port")
    assert said.startswith(remedy)
    assert bool(said) == bool(remedy)
