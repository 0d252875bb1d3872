"""What the operators of a cluster ask of a bridge that they deploy, one sentence each.

A test names the ids it proves in its marker, `@proves("O3")`; `test_operator_manifest.py` checks
that each id is named by a test of the running program, and that no other is.
"""

from __future__ import annotations

OPERATOR: dict[str, str] = {
    "O1": "The port is bound in less than 1 s, before the server is up.",
    "O2": "The head of any answer comes within 1.5 s, and initialize is answered within 5 s.",
    "O3": "An answer that nothing came before is JSON, whatever its size.",
    "O4": "The content type of a stream is text/event-stream and not a letter more.",
    "O5": "Initialize at 2024-11-05 is answered at 2024-11-05.",
    "O6": "Integer ids stay integers, and serverInfo has a name.",
    "O7": "Notifications are 202; what is not ready is 503 with JSON, never 400, 404 or 405.",
    "O8": "The event stream of 2024-11-05 names its endpoint, relative, within 1 s.",
    "O9": "Sessions that are not deleted are reaped, unused ones first.",
    "O10": "The server's environment says stdio; the path for HTTP is the bridge's own.",
    "O11": "Health is 200 while it can serve, 503 while it drains or has given up.",
    "O12": "Names of services, addresses of pods and localhost are admitted on a wide bind.",
    "O13": "The whole end fits 27 s without a preStop hook.",
    "O14": "Any user can run it, on a read-only root, without capabilities.",
    "O15": "No error's text holds a stray 401 or 403.",
    "O16": "A connect alone starts no server.",
    "O17": "A client that sends no version header, no DELETE and no GET is served.",
}
