"""Renders the meters of several servers for Prometheus, with a label for the server.

Imported at the first scrape, as `prometheus` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from anyio import to_thread
from anyio.lowlevel import checkpoint
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.prometheus import BridgeCollector

LABEL = "server"

NamedMeters = Callable[[], Iterable[tuple[str, Meters]]]


class FleetExport:
    """An exposition of a process with several servers: its own figures, and theirs by name."""

    def __init__(self, meters: Meters, servers: NamedMeters) -> None:
        """Make it.

        Args:
            meters: Those of the process: what is counted before the server of a request is known.
            servers: Returns the meters of each server that runs, with its name.
        """
        self._process = BridgeCollector(meters)
        self._servers = servers
        self._figures = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._figures)

    async def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return the text for a scraper and its content type, which `Accept` may choose."""
        families: dict[str, Metric] = {each.name: each for each in self._process.of_process()}
        # Requests are refused before their server is known, for example.
        families |= {each.name: each for each in self._process.counted() if each.samples}
        for name, meters in list(self._servers()):
            for family in BridgeCollector(meters).of_server():
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type, family.unit)
                )
                for each in family.samples:
                    merged.samples.append(each._replace(labels={LABEL: name, **each.labels}))
            # Each server has hundreds of samples: calls go on in between.
            await checkpoint()
        encode, content_type = choose_encoder(accept or "")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected([*families.values(), *self._figures.collect()]))
        return await to_thread.run_sync(encode, registry), content_type


class _Collected(Collector):
    """A collector of families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._families
