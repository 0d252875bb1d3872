"""The Grafana dashboard and the guides: a running program has each metric that they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mcpbridge.telemetry.prometheus import GAUGES, TALLIES
from tests.deploy.tools import DEPLOY, DOCS, ROOT
from tests.support.bridge_process import bridge, open_session, rpc

pytestmark = pytest.mark.slow

DASHBOARD = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text("utf-8"))
OF_THE_SCRAPE = {"job", "pod", "namespace", "le"}
"""Labels that Prometheus adds, or that a histogram has."""
# `name{…}` in a query; what is followed by a parenthesis or a space is of the language.
_SELECTOR = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
_MATCHED = re.compile(r"(\w+)(?:=|!=|=~|!~)\"")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")


def queries() -> Iterator[str]:
    """Every query of every panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


async def exported() -> dict[str, set[str]]:
    """Every family and sample that a bridge exports once it has seen some life, with its labels."""
    found: dict[str, set[str]] = {}
    ports = ("--admin-port", "0", "--admin-host", "127.0.0.1")
    limits = ("--give-up-after", "0")
    async with bridge(*ports, *limits) as running, running.client() as client:
        session = await open_session(client)
        await client.post("/mcp", json=rpc(1, "tools/list"), headers=session)
        for tool in ("echo", "fail"):
            call = rpc(2, "tools/call", {"name": tool, "arguments": {"text": "a", "message": "m"}})
            assert (await client.post("/mcp", json=call, headers=session)).status_code == 200
        (record,) = running.events("serve.started")
        url = f"http://{record['admin']}/metrics"
        for family in text_string_to_metric_families((await client.get(url)).text):
            found.setdefault(family.name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
            # A counter with labels has no sample before the first thing to count.
            # What is missing for readiness has none while nothing is.
            if not family.samples and family.name == "mcpbridge_missing":
                found[family.name] = {GAUGES["missing"][1]}
            elif not family.samples:
                assert family.type == "counter"
                labels = TALLIES.get(family.name.removeprefix("mcpbridge_"), ("", ("reason",)))[1]
                found[f"{family.name}_total"] = set(labels)
    return found


async def test_every_query_asks_for_what_is_exported() -> None:
    """By name and, where there is a sample, by label; so do the tables of the documentation."""
    known = await exported()
    named = {name for query in queries() for name, _ in _SELECTOR.findall(query)}
    for name in DOCS:
        named |= set(re.findall(r"`(mcpbridge_\w+)`", (ROOT / "docs" / name).read_text("utf-8")))
    assert len(named) > 25
    assert named <= set(known)
    for query in queries():
        names = [name for name, _ in _SELECTOR.findall(query)]
        asked = {label for labels in _GROUPED.findall(query) for label in labels.split(", ")}
        for name in names:
            asked |= set(_MATCHED.findall(dict(_SELECTOR.findall(query))[name]))
        assert asked - OF_THE_SCRAPE <= set().union(*(known[name] for name in names)), query


def test_each_query_is_of_the_chosen_pods() -> None:
    """Every selector has the two variables of the dashboard, and they are there."""
    for query in queries():
        assert query.count("(") == query.count(")"), query
        for name, labels in _SELECTOR.findall(query):
            assert labels.startswith('job=~"$job",pod=~"$pod"'), name
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job", "pod"}


def test_panels_have_their_own_place_and_say_what_they_show() -> None:
    """No two overlap; each has an id, a title, a sentence and a unit."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        grid = panel["gridPos"]
        place = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not place & taken
        taken |= place
