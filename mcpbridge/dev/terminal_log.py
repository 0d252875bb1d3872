"""The log of `mcpbridge dev` for people: a line for each call, the server's stderr marked so."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence

from mcpbridge.rules.outcome import CANCELLED, OK
from mcpbridge.rules.supervision.start_hints import program_name
from mcpbridge.telemetry.logs import TextFormatter, fields_of, printable

_RED, _GREEN, _YELLOW, _DIM, _BOLD = "31", "32", "33", "2", "1"
_NAME_WIDTH = 32
_HIDDEN = frozenset((
    "child_pool.sized", "child.started", "child.probed", "child.eras_found", "child.ready",
    "child.stopped", "child.replace_failed", "drain.phase_changed", "serve.started",
    "serve.signal", "serve.ended", "session.opened",
))  # fmt: skip
"""Events that say nothing new to the person at the terminal; seen with `--log-level debug`."""
_FETCHING = {"npx": 2, "uvx": 1, "bunx": 1, "pipx": 1, "docker": 1, "podman": 1}
"""Programs that may have to fetch what they run."""

Fields = Mapping[str, object]


class TerminalFormatter(TextFormatter, logging.Filter):
    """A formatter for the terminal of a developer, and a filter of what is shown there."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        colored: bool = False,
        commands: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Make a formatter.

        Args:
            argv: The server's command; of several servers it is in `commands`.
            colored: Whether to use colours.
            commands: The command of each server by name, if there are several.
        """
        TextFormatter.__init__(self, colored=colored)
        logging.Filter.__init__(self)
        self._argv = argv
        self._commands = commands
        self._colored = colored
        several: dict[str, Callable[[Fields], str]] = {"serve.started": self._serving}
        self._forms: dict[str, Callable[[Fields], str]] = {
            **(several if commands is not None else {}),
            "call.finished": self._call,
            "child.exited": self._exit,
            "child.start_held": self._held,
            "child.starting": self._waiting,
            "child.stderr": self._stderr,
            "child.stderr_about_probe": self._about_probe,
            "dev.page_served": self._page,
            "dev.started": self._started,
            "fault.injected": self._fault,
            "serve.ready": self._ready,
            "server.reload_failed": self._failed_reload,
            "server.reloaded": self._reloaded,
        }

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown."""
        everything = logging.getLogger().level <= logging.DEBUG
        event = record.getMessage()
        return everything or event in self._forms or event not in _HIDDEN

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        form = self._forms.get(record.getMessage())
        if form is None:
            return super().format(record)
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).astimezone()
        fields = fields_of(record)
        name = fields.get("server_name")
        server = self._paint(_BOLD, f"[{printable(str(name))}] ") if name is not None else ""
        return f"{self._paint(_DIM, f'{when:%H:%M:%S}')} {server}{form(fields)}"

    def _paint(self, color: str, text: str) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._colored else text

    def _call(self, fields: Fields) -> str:
        outcome = str(fields.get("outcome"))
        color = {OK: _GREEN, CANCELLED: _DIM}.get(outcome, _RED)
        name = printable(str(fields.get("tool") or fields.get("method")))
        reason = f" ({fields['reason']})" if "reason" in fields else ""
        shown = self._paint(_BOLD, f"{name:<{_NAME_WIDTH}}")
        ms = fields.get("ms")
        # The event loop's clock has whole milliseconds.
        took = f"{ms:.0f}" if isinstance(ms, float) and ms >= 1 else "<1"
        return f"{shown} {took:>7} ms  {self._paint(color, outcome + reason)}"

    def _stderr(self, fields: Fields) -> str:
        return f"{self._paint(_YELLOW, 'stderr │')} {printable(str(fields.get('line')))}"

    def _about_probe(self, fields: Fields) -> str:
        text = f"{fields.get('lines')} lines about {fields.get('method')}"
        return self._paint(_DIM, f"stderr │ {text}; --log-level debug shows them")

    def _exit(self, fields: Fields) -> str:
        # Its last words stand above already, line by line.
        return self._paint(_RED, f"the server ended by itself: {fields.get('how')}")

    def _held(self, fields: Fields) -> str:
        again = "starts again when a watched file is saved or a client asks"
        text = printable(str(fields.get("problem")))
        return f"{self._paint(_RED, 'not served')}: {text}; {again}"

    def _waiting(self, fields: Fields) -> str:
        argv = (self._commands or {}).get(str(fields.get("server_name")), self._argv)
        program = program_name(argv[0]) if argv else ""
        hint = ""
        if program in _FETCHING:
            words = [word for word in argv[1:] if not word.startswith("-")]
            what = printable(" ".join(words[: _FETCHING[program]])) or "the package"
            hint = f"; {program} may be fetching {what}"
        text = f"waiting for {fields.get('for')}, for {fields.get('waited_s')} s{hint}"
        return self._paint(_YELLOW, text)

    def _fault(self, fields: Fields) -> str:
        name = fields.get("tool") or fields.get("method")
        text = f"fault on purpose for {name}: {fields.get('rule')}"
        return self._paint(_YELLOW, printable(text))

    def _ready(self, fields: Fields) -> str:
        version = f" {fields['version']}" if "version" in fields else ""
        count = fields.get("tools")
        tools = "1 tool" if count == 1 else f"{count} tools"
        text = f"{fields.get('server', 'the server')}{version}, {tools}"
        return f"{self._paint(_GREEN, 'ready')}: {printable(text)}"

    def _reloaded(self, fields: Fields) -> str:
        text = f"{fields.get('because')} ({fields.get('seconds')} s, pid {fields.get('pid')})"
        return f"{self._paint(_GREEN, 'reloaded')}: {printable(text)}"

    def _failed_reload(self, fields: Fields) -> str:
        words = fields.get("last_words")
        last = f": {words[-1].strip()}" if isinstance(words, list) and words else ""
        text = f"{fields.get('because')}: {fields.get('problem')}{last}"
        serves = f"{fields.get('serves')} serves until the next change"
        return f"{self._paint(_RED, 'not reloaded')}: {printable(text)}; {serves}"

    def _serving(self, fields: Fields) -> str:
        names = fields.get("servers")
        listed = ", ".join(names) if isinstance(names, list) else ""
        text = f"{listed} of {fields.get('config')}; states: {fields.get('url')}"
        return f"{self._paint(_GREEN, 'serving')} {printable(text)}"

    def _page(self, fields: Fields) -> str:
        return f"{self._paint(_GREEN, 'page')} {printable(str(fields.get('page')))}"

    def _started(self, fields: Fields) -> str:
        rows = [
            f"{name:<10} {printable(str(value))}"
            for name, value in fields.items()
            if name != "server_name"  # it stands before the first row
        ]
        return "\n".join([self._paint(_BOLD, "mcpbridge dev"), *(f"  {row}" for row in rows)])
