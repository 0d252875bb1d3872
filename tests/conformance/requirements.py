"""What the specification and deployed clients require of a bridge, one sentence each.

A test names the ids it proves in its marker, `@proves("C48")`. `test_requirements.py` checks that
each id is named by a test or stands in `CARRIED` with the reason why it is not, and that no other
is named.

A source is a page of the published specification, by revision, or what else asks for it: `SDKs`
for the behaviour of deployed clients and servers, `design` for a decision of this program.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(enum.Enum):
    """Who asks for it, and how strongly."""

    MUST = "the specification demands it"
    SHOULD = "the specification recommends it"
    INTEROP = "deployed clients or servers depend on it"
    DESIGN = "this program promises it"


class Requirement(NamedTuple):
    """One statement to prove."""

    id: str
    level: Level
    source: str
    sentence: str


def _listed(level: Level, source: str, *lines: str) -> list[Requirement]:
    """Requirements of one level and source from lines that begin with their ids."""
    return [Requirement(line[:4].strip(), level, source, line[4:].strip()) for line in lines]


M, S, X, D = Level.MUST, Level.SHOULD, Level.INTEROP, Level.DESIGN

STREAMABLE = "2025-03-26 to 2025-11-25, Transports, Streamable HTTP"
RESUMING = "2025-11-25, Transports, Resumability and Redelivery"
SESSIONS = "2025-03-26 to 2025-11-25, Transports, Session Management"
OLD_SSE = "2024-11-05, Transports, HTTP with SSE"
STDIO = "2024-11-05 to 2025-11-25, Transports, stdio"
BASIC = "2025-11-25, Base Protocol, Overview"
LATEST = "2026-07-28"

# fmt: off
LEGACY: tuple[Requirement, ...] = (
    *_listed(M, STREAMABLE,
        "C01  The answer to initialize bears the client's id and the session's, in the head.",
        "C02  Accepted notifications and answers get 202 and not one byte of body.",
        "C03  A request gets one response, under its own id, of whatever type and size.",
        "C09  A listener hears requests and notifications, and no answer to a call.",
        "C10  What the child says once appears on one stream of a session.",
    ),
    *_listed(M, SESSIONS, "C04  A session that is unknown or ended is 404 for each verb."),
    *_listed(S, SESSIONS, "C05  What needs a session and names none is 400."),
    *_listed(M, BASIC,
        "C06  Sessions that use the same ids at the same time get their own answers.",
        "C13  A cancellation ends the call of the session that sent it, and no other's.",
        "C14  Progress bears its call's own token, on its call's stream, before the answer.",
    ),
    *_listed(M, "2025-11-25, Transports, Security Warning",
        "C07  An Origin that is not allowed is 403 before anything else happens."),
    *_listed(X, "SDKs", "C08  A foreign Host is refused, a loopback one with any port served."),
    *_listed(S, STREAMABLE,
        "C11  A connection that breaks cancels nothing.",
        "C15  A question is on the stream of the call it belongs to; its answer gets through."),
    *_listed(D, "design", "C16  The child hears no answer but that of the client it asked."),
    *_listed(M, OLD_SSE, "C17  The first event names the place for messages; answers are events."),
    *_listed(S, OLD_SSE, "C18  The end of the stream is the end of the session and its child."),
    *_listed(M, STDIO,
        "C46  The child reads one JSON object a line and nothing else.",
        "C47  A line ends at a line feed only; characters may come in pieces.",
        "C48  What is not a message on stdout harms nothing but itself."),
    *_listed(S, STDIO,
        "C49  A child is stopped by the end of its stdin, then by signals, with all it started.",
        "C50  Whatever a child writes to stderr blocks nothing and reaches no client."),
    *_listed(D, "design",
        "C54  The end of a child is an error to every call in flight, and to no one else.",
        "C57  What is acknowledged is read by the child before what comes later.",
        "C58  An opening that fails leaves neither a session nor a process.",
        "C59  A reader that does not read delays no other."),
    *_listed(M, "2025-11-25, Lifecycle", "C56  A child is initialized once."),
    *_listed(M, "2025-06-18, Transports, Protocol Version Header",
        "C60  A revision in the header that is not served is 400; without the header all is well."),
    *_listed(M, "2025-03-26, Base Protocol, Batching",
        "C61  All requests of a batch are answered; a bad one is refused whole.",
        "C62  From 2025-06-18 on an array is refused."),
    *_listed(S, RESUMING,
        "C63  Streams begin with an id and no data for 2025-11-25, and for no older revision.",
        "C67  A connection the bridge ends has had an id and is told when to come back."),
    *_listed(M, RESUMING,
        "C64  Ids are unique in a session; who resumes gets the rest of that stream, then more.",
        "C65  No event of another stream or session is ever replayed."),
    *_listed(X, "SDKs",
        "C66  An id that leads nowhere is 405, or a fresh stream that stays open; never 404.",
        "C68  An answer that got lost is delivered on resume; when all was delivered, 405.",
        "C69  A second listener hears instead of the first, which takes over when it leaves.",
        "C70  No error bears a session id.",
        "C76  A cancelled call's stream ends, with an error, and its late answer is dropped.",
        "C78  Errors bear the id of the request wherever it could be read."),
    *_listed(S, SESSIONS, "C71  DELETE ends the session, its streams and its child."),
    *_listed(D, "2025-11-25, Transports, Backwards Compatibility",
        "C72  No valid initialize is refused in a way that misleads the search for a transport."),
    *_listed(D, "design",
        "C73  The bridge answers the child's ping; a client's ping tells whether the child lives.",
        "C74  A question that finds no stream in time is answered with an error.",
        "C75  What no client listens to waits, bounded, each change once, in order.",
        "C77  News of elicitations and tasks reach their own session; late progress its token.",
        "C79  What the bridge does not know passes both ways as it is.",
        "C80  Numbers and characters keep their spelling."),
    *_listed(X, "SDKs",
        "C92  A large answer is JSON where the client takes it.",
        "C94  Accept and Content-Type are read with leniency and refused with 406 and 415."),
    *_listed(S, "WHATWG HTML, Server-sent events",
        "C91  An event stream's head says that nothing may be buffered or kept, and goes at once."
    ),
    *_listed(D, "design",
        "C86  What initialize is answered does not change while the process lives.",
        "C90  An open stream shows a sign of life at least every 15 seconds.",
        "C93  A body that is too large, too deep, or no JSON is refused and harms nothing.",
        "C99  An opening waits for a slow child up to a limit, and leaves nothing behind then.",
        "C101 A thousand sessions leave no process, task, descriptor or table entry."),
)
"""Of the revisions with a handshake."""

FURTHER: tuple[Requirement, ...] = (
    *_listed(M, f"{LATEST}, Transports",
        "C12  A connection that breaks cancels its call.",
        "C21  GET and DELETE are 405.",
        "C22  Header and body must name the same revision.",
        "C25  The revision header must be there.",
        "C26  Mcp-Method must be there and match.",
        "C27  Mcp-Name must match where the method has one, decoded.",
        "C28  An unknown method is 404, and those of the handshake are unknown.",
        "C29  Batches and answers are refused.",
        "C31  A stream never carries a request.",
        "C41  Session and resumption headers are ignored, and none are sent.",
        "C42  Mcp-Param headers must match the arguments they stand for.",
        "C98  A routing header that comes twice is refused."),
    *_listed(M, f"{LATEST}, Base Protocol",
        "C19  A request needs nothing before it and gets no session.",
        "C23  A revision that is not served is refused with those that are.",
        "C24  The envelope must be there.",
        "C30  Each result tells its type, lists how long they may be kept.",
        "C43  Error codes of older revisions are translated.",
        "C45  Equal ids and tokens at the same time do not meet."),
    *_listed(M, f"{LATEST}, Discovery",
        "C20  Discovery tells revisions and capabilities.",
        "C44  What is not advertised is not found, without asking the child."),
    *_listed(M, f"{LATEST}, Multi Round-Trip Requests",
        "C32  A child's question becomes a result that asks for input, and a retry answers it.",
        "C33  Only what the request's client can do is asked for.",
        "C34  A state that was tampered with or is another's reaches no child.",
        "C36  Only calls, prompts and reads ask for input."),
    *_listed(S, f"{LATEST}, Multi Round-Trip Requests",
        "C35  What is still missing is asked for again."),
    *_listed(M, f"{LATEST}, Subscriptions",
        "C37  A subscription is acknowledged first, and all it carries is tagged.",
        "C38  Progress and log messages are not for subscriptions.",
        "C39  The end of one subscription is the end of no other."),
    *_listed(S, f"{LATEST}, Subscriptions",
        "C40  Subscriptions end with a result when the process does.",
        "C55  Subscriptions outlive a child or end well."),
    *_listed(M, f"{LATEST}, Transports, stdio",
        "C51  A child hears nothing of the other era.",
        "C52  Which era a child speaks is not told by one error code."),
    *_listed(D, "design",
        "C53  A serving child is never probed.",
        "C81  In front of a child without handshake the bridge answers initialize itself.",
        "C82  Input that such a child needs is asked for as a question.",
        "C83  Levels and subscriptions become envelopes and listening.",
        "C84  Structured content fits what older clients can read.",
        "C85  What a client cannot do is not in the envelope.",
        "C87  Either era can be switched off, and says so in words its clients know.",
        "C88  A parked call has an end.",
        "C89  A retry finds its child.",
        "C100 Discovery is quick, however slow the child.",
        "C102 What one principal sees is private."),
    *_listed(M, "2025-11-25, Authorization",
        "C95  Without a good token 401 and where to get one; without the scope 403.",
        "C97  A client's token reaches neither child nor log."),
    *_listed(S, "2025-11-25, Security Best Practices",
        "C96  Another principal's session is not found."),
)
"""Of the revision without a handshake, of translation between the two, of authorization."""

# fmt: on
REQUIREMENTS = (*LEGACY, *FURTHER)

CARRIED: dict[str, str] = {
    "C101": "takes minutes: `make soak` proves it, and its short form in CI",
}
"""Ids that no test needs to name yet, and why."""
