"""The judge of `make chaos` finds each thing that must not happen, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.suites.figures import percentile, slope
from tests.suites.history import START_AGAIN_S, Answer, Call, Injection, Judgement

SHARED, OWN = "shared", "own1"
SHARED_PID, OWN_PID, NAMELESS_PID = 7, 8, 9


def good(nonce: str = "a", request_id: str = "0", pid: int = SHARED_PID) -> Answer:
    """A result."""
    return Answer(request_id, nonce, pid)


def exited(executed: str = "maybe", reason: str = "child_exited") -> Answer:
    """An error."""
    return Answer("0", reason=reason, executed=executed)


def call(
    *answers: Answer, owner: str = SHARED, nonce: str = "a", sent_at: float = 10.0, **more: bool
) -> Call:
    """A call with the id 0 that takes a tenth of a second."""
    return Call(owner, "0", nonce, sent_at, sent_at + 0.1, answers, **more)


def known(*others: Call) -> list[Call]:
    """Calls, after two that tell which child serves which owner."""
    first = call(good("s"), nonce="s", sent_at=0)
    second = call(good("o", pid=OWN_PID), owner=OWN, nonce="o", sent_at=0)
    return [first, second, *others]


def judged(
    calls: Sequence[Call], *injections: Injection, executed: Sequence[str] = ("a", "s", "o")
) -> list[str]:
    """The kinds of what is found."""
    counts = {nonce: executed.count(nonce) for nonce in executed}
    return sorted(Judgement(calls, injections, counts).counts.elements())


def killed(at: float, pid: int = SHARED_PID) -> Injection:
    """A death."""
    return Injection(at, pid, "kill")


def test_a_call_with_its_own_answer_is_well() -> None:
    """With a child killed at the same moment or not."""
    assert judged(known(call(good()))) == []
    assert judged(known(call(good())), killed(10.05)) == []


def test_an_error_of_a_call_in_flight_at_a_death_is_well() -> None:
    """Whether or not the child had executed it; its delay is counted from the death."""
    calls = known(call(exited()))
    assert judged(calls, killed(10.05)) == []
    assert judged(calls, killed(10.05), executed=("s", "o")) == []
    delays = Judgement(calls, [killed(10.05)], {"a": 1, "s": 1, "o": 1}).error_delays_s
    assert delays == {"kill": [pytest.approx(0.05)]}


def test_an_error_after_a_start_that_failed_is_well() -> None:
    """As long as the bridge waits to start again, it says so at once, and nothing is executed."""
    calls = known(call(exited("no"), sent_at=30))
    assert judged(calls, killed(10, NAMELESS_PID), executed=("s", "o")) == []


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        pytest.param(call(), "lost", id="no answer"),
        pytest.param(call(good(), good()), "double", id="two answers"),
        pytest.param(call(good(), exited()), "double", id="a result and an error"),
        pytest.param(call(good("b")), "crossed", id="another call's result"),
        pytest.param(call(good(request_id='"0"')), "crossed", id="an id of another type"),
        pytest.param(call(good(pid=OWN_PID)), "crossed", id="a child of another owner"),
        pytest.param(call(hung=True), "hung", id="no answer in time"),
        pytest.param(call(exited(reason="timeout")), "unexplained", id="another reason"),
        pytest.param(call(exited(), owner=OWN), "unexplained", id="another owner's death"),
        pytest.param(call(exited(), sent_at=12), "unexplained", id="after the death"),
        pytest.param(call(exited(), sent_at=9.8), "unexplained", id="before the death"),
        pytest.param(call(exited("no")), "denied", id="executed, and the error says it was not"),
    ],
)
def test_a_broken_history_is_rejected(broken: Call, finding: str) -> None:
    """Each with the word for what is wrong with it, though a child was killed at 10.05 s."""
    assert finding in judged(known(broken), killed(10.05))


def test_a_call_executed_twice_is_rejected() -> None:
    """The client saw one answer only: the children's own record tells."""
    assert judged(known(call(good())), executed=("a", "a", "s", "o")) == ["double"]


def test_a_result_that_no_child_made_is_rejected() -> None:
    """However right it looks."""
    assert judged(known(call(good())), executed=("s", "o")) == ["invented"]


def test_a_child_that_lived_on_explains_no_error() -> None:
    """Stopped and continued, it could still answer."""
    stopped = Injection(10.05, SHARED_PID, "stop")
    assert judged(known(call(exited())), stopped) == ["unexplained"]


def test_a_failed_start_explains_only_what_was_not_executed_and_not_for_ever() -> None:
    """An error `maybe` needs its own death; one long after the back-off needs another."""
    late = call(exited("no"), sent_at=10 + START_AGAIN_S + 2)
    maybe = call(exited("maybe"), sent_at=30)
    for broken in (late, maybe):
        found = judged(known(broken), killed(10, NAMELESS_PID), executed=("s", "o"))
        assert found == ["unexplained"]


def test_the_slope_is_that_of_most_pairs() -> None:
    """One wild sample does not move it; one place is not a slope."""
    assert slope([(0, 5), (1, 7), (2, 900), (3, 11), (4, 13)]) == pytest.approx(2, abs=0.7)
    assert slope([(0, 5), (2, 4), (4, 3)]) == -0.5
    with pytest.raises(ValueError, match="two different places"):
        slope([(1, 1), (1, 2)])


def test_a_percentile_is_one_of_the_values() -> None:
    """The last one where the part reaches the end, 0 where there is none."""
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([3, 1, 2], 1.0) == 3
    assert percentile([], 0.99) == 0
