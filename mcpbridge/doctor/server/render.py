"""Renders the report on a command as text; pure."""

from __future__ import annotations

from collections.abc import Iterator

from mcpbridge.doctor.endpoint.checks import counted
from mcpbridge.doctor.server.report import Listing, Outcome, ServerReport

OK, NOTE, FAILED = "ok    ", "note  ", "FAILED"
_MIB = 1 << 20
_SHOWN_NAMES = 8
_SHOWN_STDERR = 8
_LISTS = ("tools", "prompts", "resources", "resource_templates")
_SLOW_START_S = 5.0
_SLOW_END_S = 1.0


def in_words(report: ServerReport) -> str:
    """Return the report as text of several lines."""
    lines = [report.command, ""]
    if report.served:
        lines += _good(report)
    else:
        lines.append(f"{FAILED}  {report.problem}")
    lines += _last_words(report)
    lines += _hints(report)
    if report.command_line is not None:
        lines += ["", "It can be served:", "", f"  {report.command_line}", ""]
        lines += [f"  {' '.join(flag.words)}: {flag.reason}" for flag in report.flags]
    else:
        lines += ["", "It cannot be served as it is."]
    return "\n".join(lines)


def _good(report: ServerReport) -> Iterator[str]:
    seconds = report.handshake_s or 0.0
    mark = NOTE if seconds > _SLOW_START_S else OK
    yield f"{mark}  answered {seconds:.2f} s after its start"
    yield f"{OK}  is {report.name} {report.version or ''}".rstrip()
    yield f"{OK}  {_eras(report)}; answered with {', '.join(report.revisions)}"
    yield f"{OK}  offers {', '.join(report.capabilities) or 'nothing'}"
    for name in _LISTS:
        listing = getattr(report, name)
        if listing is not None:
            yield _listing(name.replace("_", " "), listing)
    yield _noise(report)
    if report.overlong_bytes:
        yield f"{NOTE}  a line of {report.overlong_bytes} bytes was too long to be read"
    yield f"{OK}  answers come as soon as they are asked for"
    if report.questions:
        asked = ", ".join(report.questions)
        yield f"{NOTE}  asks its client {asked}: clients that can answer get a process each"
    if report.notifications:
        told = ", ".join(f"{name} ({count})" for name, count in report.notifications.items())
        yield f"{NOTE}  sends without being asked: {told}"
    yield from _memory(report)
    yield _processes(report)
    yield from _ending(report)


def _eras(report: ServerReport) -> str:
    if report.legacy and report.modern:
        return "speaks the legacy revisions and 2026-07-28"
    return "speaks 2026-07-28 only" if report.modern else "speaks the legacy revisions only"


def _listing(name: str, listing: Listing) -> str:
    if listing.problem is not None:
        return f"{NOTE}  {name}: {listing.problem}"
    shown = ", ".join(listing.names[:_SHOWN_NAMES])
    more = ", …" if listing.count > _SHOWN_NAMES else ""
    pages = f" on {listing.pages} pages" if listing.pages > 1 else ""
    named = f": {shown}{more}" if shown else ""
    return f"{OK}  {counted(listing.count, name)} ({listing.bytes} bytes{pages}){named}"


def _noise(report: ServerReport) -> str:
    if report.noise is None:
        return f"{OK}  stdout holds messages and nothing else"
    first = report.noise.sample[0]
    lines = counted(report.noise.lines, "lines")
    return f"{NOTE}  {lines} on stdout beside the messages, the first: {first!r}"


def _memory(report: ServerReport) -> Iterator[str]:
    if report.memory is not None:
        taken, processes = report.memory.bytes / _MIB, report.memory.processes
        each = "1 process" if processes == 1 else f"{processes} processes"
        yield f"{OK}  takes {taken:.0f} MiB in {each}, each time it is started"


def _processes(report: ServerReport) -> str:
    started = "once" if report.started == 1 else f"{report.started} times"
    if any(flag.words[0] == "--isolation" for flag in report.flags):
        runs = "one for each session"
    elif report.questions:
        runs = "one for all clients, and one more for each client that can be asked"
    elif report.legacy and report.modern:
        runs = "one, and another when the first client of the other era comes"
    else:
        runs = "one for all clients"
    return f"{OK}  was started {started} for this report; mcpbridge runs {runs}"


def _ending(report: ServerReport) -> Iterator[str]:
    ending = report.ending
    if ending is None:
        return
    match ending.by:
        case "itself":
            yield f"{NOTE}  ended by itself while it was looked at ({ending.how})"
        case "end_of_input":
            mark = NOTE if ending.seconds > _SLOW_END_S else OK
            yield f"{mark}  ends {ending.seconds:.2f} s after the end of its input ({ending.how})"
        case step:
            yield f"{NOTE}  stays after the end of its input; ended by {step} ({ending.how})"


def _last_words(report: ServerReport) -> Iterator[str]:
    if report.outcome is Outcome.SERVED:
        return
    if report.noise is not None:
        yield ""
        yield "Its first words on stdout:"
        yield from (f"  {line}" for line in report.noise.sample)
    if report.stderr:
        yield ""
        yield "Its last words on stderr:"
        yield from (f"  {line}" for line in report.stderr[-_SHOWN_STDERR:])


def _hints(report: ServerReport) -> Iterator[str]:
    if report.hints:
        yield ""
        yield "Likely causes:" if not report.served else "Worth knowing:"
        for hint in report.hints:
            yield f"  - {hint.cause}"
            yield f"    {hint.remedy}"
