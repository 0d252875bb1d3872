"""What every part of the table of goals needs: the programs, how long to load, servers, loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load, target
from benchmarks.compiled import Programs
from benchmarks.figures import Figure
from benchmarks.rounds import Contender, take_turns

WARM_S = 0.3


@dataclass(slots=True)
class Bench:
    """One run of all parts."""

    programs: Programs
    seconds: float
    """Length of a round."""
    rounds: int
    wrong: int = 0
    """Wrong and missing answers so far."""
    busiest: dict[str, float] = field(default_factory=dict)
    """The largest share of a processor that the generator took, by target."""

    def bridge(self, *options: str) -> AbstractContextManager[target.Target]:
        """A bridge over the echo child."""
        argv = target.bridge_command(self.programs.child, *options)
        return target.running("bridge", argv, mark=self.programs.mark)

    @contextmanager
    def limit(self, name: str, size: int) -> Iterator[target.Target]:
        """A server that answers a constant, of a text of that many bytes."""
        argv = target.program_command(name)
        with target.running(name, argv, load.answer_to_first(size)) as running:
            yield running

    def work(
        self, server: target.Target, connections: int, size: int = 100, **more: Any
    ) -> load.Load:
        """A load on a server; `more` are further fields of `Load`."""
        return load.Load(
            host=server.host,
            port=server.port,
            path=server.path,
            connections=connections,
            payload_bytes=size,
            seconds=self.seconds,
            warm_s=WARM_S,
            **more,
        )

    def run(self, *contenders: Contender) -> None:
        """All rounds of some contenders."""
        take_turns(contenders, self.rounds, self.programs.generator)
        for each in contenders:
            self.wrong += each.wrong
            name = each.target.name
            self.busiest[name] = max(self.busiest.get(name, 0.0), each.busiest)


def rate(row: str, each: Contender, name: str | None = None) -> Figure:
    """The processor time per call of a contender, with the calls a second beside it."""
    calls_per_s = sorted(done.tally.calls_per_s for done in each.rounds)[len(each.rounds) // 2]
    note = f"{calls_per_s:.0f} calls/s"
    return Figure(row, name or each.name, "us", each.cpu_us, note=note)
