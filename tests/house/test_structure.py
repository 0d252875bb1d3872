"""The tree of the package: small packages, few floors, no circle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import structure

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "mcpbridge").rglob("*.py"))
}
GRAPH = structure.import_graph(SOURCES)
PACKAGES = structure.packages(GRAPH)

NAMED_TWICE = {"CallLimits", "Claims", "ClientState"}
"""Of `reverse/` or `replicas/`, and of the bridge or a token."""
MOST_MODULES = 12
MOST_FLOORS = 6

TREE = {
    "mcpbridge": "__main__ app asgi bridge channels cli client config demo dev doctor errors fleet"
    " http process replicas reverse rules runtime settings shim sidecar stores tape telemetry wire",
    "mcpbridge.app": "build health_client lifecycle listening replicas resource_limits self_copy"
    " server_routes servers servers_lifecycle signal_orders state_dump",
    "mcpbridge.bridge": "bridge budget calls children drain evictors keyring legacy modern"
    " readiness recycler relief reloader tasks tenant",
    "mcpbridge.bridge.calls": "call_log context exchange lists_announced replay shedding stream"
    " tool_filter tracing",
    "mcpbridge.bridge.children": "call_limiter child_pool handshake health_check lease listeners"
    " mux server_eras shared_state supervisor tenant_pool warm_pool",
    "mcpbridge.bridge.legacy": "client_state in_flight modern_child round_trips send_queue"
    " server_requests session session_child session_listener session_start session_table"
    " sessionless",
    "mcpbridge.bridge.modern": "emulation kept_listen parked_call parking passthrough"
    " request_state service subscriptions tool_catalog",
    "mcpbridge.channels": "channel decorated memory off_loop pipes sockets threaded_files",
    "mcpbridge.cli": "config_for copy_self dev doctor health main programs remote serve"
    " setting_options shim sidecar tape",
    "mcpbridge.cli.remote": "call connect list login one_request",
    "mcpbridge.cli.tape": "export replay tail verify",
    "mcpbridge.client": "http_client",
    "mcpbridge.config": "auth client_config command listen_address load model otel remote_server"
    " self_url servers_file settings_table values",
    "mcpbridge.dev": "callers decoration faulty_channel page program servers tail terminal_log"
    " verify watch",
    "mcpbridge.dev.page": "access document events frames opener page servers",
    "mcpbridge.doctor": "endpoint server",
    "mcpbridge.doctor.endpoint": "any_client checks lifecycle_operator mcp_client mcp_operator run"
    " sse_client",
    "mcpbridge.doctor.server": "diagnose examination hints recommended_flags render report"
    " server_process",
    "mcpbridge.fleet": "adoption directory member reload start_on_demand",
    "mcpbridge.http": "app auth body cors disconnect health keepalive origin_check pages peers"
    " refusals request request_metrics responses server transports",
    "mcpbridge.http.auth": "access authenticator jwk jwks oauth static_tokens",
    "mcpbridge.http.peers": "admission fence forwarding held questions relay sessions",
    "mcpbridge.http.server": "connection fast_path framing giving_way limits listeners server tls"
    " lazy_import write_buffer",
    "mcpbridge.http.transports": "legacy modern sse streamable_http",
    "mcpbridge.process": "_reaper child linux memory process_tree reaper run_as socket_child spawn"
    " spec stderr subprocess_child windows",
    "mcpbridge.process.windows": "command job",
    "mcpbridge.replicas": "adoption claims handover homes leaving notices peer_client peer_messages"
    " peer_proof peer_questions peers placement session_id tombstones",
    "mcpbridge.replicas.adoption": "adopter adoptions checks copies host known_homes out_of_reach"
    " revivable taker yield_orders",
    "mcpbridge.replicas.claims": "changes claims shared_store",
    "mcpbridge.reverse": "child client_calls client_state login one_request program remote_client"
    " session stdio translation",
    "mcpbridge.reverse.child": "remote_channel remote_child",
    "mcpbridge.reverse.login": "callback discovery kept_login oauth_http program saved_login",
    "mcpbridge.reverse.session": "faults remote_http request_headers sse_session streamable_session"
    " tokens",
    "mcpbridge.reverse.translation": "bridged_client either_era",
    "mcpbridge.rules": "access event_log expansion faults homes injected_faults mcp outcome"
    " supervision trace_context uri_set",
    "mcpbridge.rules.access": "client_address header_env hosts jwt principals rate_limit shares"
    " state_keys static_tokens tool_policy",
    "mcpbridge.rules.homes": "adoption lost_calls on_owner_lost owner peer_view record rendezvous"
    " states",
    "mcpbridge.rules.mcp": "admission correlator era_probe initialize input_required methods"
    " modern_checks request_meta revisions server_requests to_legacy to_modern",
    "mcpbridge.rules.supervision": "crashes fd_budget isolation lifecycle liveness memory_budget"
    " restart shutdown_times start_hints",
    "mcpbridge.runtime": "callback_faults exit_status loop_watchdog open_files signals small_file"
    " startup",
    "mcpbridge.shim": "program splice",
    "mcpbridge.sidecar": "inspect metrics program proxy upstream",
    "mcpbridge.stores": "breaker fence heartbeat memory redis store url",
    "mcpbridge.tape": "comparison export frame frame_filter recording redaction replay ring"
    " tapped_channel verification",
    "mcpbridge.telemetry": "logs metrics otel prometheus servers tracer",
    "mcpbridge.wire": "buffer headers json_object lines messages reply_id socket_address",
}
"""What each package holds; a new module is a decision about where things are found."""


def test_the_tree_is_as_it_is_written_down() -> None:
    """A module that is added is named here, beside its neighbours."""
    built = {name: " ".join(_last(each) for each in sorted(PACKAGES[name])) for name in PACKAGES}
    assert built == {name: " ".join(sorted(members.split())) for name, members in TREE.items()}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_can_be_read_at_a_glance(package: str) -> None:
    """Few modules, few floors between its members, and no circle among them."""
    members = PACKAGES[package]
    assert len([each for each in members if each not in PACKAGES]) <= MOST_MODULES
    between = structure.among(members, GRAPH)
    assert structure.circle(between) == []
    if package != "mcpbridge":  # import-linter has the floors of the whole, by name
        assert structure.floors(between) <= MOST_FLOORS


def test_no_module_imports_itself_in_a_circle() -> None:
    """Neither across packages, nor inside a function or for types alone."""
    assert structure.circle(GRAPH) == []


def test_a_class_name_stands_once_in_the_package() -> None:
    """A reader who looks for a name finds one class."""
    assert structure.repeated_classes(SOURCES) == NAMED_TWICE


def test_a_circle_and_floors_are_seen() -> None:
    """None of the tests above passes because nothing is found."""
    sources = {
        "p/__init__.py": "",
        "p/x/__init__.py": "",
        "p/a.py": "from p.x import b\n",
        "p/x/b.py": "def f():\n  from p import a\n",
    }
    graph = structure.import_graph(sources)
    assert (graph["p.a"], graph["p.x.b"]) == ({"p.x.b"}, {"p.a"})
    assert structure.circle(graph)
    assert structure.circle(structure.among(structure.packages(graph)["p"], graph))
    assert structure.floors({"a": {"b"}, "b": {"c"}, "d": {"c"}}) == 3
    twice = {"p/a.py": "class A: ...\nclass B: ...\n", "p/b.py": "class A: ...\nclass _B: ...\n"}
    assert structure.repeated_classes(twice) == {"A"}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
