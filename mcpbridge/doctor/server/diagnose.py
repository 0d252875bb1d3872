"""`mcpbridge doctor -- COMMAND`: examines a command and reports the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import msgspec

from mcpbridge.config.model import Config
from mcpbridge.doctor.server.examination import Examination, Run, Runs, Tell
from mcpbridge.doctor.server.hints import hints
from mcpbridge.doctor.server.recommended_flags import command_line, flags
from mcpbridge.doctor.server.report import Buffering, Flag, Noise, Outcome, ServerReport
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.process.spec import shown
from mcpbridge.rules.mcp.revisions import REVISIONS


def examine(config: Config, given: Mapping[str, Sequence[str]], tell: Tell) -> ServerReport:
    """Start the server as the bridge would, send it requests, stop it, and report the results.

    No tool is called. It takes a few seconds, up to the start timeout if the server does not
    answer, and leaves no process behind.

    Args:
        config: The bridge's configuration for this server.
        given: The flags about the server on the command line, which the advice repeats.
        tell: Receives messages about the progress.
    """
    # The report contains what the bridge would log about its children.
    logging.getLogger("mcpbridge").addHandler(logging.NullHandler())
    within_s = config.settings.child_pool.start_timeout_s
    # A doctor that is killed leaves no server behind, as a bridge that is killed leaves none.
    with kept(config.child.env) as reaper:
        tree = ProcessTree(reaper)
        examination = Examination(config.child, config.settings.pipes, tree, within_s, tell)
        visits = anyio.run(examination.run)
    return _report(config, given, visits)


def _report(config: Config, given: Mapping[str, Sequence[str]], visits: Runs) -> ServerReport:
    argv, main = config.child.argv, visits.main
    legacy = visits.legacy.profile
    modern = visits.modern.profile if visits.modern is not None else None
    served = (legacy or modern) is not None and main.outcome is Outcome.SERVED
    facts = _facts_of(main)
    noise: Noise | None = facts.get("noise")
    by_itself = main.ending is not None and main.ending.by == "itself"
    how = main.report.how if main.report is not None and by_itself else None
    found: tuple[Flag, ...] = ()
    if served:
        found = flags(
            legacy=legacy is not None,
            modern=modern is not None,
            handshake_s=main.seconds or 0.0,
            longest_bytes=_longest(main),
            max_message_bytes=config.settings.pipes.max_message_bytes,
            tools=main.lists.get("tools"),
        )
    return ServerReport(
        command=shown(argv),
        served=served,
        outcome=main.outcome,
        problem=None if served else _problem(config, main),
        legacy=legacy is not None,
        modern=modern is not None,
        revisions=_revisions(visits),
        buffering=main.buffering,
        started=visits.started,
        questions=tuple(visits.asked.server.questions) if visits.asked else (),
        hints=hints(
            argv,
            main.outcome,
            said=facts.get("stderr", ()),
            how=how,
            noise=noise,
            buffering=main.buffering,
        ),
        flags=found,
        command_line=command_line(argv, given, found) if served else None,
        **facts,
    )


def _facts_of(visit: Run) -> dict[str, Any]:
    """Return the results of one process, as fields of the report."""
    facts: dict[str, Any] = {
        "handshake_s": visit.seconds,
        "memory": visit.memory,
        "ending": visit.ending,
        **visit.lists,
    }
    if visit.profile is not None:
        facts["name"] = visit.profile.name
        facts["version"] = visit.profile.version
        facts["capabilities"] = tuple(sorted(visit.profile.capabilities))
    facts["noise"] = visit.server.noise
    facts["overlong_bytes"] = visit.server.overlong_bytes
    facts["notifications"] = dict(visit.server.notifications)
    if visit.report is not None:
        facts["stderr"] = visit.report.last_words
    return facts


def _revisions(visits: Runs) -> tuple[str, ...]:
    met = (visits.asked, visits.legacy, visits.modern)
    seen = {visit.profile.revision for visit in met if visit and visit.profile}
    return tuple(revision.date for revision in REVISIONS if revision in seen)


def _longest(visit: Run) -> int:
    read = [listing.bytes // max(1, listing.pages) for listing in visit.lists.values()]
    return max([*read, visit.server.overlong_bytes])


def _problem(config: Config, visit: Run) -> str:
    """Return the reason why the server cannot be served, in one sentence."""
    match visit.outcome:
        case Outcome.ENDED:
            how = visit.ending.how if visit.ending is not None else "unknown"
            return f"it ended before it answered initialize ({how})"
        case Outcome.CLOSED:
            return "it closed its stdout before it answered initialize"
        case Outcome.REFUSED:
            return f"it did not accept initialize: {visit.problem}"
        case Outcome.STALLED if visit.server.foreign_ids:
            under = ", ".join(visit.server.foreign_ids)
            return f"{visit.problem}; answers came under ids that were not asked: {under}"
        case Outcome.SILENT if visit.buffering is not Buffering.NONE:
            return "it does not answer while its input is open: it keeps its answers in a buffer"
        case Outcome.SILENT if visit.server.foreign_ids:
            under = ", ".join(visit.server.foreign_ids)
            return f"it did not answer initialize under its id 1, but under {under}"
        case Outcome.SILENT:
            waited_s = config.settings.child_pool.start_timeout_s
            return f"it did not answer initialize within {waited_s:g} s"
        case _:
            return visit.problem or "it could not be started"


def as_json(report: ServerReport) -> str:
    """Return the report as one JSON object, indented."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
