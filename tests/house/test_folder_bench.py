"""How soon the servers of a folder answer: only a right answer of the last one counts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import folder
from benchmarks.bench import Bench
from benchmarks.target import TargetFailed

RIGHT: dict[str, Any] = {"id": 1, "result": {"content": [{"type": "text", "text": "42"}]}}


@pytest.mark.parametrize(
    "answer",
    [
        {**RIGHT, "id": 2},
        {"id": 1, "result": {"content": [{"type": "text", "text": "41"}]}},
        {"id": 1, "result": {"content": []}},
        {"id": 1, "result": {}},
        {"id": 1, "error": {"code": -32603, "message": "42"}},
        [],
        None,
    ],
)
def test_any_other_answer_is_not_counted(answer: Any) -> None:
    """Of another call, of another sum, an error, or none."""
    folder.check_answer("a server", json.dumps(RIGHT).encode())
    with pytest.raises(TargetFailed, match="a server"):
        folder.check_answer("a server", json.dumps(answer).encode())


@pytest.mark.slow
def test_the_servers_of_a_folder_are_measured_beside_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is beyond their starts is the difference of the two figures of each round."""
    monkeypatch.setattr(folder, "SERVERS", 2)
    bench = cast(Bench, SimpleNamespace(rounds=1))
    through, beyond, alone = (each.rounds[0] for each in folder.folder(bench))
    assert through > 0 < alone
    assert beyond == through - alone
