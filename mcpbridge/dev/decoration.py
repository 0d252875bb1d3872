"""Decorates the channels of servers for a developer: recorded, and with faults on purpose.

What is not asked for is not imported, and without anything asked for no channel is decorated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mcpbridge.app.build import Additions, Decorate
from mcpbridge.bridge.calls.lists_announced import ListsAnnounced
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import MakeEnds
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.injected_faults import FaultPlan, FaultRule

if TYPE_CHECKING:
    from mcpbridge.dev.page.page import Page
    from mcpbridge.tape.tapped_channel import Sink


class Record(msgspec.Struct, frozen=True):
    """What is to record, and where."""

    path: Path
    most_bytes: int
    """Size at which another file is begun."""
    raw: bool
    """Whether secrets are kept."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that are written, by their whole paths."""
        path = self.path.parent.resolve() / self.path.name
        return (path, Path(f"{path}.1"))


class Decoration:
    """What the channels of all servers of one program are decorated with."""

    def __init__(
        self, sinks: Iterable[Sink], faults: Iterable[FaultRule], page: Page | None = None
    ) -> None:
        """Make it.

        Args:
            sinks: Take each frame that passes.
            faults: The rules of faults on purpose.
            page: Is one of the sinks; None: there is no page.
        """
        self._sinks = list(sinks)
        self._faults = list(faults)
        self._page = page
        self._numbers = page.numbers if page is not None else itertools.count(1)
        """Orders the frames of all servers."""

    def additions(
        self,
        name: str,
        spec: ChildSpec | None,
        given: Iterable[str] = (),
        secrets: Iterable[str] = (),
        *,
        waits_for_change: bool,
    ) -> Additions:
        """Return what `mcpbridge dev` adds to the bridge of a server.

        Args:
            name: The server's name, in frames and for rules.
            spec: Its command; None: it is reached by HTTP.
            given: The names of the variables that were set for it, whose values are secret.
            secrets: Further secret values.
            waits_for_change: See `Additions`.
        """
        decorate = self._decorate(name, spec, given, secrets)
        interceptor_of = None
        if self._sinks:
            from mcpbridge.dev.callers import callers_of

            interceptor_of = callers_of
        announced = (ListsAnnounced(),)
        return Additions(
            announced, decorate, interceptor_of, reloads=True, waits_for_change=waits_for_change
        )

    def _decorate(
        self, name: str, spec: ChildSpec | None, given: Iterable[str], secrets: Iterable[str]
    ) -> Decorate | None:
        taped = self._taped(name, spec, given, secrets)
        plan = FaultPlan(self._faults, name)
        if not plan.rules:
            return taped
        from mcpbridge.dev.faulty_channel import Faults

        spoiled = Faults(plan).injected
        if taped is None:
            return lambda make_ends, hidden: spoiled(make_ends)

        def decorate(make_ends: MakeEnds, hidden: Secrets) -> MakeEnds:
            # The tape outside: it has what the bridge gets, and not what the server said.
            return taped(spoiled(make_ends), hidden)

        return decorate

    def _taped(
        self, name: str, spec: ChildSpec | None, given: Iterable[str], secrets: Iterable[str]
    ) -> Decorate | None:
        if not self._sinks:
            return None
        from mcpbridge.tape.redaction import secret_values
        from mcpbridge.tape.tapped_channel import Tape

        values = secret_values(spec.env if spec is not None else {}, given) | frozenset(secrets)
        if self._page is not None:
            self._page.events.hide(values)
        return Tape(name, self._sinks, values, self._numbers).tapped


@contextmanager
def decorating(
    record: Record | None,
    faults: Iterable[FaultRule],
    command: Sequence[str],
    page: Page | None = None,
    label: str = "",
    *,
    tails: bool = False,
) -> Iterator[Decoration]:
    """Record and print until the block ends, if that is asked for; give what decorates channels.

    Args:
        record: Where what passes is recorded; None: it is not.
        faults: The rules of faults on purpose.
        command: What the first line of the recording names.
        page: Shows what passes; None: there is no page.
        label: The name of the server, if there is one.
        tails: Whether what passes is printed to stdout.

    Raises:
        ConfigError: The recording cannot be written.
    """
    found: list[Sink] = []
    with ExitStack() as held:
        if page is not None:
            held.enter_context(page.events.listening(label))
            found.append(page.sink)
        if record is not None:
            from mcpbridge.tape.recording import Recorder

            raw = record.raw
            recorder = Recorder(record.path, record.most_bytes, command, is_redacted=not raw)
            held.enter_context(recorder.open())
            found.append(recorder)
        if tails:
            from mcpbridge.dev.tail import FrameLines, TailSink, print_line
            from mcpbridge.tape.frame_filter import FrameFilter

            printer = TailSink(FrameLines(FrameFilter(), print_line, as_json=False))
            held.enter_context(printer.open())
            found.append(printer)
        yield Decoration(found, faults, page)
