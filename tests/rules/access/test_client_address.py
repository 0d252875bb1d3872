"""Who may name the client of a request, and what is believed of the names."""

from __future__ import annotations

import pytest

from mcpbridge.rules.access.client_address import MAX_HOPS, TrustedProxies, trusted_proxy

PROXY = "10.0.0.1"
CLIENT = "192.0.2.7"
TRUSTED = TrustedProxies([trusted_proxy("10.0.0.0/8"), trusted_proxy("fd00::/8")])


def share(peer: str | None, *lines: tuple[str, str], trusted: TrustedProxies = TRUSTED) -> str:
    """The share of a request with these headers."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    return trusted.share_of(peer, raw)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a network"),
        ("proxy.example.org", "is not a network"),
        ("10.0.0.0/33", "is not a network"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("fd00::1/8", "write fd00::/8"),
        ("0.0.0.0/0", "trusts every client"),
        ("::/0", "trusts every client"),
    ],
)
def test_a_wrong_network_is_refused_with_what_is_right(text: str, problem: str) -> None:
    """The operator reads the sentence, and no bridge starts that trusts too many."""
    with pytest.raises(ValueError, match="write"):
        trusted_proxy(text)
    with pytest.raises(ValueError, match=problem.replace(".", "[.]")):
        trusted_proxy(text)


@pytest.mark.parametrize(
    ("text", "peer", "trusted"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "11.1.2.3", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("unix", None, True),
        ("unix", "10.0.0.1", False),
        ("10.0.0.0/8", None, False),
        ("10.0.0.0/8", "testclient", False),
    ],
)
def test_a_peer_is_trusted_by_its_network_alone(text: str, peer: str | None, trusted: bool) -> None:
    """An IPv4 address in IPv6 form is that address."""
    assert TrustedProxies([trusted_proxy(text)]).trusts(peer) is trusted


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], PROXY),
        ([("x-forwarded-for", CLIENT)], CLIENT),
        ([("x-forwarded-for", f"{CLIENT}:4711")], CLIENT),
        ([("x-forwarded-for", "[2001:db8:1:2::3]:4711")], "2001:db8:1:2::/64"),
        ([("x-forwarded-for", "2001:db8:1:2::3")], "2001:db8:1:2::/64"),
        ([("x-forwarded-for", "::ffff:192.0.2.7")], CLIENT),
        ([("x-forwarded-for", f"203.0.113.9, {CLIENT}")], CLIENT),
        ([("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", CLIENT)], CLIENT),
        ([("x-forwarded-for", f"{CLIENT}, 10.9.9.9, fd00::1")], CLIENT),
        ([("x-forwarded-for", "10.9.9.9")], "10.9.9.9"),
        ([("forwarded", f"for={CLIENT};proto=http")], CLIENT),
        ([("forwarded", f'For="{CLIENT}:80";by=10.0.0.1, for=10.2.2.2')], CLIENT),
        ([("forwarded", 'for="[2001:db8:1:2::3]:80"')], "2001:db8:1:2::/64"),
        ([("forwarded", f"for={CLIENT}"), ("x-forwarded-for", CLIENT)], CLIENT),
    ],
)
def test_a_trusted_proxy_names_its_client(lines: list[tuple[str, str]], wanted: str) -> None:
    """The last entry that is not a trusted proxy; whatever stands before it is a claim."""
    assert share(PROXY, *lines) == wanted


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([("x-forwarded-for", "")], PROXY),
        ([("x-forwarded-for", ", ,")], PROXY),
        ([("x-forwarded-for", f"{CLIENT}, unknown")], PROXY),
        ([("x-forwarded-for", f"{CLIENT}, 999.1.1.1")], PROXY),
        ([("x-forwarded-for", f"{CLIENT}, nonsense, 10.2.2.2")], "10.2.2.2"),
        ([("x-forwarded-for", f"{CLIENT}:99999999")], PROXY),
        ([("x-forwarded-for", "[" + CLIENT)], CLIENT),
        ([("x-forwarded-for", "\xff\xfe")], PROXY),
        ([("forwarded", "for=_hidden")], PROXY),
        ([("forwarded", "for=unknown")], PROXY),
        ([("forwarded", f"for={CLIENT};")], PROXY),
        ([("forwarded", f"nonsense, for={CLIENT}")], PROXY),
        ([("forwarded", f'for="{CLIENT}')], PROXY),
        ([("forwarded", f'for=10.2.2.2;host="a,for={CLIENT}"')], "10.2.2.2"),
        ([("forwarded", "for=192.0.2.8"), ("x-forwarded-for", CLIENT)], PROXY),
        ([("forwarded", "nonsense"), ("x-forwarded-for", CLIENT)], PROXY),
    ],
)
def test_what_cannot_be_read_leaves_the_last_proxy(
    lines: list[tuple[str, str]], wanted: str
) -> None:
    """Such a request counts for the address that is certain."""
    assert share(PROXY, *lines) == wanted


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
def test_a_peer_that_is_not_trusted_names_no_client(name: str) -> None:
    """Else a client could take the share of another, or as many as it likes."""
    value = CLIENT if name == "x-forwarded-for" else f"for={CLIENT}"
    assert share("203.0.113.1", (name, value)) == "203.0.113.1"
    assert share(None, (name, value)) == ""
    assert share(None, (name, value), trusted=TrustedProxies([None])) == CLIENT


@pytest.mark.parametrize("count", [MAX_HOPS, 10_000])
def test_of_thousands_of_entries_the_last_few_count(count: int) -> None:
    """A client may fill the head; what its proxy adds stands behind that."""
    assert share(PROXY, ("x-forwarded-for", ",".join(["1.1.1.1"] * count + [CLIENT]))) == CLIENT
    proxies = ",".join([CLIENT] + ["10.2.2.2"] * count)
    assert share(PROXY, ("x-forwarded-for", proxies)) == (
        "10.2.2.2" if count >= MAX_HOPS else CLIENT
    )
    listed = ",".join(["for=1.1.1.1"] * count + [f"for={CLIENT}"])
    assert share(PROXY, ("forwarded", listed)) in (CLIENT, PROXY)
