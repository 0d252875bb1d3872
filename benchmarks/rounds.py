"""Rounds of a load on several targets in turns, so that what disturbs a machine disturbs all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, measure
from benchmarks.target import Target

BUSY = 0.9
"""A generator that took more than this share of a processor may have been what limited the rate."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measured load on one target."""

    tally: load.Tally
    cpu_us_per_call: float
    memory: measure.Memory


@dataclass(frozen=True, slots=True)
class Contender:
    """A load on a target, and the rounds it has had."""

    name: str
    target: Target
    work: load.Load
    rounds: list[Round] = field(default_factory=list)

    @property
    def cpu_us(self) -> list[float]:
        """Processor time per call of each round."""
        return [done.cpu_us_per_call for done in self.rounds]

    @property
    def wrong(self) -> int:
        """Wrong and missing answers of all rounds."""
        return sum(done.tally.wrong for done in self.rounds)

    @property
    def busiest(self) -> float:
        """The largest share of a processor that the generator took."""
        return max(done.tally.busy_share for done in self.rounds)

    def over(self, other: Contender) -> list[float]:
        """Processor time per call over another's, round by round."""
        return [mine / its for mine, its in zip(self.cpu_us, other.cpu_us, strict=True)]

    def beyond(self, other: Contender, shares: int = 1) -> list[float]:
        """Processor time per call beyond another's, by share, round by round."""
        pairs = zip(self.cpu_us, other.cpu_us, strict=True)
        return [(mine - its) / shares for mine, its in pairs]


def one_round(server: Target, work: load.Load, generator: Path | None) -> Round:
    """Put a load on a target and see what it cost, its warm-up left out."""
    with load.warm_generator(work, generator) as measured:
        pids = server.own_pids()
        before = measure.read_cpu(*pids)
        tally = measured()
        after = measure.read_cpu(*pids)
        memory = measure.read_memory(server.pid)
    return Round(tally, measure.cpu_ns_between(before, after) / 1000 / tally.calls, memory)


def take_turns(contenders: Sequence[Contender], count: int, generator: Path | None) -> None:
    """Give each contender that many rounds; each round begins with the next of them."""
    for number in range(count):
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            contender.rounds.append(one_round(contender.target, contender.work, generator))
