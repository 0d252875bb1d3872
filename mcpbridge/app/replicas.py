"""Assembles what a replica has beside a process that serves alone; imported with `--peers` only."""

from __future__ import annotations

import functools
import secrets
import time
from typing import TYPE_CHECKING

import anyio
import msgspec
from starlette.types import ASGIApp

from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.config.model import Config
from mcpbridge.http.app import HttpApp, McpRoute, PostHandling, Verbs
from mcpbridge.http.auth.access import AccessControl
from mcpbridge.http.body import BodyLimits
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.peers.admission import PeerAccess, PeerLegacy
from mcpbridge.http.peers.forwarding import ForwardingLegacy, ForwardingModern, ForwardingSse
from mcpbridge.http.peers.questions import BridgeSessions, HomeQuestions
from mcpbridge.http.peers.relay import Relay
from mcpbridge.http.refusals import Refusals
from mcpbridge.http.request import RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse
from mcpbridge.http.server.fast_path import FastPath
from mcpbridge.http.transports.modern import ModernTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.replicas.handover import HandOver
from mcpbridge.replicas.homes import Homes
from mcpbridge.replicas.peer_client import PeerClient
from mcpbridge.replicas.peer_proof import PeerProofs
from mcpbridge.replicas.peer_questions import HANDOVER_PATH, PATH, PeerQuestions, addresses_of
from mcpbridge.replicas.placement import Placement
from mcpbridge.replicas.session_id import Replica, SessionId, SessionIds
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.state_keys import FOR_ID, FOR_PEER, FOR_STATE
from mcpbridge.rules.mcp.admission import Opening
from mcpbridge.telemetry.metrics import Meters

if TYPE_CHECKING:
    from mcpbridge.replicas.claims.claims import Claims
    from mcpbridge.replicas.claims.shared_store import SharedStore


class PeerEndpoint(msgspec.Struct, frozen=True):
    """What is behind the port for other replicas."""

    app: ASGIApp
    fast_path: FastPath


class PeerPosts(PostHandling):
    """Handles POSTs of replicas that a connection has whole, for `http.server.fast_path`."""

    def __init__(self, streamable: StreamableHttp, access: PeerAccess) -> None:
        super().__init__(streamable, access)
        self._peers = access

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Handle a POST, as the base does; None if its proof must be refused."""
        return super().handle(head, body) if self._peers.proves(head) else None


class ThisReplica:
    """This process as one of several that serve together."""

    def __init__(self, config: Config, meters: Meters) -> None:
        """Choose its identity; nothing is opened or started.

        Args:
            config: The configuration.
            meters: Count what a store fails at.
        """
        assert config.keyring is not None
        assert config.peer_bind is not None
        self._config = config
        bind = config.peer_bind
        self.own = Replica(bind.host, bind.port, secrets.randbits(32))
        self._ids = SessionIds(self.own, config.keyring.keys_for(FOR_ID), time.time)
        self._proofs = PeerProofs(self.own, config.keyring.keys_for(FOR_PEER), time.time)
        self.state_codec = RequestStateCodec(config.keyring.keys_for(FOR_STATE), str(self.own))
        self._store: SharedStore | None = None
        if config.settings.replicas.store is not None:
            from mcpbridge.replicas.claims.shared_store import SharedStore  # with --store alone

            failed = functools.partial(meters.tally, "store_errors", ())
            idle_s = config.settings.sessions.idle_timeout_s
            self._store = SharedStore(config.settings.replicas.store, self.own, idle_s, failed)
        self.session_changed = self._store.changes.changed if self._store is not None else None
        """Called with a session that its next home must know more of; None: there is no store."""

    def new_session_id(self, opening: Opening, principal: Principal) -> str:
        """Return the id of a session that opens here."""
        text = self._ids.new(principal.key, opening.client_profile.params)
        if self._store is not None:
            read = self._ids.open(text, principal.key)
            carries = isinstance(read, SessionId) and read.params is not None
            self._store.opened(text, carries_params=carries)
        return text

    def new_stream_key(self, principal: Principal) -> str:
        """Return the key of a stream of HTTP+SSE that opens here."""
        return self._ids.new(principal.key, one_stream=True)

    def serving(
        self,
        bridge: Bridge,
        keepalive: KeepAlive,
        limits: BodyLimits,
        access: AccessControl,
        below: str,
        meters: Meters,
    ) -> ServingReplica:
        """Return what serves clients and other replicas.

        Args:
            bridge: Has the sessions that are here.
            keepalive: Nudges the streams of clients.
            limits: The limits on bodies.
            access: Finds out who calls.
            below: The path below which HTTP+SSE is served.
            meters: Count what is forwarded.
        """
        settings = self._config.settings
        passed = [pair.header for pair in settings.auth.header_env]
        still = access.still if access.asks else None
        client = PeerClient()
        peers = PeerQuestions(client, self._proofs, meters)
        host = BridgeSessions(bridge, self._ids, settings.child_pool)
        claims = self._claims(host, meters)
        homes = self._homes(host, peers, claims)
        meters.watch("moved_sessions", lambda: homes.leaving.moved)
        meters.watch("peers", lambda: len(homes.peers) - 1)
        leaving = (peers.offer, bridge.drain, meters, time.monotonic)
        hand_over = HandOver(homes, host, *leaving)
        relay = Relay(self._ids, self._proofs, client, bridge.drain, meters, passed, still, homes)
        window_s = settings.answers.json_window_s
        placement = Placement(homes, peers.ask, time.monotonic)
        legacy = ForwardingLegacy(bridge, keepalive, settings.answers, relay, homes, placement)
        modern = ForwardingModern(bridge, keepalive, window_s, relay, self.state_codec, self.own)
        sse = None
        if settings.eras.serves_legacy:
            parts = (bridge, keepalive, settings.proxy, limits, below, access)
            sse = ForwardingSse(*parts, self.new_stream_key, relay)
        streamable = StreamableHttp(legacy, modern, settings.eras, limits, access, bridge.budget)
        parts_of_it = (streamable, sse, relay, self._proofs, homes, hand_over, claims)
        return ServingReplica(self._config, bridge, limits, *parts_of_it)

    def _claims(self, host: BridgeSessions, meters: Meters) -> Claims | None:
        if self._store is None:
            return None
        claims = self._store.claims(host)
        meters.watch("store_up", lambda: float(claims.up))
        return claims

    def _homes(
        self, host: BridgeSessions, questions: PeerQuestions, claims: Claims | None
    ) -> Homes:
        settings = self._config.settings.replicas
        assert settings.peers is not None
        resolve = functools.partial(addresses_of, settings.peers.name, settings.peers.port)
        ways = (questions.ask, questions.tell, resolve)
        choices = (settings.on_owner_lost, claims)
        return Homes(self.own, host, *ways, time.monotonic, time.time, *choices)


class ServingReplica:
    """What serves clients, and the other replicas of a service."""

    def __init__(
        self,
        config: Config,
        bridge: Bridge,
        limits: BodyLimits,
        streamable: StreamableHttp,
        sse: ForwardingSse | None,
        relay: Relay,
        proofs: PeerProofs,
        homes: Homes,
        hand_over: HandOver,
        claims: Claims | None,
    ) -> None:
        self._homes = homes
        self._claims = claims
        self._hand_over = hand_over
        self.streamable = streamable
        """Serves clients of Streamable HTTP."""
        self.sse = sse
        """Serves clients of HTTP+SSE; None if the legacy revisions are not served."""
        self._config = config
        self._bridge = bridge
        self._limits = limits
        self._relay = relay
        pairs = config.settings.auth.header_env
        self._access = PeerAccess(proofs, pairs, time.time)
        # Whether a client's credentials are still valid only the replica knows that it has asked.
        self._keepalive = KeepAlive(config.settings.keepalive.every_s, self._access.still)

    def endpoint(self, refusals: Refusals) -> PeerEndpoint:
        """Return the applications of the peer port, which forward nothing."""
        settings, access, limits = self._config.settings, self._access, self._limits
        window_s = settings.answers.json_window_s
        streamable = StreamableHttp(
            PeerLegacy(self._bridge, self._keepalive, settings.answers, self._homes),
            ModernTransport(self._bridge, self._keepalive, window_s),
            settings.eras,
            limits,
            access,
            self._bridge.budget,
        )
        verbs: Verbs
        verbs = {"POST": streamable.post, "GET": streamable.get, "DELETE": streamable.delete}
        paths = dict.fromkeys(settings.listen.mcp_paths, verbs)
        if self.sse is not None:
            paths[self.sse.messages_path] = {"POST": self.sse.take}
        questions = HomeQuestions(self._homes, self._bridge)
        paths[PATH] = {"POST": questions.post}
        paths[HANDOVER_PATH] = {"POST": questions.take}
        routes = [McpRoute(path, verbs, access) for path, verbs in paths.items()]
        # Host and Origin were checked where the client came to.
        rules = HostRules(loopback=False, allowed_hosts=("*",))
        app = HttpApp(routes, rules, root_path=settings.proxy.root_path, refusals=refusals)
        traced = self._config.otel is not None
        posts = PeerPosts(streamable, access)
        return PeerEndpoint(app, FastPath(posts, limits, rules, 0.0 if traced else window_s))

    async def run(self) -> None:
        """Do what a replica does beside serving, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keepalive.run)
            tasks.start_soon(self._relay.run)
            tasks.start_soon(self._homes.run)
            tasks.start_soon(self._hand_over.run)
            if self._claims is not None:
                from mcpbridge.replicas.claims.shared_store import keep_claims  # with --store alone

                readiness = self._bridge.readiness
                tasks.start_soon(keep_claims, self._claims, self._homes.peers.reach, readiness)

    def leave(self, lame_duck_s: float, *, holds: bool) -> None:
        """Begin the end: hand the sessions over from the middle of the lame duck on.

        Args:
            lame_duck_s: The seconds of the lame duck.
            holds: Whether there is time for `--hold-sessions`.
        """
        hold_s = self._config.settings.replicas.hold_sessions_s if holds else 0.0
        self._hand_over.begin(lame_duck_s, hold_s)

    def end_idle_streams(self) -> None:
        """End forwarded streams on which clients only listen."""
        self._relay.end_idle_streams()

    def cut_off(self) -> None:
        """Answer every forwarded request that is left with an error."""
        self._relay.cut_off()
