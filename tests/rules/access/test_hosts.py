"""Which Host and Origin may in: a matrix of names, bindings and allowances."""

from __future__ import annotations

import pytest

from mcpbridge.rules.access.hosts import (
    HostRules,
    fetch_allowed,
    host_allowed,
    host_name,
    host_pattern,
    origin_allowed,
    origin_pattern,
    readable_by,
    search_list,
    share_of,
)
from tests.support.proofs import proves

LOOPBACK = HostRules(loopback=True)
WIDE = HostRules(loopback=False)
LISTED_HOSTS = ("mcp.example.org", "*.Example.com", "::2")
LISTED_LOOPBACK = HostRules(loopback=True, allowed_hosts=LISTED_HOSTS)
LISTED_WIDE = HostRules(loopback=False, allowed_hosts=LISTED_HOSTS)
ANY = HostRules(loopback=True, allowed_hosts=("*",))

MATRIX: list[tuple[str | None, bool, bool, bool, bool]] = [
    # Host, on loopback, bound wider, on loopback with a list, bound wider with a list
    (None, True, True, True, True),
    ("localhost", True, True, True, True),
    ("LocalHost:8000", True, True, True, True),
    ("localhost.", True, True, True, True),
    ("127.0.0.1", True, True, True, True),
    ("127.0.0.1:65535", True, True, True, True),
    ("[::1]", True, True, True, True),
    ("[::1]:8000", True, True, True, True),
    ("localhost:", True, True, True, True),
    ("127.0.0.2", False, True, False, True),
    ("10.1.2.3:80", False, True, False, True),
    ("[fd00::1]:80", False, True, False, True),
    ("[::2]:80", False, True, True, True),
    ("mcpbridge", False, True, False, True),
    ("mcpbridge:8000", False, True, False, True),
    ("mcpbridge.default.svc", False, True, False, True),
    ("mcpbridge.default.svc.cluster.local:80", False, True, False, True),
    ("host.docker.internal:8000", True, True, True, True),
    ("host.containers.internal", True, True, True, True),
    ("Host.Docker.Internal.", True, True, True, True),
    ("mcp.corp.internal", False, True, False, True),
    ("internal", False, True, False, True),
    ("host.docker.internal.evil.test", False, False, False, False),
    ("evilhost.docker.internal", False, True, False, True),
    ("host.docker.evilinternal", False, False, False, False),
    ("mcpbridge.default", False, False, False, False),
    ("mcp.example.org", False, False, True, True),
    ("MCP.Example.org.:443", False, False, True, True),
    ("a.example.com", False, False, True, True),
    ("a.b.example.com", False, False, True, True),
    ("example.com", False, False, False, False),
    ("evilexample.com", False, False, False, False),
    ("sub.mcp.example.org", False, False, False, False),
    ("mcp.example.org.evil.test", False, False, False, False),
    ("evil.test", False, False, False, False),
    ("localhost.evil.test", False, False, False, False),
    ("127.0.0.1.evil.test", False, False, False, False),
    ("svc.evil.test", False, False, False, False),
    ("evil.testsvc", False, False, False, False),
]

MALFORMED = [
    "",
    ".",
    "..",
    ":80",
    "::1",
    "[::1",
    "::1]",
    "[]",
    "[1.2.3.4]",
    "[localhost]",
    "[::1]evil.test",
    "evil.test[::1]",
    "[::1][::1]",
    "[::1]:80:80",
    "localhost:80:80",
    "localhost:http",
    "localhost:-1",
    "localhost:65536",
    "localhost:999999",
    "localhost:٨",
    "user@localhost",
    "evil.test@localhost",
    "localhost/",
    "localhost?",
    "localhost#",
    "localhost\\evil.test",
    "localhost, evil.test",
    "local host",
    " localhost",
    "localhost ",
    "localhost\n",
    "local\thost",
    "local\rhost",
    "localhost\x00",
    "ｌocalhost",
    "http://localhost",
]


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("mcpbridge.tools", True),
        ("mcpbridge.tools:8000", True),
        ("mcpbridge.tools.svc.corp.example", True),
        ("mcpbridge.other.svc.corp.example", True),
        ("10-0-0-1.tools.pod.corp.example", False),
        ("mcpbridge.other", False),
        ("a.mcpbridge.tools", False),
        (".tools", False),
        ("www.corp.example", False),
        ("svc.corp.example", False),
        ("tools.svc.corp.example.evil.test", False),
    ],
)
def test_names_of_a_pod_are_served_by_its_search_list(host: str, served: bool) -> None:
    """Services under the cluster's domain, and in the pod's own namespace by two words."""
    resolv_conf = (
        "# made by the kubelet\nsearch lost.example\nnameserver 10.96.0.10\n"
        "search tools.svc.corp.example svc.corp.example. Corp.Example\noptions ndots:5\n"
    )
    search = search_list(resolv_conf)
    assert search == ("tools.svc.corp.example", "svc.corp.example", "corp.example")
    assert host_allowed(host, HostRules(loopback=False, search=search)) == served
    assert not host_allowed(host, HostRules(loopback=True, search=search))


def test_a_search_list_outside_of_a_cluster_serves_nothing_more() -> None:
    """A machine's own domain may hold names that any client can have."""
    for resolv_conf in ("", "search", "nameserver 1.1.1.1", "domain corp.example\n"):
        rules = HostRules(loopback=False, search=search_list(resolv_conf))
        assert not host_allowed("www.corp.example", rules)


@pytest.mark.parametrize(("host", "loopback", "wide", "listed_loopback", "listed_wide"), MATRIX)
def test_a_host_is_served_by_binding_and_list(
    host: str | None, loopback: bool, wide: bool, listed_loopback: bool, listed_wide: bool
) -> None:
    """Loopback serves its own names, a wider binding what no browser is lured to, both the list."""
    assert host_allowed(host, LOOPBACK) is loopback
    assert host_allowed(host, WIDE) is wide
    assert host_allowed(host, LISTED_LOOPBACK) is listed_loopback
    assert host_allowed(host, LISTED_WIDE) is listed_wide
    assert host_allowed(host, ANY) is True


@pytest.mark.parametrize("host", MALFORMED)
def test_a_malformed_host_is_never_served(host: str) -> None:
    """What is not a host and port is refused whatever is allowed; no parser's guess decides."""
    assert host_name(host) is None
    assert not any(host_allowed(host, rules) for rules in (LOOPBACK, WIDE, LISTED_WIDE, ANY))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("LOCALHOST:80", "localhost"),
        ("[FD00::A]:80", "fd00::a"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("a.b.", "a.b"),
        ("xn--bcher-kva.example:0", "xn--bcher-kva.example"),
        ("under_score", "under_score"),
    ],
)
def test_a_host_has_one_name(host: str, name: str) -> None:
    """Case, port, brackets and a final dot do not make another name."""
    assert host_name(host) == name


LISTED_ORIGINS = (
    "https://app.example.org",
    "http://app.example.org:8080/",
    "http://plain.example.org",
    "chrome-extension://abcdef",
    "null",
    "not an origin",
)

ORIGINS: list[tuple[str | None, bool, bool, bool]] = [
    # Origin, on loopback, bound wider, bound wider with a list
    (None, True, True, True),
    ("http://localhost", True, False, False),
    ("http://localhost:5173", True, False, False),
    ("https://LOCALHOST:5173", True, False, False),
    ("http://127.0.0.1:3000", True, False, False),
    ("http://[::1]:3000", True, False, False),
    ("http://localhost/", True, False, False),
    ("null", False, False, True),
    ("not an origin", False, False, True),
    ("https://app.example.org", False, False, True),
    ("https://app.example.org:443", False, False, True),
    ("http://plain.example.org:80", False, False, True),
    ("http://plain.example.org:443", False, False, False),
    ("HTTPS://App.Example.org", False, False, True),
    ("http://app.example.org:8080", False, False, True),
    ("chrome-extension://abcdef", False, False, True),
    ("http://app.example.org", False, False, False),
    ("https://app.example.org:8443", False, False, False),
    ("https://sub.app.example.org", False, False, False),
    ("https://app.example.org.evil.test", False, False, False),
    ("https://evil.test", False, False, False),
    ("http://localhost.evil.test", False, False, False),
    ("http://127.0.0.1.evil.test", False, False, False),
    ("http://localhost@evil.test", False, False, False),
    ("http://evil.test@localhost", False, False, False),
    ("http://[::1]evil.test", False, False, False),
    ("http://localhost evil.test", False, False, False),
    ("http://localhost:99999", False, False, False),
    ("http://localhost:x", False, False, False),
    ("http://localhost/evil", False, False, False),
    ("http://[", False, False, False),
    ("http://", False, False, False),
    ("localhost", False, False, False),
    ("//localhost", False, False, False),
    ("file://localhost", False, False, False),
    ("file://", False, False, False),
    ("ftp://localhost", False, False, False),
    ("", False, False, False),
]


@pytest.mark.parametrize(("origin", "loopback", "wide", "listed"), ORIGINS)
def test_an_origin_is_served_by_binding_and_list(
    origin: str | None, loopback: bool, wide: bool, listed: bool
) -> None:
    """Programs may in; pages of this machine on loopback; every other page only if listed."""
    assert origin_allowed(origin, LOOPBACK) is loopback
    assert origin_allowed(origin, WIDE) is wide
    listing = HostRules(loopback=False, allowed_origins=LISTED_ORIGINS)
    assert origin_allowed(origin, listing) is listed
    assert origin_allowed(origin, HostRules(loopback=True, allowed_origins=("*",))) is True


def test_hosts_and_origins_are_allowed_apart() -> None:
    """A host in the list does not let pages of that host in, nor the other way round."""
    by_host = HostRules(loopback=False, allowed_hosts=("app.example.org",))
    assert not origin_allowed("https://app.example.org", by_host)
    by_origin = HostRules(loopback=False, allowed_origins=("https://app.example.org",))
    assert not host_allowed("app.example.org", by_origin)


@pytest.mark.parametrize(
    ("text", "pattern", "host"),
    [
        ("*", "*", "anything.example"),
        ("MCP.Example.org.", "mcp.example.org", "mcp.example.org:80"),
        ("*.Example.org", "*.example.org", "a.example.org"),
        ("FD00::1", "fd00::1", "[fd00::1]:80"),
        ("[fd00::1]", "fd00::1", "[FD00::1]"),
    ],
)
def test_an_allowed_host_is_written_as_people_write_it(text: str, pattern: str, host: str) -> None:
    """Capitals, brackets and a final dot in the list do not keep the host out."""
    assert host_pattern(text) == pattern
    assert host_allowed(host, HostRules(loopback=True, allowed_hosts=(pattern,)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mcp.example.org:80", "has a port"),
        ("*.example.org:80", "has a port"),
        ("http://mcp.example.org", "is not a host name"),
        ("", "is not a host name"),
        ("*.", "is not a host name"),
        ("a.*.org", "is not a host name"),
        ("**", "is not a host name"),
        ("a b", "is not a host name"),
    ],
)
def test_an_entry_that_no_host_matches_is_refused(text: str, why: str) -> None:
    """A list entry that could never match is told at once, with what would be right."""
    with pytest.raises(ValueError, match=why):
        host_pattern(text)


@proves("fault 91")
@pytest.mark.parametrize(("origin", "loopback", "wide", "listed"), ORIGINS)
def test_an_answer_is_read_by_listed_origins_alone(
    origin: str | None, loopback: bool, wide: bool, listed: bool
) -> None:
    """A page that is served for being of this machine reads nothing."""
    if origin is None:
        return
    assert readable_by(origin, LOOPBACK) is readable_by(origin, WIDE) is None
    for on_loopback in (True, False):
        listing = HostRules(loopback=on_loopback, allowed_origins=LISTED_ORIGINS)
        assert readable_by(origin, listing) == (origin if listed else None)
    assert readable_by(origin, HostRules(loopback=False, allowed_origins=("*",))) == "*"


def test_an_origin_is_no_longer_than_one_can_be() -> None:
    """What is kept of past questions stays small, whatever is asked."""
    origin = "https://" + "a." * 200 + "example"
    rules = HostRules(loopback=True, allowed_origins=(origin,))
    assert not origin_allowed(origin, rules)
    assert readable_by(origin, rules) is None


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("*", "*"),
        ("null", "null"),
        ("https://App.Example.org", "https://app.example.org"),
        ("https://app.example.org/", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://app.example.org:8080", "http://app.example.org:8080"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_allowed_origin_is_written_as_people_write_it(text: str, pattern: str) -> None:
    """Capitals, a final slash and the port that is meant anyhow do not keep a page out."""
    assert origin_pattern(text) == pattern
    if text != "*":
        rules = HostRules(loopback=False, allowed_origins=(pattern,))
        assert readable_by(pattern, rules) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app.example.org",
        "https://*.example.org",
        "https://",
        "https://app.example.org/path",
        "https://app.example.org?x",
        "https://app.example.org#x",
        "https://user@app.example.org",
        "https://app.example.org:x",
        "http://[",
        "NULL",
    ],
)
def test_an_entry_that_no_origin_matches_is_refused(text: str) -> None:
    """Origins are exact: nothing stands for several but `*` alone."""
    with pytest.raises(ValueError, match="is not an origin"):
        origin_pattern(text)


@pytest.mark.parametrize(
    ("site", "destination", "allowed"),
    [
        (None, None, True),
        (None, "image", True),
        ("none", "document", True),
        ("same-origin", "empty", True),
        ("same-site", "image", True),
        ("cross-site", "document", True),
        ("cross-site", "image", False),
        ("cross-site", "iframe", False),
        ("cross-site", "empty", False),
        ("cross-site", None, False),
    ],
)
def test_another_site_may_link_and_not_embed(
    site: str | None, destination: str | None, allowed: bool
) -> None:
    """Programs say nothing of it, browsers cannot leave it out."""
    assert fetch_allowed(site, destination) is allowed


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_a_peer_has_one_share_whatever_addresses_of_its_network_it_uses(
    address: str, share: str
) -> None:
    """The smallest network that one household has is a /64."""
    assert share_of(address) == share
