"""The interceptor that changes nothing: all that passes a mux passes it as it is."""

from __future__ import annotations

from mcpbridge.bridge.children.listeners import Interceptor
from tests.bridge.playbook import Stage, bounded


@bounded
async def test_messages_pass_an_interceptor_that_changes_nothing() -> None:
    """In both directions, with and without a request that they belong to."""
    stage = Stage(shared=True, interceptors=[Interceptor(), Interceptor()])
    stage.enter("A", "B")
    await stage.play(
        """
        A >> {"id":7,"method":"tools/call","params":{"name":"x"}}
        child >> {"id":1,"method":"tools/call","params":{"name":"x"}}
        child << {"method":"notifications/tools/list_changed"}
        A << {"method":"notifications/tools/list_changed"}
        B << {"method":"notifications/tools/list_changed"}
        child << {"id":1,"result":{"content":[]}}
        A << {"id":7,"result":{"content":[]}}
        """
    )


@bounded
async def test_each_interceptor_sees_what_the_one_before_it_left() -> None:
    """In the order in which they were given; the number is that on the pipe."""
    seen: list[tuple[str, int, bool]] = []

    class Renames(Interceptor):
        """One that adds to the method."""

        def __init__(self, more: str) -> None:
            self._more = more

        def outbound(self, request, sink, number, *, own):  # type: ignore[no-untyped-def]
            """See `Interceptor`."""
            seen.append((request.method, number, own))
            return type(request)(request.id, request.method + self._more, None), sink

    stage = Stage(shared=False, interceptors=[Renames("b"), Renames("c")])
    stage.enter("A")
    await stage.play(
        """
        A >> {"id":"x","method":"a"}
        child >> {"id":1,"method":"abc"}
        child << {"id":1,"result":{}}
        A << {"id":"x","result":{}}
        """
    )
    assert seen == [("a", 1, False), ("ab", 1, False)]
