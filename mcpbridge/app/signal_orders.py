"""What the program does at each signal; `runtime.signals` delivers them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping

import anyio
import msgspec

from mcpbridge.runtime.signals import EndOrders
from mcpbridge.telemetry.logs import LogSettings, toggle_debug

log = logging.getLogger("mcpbridge.app")


class Actions(msgspec.Struct, frozen=True):
    """The actions of one program."""

    state: Callable[[], Mapping[str, object]]
    """Returns the fields that SIGUSR1 logs."""
    reread: Callable[[], bool]
    """Reads files again at SIGHUP; returns whether there are any."""
    cut_short: Callable[[], None]
    """Ends everything now, at the second order to end."""


class SignalOrders:
    """The orders that signals gave: end, end now, and what does not end the program."""

    def __init__(self, actions: Actions, settings: LogSettings) -> None:
        """Make it; `hear` obeys.

        Args:
            actions: What to do.
            settings: The level that SIGUSR2 returns to.
        """
        self._actions = actions
        self._settings = settings
        self._orders = EndOrders()
        self._has_terminal = _has_terminal()
        self.ending = anyio.Event()
        """Set when the program is told to end, by a signal or by `end`."""
        self.from_terminal = False
        """Whether a user at a terminal has told it, who waits for the end."""
        self.forced = False
        """Whether a second signal has told it to end now."""

    def end(self) -> None:
        """Tell the program to end, as a signal would."""
        self.ending.set()

    async def hear(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Obey each signal."""
        async for received in signals:
            match received.name:
                case "SIGUSR1":
                    log.info("serve.state", extra=self._actions.state())
                case "SIGUSR2":
                    log.warning("log.level_changed", extra={"now": toggle_debug(self._settings)})
                case "SIGHUP" if not self._has_terminal:
                    # Without a terminal SIGHUP is not an order to end.
                    extra = {"signal": received.name, "ignored": not self._actions.reread()}
                    log.info("serve.signal", extra=extra)
                case _:
                    self._told_to_end(received)

    def _told_to_end(self, received: signal.Signals) -> None:
        order = self._orders.received()
        log.info("serve.signal", extra={"signal": received.name, "count": self._orders.count})
        if order is None:
            return
        if order == 1:
            self.from_terminal = received is not signal.SIGTERM and self._has_terminal
            self.ending.set()
        elif order == 2:
            self.forced = True
            self._actions.cut_short()
        else:
            # The third signal: the operator must not have to wait for what hangs.
            os._exit(128 + signal.SIGINT)


def _has_terminal() -> bool:
    """Return whether a user at a terminal runs the program, so that a hang-up ends it.

    Process 1 may have a terminal, but a user who detaches from a container does not want to end it.
    """
    if os.getpid() == 1:
        return False
    if not hasattr(os, "O_NOCTTY"):  # Windows, whose programs have a console or none
        return os.isatty(0)
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return os.isatty(0)
