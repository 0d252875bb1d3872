"""The page of log events: `python -m scripts.log_events docs/log-events.md` writes it.

Events, their levels and their fields are read from the calls of `log` in the package; `MEANINGS`
says what each event tells an operator.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LEVEL_OF = {"exception": "error", "critical": "error", "log": "debug"}
"""The level of a record by the method that logs it, if they differ in name."""
PACKAGE = Path(__file__).parents[1] / "mcpbridge"
LEVELS = ("debug", "info", "warning", "error")
MEANINGS: Mapping[str, str] = {
    "auth.file_read": "The file of tokens was read.",
    "auth.file_read_failed": "The file of tokens cannot be read; those read before stay valid.",
    "call.finished": "A call has its final answer. With `--log-calls` the level is info.",
    "call.overdue": "A call took longer than a limit allows and was answered with an error.",
    "call.parked_overdue": "A call waited longer than `--parked-timeout` for its client's answer.",
    "child.as_root": "The server runs as root.",
    "child.connected": "`--connect`, `url`: a connection to the server is open.",
    "child.connection_lost": "`--connect`: the server ended a connection.",
    "child.crash_charged": "A call of `client` ended the shared process; `pause_s` is its pause.",
    "child.disconnected": "`--connect`, `url`: mcpbridge ended a connection.",
    "child.eras_found": "mcpbridge knows which eras the server `speaks`.",
    "child.escaped_processes": "Processes that had left the server's process group are ended.",
    "child.evicted_idle": "A process without a call in flight ends for a client that needs one.",
    "child.exited": "A server process ended by itself; `last_words` is the end of its stderr.",
    "child.failed": "A fault of mcpbridge, met by a message of the server; that process is killed.",
    "child.probed": "The first process was asked whether it speaks the modern revision.",
    "child.ready": "The shared server process answered its handshake.",
    "child.recycling": "A server process will be replaced, for the reason in `by`.",
    "child.replace_failed": "The process that was to replace another one could not be started.",
    "child.restarting": "The server is started again; `problem` says why.",
    "child.restore_failed": "A new process did not take over what the last one had been told.",
    "child.spawn_failed": "A server process could not be started.",
    "child.stalled": "A server process does not answer, or does not read, and is killed.",
    "child.start_held": "`mcpbridge dev`: the server could not be started; the next start waits for"
    " a change of a watched file, or a client.",
    "child.started": "A server process was started.",
    "child.starting": "A start goes on; `for` is what is waited for, logged every 5 s.",
    "child.stderr": "A line that the server wrote to its stderr.",
    "child.stderr_about_probe": "How many lines the server wrote about the method that finds out"
    " what it speaks; they are logged as `child.stderr` at level debug.",
    "child.stderr_suppressed": "The server wrote more to its stderr than is logged.",
    "child.stdout_noise": "The server wrote something other than a message to its stdout.",
    "child.stopped": "A server process ended because mcpbridge ended it.",
    "child_pool.exhausted": "No process can be lent: the shared one serves clients in its place.",
    "child_pool.sized": "`max_children` processes fit into the memory; sizes are in bytes.",
    "connection.limit_reached": "A connection was refused: `--max-connections`.",
    "connection.stalled": "A client did not read for `--send-timeout`; its connection was cut.",
    "connect.away": "A remote server: it cannot be reached; its calls get errors.",
    "connect.back": "A remote server: it can be reached again.",
    "connect.call_failed": "A remote server: a request got an error of mcpbridge itself.",
    "connect.client_gone": "`mcpbridge connect`: the client no longer reads; the program ends.",
    "connect.cut_off": "`mcpbridge connect`: the grace is over with calls in flight.",
    "connect.dropped": "A remote server: a message that belongs to no request was dropped.",
    "connect.ended": "`mcpbridge connect` has ended.",
    "connect.in_clear_text": "A remote server: secrets cross a network without TLS.",
    "connect.line_refused": "`mcpbridge connect`: a line of the client is not a message.",
    "connect.login_not_renewed": "A remote server: the saved login could not be renewed.",
    "connect.login_renewed": "A remote server: the saved login was renewed after a 401.",
    "connect.login_unusable": "`url`: a login is kept for the server, and cannot be used.",
    "connect.login_used": "`url`: requests carry the login that is kept in `file`.",
    "connect.malformed": "A remote server: an event of the server is not a message.",
    "connect.not_closed": "A remote server: the session could not be ended at the server.",
    "connect.not_repeated": "A remote server: a new session refused a setting of the last.",
    "connect.not_restored": "A remote server: no new session could be begun yet.",
    "connect.not_sent": "A remote server: a notification or an answer could not be sent.",
    "connect.older_transport": "A remote server: the server has HTTP+SSE of 2024-11-05 only.",
    "connect.request_refused": "`mcpbridge connect`: a request beyond a limit got an error.",
    "connect.session_lost": "A remote server: the server no longer knows the session.",
    "connect.session_restored": "A remote server: a new session took the place of a lost one.",
    "connect.signal": "`mcpbridge connect`: a signal to end was received.",
    "connect.started": "`mcpbridge connect` reads its stdin.",
    "connect.stream_broken": "A remote server: the standalone stream ended and is reopened.",
    "connect.translating": "`mcpbridge connect`: client and server are of different eras.",
    "connect.token_reread": "`mcpbridge connect`: after a 401, the file has a new token.",
    "connect.token_unreadable": "`mcpbridge connect`: the token file cannot be read again.",
    "dev.page_served": "`mcpbridge dev` serves several servers; `page` shows what passes.",
    "dev.started": "`mcpbridge dev` serves; what a person pastes next, and what is watched.",
    "drain.phase_changed": "The end has gone on to its next phase.",
    "fault.injected": "`mcpbridge dev --fault`: `rule` has hit a request, to the `effect` named.",
    "keys.file_read": "The file of keys has changed; its keys are used from now on.",
    "keys.file_read_failed": "The file of keys cannot be used; those read before stay valid.",
    "memory.client_cut": "`account` held most of `--max-memory` and was ended for the others.",
    "log.dropped": "Records were lost because stderr was not read.",
    "log.level_changed": "SIGUSR2 switched debug logging on or off.",
    "handover.ended": "This replica ends: `moved` sessions are at others, which refused `left`.",
    "handover.held": "`--hold-sessions`: this replica ends, and keeps `sessions` for now.",
    "http.callback_failed": "A bug was met in serving a connection, which was ended.",
    "loop.resumed": "The event loop runs again.",
    "loop.stalled": "The event loop stood still; `stack` says at which line.",
    "loop.stuck": "The event loop stood still for 30 s; the process ends with status 70.",
    "oauth.keys_fetched": "The authorization server's keys were fetched.",
    "oauth.keys_unavailable": "The authorization server's keys could not be fetched.",
    "orphan.reaped": "A process that its parent had left ended, and was reaped.",
    "peer.refused_proof": "Another replica refused this one's proof: other keys, or another clock.",
    "peer.unreachable": "A request could not be forwarded: `home` has its session.",
    "proxy.upstream_broken": "`mcpbridge sidecar`: the server's answer broke off.",
    "process_tree.limited": "Windows: there are neither process groups nor signals.",
    "reaper.lost": "The reaper could not be started, or is gone.",
    "recording.failed": "The recording cannot be written: `problem`. It is tried again.",
    "recording.frames_lost": "This number of frames is missing in the recording.",
    "request.abandoned": "A client closed its connection before it was answered.",
    "request.failed": "A fault of mcpbridge in one request, which was answered with 500.",
    "request.refused": "A request was refused; a field has what was refused, and"
    " `try` is the setting that admits it. One record for each `reason` in 10 s; `left_out` counts"
    " those since the last one.",
    "serve.crashed": "A fault of mcpbridge ended it, with status 70.",
    "serve.ended": "mcpbridge has ended; `counts` are the messages that it dropped, by reason.",
    "serve.failed": "mcpbridge could not start.",
    "serve.gave_up": "The server cannot start or kept failing: what, how, why; mcpbridge ends.",
    "serve.limits_lowered": "Few open files: fewer processes and connections are served.",
    "serve.open": "Any client on the network may call, without authentication.",
    "serve.ready": "The server answered for the first time: its name, version and number of tools.",
    "serve.signal": "A signal was received; `count` counts the orders to end.",
    "server.crashed": "A fault of mcpbridge ended one server of `--config`; the others go on.",
    "server.gave_up": "A server of `--config` cannot start or kept failing; the others go on.",
    "server.idle_stopped": "A server had no call for `idle-stop`; the next one starts it again.",
    "server.replace_failed": "The server's changed entry failed; the one before goes on.",
    "server.replaced": "Another process serves, as the server's entry has changed.",
    "server.unusable": "An entry cannot be served: field, problem and remedy.",
    "servers.reload_failed": "The changed file cannot be read; the servers stay as they are.",
    "servers.reloaded": "The file was read again: what became of which servers.",
    "serve.started": "mcpbridge listens.",
    "serve.state": "What the process is doing, at SIGUSR1.",
    "server.capabilities_changed": "A reload changed what the server offers: `capabilities`.",
    "server.reload_failed": "A changed server cannot be started; `serves` says what runs on.",
    "server.reloaded": "The server's processes were replaced, for the change in `because`.",
    "session.adopted": "The replica that had a session was lost; the session goes on here.",
    "session.evicted": "A session without a call made room for a new one (`--max-sessions`).",
    "session.opened": "A session serves its `client`, in the `revision` that it got for the one"
    " that it `requested`. With `--log-calls` the level is info.",
    "session.taken_over": "The replica that had a session (`before`) ends; it goes on here.",
    "session.profile_differs": "A session's own process answered `initialize` otherwise than its"
    " client had been told from what another process said; `members` names what differs.",
    "session.reload_failed": "A session's own process could not be replaced; it serves on.",
    "session.expired": "A session was ended because it was idle or not used.",
    "shim.accept_failed": "`mcpbridge shim`: a connection could not be accepted.",
    "shim.cut_off": "`mcpbridge shim`: the grace is over, and the servers are stopped.",
    "shim.ended": "`mcpbridge shim` has ended.",
    "shim.failed": "`mcpbridge shim` could not start.",
    "shim.refused": "`mcpbridge shim`: one connection too many.",
    "shim.signal": "`mcpbridge shim`: a signal to end was received; `count` counts orders.",
    "shim.started": "`mcpbridge shim` listens.",
    "sidecar.ended": "`mcpbridge sidecar` has ended.",
    "sidecar.failed": "`mcpbridge sidecar` could not start.",
    "sidecar.signal": "`mcpbridge sidecar`: a signal was received.",
    "sidecar.started": "`mcpbridge sidecar` listens.",
    "sidecar.unknown_flag": "`mcpbridge sidecar`: an unknown flag was ignored.",
    "session.yielded": "A session ended here, since another replica has taken it over.",
    "store.available": "The store that replicas have in common answers.",
    "store.away": "The store of replicas does not answer, or refuses; it is used when it comes.",
    "store.too_long": "What changed in a session is over 1 MiB, too long for the store.",
    "task.failed": "A fault of mcpbridge in the work of one session, which is ended.",
    "tenant.created": "A client was given its own server processes.",
    "tenant.evicted_idle": "Processes of a client that was idle were ended to make room.",
    "tls.reload_failed": "A renewed certificate cannot be used; the last one stays.",
    "tls.reloaded": "A renewed certificate is in use.",
    "watch.failed": "`mcpbridge dev` cannot watch files; the server is served all the same.",
    "traces.unavailable": "Traces are asked for, and OpenTelemetry is not installed.",
}
_HEAD = """\
# Log events

Made by `make docs`; do not edit. A record is one event with fields, as one JSON object a line:
`timestamp`, `level`, `logger`, `event`, then the fields of the event. Fields that do not apply are
left out, and a record may have further ones. Records of a call also carry `trace_id` and `span_id`
if it is traced; records of a fault of mcpbridge carry `exception`.

| event | level | fields | means |
|---|---|---|---|
"""


@dataclass
class Event:
    """What the package logs under one name."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def events(sources: Iterable[str]) -> dict[str, Event]:
    """Return every event that these modules log, by its name.

    Args:
        sources: The texts of the modules.
    """
    found: dict[str, Event] = {}
    for source in sources:
        tree = ast.parse(source)
        for scope in ast.walk(tree):
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                for name, level, fields in _logged(scope):
                    event = found.setdefault(name, Event())
                    event.levels.add(level)
                    event.fields |= fields
    return found


def package_events() -> dict[str, Event]:
    """Return every event of the package."""
    return events(path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py")))


def page() -> str:
    """Return the page as Markdown."""
    rows = []
    for name, event in sorted(package_events().items()):
        levels = ", ".join(sorted(event.levels, key=LEVELS.index))
        fields = ", ".join(f"`{each}`" for each in sorted(event.fields))
        rows.append(f"| `{name}` | {levels} | {fields} | {MEANINGS[name]} |\n")
    return _HEAD + "".join(rows)


def _logged(
    scope: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[str, str, set[str]]]:
    """Name, level and fields of each event that a function logs."""
    for node in ast.walk(scope):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr=method),
                args=[*_, ast.Constant(value=str(name))],
            ):
                yield name, _LEVEL_OF.get(method, method), _fields(node, scope)
            case ast.Call(  # the loop's watchdog, from its thread
                func=ast.Attribute(attr="_log"),
                args=[ast.Attribute(attr=level), ast.Constant(value=str(name)), extra],
            ):
                yield name, _LEVEL_OF.get(level.lower(), level.lower()), set(_keys(extra, scope))
            case ast.Call(func=ast.Attribute(attr="makeLogRecord"), args=[ast.Dict() as record]):
                facts = dict(zip(map(_text, record.keys), map(_text, record.values), strict=True))
                fields = set(facts) - {"name", "levelno", "levelname", "msg"}
                yield facts["msg"], facts["levelname"].lower(), fields


def _text(node: ast.expr | None) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _fields(call: ast.Call, scope: ast.AST) -> set[str]:
    """The keys of a call's `extra`, or of the dictionary that a variable of that name is."""
    extras = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
    return {key for extra in extras for key in _keys(extra, scope)}


def _keys(value: ast.AST, scope: ast.AST) -> Iterator[str]:
    match value:
        case ast.Dict(keys=keys, values=values):
            for key, inner in zip(keys, values, strict=True):
                if isinstance(key, ast.Constant):
                    yield str(key.value)
                elif key is None:
                    yield from _keys(inner, scope)
        case ast.Name(id=name):
            for node in ast.walk(scope):
                yield from _assigned(node, name, scope)


def _assigned(node: ast.AST, name: str, scope: ast.AST) -> Iterator[str]:
    """Keys that a statement gives to the variable `name`."""
    targets: list[ast.expr]
    match node:
        case ast.Assign(value=value):
            targets = node.targets
        case ast.AnnAssign(value=ast.expr() as value):
            targets = [node.target]
        case _:
            return
    parts = [each.elts if isinstance(each, ast.Tuple) else [each] for each in targets]
    for target in (inner for part in parts for inner in part):
        match target:
            case ast.Name(id=found) if found == name and not isinstance(value, ast.Name):
                yield from _keys(value, scope)
            case ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=str(key))):
                if found == name:
                    yield key


def main() -> None:
    """Write the page to the file named on the command line."""
    Path(sys.argv[1]).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
