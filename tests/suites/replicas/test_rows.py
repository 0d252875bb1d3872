"""What `make replicas` prints, and when it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.suites.replicas import run
from tests.suites.replicas.lab import Execution, ways_in
from tests.suites.replicas.load import Kill, excused
from tests.suites.replicas.rows import SHORT, Figure, Row, Size, at_least, at_most, equal

Run = Callable[[Size], Awaitable[Sequence[Figure]]]


def row(number: str, *figures: Figure, only_full: bool = False) -> Row:
    """A row that measures nothing."""

    async def measured(_size: Size) -> Sequence[Figure]:
        return figures

    return Row(number, f"test {number}", measured, only_full)


@pytest.mark.parametrize(
    ("figure", "good"),
    [
        (equal("errors", 0, 0), True),
        (equal("errors", 1, 0), False),
        (at_most("KiB", 16.0, 16.0), True),
        (at_most("KiB", 16.1, 16.0), False),
        (at_least("calls", 1, 1), True),
        (at_least("calls", 0, 1), False),
    ],
)
def test_a_figure_reaches_its_bound_or_not(figure: Figure, good: bool) -> None:
    """The bound itself is reached."""
    assert figure.good is good


async def test_one_figure_that_misses_is_the_end_of_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row is printed with its figures; those after a missed or broken one still run."""

    async def broken(_size: Size) -> Sequence[Figure]:
        raise OSError("no such port")

    rows = (
        row("1", equal("errors", 1, 0), equal("crossed", 0, 0)),
        Row("2", "test 2", broken),
        row("3", equal("errors", 0, 0)),
        row("4", equal("errors", 9, 0), only_full=True),
    )
    monkeypatch.setattr(run, "ROWS", rows)
    monkeypatch.delenv("ROWS", raising=False)
    monkeypatch.delenv("DURATION", raising=False)
    assert await run.main() == 1
    first, second, third, _seconds, last = capsys.readouterr().out.splitlines()
    assert "MISSED   test 1: errors 1 (reach: 0); crossed 0 (reach: 0)" in first
    assert "MISSED   test 2: broken off True (reach: False)" in second
    assert "reached  test 3: errors 0 (reach: 0)" in third
    assert last == "replicas: MISSED 1, 2"
    monkeypatch.setenv("ROWS", "3")
    assert await run.main() == 0
    assert capsys.readouterr().out.endswith("replicas: all rows reached\n")
    monkeypatch.setenv("ROWS", "3 99")
    assert await run.main() == 2
    assert "no row 99" in capsys.readouterr().out


EXECUTIONS = [
    Execution("killed-python-0-3", "127.0.0.1", 50.0),
    Execution("killed-python-1-9", "127.0.0.3", 51.0),
    Execution("killed-python-0-4", "127.0.0.2", 100.0),
    Execution("killed-python-0-6", "127.0.0.3", 120.0),
]


@pytest.mark.parametrize(
    ("text", "kills", "good"),
    [
        ("killed-python-0-4", [Kill(101.0, "127.0.0.2")], True),
        ("killed-python-0-4", [Kill(101.0, "127.0.0.1")], True),
        ("killed-python-0-4", [Kill(101.0, "127.0.0.3")], False),
        ("killed-python-0-4", [Kill(98.0, "127.0.0.2")], False),
        ("killed-python-0-4", [Kill(103.0, "127.0.0.2")], False),
        ("killed-python-0-5", [Kill(101.0, "127.0.0.2")], True),
        ("killed-python-0-5", [Kill(100.5, "127.0.0.2"), Kill(101.0, "127.0.0.3")], True),
        ("killed-python-0-5", [Kill(99.0, "127.0.0.2"), Kill(101.0, "127.0.0.3")], False),
        ("killed-python-0-7", [Kill(100.5, "127.0.0.4")], True),
        ("killed-python-0-7", [Kill(99.0, "127.0.0.4")], False),
        ("killed-python-0-4", [], False),
        (None, [Kill(101.0, "127.0.0.3")], True),
        (None, [], False),
    ],
)
def test_an_error_is_excused_by_the_end_of_a_replica_that_had_its_call(
    text: str | None, kills: list[Kill], good: bool
) -> None:
    """A replica that had nothing to do with the call, or ended at another time, excuses nothing."""
    error = {"began": 100.0, "ended": 102.0, "text": text}
    relays = {"killed-python-0-4": {"127.0.0.1"}, "killed-python-0-5": {"127.0.0.4"}}
    assert excused(error, kills, EXECUTIONS, relays) is good


def test_the_way_of_a_call_is_known_if_all_of_it_is_in_the_log() -> None:
    """The call, and if the server asks, the client's answer."""
    call = 'r127.0.0.%d {"method":"tools/call","params":{"name":"%s","arguments":{"text":"%s"}}}\n'
    answer = 'r127.0.0.%d {"result":{"content":{"answer":"%s/killed-typescript-3"}}}\n'
    log = (
        call % (1, "echo", "killed-typescript-3-0")
        + call % (2, "ask", "killed-typescript-3-3")
        + answer % (3, "killed-typescript-3-3")
        + call % (1, "ask", "killed-typescript-3-7")
        + answer % (2, "killed-typescript-3-11")
    )
    assert ways_in(log) == {
        "killed-typescript-3-0": {"127.0.0.1"},
        "killed-typescript-3-3": {"127.0.0.2", "127.0.0.3"},
    }


def test_a_duration_is_the_full_size() -> None:
    """A number with a unit; anything else is refused with what is expected."""
    assert run.size_of("") is SHORT
    assert (run.size_of("20m").seconds, run.size_of("20m").full) == (1200, True)
    assert run.size_of("90s").seconds == 90
    with pytest.raises(ValueError, match=r"invalid DURATION '20' \(expected"):
        run.size_of("20")
